"""atlas: exact neighbours, what the plane keeps, planted clusters, and a page that loads and runs nothing of others."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness
from test_analyze import header, trained

import promptgeo as pg
from promptgeo.analysis.ask import run_analyses
from promptgeo.analysis.geometry.clusters import NONE, clusters_of, nearest_shares, shares
from promptgeo.analysis.geometry.nearest import Distance, kept, nearest_points
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.questions.atlas import atlas
from promptgeo.analysis.result import Number, Result, read
from promptgeo.cli.report import write_report
from promptgeo.config.compose_analyze import compose_analyze
from promptgeo.errors import UserError
from promptgeo.report.pdf import BROWSERS
from promptgeo.runs.folder import write_run
from promptgeo.runs.table import RunTable

WIDTH = 24
HOSTILE = "</script><script>document.title='run'</script><img src=x onerror=document.title='run'>"


def made(runs: int = 36, checkpoints: int = 3, by: str = "init", between: float = 4.0, seed: int = 0) -> RunTable:
    """A grid of 3 tasks x 4 inits; prompts lie about a centre of their level of one factor."""
    generator = np.random.default_rng(seed)
    n_N = np.arange(runs)
    table = pd.DataFrame({"task": [f"t{n % 3}" for n in n_N], "init": [f"i{n // 3 % 4}" for n in n_N]})
    table = table.assign(seed=n_N // 12, lr=0.1, prompt_length=2, accuracy_final=n_N / runs)
    centres = between * generator.normal(size=(4, 1, WIDTH))
    final = centres[table[by].str[1:].astype(int)] + generator.normal(size=(runs, 2, WIDTH))
    shares_C = np.arange(1, checkpoints + 1)[:, None, None] / checkpoints
    path = final[:, None] * shares_C + 0.1 * generator.normal(size=(runs, checkpoints, 2, WIDTH)) * (shares_C < 1)
    return RunTable.from_arrays(final, table, np.zeros_like(final), path, range(1, checkpoints + 1))


def vocabulary(word: str = "word") -> Vocabulary:
    generator = np.random.default_rng(9)
    return Vocabulary(generator.normal(size=(60, WIDTH)).astype(np.float32), [f" {word}{i}" for i in range(60)])


@pytest.fixture(scope="module")
def runs():
    return made()


@pytest.fixture(scope="module")
def result(runs):
    return atlas(runs, vocabulary=vocabulary(), permutations=499, perplexity=10)


def number(result: Result, quantity: str) -> Number:
    (found,) = (each for each in result.numbers if each.quantity == quantity)
    return found


def means(runs: RunTable) -> np.ndarray:
    """[K, d]: run by run, without P0."""
    return runs.arrays["trajectory"][:, 1:].mean(2).reshape(-1, WIDTH).astype(float)


def cosine(x: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return 1 - unit @ unit.T


# Neighbours, words, quality.


@pytest.mark.parametrize("among", ["all", "other runs"])
def test_neighbours_are_those_of_brute_force(runs, result, among):
    apart, run = cosine(means(runs)), np.repeat(np.arange(36), 3)
    table = result.tables["neighbours"]
    table = table[table["among"] == among]
    for point in range(108):
        left_out = np.arange(108) == point if among == "all" else run == run[point]
        expected = sorted(np.flatnonzero(~left_out), key=lambda other, i=point: apart[i, other])[:20]
        rows = table[table["point"] == point]
        assert rows["neighbour"].tolist() == expected and rows["rank"].tolist() == list(range(1, 21))
        np.testing.assert_allclose(rows["distance"], apart[point, expected], atol=1e-6)
        assert rows["own_run"].tolist() == (run[expected] == run[point]).tolist()


@pytest.mark.parametrize("distance", list(Distance))
def test_blocks_are_one_and_equal_points_are_ranked_by_number(monkeypatch, distance):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    x[7] = x[3] = x[30]
    run = np.repeat(np.arange(10), 4)
    whole = nearest_points(x, run, 6, distance, ranks=True)
    monkeypatch.setattr("promptgeo.analysis.geometry.nearest.BLOCK_BYTES", 8 * 40 * 7)
    blocks = nearest_points(x, run, 6, distance, ranks=True)
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(one.nearest_Kk, other.nearest_Kk)
        np.testing.assert_array_equal(one.ranks_KK, other.ranks_KK)
    assert whole[0].nearest_Kk[[3, 7, 30], :2].tolist() == [[7, 30], [3, 30], [3, 7]]
    assert (whole[0].distances_Kk[3, :2] == 0).all()
    assert (np.sort(whole[0].ranks_KK, axis=1) == np.arange(40)).all()


def test_fewer_others_than_k_are_said_to_be_none():
    near, others = nearest_points(np.eye(4), np.array([0, 0, 0, 1]), 4, Distance.l2)
    assert (near.nearest_Kk[:, 3] == -1).all() and others.nearest_Kk.tolist()[0] == [3, -1, -1, -1]
    assert np.isnan(others.distances_Kk[0, 1:]).all()


def test_trustworthiness_is_scikit_learns_and_recall_the_share_of_neighbours_kept(runs, result):
    x, plane = means(runs), result.tables["points"][["x", "y"]].to_numpy()
    expected = trustworthiness(x, plane, n_neighbors=20, metric="cosine")
    assert number(result, "trustworthiness").value == pytest.approx(expected, abs=1e-9)
    apart = [cosine(x), np.linalg.norm(plane[:, None] - plane, axis=2)]
    for ending, size in (("", 1), (".other_runs", 3)):
        shares = []
        for i in range(108):
            own = np.arange(108) // size == i // size
            near = [set(np.argsort(np.where(own, np.inf, each[i]), kind="stable")[:20]) for each in apart]
            shares.append(len(near[0] & near[1]) / 20)
        assert number(result, f"recall{ending}").value == pytest.approx(np.mean(shares))
        low, high = number(result, f"recall{ending}").interval
        assert low < np.mean(shares) < high and number(result, f"recall{ending}").p == 1 / 200
        assert number(result, f"recall{ending}.chance").value < 0.75 * np.mean(shares)


def test_the_chance_level_is_that_of_whole_runs_at_each_others_places(runs):
    """Where nothing but the run tells prompts apart, the map keeps no more of other runs than chance."""
    noise = made(between=0.0, checkpoints=1)
    run = np.arange(36)
    near, _ = nearest_points(noise.prompts().mean(1), run, 5, Distance.cosine, ranks=True)
    random = np.random.default_rng(1).normal(size=(36, 2))
    shown, _ = nearest_points(random, run, 5, Distance.l2)
    trust, recall = kept(near.ranks_KK, np.full(36, 35), shown.nearest_Kk)
    assert 0.35 < trust.mean() < 0.65 and recall.mean() == pytest.approx(5 / 35, abs=0.07)


def test_words_are_the_nearest_of_the_mean_token(runs, result):
    unit = means(runs) / np.linalg.norm(means(runs), axis=1, keepdims=True)
    v = vocabulary()
    closeness = unit @ (v.embeddings_Vd / np.linalg.norm(v.embeddings_Vd, axis=1, keepdims=True)).T
    words = result.tables["words"]
    for point in (0, 50, 107):
        rows = words[words["point"] == point]
        assert rows["word"].tolist() == [v.tokens[i] for i in np.argsort(-closeness[point])[:10]]
    alone = atlas(runs, vocabulary=None, permutations=19, plane="pca")
    assert "words" not in alone.tables and any("model is not at hand" in each for each in alone.omissions)


def test_points_say_run_step_accuracy_and_the_runs_cluster(result):
    points = result.tables["points"]
    assert points["step"].tolist() == [1, 2, 3] * 36
    assert points["accuracy"].isna().tolist() == [True, True, False] * 36
    assert (points.groupby("run")["cluster"].nunique() == 1).all()


# What nearest prompts share.


def test_the_nearest_final_prompt_is_of_the_same_init_where_inits_lie_apart(runs, result):
    unit = means(runs)[2::3] / np.linalg.norm(means(runs)[2::3], axis=1, keepdims=True)  # the last of 3 checkpoints
    nearest = (unit @ unit.T - 9 * np.eye(36)).argmax(1)
    for factor in ("task", "init"):
        levels = runs.table[factor].to_numpy()
        assert number(result, f"nearest.{factor}").value == pytest.approx(np.mean(levels == levels[nearest]))
    assert number(result, "nearest.init").value == 1 and number(result, "nearest.init").p < 0.02
    assert number(result, "nearest.init.chance").value < 0.5
    assert number(result, "nearest.task").p is None  # of tasks that change places within an init, equal ones stay equal
    assert "of the same init in 100% of runs, more than by chance" in result.findings[0].sentence


def test_whole_cells_exchange_a_level_within_cells_that_have_all_else_in_common():
    grid = pd.DataFrame([(f"t{t}", f"i{i}") for t in range(3) for i in range(3)] * 2, columns=["task", "init"])
    nearest = np.random.default_rng(0).integers(0, 18, 18)
    (task, _) = nearest_shares(nearest, grid, 1999, 0)
    codes, draws = pd.factorize(grid["task"])[0], []
    for orders in product(permutations(range(3)), repeat=3):  # of tasks, within each init: both runs of a cell together
        level = np.array([orders[i][t] for t, i in zip(codes, pd.factorize(grid["init"])[0], strict=True)])
        draws.append(np.mean(level == level[nearest]))
    assert task.share == np.mean(codes == codes[nearest])
    assert task.chance_B.mean() == pytest.approx(np.mean(draws), abs=0.01)
    assert set(np.round(task.chance_B, 9)) <= set(np.round(draws, 9))


def test_what_exchanges_do_not_change_is_not_tested_and_that_is_said(runs):
    """Each run's nearest is its cell's other seed, whatever levels change places."""
    grid = pd.DataFrame([(f"t{t}", f"i{i}") for t in range(4) for i in range(4)] * 2, columns=["task", "init"])
    found = nearest_shares((np.arange(32) + 16) % 32, grid, 999, 0)
    assert [(each.factor, each.share, each.p) for each in found] == [("task", 1.0, None), ("init", 1.0, None)]
    few = made(runs=6)  # three tasks of two inits: 36 ways to exchange tasks, 8 to exchange inits
    (said,) = [
        line for line in atlas(few, vocabulary=None, permutations=99, perplexity=2).omissions if "tested" in line
    ]
    assert re.search(r"of the same .*init \(\d+% of 6 runs\) cannot be tested", said)


def test_where_cells_lie_together_nearest_prompts_seldom_share_more_than_that():
    """5 % of studies, or fewer, may say that the task or the init is shared; of 150, more than 15 in one of 200."""
    generator, said = np.random.default_rng(0), np.zeros(2, dtype=int)
    grid = pd.DataFrame([(f"t{t}", f"i{i}") for t in range(4) for i in range(4)] * 3, columns=["task", "init"])
    for draw in range(150):
        x = np.tile(generator.normal(size=(16, 8)), (3, 1)) + 0.9 * generator.normal(size=(48, 8))
        nearest = (np.linalg.norm(x[:, None] - x, axis=2) + np.diag([np.inf] * 48)).argmin(1)
        said += [each.p is not None and each.p <= 0.05 for each in nearest_shares(nearest, grid, 199, draw)]
    assert (said <= 15).all(), said


# Clusters.


def test_planted_clusters_are_found_with_what_they_share(result):
    table = result.tables["clusters"]
    assert number(result, "clusters").value == 4 and number(result, "clustered").value == 1
    of_init, of_task = table[table["factor"] == "init"], table[table["factor"] == "task"]
    assert sorted(of_init["level"]) == ["i0", "i1", "i2", "i3"] and (of_init["inside"] == 1).all()
    assert (of_init["overall"] == 0.25).all() and (of_task["p"] == 1).all()
    init, task = number(result, "clusters.init"), number(result, "clusters.task")
    assert init.value == pytest.approx(1) and init.p < 0.02 and task.value == 0 and task.p == 1
    sentences = [each.sentence for each in result.findings]
    assert any(each.startswith("Clusters go with the init more than by chance: ") for each in sentences)
    assert any(each.startswith("Clusters go with the task not detectably more than") for each in sentences)


def test_what_a_single_cluster_shares_has_a_p_where_enough_cells_can_change_places():
    grid = pd.DataFrame([(f"t{t}", f"i{i}") for t in range(6) for i in range(4)] * 2, columns=["task", "init"])
    associations, found = shares(pd.factorize(grid["init"])[0], grid, 1999, 0)
    assert [(each.factor, each.v, each.p < 0.01) for each in associations if each.p < 1] == [("init", 1.0, True)]
    assert all((each.p < 0.02) == (each.factor == "init") for each in found) and len(found) == 8


def test_what_clusters_by_another_factor_or_by_chance_is_hardly_ever_a_share():
    """Cells lie together, whatever their task and init: 5 % of studies, or fewer, may say that either is shared."""
    draws, generator = 150, np.random.default_rng(0)
    grid = pd.DataFrame([(f"t{t}", f"i{i}") for t in range(4) for i in range(4)], columns=["task", "init"])
    table = pd.concat([grid] * 3, ignore_index=True)
    said = np.zeros(2, dtype=int)
    for draw in range(draws):
        of_cell = np.tile(pd.factorize(generator.integers(0, 3, 16))[0], 3)
        said += [any(each.p < 0.05 for each in those) for those in shares(of_cell, table, 199, draw)]
    assert (said <= 15).all(), said  # of 150 at .05, more than 15 in one study of 200


def test_clusters_that_are_cells_go_with_a_factor_no_more_than_by_chance():
    """Each cell lies alone: Cramer's V of either factor is 1, and is 1 however its levels change places."""
    cells = pd.DataFrame([(f"t{t}", f"i{i}") for t in range(4) for i in range(4)] * 3, columns=["task", "init"])
    associations, _ = shares(np.tile(np.arange(16), 3), cells, 199, 0)
    assert [each.p for each in associations] == [1.0, 1.0] and {each.v for each in associations} == {1.0}
    assert all((each.chance_B == 1).all() and len(each.chance_B) == 199 for each in associations)
    noise = np.tile(np.random.default_rng(0).integers(0, 4, 16), 3)
    for each in shares(noise, cells, 199, 0)[0]:
        assert 0.1 < each.chance_B.mean() < 0.9 and each.chance_B.std() > 0


def test_runs_of_one_factor_alone_exchange_it_and_a_grid_too_small_is_described_only():
    level = pd.DataFrame({"task": np.repeat(["a", "b", "c"], 6)})
    (one,), found = shares(np.repeat([0, 1, 2], 6), level, 999, 0)
    assert one.v == pytest.approx(1) and one.p == 0.001
    assert all(each.p is not None and each.p < 0.01 and each.inside == 1 for each in found)
    few = pd.DataFrame({"task": list("aabb"), "init": list("xyxy")})
    associations, found = shares(np.array([0, 0, 1, 1]), few, 999, 0)
    assert all(each.p is None for each in (*associations, *found)) and found[0].inside == 1


def test_clusters_are_the_largest_first_and_noise_is_in_none():
    generator = np.random.default_rng(3)
    x = np.concatenate([generator.normal(size=(n, 3)) * 0.1 + 5 * c for c, n in enumerate((6, 12, 8))])
    assert clusters_of(x, 5).tolist() == [2] * 6 + [0] * 12 + [1] * 8
    assert set(clusters_of(x[:4], 5)) == {NONE}


# The page.


class Tags(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))


def test_the_page_loads_nothing_and_names_its_script_by_hash(result):
    page = result.pages["atlas"]
    (policy,) = (
        a["content"] for tag, a in Tags(page).tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    assert "unsafe" not in policy and not re.search(r"https?://|@import|url\(", page)
    assert not any({"src", "href", "onload", "onerror"} & set(attributes) for _, attributes in Tags(page).tags)


def test_five_thousand_prompts_stay_below_5_mb(runs):
    from promptgeo.analysis.atlas_page import Map, page

    generator, k = np.random.default_rng(0), 20
    run = np.repeat(np.arange(500), 10)
    near = nearest_points(generator.normal(size=(5000, 2)), run, k, Distance.l2)
    table = pd.DataFrame({"run": [f"tiny-country_capital-cat-s{r}-0123abcd" for r in run], "task": "t", "init": "i"})
    table = table.assign(seed=run, lr=0.1, step=0, accuracy=0.123, cluster=run % 9, x=generator.random(5000), y=0.5)
    words = pd.DataFrame({"word": [f" word{i}" for i in generator.integers(0, 4096, 50_000)]})
    assert 1e6 < len(page(Map("Atlas", ("So.",), "much", table, run, *near, words)).encode()) < 5e6


def test_levels_are_listed_by_size_and_no_cluster_last(runs):
    from promptgeo.analysis.atlas_page import _levels

    assert _levels(pd.Series([3, -1, 0, 3, 10])) == (["0", "3", "10", "-1"], [1, 3, 0, 1, 2])
    assert _levels(pd.Series([0.3, None, 0.01])) == (["0.01", "0.3", "not known"], [1, 2, 0])
    assert _levels(pd.Series(["b", "a", "b"])) == (["b", "a"], [0, 1, 0])


def hostile() -> tuple[RunTable, Vocabulary]:
    runs = made(12, 1)
    table = runs.table.assign(task=HOSTILE, init=[f"{HOSTILE}{n % 2}" for n in range(12)])
    return RunTable(table, None, runs.arrays), vocabulary(HOSTILE)


def test_hostile_names_are_data(tmp_path):
    runs, words = hostile()
    page = atlas(runs, vocabulary=words, permutations=19, plane="pca").pages["atlas"]
    tags = Tags(page).tags
    assert [tag for tag, _ in tags].count("script") == 2 and "img" not in {tag for tag, _ in tags}
    (data,) = re.findall(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data)["factors"]["task"]["levels"] == [HOSTILE]


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
@pytest.mark.long
def test_hostile_names_are_inert_in_a_browser(tmp_path):
    runs, words = hostile()
    place = tmp_path / "page.html"
    place.write_text(atlas(runs, vocabulary=words, permutations=19, plane="pca").pages["atlas"])
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    dom = subprocess.run([*line, place.as_uri()], capture_output=True, text=True, timeout=120).stdout
    assert "<title>Atlas of prompts</title>" in dom, "the page's own script ran, and no other"
    assert "12 prompts of 12 runs: the map keeps" in dom and "<img" not in dom
    shown = told(place.read_text(), "return ['paths', 'map', 'tip'].map((id) => at(id).checkVisibility());", tmp_path)
    assert shown == [False, True, False], "no run has a path to show or to hide"
    assert "&lt;/script&gt;&lt;script&gt;" in dom, "the name is shown in the legend as it is"


def told(page: str, script: str, tmp_path: Path, *options: str) -> list:
    """What a script says that runs behind the page's own; the page's policy would not let it."""
    before, policy, rest = page.partition('<meta http-equiv="Content-Security-Policy"')
    last = "paint();\nresize();\n"
    assert policy and last in rest
    place = tmp_path / "page.html"
    told = f"setTimeout(() => {{ document.title = JSON.stringify((() => {{ {script} }})()); }}, 500);\n"
    place.write_text(before + rest.partition(">")[2].replace(last, last + told))
    browser = next(filter(None, map(shutil.which, BROWSERS)))
    line = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    line += ["--virtual-time-budget=3000", *options, place.as_uri()]
    dom = subprocess.run(line, capture_output=True, text=True, timeout=120).stdout
    (said,) = re.findall("<title>(.*?)</title>", dom)
    return json.loads(said)


@pytest.mark.skipif(not any(map(shutil.which, BROWSERS)), reason="needs Chromium")
@pytest.mark.long
def test_what_is_searched_for_stands_out_and_a_map_seen_whole_stays_whole(result, tmp_path):
    """Points that are not searched for are drawn faintly; a narrower window shows all points, and at once."""
    script = """
    const ink = () => {  // of the drawn points of each task: how far from the page's white, at the darkest
      const far = new Array(3).fill(0);
      for (let i = 0; i < K; i++) {
        if (!last[i]) continue;
        const [x, y] = [X[i] * scale + left, Y[i] * scale + top_].map((v) => Math.round(v * dense));
        const [r, g, b] = pen.getImageData(x, y, 1, 1).data;
        const n = data.factors.task.of[RUN[i]];
        far[n] = Math.max(far[n], 765 - r - g - b);
      }
      return far;
    };
    at("paths").checked = false; stale = true; draw();
    const plain = ink();
    at("search").value = "t1"; search(); draw();
    const sought = ink();
    at("search").value = ""; search(); draw();
    at("search").value = "none such"; search(); draw();
    const none = [ink(), at("hits").textContent];
    at("search").value = "  "; search(); draw();
    const again = [ink(), at("hits").textContent];
    view.style.flex = "none"; view.style.width = "200px"; view.style.height = "150px";
    resize();
    const inside = [...X].every((x, i) => x * scale + left >= 0 && x * scale + left <= wide
      && Y[i] * scale + top_ >= 0 && Y[i] * scale + top_ <= high);
    return [plain, sought, none, again, wide, inside, [...pen.getImageData(0, 0, 1, 1).data]];
    """
    plain, sought, none, again, wide, inside, corner = told(result.pages["atlas"], script, tmp_path)
    assert min(plain) > 250 and again[0] == plain and again[1] == ""
    assert sought[1] > 250 and max(sought[0], sought[2]) < 100
    assert max(none[0]) < 100 and none[1] == "0 prompts by name, 0 with such a nearest word"
    assert wide == 200 and inside and corner == [255, 255, 255, 255], "no black frame"


def test_the_same_seed_gives_the_same_bytes(runs, result):
    again = atlas(runs, vocabulary=vocabulary(), permutations=499, perplexity=10)
    assert again.pages == result.pages and again.figures == result.figures
    assert again.numbers == result.numbers
    other = atlas(runs, vocabulary=vocabulary(), permutations=499, perplexity=10, plane="pca")
    assert other.pages != result.pages


# What is asked for.


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"prompt": "token"}, r"analysis\.atlas\.prompt=token: must be mean or whole"),
        ({"distance": "l1"}, r"distance=l1: must be cosine or l2"),
        ({"plane": "mds"}, r"plane=mds: must be tsne or pca"),
        ({"cluster_size": 1}, "cluster_size=1: must be at least 2"),
        ({"perplexity": 0.0}, "perplexity=0.0: must be greater than 0"),
        ({"max_points": 4}, "max_points=4: must be at least 5"),
    ],
)
def test_what_cannot_be_asked_is_one_line(runs, options, says):
    with pytest.raises(UserError, match=says):
        atlas(runs, vocabulary=None, **options)


def test_a_perplexity_that_is_too_large_for_so_few_prompts_is_said_with_the_one_that_is_taken(runs):
    said = "atlas: t-SNE's perplexity is 11.7, not 30: a third of the other 35 points."
    for options, expected in (({}, [said]), ({"perplexity": 11.6}, []), ({"plane": "pca"}, [])):
        omissions = atlas(runs, vocabulary=None, checkpoints=False, permutations=19, **options).omissions
        assert [each for each in omissions if "perplexity" in each] == expected


def test_a_prompt_of_zeros_has_no_direction_and_is_named(runs):
    final = runs.arrays["final"].copy()
    final[3] = 0
    some = RunTable(runs.table, None, {"final": final})
    with pytest.raises(UserError, match=r"the prompt of run 3 is zero and has no direction; take l2 distances"):
        atlas(some, vocabulary=None)
    assert len(atlas(some, vocabulary=None, distance="l2", plane="pca", permutations=19).tables["points"]) == 36


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_directions_are_the_same_at_any_scale(runs, scale):
    """Squares of such numbers are beyond float32."""
    plain, scaled = (
        atlas(
            RunTable(runs.table, None, {"final": (runs.arrays["final"] * by).astype(np.float32)}),
            vocabulary=vocabulary(),
            plane="pca",
            permutations=19,
        )
        for by in (1.0, scale)
    )
    for name, column in (("neighbours", "neighbour"), ("words", "word")):
        assert plain.tables[name][column].equals(scaled.tables[name][column])
    np.testing.assert_allclose(
        plain.tables["points"][["x", "y"]].abs(), scaled.tables["points"][["x", "y"]].abs(), atol=1e-4
    )


def test_too_many_points_lose_checkpoints_first_and_then_runs(runs):
    few = atlas(runs, vocabulary=None, permutations=19, plane="pca", max_points=80)
    assert few.tables["points"]["step"].tolist() == [2, 3] * 36
    assert few.omissions[0].startswith("atlas: shows 72 of 108 prompts, of each run at most 2")
    fewer = atlas(runs, vocabulary=None, permutations=19, plane="pca", max_points=20)
    assert len(fewer.tables["points"]) == 20 and "20 of 36 runs, drawn by seed 0" in fewer.omissions[0]


def test_whole_prompts_need_one_length_and_tell_tokens_apart(runs):
    whole = atlas(runs, vocabulary=None, permutations=19, plane="pca", checkpoints=False, prompt="whole", distance="l2")
    x = runs.prompts().reshape(36, -1).astype(float)
    apart = np.linalg.norm(x[:, None] - x, axis=2)
    rows = whole.tables["neighbours"]
    first = rows[rows["rank"] == 1]
    np.testing.assert_allclose(first["distance"], np.where(np.eye(36), np.inf, apart).min(1), rtol=1e-6)
    assert set(rows["among"]) == {"all"}, "a run has one point: all others are other runs'"


# Run folders.


def folder_of(place: Path, width: int = 8, fingerprint: str | None = "sha256:aa", data: str | None = None) -> Path:
    """Twelve runs: two tasks x three inits x two rates, prompts of 2 or 3 tokens."""
    for n in range(12):
        one = header(("plus_one", "plus_two")[n % 2], ("cat", "dog", "pen")[n // 2 % 3], n)
        one["config"]["optimizer"]["lr"] = (0.1, 0.2)[n // 6]
        known = {"model": fingerprint, "data": data and f"sha256:{data * 32}"}
        one |= {"id": f"{place.name}{n}", "fingerprints": {of: known[of] for of in known if known[of]}}
        write_run(place / f"run{n}", one, prompts_of(n, width))
    return place


def prompts_of(n: int, width: int):
    generator, length = np.random.default_rng(n), 2 + n % 2
    path = generator.normal(size=(2, length, width)).astype(np.float32)
    results = trained(n).results | {"prompt_length": length}
    return replace(
        trained(n),
        results=results,
        initial=np.zeros_like(path[0]),
        trajectory=path,
        steps=np.array([5, 10]),
        final=path[1],
        best=path[1],
    )


def analysed(*folders: Path, out: Path) -> tuple[list, list[str]]:
    said: list[str] = []
    names = ",".join(map(str, folders))
    options = ["analysis.atlas.plane=pca", "analysis.atlas.permutations=19"]
    answers, _ = run_analyses(
        compose_analyze([f"runs=[{names}]", f"out={out}", "analysis=[atlas]", *options]), said.append
    )
    return answers, said


def test_runs_of_several_folders_rates_and_lengths_lie_on_one_map_and_the_report_opens_it(tmp_path):
    (answer,), _ = analysed(folder_of(tmp_path / "a"), folder_of(tmp_path / "b"), out=tmp_path / "both")
    points = answer.stored.tables["points"]
    assert len(points) == 48 and set(points["lr"]) == {0.1, 0.2} and set(points["prompt_length"]) == {2, 3}
    assert list(answer.stored.pages) == ["atlas"] and (tmp_path / "both/atlas/atlas.html").is_file()
    (alone,), _ = analysed(tmp_path / "a", out=tmp_path / "a" / "analysis")
    report = write_report(tmp_path / "a").read_text()
    assert 'href="analysis/atlas/atlas.html"' in report
    assert "(analysis/atlas/atlas.html)" in write_report(tmp_path / "a", "md").read_text()
    (tmp_path / "a/analysis/atlas/atlas.html").write_text("changed")
    with pytest.raises(UserError, match=r"atlas\.html: its SHA-256 is not the one"):
        read(tmp_path / "a/analysis/atlas")
    assert alone.stored is not None


def test_runs_of_a_task_with_several_data_sets_lie_on_one_map_and_that_is_said(tmp_path):
    for name, data in (("a", "aa"), ("b", "bb")):
        folder_of(tmp_path / name, data=data)
    (answer,), said = analysed(tmp_path / "a", tmp_path / "b", out=tmp_path / "both")
    assert len(answer.stored.tables["points"]) == 48
    several = "runs of task plus_one have several data sets (aaaaaaaa, bbbbbbbb); what is said of the task is said of"
    assert any(several in each for each in answer.stored.info["omissions"]) and any(several in line for line in said)
    (alone,), _ = analysed(tmp_path / "a", out=tmp_path / "alone")
    assert not any("data sets" in each for each in alone.stored.info["omissions"])


def test_from_run_folders_to_files_neighbours_are_those_of_brute_force(tmp_path):
    """The CSV and the page both say what comes of the run folders' own tensors, sorted one by one."""
    place = folder_of(tmp_path / "a")
    analysed(place, out=tmp_path / "out")
    points = pd.read_csv(tmp_path / "out/atlas/points.csv")
    rows = pd.read_csv(tmp_path / "out/atlas/neighbours.csv")
    (data,) = re.findall(r'id="data">(.*?)</script>', (tmp_path / "out/atlas/atlas.html").read_text(), re.DOTALL)
    page = json.loads(data)
    by_name = {run.folder.name: run for run in pg.load_runs(place).runs}
    mean = [by_name[run].prompt(int(step)).astype(float).mean(0) for run, step in points[["run", "step"]].to_numpy()]
    assert len(mean) == 24 and [page["names"][run] for run in page["run"]] == points["run"].tolist()
    for point, one in enumerate(mean):
        far = [1 - one @ other / np.sqrt((one @ one) * (other @ other)) for other in mean]
        for among, own in enumerate((points.index == point, points["run"] == points["run"][point])):
            expected = sorted(np.flatnonzero(~own), key=far.__getitem__)[: page["k"]]
            kept = rows[(rows["point"] == point) & (rows["among"] == ("all", "other runs")[among])]
            assert len(kept) == page["k"] == 11 and kept["neighbour"].tolist() == expected
            np.testing.assert_allclose(kept["distance"], [far[i] for i in expected], atol=1e-6)
            shown = slice(point * page["k"], (point + 1) * page["k"])
            assert page["near"][among]["of"][shown] == expected
            far_shown = np.array(page["near"][among]["far"][shown]) * page["unit"]
            np.testing.assert_allclose(far_shown, kept["distance"], atol=page["unit"])


def test_another_model_has_a_map_of_its_own_and_an_import_without_one_joins_the_one_it_fits(tmp_path):
    one, unknown = folder_of(tmp_path / "one"), folder_of(tmp_path / "unknown", fingerprint=None)
    other = folder_of(tmp_path / "other", width=6, fingerprint="sha256:bb")
    (answer,), _ = analysed(one, unknown, out=tmp_path / "c")
    assert len(answer.stored.tables["points"]) == 48
    assert any("12 imports do not say which model" in each for each in answer.stored.info["omissions"])
    (answer,), _ = analysed(one, other, out=tmp_path / "d")
    assert len(answer.stored.pages) == 2 and {len(each) for each in answer.stored.tables.values()} >= {24}
