"""Pictures in the plane and how far they are to be trusted: checked against scikit-learn and planted structure."""

import numpy as np
import pandas as pd
import pytest

from promptgeo.analysis.geometry.planes import classical_mds, neighbour_ranks, pca, trustworthiness
from promptgeo.analysis.geometry.tokens import cosine_distances, l2_distances, mean_l2_distances
from promptgeo.analysis.questions.projection import projection
from promptgeo.analysis.result import Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable


def number(result: Result, quantity: str) -> Number:
    (match,) = (number for number in result.numbers if number.quantity == quantity)
    return match


def value(result: Result, quantity: str) -> float:
    return number(result, quantity).value


def made(between: float, runs: int = 24, length: int = 3, width: int = 40, seed: int = 0) -> RunTable:
    """Runs of 4 inits x 3 tasks around a centre per init."""
    generator = np.random.default_rng(seed)
    table = pd.DataFrame(
        {"task": [f"t{n % 3}" for n in range(runs)], "init": [f"i{n // 3 % 4}" for n in range(runs)], "seed": 0}
    )
    centres = between * generator.normal(size=(4, 1, width))
    initial = centres[table["init"].str[1:].astype(int)] + generator.normal(size=(runs, length, width)) * 0.01
    return RunTable.from_arrays(initial + generator.normal(size=initial.shape), table, initial)


@pytest.fixture(scope="module")
def planted():
    return projection(made(3.0))


def test_trustworthiness_is_scikit_learns():
    from sklearn.manifold import trustworthiness as theirs
    from sklearn.neighbors import NearestNeighbors

    generator = np.random.default_rng(0)
    x = generator.normal(size=(50, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    for plane in (x[:, :2], generator.normal(size=(50, 2))):
        for k in (1, 5, 20):
            shown = NearestNeighbors(n_neighbors=k).fit(plane).kneighbors(return_distance=False)
            ours = trustworthiness(neighbour_ranks(cosine_distances(x)), shown).mean()
            assert ours == pytest.approx(theirs(x, plane, n_neighbors=k, metric="cosine"), abs=1e-12)


def test_pca_is_scikit_learns_and_mds_finds_a_plane_again():
    from scipy.spatial import procrustes
    from sklearn.decomposition import PCA

    generator = np.random.default_rng(1)
    x = generator.normal(size=(30, 6)) * [5, 3, 1, 1, 1, 1]
    np.testing.assert_allclose(np.abs(pca(x)), np.abs(PCA(2).fit_transform(x)), atol=1e-9)
    plane = generator.normal(size=(30, 2))
    points = classical_mds(l2_distances(plane))
    assert procrustes(plane, points)[2] < 1e-12
    np.testing.assert_allclose(l2_distances(points), l2_distances(plane), atol=1e-6)


def test_the_numbers_are_those_of_the_coordinates(planted):
    from sklearn.manifold import trustworthiness as theirs

    runs, table = made(3.0), planted.tables["coordinates"]
    x = runs.prompts().reshape(72, 40)
    axes = ["tsne_x", "tsne_y", "pca_x", "pca_y", "mds_x", "mds_y"]
    assert list(table.columns) == ["run", "task", "init", "position", *axes] and len(table) == 72
    for name in ("pca", "mds"):
        plane = table[[f"{name}_x", f"{name}_y"]].to_numpy()
        assert value(planted, f"trustworthiness.{name}") == pytest.approx(theirs(x, plane, metric="cosine"), abs=1e-9)
    seeds = number(planted, "tsne.seeds")
    assert seeds.n == 3 and seeds.value == pytest.approx(value(planted, "trustworthiness.tsne"))
    shown = theirs(x, table[["tsne_x", "tsne_y"]].to_numpy(), metric="cosine")
    least, most = seeds.interval
    assert least - 1e-12 <= shown <= most + 1e-12 and least < most
    assert 0 < value(planted, "tsne.disparity") <= 1


def test_four_groups_are_found_and_noise_is_not(planted):
    noise = projection(made(0.0, width=2000), of="delta")
    for name in ("tsne", "pca", "mds"):
        trust, chance = number(planted, f"trustworthiness.{name}"), value(planted, f"trustworthiness.{name}.chance")
        low, high = trust.interval
        assert trust.p == 1 / 200 and trust.value > 0.75 > chance and low < trust.value < high
        assert value(noise, f"trustworthiness.{name}") < trust.value
    assert all(f.n == 72 and "), above the" in f.sentence for f in planted.findings)
    assert "24 runs" in planted.findings[0].sentence and "over 3 seeds" in planted.findings[0].sentence
    assert 0.4 < value(noise, "trustworthiness.pca.chance") < 0.6


def test_where_the_plane_shows_nothing_the_sentence_says_so():
    """Tokens at right angles to each other have no neighbours that a plane could keep."""
    table = pd.DataFrame({"task": ["t"] * 40, "init": ["i"] * 40})
    result = projection(RunTable.from_arrays(np.eye(40)[:, None], table), seeds=1)
    assert any("not detectably above the" in f.sentence for f in result.findings)
    assert result.omissions == [
        "projection: t-SNE's perplexity is 13, not 30: a third of the other 39 points.",
        "projection: t-SNE at one seed only, so its spread over seeds is not known (seeds=3 says).",
    ]


def test_few_tokens_lower_the_perplexity_and_fewer_are_refused():
    small = projection(made(1.0, runs=4, length=2))
    assert len(small.tables["coordinates"]) == 8 and np.isfinite(small.tables["coordinates"]["tsne_x"]).all()
    with pytest.raises(UserError, match="needs at least 5 prompt tokens; these runs have 4"):
        projection(made(1.0, runs=4, length=1))
    for none in (0, -1.0):
        with pytest.raises(UserError, match=rf"analysis\.projection\.perplexity={none}: must be greater than 0"):
            projection(made(1.0), perplexity=none)
    same = made(1.0)
    with pytest.raises(UserError, match="it has no direction"):
        projection(RunTable.from_arrays(same.prompts(), same.table, same.prompts()), of="delta")


def test_many_tokens_are_drawn_by_whole_runs_and_it_is_named():
    drawn = projection(made(1.0), max_tokens=31, seeds=2, perplexity=9)
    table = drawn.tables["coordinates"]
    assert len(table) == 30 and (table.groupby("run").size() == 3).all()
    assert drawn.omissions == ["projection: shows 30 of 72 prompt tokens, whole runs drawn by seed 0 (max_tokens=31)."]


def test_the_same_seed_gives_the_same_picture_another_seed_another(planted):
    again, other = projection(made(3.0)), projection(made(3.0), seed=7, seeds=1)
    assert again.numbers == planted.numbers and again.figures == planted.figures
    assert set(again.figures) == {"tsne", "pca_mds"}
    assert other.figures["tsne"] != planted.figures["tsne"] and other.figures["pca_mds"] == planted.figures["pca_mds"]
    for svg in planted.figures.values():
        assert all(f">{level}<" in svg for level in ("i0", "i3", "t0", "t2"))


def test_no_p_is_below_one_over_the_orders_of_the_runs_and_too_few_are_not_judged():
    three = projection(made(3.0, runs=3), seeds=1)
    for name in ("tsne", "pca", "mds"):
        assert number(three, f"trustworthiness.{name}").p >= 1 / 6
    assert all("which so few runs cannot test" in f.sentence and "above" not in f.sentence for f in three.findings)
    one = projection(made(3.0, runs=1, length=6), seeds=1)
    trust = number(one, "trustworthiness.pca")
    assert trust.low is None and trust.p == 1.0, "one run says nothing of how runs differ"


def test_chance_is_that_of_the_mean_over_all_pictures():
    """Ranks that one picture keeps and the other does not: their mean lies between, and so does what chance gives."""
    from promptgeo.analysis.questions.projection import _shuffled

    generator = np.random.default_rng(0)
    ranks = neighbour_ranks(l2_distances(generator.normal(size=(12, 5))))
    pictures = [generator.permuted(np.tile(np.arange(12), (12, 1)), axis=1)[:, :3] for _ in range(2)]
    run_K = np.repeat(np.arange(6), 2)
    each = [_shuffled(ranks, [picture], run_K, np.random.default_rng(4)) for picture in pictures]
    assert each[0] != each[1]
    both = _shuffled(ranks, pictures, run_K, np.random.default_rng(4))
    assert both == pytest.approx(np.mean(each), abs=1e-12), "the runs change places in all pictures alike"


def test_the_interval_is_students_over_runs():
    from scipy.stats import t

    x = projection(made(1.0, runs=5), seeds=1)
    low, high = number(x, "trustworthiness.pca").interval
    from sklearn.manifold import trustworthiness as theirs

    points = made(1.0, runs=5).prompts().reshape(15, 40)
    assert number(x, "trustworthiness.pca").value == pytest.approx(
        theirs(points, x.tables["coordinates"][["pca_x", "pca_y"]].to_numpy(), metric="cosine"), abs=1e-9
    )
    plane = x.tables["coordinates"][["pca_x", "pca_y"]].to_numpy()
    shown = np.argsort(l2_distances(plane) + np.diag([np.inf] * 15), axis=1, kind="stable")[:, :5]
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    by_run = trustworthiness(neighbour_ranks(cosine_distances(unit)), shown).reshape(5, 3).mean(1)
    half = t.ppf(0.975, 4) * by_run.std(ddof=1) / np.sqrt(5)
    assert low == pytest.approx(max(by_run.mean() - half, 0), rel=0.03)
    assert high == pytest.approx(min(by_run.mean() + half, 1), rel=0.03)


@pytest.mark.parametrize("shape", [(5, 3, 4), (70, 2, 3), (3, 70, 2)])  # one block, several, a prompt longer than one
def test_the_mean_distance_between_prompts_is_over_all_pairs_of_their_tokens(shape):
    prompts_NPd = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    prompts_NPd[1] = prompts_NPd[0]
    means_NN = mean_l2_distances(prompts_NPd)
    for i, j in [(0, 0), (0, 1), (0, 2), (2, 0), (shape[0] - 1, 1), (shape[0] - 1, shape[0] - 1)]:
        pairs = [np.linalg.norm(a.astype(float) - b) for a in prompts_NPd[i] for b in prompts_NPd[j]]
        assert means_NN[i, j] == pytest.approx(np.mean(pairs), rel=1e-6)
