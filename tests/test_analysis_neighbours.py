"""Neighbourhoods: every number of both conventions by slow loops, planted structure, study 3's Table 3, memory of the vocabulary side."""

import json
import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from conftest import needs_shared
from promptgeo.analysis import vocabulary as vocabulary_module
from promptgeo.analysis.neighbour_words import neighbour_words
from promptgeo.analysis.neighbours import neighbours
from promptgeo.analysis.result import Number, Result
from promptgeo.analysis.task_table import GEOGRAPHY, mutual_neighbours, nearest_itself, task_claims
from promptgeo.analysis.token_kinds import KINDS, forms, glitch_tokens, kind_of
from promptgeo.analysis.vocabulary import Vocabulary
from promptgeo.errors import UserError
from promptgeo.runs import RunTable

TASKS = ["country_capital", "landmark_country", "present_past", "singular_plural", "capitalize_first_letter", "lowercase_first_letter"]
# Study 3, Table 3, as printed.
PUBLISHED = pd.DataFrame(
    [[242, 92, 49, 68, 30, 19], [92, 158, 14, 24, 13, 10], [49, 14, 96, 74, 22, 24], [68, 24, 74, 148, 37, 30], [30, 13, 22, 37, 112, 24], [19, 10, 24, 30, 24, 84]],
    TASKS, TASKS,
)  # fmt: skip
CONVENTIONS = ["paper", "corrected"]


def a_vocabulary(size=60, width=12, seed=1) -> Vocabulary:
    """Tokens close enough to each other that neighbourhoods are neither empty nor full."""
    generator = np.random.default_rng(seed)
    table = (generator.normal(size=(size, width)) + 0.7 * generator.normal(size=width)).astype(np.float32)
    names = ["cat", " cat", "Cats", "dog", " DOGS", "bird", " SolidGoldMagikarp", "ж", "\ufffd", "\x03"]
    return Vocabulary(table, names + [f"word{i}" for i in range(size - len(names))])


def a_grid(vocabulary, tasks=("country_capital", "landmark_country", "plus_one"), inits=("cat", "dog", "normal"), seeds=2, length=3, init=0.5, task=0.4, position=0.3, noise=0.7, seed=2):
    """Runs of every task, init and seed; the arguments say how strong each one's own direction is."""
    generator, d = np.random.default_rng(seed), vocabulary.embeddings_Vd.shape[1]
    rows = [(t, i, s) for t in tasks for i in inits for s in range(seeds)]
    direction = {name: generator.normal(size=d) for name in (*tasks, *inits, *range(length))}
    prompts = np.stack(
        [[init * direction[i] + task * direction[t] + position * direction[p] + noise * generator.normal(size=d) for p in range(length)] for t, i, _ in rows]
    )
    return RunTable.from_arrays(prompts, pd.DataFrame(rows, columns=["task", "init", "seed"]), initial=generator.normal(size=prompts.shape))


def number(result: Result, quantity: str) -> Number:
    (found,) = (number for number in result.numbers if number.quantity == quantity)
    return found


def distance(a, b) -> float:
    norms = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(x) ** 2 for x in b))
    return 1.0 - sum(float(x) * float(y) for x, y in zip(a, b, strict=True)) / norms


def by_loops(runs: RunTable, vocabulary: Vocabulary, epsilon: float, sample: int, seed: int, paper: bool, of: str) -> dict[str, float]:
    """Every number of `neighbours` from its definition, one pair of tokens after another."""
    prompts = runs.prompts() if of == "prompt" else runs.prompts() - runs.prompts("initial")
    points = [(n, p, runs.table["task"][n], runs.table["init"][n], prompts[n, p]) for n in range(len(prompts)) for p in range(prompts.shape[1])]
    words = list(zip(range(len(vocabulary)), vocabulary.embeddings_Vd, strict=True))
    doubled = [vocabulary.tokens.index(i) for i in dict.fromkeys(runs.table["init"]) if i in vocabulary.tokens] if paper else []
    out: dict[str, float] = {}
    counts = {name: [] for name in ("prompts", "words", "same_init", "same_task", "same_position")}
    possible = {name: 0 for name in counts}
    closest_word, closest_prompt = [], []
    table = {e: dict.fromkeys(((a, b) for a in set(runs.table["task"]) for b in set(runs.table["task"])), 0) for e in (0.5, 0.7)}
    for n, p, task, init, vector in points:
        near = dict.fromkeys(counts, 0)
        to_prompts = []
        for m, q, other_task, other_init, other in points:
            itself, own = (n, p) == (m, q), n == m
            if own and not paper:
                continue
            d = 0.0 if itself else distance(vector, other)
            if not itself:
                to_prompts.append(d)
            for name, same in (("prompts", True), ("same_init", init == other_init), ("same_task", task == other_task), ("same_position", p == q)):
                near[name] += d < epsilon and same
                possible[name] += same
            for e in table:
                table[e][task, other_task] += d < e
        to_words = [distance(vector, w) for _, w in words]
        near["words"] = sum(d < epsilon for d in to_words) + sum(to_words[i] < epsilon for i in doubled)
        closest_word.append(min(to_words))
        closest_prompt.append(min(to_prompts))
        for name in counts:
            counts[name].append(near[name])
    mean = {name: sum(values) / len(values) for name, values in counts.items()}
    for name in ("prompts", "same_init", "same_task", "same_position"):
        out[f"neighbours.prompts.{name}"] = mean[name]
        if name != "prompts":
            base, share = possible[name] / possible["prompts"], sum(counts[name]) / sum(counts["prompts"])
            out |= {f"neighbours.prompts.{name}.base_rate": base, f"neighbours.prompts.{name}.share": share, f"neighbours.prompts.{name}.enrichment": share / base}
    out |= {f"table3.{e:g}.{a}.{b}": count for e, cells in table.items() for (a, b), count in cells.items()}

    def nearest(values):
        kept = [v for v in values if v < epsilon or not paper]
        return sum(kept) / len(kept)

    out["nearest.prompts.to_prompts"] = nearest(closest_prompt)
    if of == "delta":
        return out
    out |= {"neighbours.prompts.words": mean["words"], "neighbours.prompts.all": mean["words"] + mean["prompts"]}
    out |= {"nearest.prompts.to_words": nearest(closest_word), "nearest.prompts": nearest([min(a, b) for a, b in zip(closest_word, closest_prompt, strict=True)])}
    out["nearest.prompts.without_word"] = sum(d >= epsilon for d in closest_word)
    sampled = [*vocabulary.sample(sample, seed), *doubled]
    word_counts, all_counts, to_word, to_any = [], [], [], []
    for token in sampled:
        d_words = {i: 0.0 if i == token else distance(vocabulary.embeddings_Vd[token], w) for i, w in words}
        d_prompts = [distance(vocabulary.embeddings_Vd[token], point[-1]) for point in points]
        found = sum(d < epsilon for i, d in d_words.items() if paper or i != token) + sum(d_words[i] < epsilon for i in doubled)
        word_counts.append(found)
        all_counts.append(found + sum(d < epsilon for d in d_prompts))
        to_word.append(min(d for i, d in d_words.items() if i != token))
        to_any.append(min(to_word[-1], *d_prompts))
    out |= {"neighbours.vocabulary.words": np.mean(word_counts), "neighbours.vocabulary.all": np.mean(all_counts)}
    return out | {"nearest.vocabulary": nearest(to_any), "nearest.vocabulary.to_words": nearest(to_word)}


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("of", ["prompt", "delta"])
@pytest.mark.parametrize("chunk", [2**27, 700])
def test_every_number_agrees_with_loops(convention, of, chunk, monkeypatch):
    monkeypatch.setattr(vocabulary_module, "CHUNK_BYTES", chunk)
    monkeypatch.setattr("promptgeo.analysis.pair_counts.BLOCK_BYTES", chunk)
    words = a_vocabulary(40)
    runs = a_grid(words)
    found = neighbours(runs, of=of, convention=convention, vocabulary=words, epsilons=(0.4, 0.9), epsilon=0.6, sample=15, permutations=19, seed=3)
    expected = by_loops(runs, words, 0.6, 15, 3, convention == "paper", of)
    given = [row for row in found.numbers if not row.quantity.endswith(".expected")]
    assert {row.quantity for row in given} == set(expected)
    for row in given:
        assert row.value == pytest.approx(expected[row.quantity], abs=1e-6), row.quantity
        assert row.low is not None and math.isfinite(row.low) and row.low <= row.high, row.quantity
        assert row.n > 0


def test_paper_differs_from_corrected_exactly_where_it_should():
    words = a_vocabulary()
    runs = a_grid(words, noise=0.02, seeds=1)
    paper, corrected = (neighbours(runs, of="prompt", convention=c, vocabulary=words, sample=20, permutations=9) for c in CONVENTIONS)
    # "cat" and "dog" are words of the vocabulary, "normal" is no word.
    assert [number(result, "neighbours.vocabulary.all").n for result in (paper, corrected)] == [22, 20]
    own = sum(1 for n in range(len(runs)) for p in range(3) for q in range(3) if p == q or distance(runs.prompts()[n, p], runs.prompts()[n, q]) < 0.7)
    assert number(paper, "neighbours.prompts.prompts").value - number(corrected, "neighbours.prompts.prompts").value == pytest.approx(own / (3 * len(runs)))
    assert number(paper, "neighbours.prompts.words").value >= number(corrected, "neighbours.prompts.words").value


def test_without_a_neighbour_the_censored_mean_is_left_out_and_named():
    words = a_vocabulary()
    runs = a_grid(words, init=0, task=0, position=0, noise=1)
    paper = neighbours(runs, convention="paper", vocabulary=words, epsilons=[0.01], epsilon=0.01, sample=10, permutations=9)
    corrected = neighbours(runs, convention="corrected", vocabulary=words, epsilons=[0.01], epsilon=0.01, sample=10, permutations=9)
    assert "nearest.prompts.to_words" not in [each.quantity for each in paper.numbers]
    assert any(line.startswith("nearest.prompts.to_words") for line in paper.omissions)
    assert number(paper, "nearest.prompts.without_word").value == number(corrected, "nearest.prompts.without_word").value == 54
    assert number(corrected, "nearest.prompts.to_words").value > 0.01
    assert any("no prompt token has a neighbour" in line for line in corrected.omissions)


STRENGTHS = {"init": {"init": 1.0}, "task": {"task": 1.0}, "position": {"position": 1.0}, "none": {}}


@pytest.mark.parametrize("planted", STRENGTHS)
def test_planted_structure_is_found_and_nothing_else(planted):
    words = a_vocabulary(width=40)
    none = {"init": 0.0, "task": 0.0, "position": 0.0}
    runs = a_grid(words, seeds=3, **(none | STRENGTHS[planted]), noise=0.9)
    found = neighbours(runs, vocabulary=words, epsilons=[0.7], sample=10, permutations=199)
    rows = {row.quantity: row for row in found.numbers}
    for factor in ("init", "task", "position"):
        row = rows[f"neighbours.prompts.same_{factor}.enrichment"]
        sentence = next(f.sentence for f in found.findings if f"have the same {factor}" in f.sentence)
        if factor == planted:
            assert row.value > 1.5 and row.low > 1 and row.p < 0.02
            assert "more often than by chance:" in sentence
        else:
            assert row.p > 0.02 and (row.p < 0.05 or "not detectably more or less often than by chance:" in sentence)
            assert rows[f"neighbours.prompts.same_{factor}.expected"].low <= rows[f"neighbours.prompts.same_{factor}.share"].value


def test_a_word_next_to_its_prompts_is_found():
    words = a_vocabulary(width=40)
    runs = a_grid(words, inits=("cat", "dog", "bird"), length=2)
    prompts = np.stack([[words.embeddings_Vd[words.index[init]]] * 2 for init in runs.table["init"]]) + 0.01
    found = neighbour_words(RunTable.from_arrays(prompts, runs.table), vocabulary=words, top=1, epsilon=0.3)
    table = found.tables["neighbour_words"]
    assert (table["token"] == table["init"]).all() and (table["kind"] == "init word").all() and (table["rank"] == 1).all()
    assert number(found, "neighbour_words.init_word").value == 1
    assert number(found, "neighbour_words.init_word.enrichment").value == pytest.approx(60)
    assert found.findings[0].sentence.startswith("100.0% of the words next to prompt tokens are the init word or a form of it")


# Study 3's Table 3.


def without_self(table: pd.DataFrame, tokens_per_task: int) -> pd.DataFrame:
    """A table of neighbour counts without the self-matches on its diagonal, one for each of a task's prompt tokens."""
    return table - tokens_per_task * np.eye(len(table), dtype=int)


def test_the_published_table_without_self_matches():
    corrected = without_self(PUBLISHED, 40)
    assert np.diag(corrected).tolist() == [202, 118, 56, 108, 72, 44]
    off = ~np.eye(6, dtype=bool)
    assert (corrected.to_numpy()[off] == PUBLISHED.to_numpy()[off]).all()


def test_the_published_statements_fail_on_the_published_table():
    paper = {claim.name: claim for claim in task_claims(PUBLISHED, 0.5)}
    corrected = {claim.name: claim for claim in task_claims(without_self(PUBLISHED, 40), 0.5)}
    assert paper["each_task_nearest_itself"].holds  # its self-matches hide it
    assert not corrected["each_task_nearest_itself"].holds and not corrected["only_geography_mutual"].holds
    assert [task for task, holds in nearest_itself(without_self(PUBLISHED, 40)).items() if not holds] == ["present_past"]
    assert "56" in corrected["each_task_nearest_itself"].evidence and "74 in singular_plural" in corrected["each_task_nearest_itself"].evidence
    assert mutual_neighbours(PUBLISHED) == [GEOGRAPHY, ("present_past", "singular_plural")]


def test_the_statements_hold_where_they_are_true_and_generalise():
    true = without_self(PUBLISHED, 40)
    true.loc["present_past", "present_past"] = 80
    true.loc["singular_plural", "capitalize_first_letter"] = true.loc["capitalize_first_letter", "singular_plural"] = 90
    true.loc["capitalize_first_letter", "country_capital"] = true.loc["country_capital", "capitalize_first_letter"] = 91
    assert task_claims(true, 0.5)[1].holds
    others = pd.DataFrame([[9, 5, 1], [5, 9, 2], [1, 2, 9]], list("abc"), list("abc"))
    assert all(claim.holds for claim in task_claims(others, 0.5))
    tied = pd.DataFrame([[5, 5, 1], [5, 9, 2], [1, 2, 9]], list("abc"), list("abc"))
    assert nearest_itself(tied) == {"a": False, "b": True, "c": True}
    assert mutual_neighbours(pd.DataFrame(np.zeros((3, 3)), list("abc"), list("abc"))) == []


def test_the_table_of_runs_gives_the_claims():
    words = a_vocabulary(width=40)
    runs = a_grid(words, tasks=TASKS, inits=("cat", "dog"), seeds=2, init=0, position=0, task=1.5, noise=0.3)
    claims = {claim.name: claim for claim in neighbours(runs, vocabulary=words, sample=10, permutations=9).claims}
    assert claims["each_task_nearest_itself"].holds
    assert set(claims) == {"each_task_nearest_itself", "only_geography_mutual", "prompts_have_neighbours", "nearest_word"}
    other = a_grid(words, tasks=("a", "b", "c"))
    assert any("only_geography_mutual" in line for line in neighbours(other, vocabulary=words, sample=10, permutations=9).omissions)


# Kinds of words


@pytest.mark.parametrize(
    ("text", "kind"),
    [("cat", "init word"), (" cat", "inflection"), ("Cat", "inflection"), (" CATS", "inflection"), ("cats'", "inflection"), ("category", "other"), (" concat", "other"),
     (" SolidGoldMagikarp", "glitch token"), ("StreamerBot", "glitch token"), (" TheNitromeFan", "glitch token"), ("ж", "rare alphabet"), (" 東", "rare alphabet"), ("naïve", "other"),
     ("\ufffd", "unreadable"), ("\x03", "unreadable"), ("", "unreadable"), ("\n", "other"), (" 12", "other"), ("ж\ufffd", "unreadable")],
)  # fmt: skip
def test_kinds(text, kind):
    assert kind_of(text, "cat") == kind
    if kind in ("init word", "inflection"):
        assert kind_of(text) == "other"


def test_forms():
    assert {"pen", "pens", "penned", "penning", "pen's"} <= forms("pen")
    assert {"house", "houses", "housed", "housing"} <= forms(" House")
    assert {"berries", "berried"} <= forms("berry")
    assert "penal" not in forms("pen") and "tab" not in forms("table")


def test_glitch_tokens_are_tokens_of_gpt2():
    from tokenizers.decoders import ByteLevel

    folder = needs_shared("gpt2-tokenizer")
    vocabulary = {ByteLevel().decode([token]) for token in json.loads((folder / "vocab.json").read_text(encoding="utf-8"))}
    assert glitch_tokens() - vocabulary == set()
    assert {" RandomRedditor", "rawdownloadcloneembedreportprint", " guiActiveUn", "PsyNetMessage", " externalToEVA"} <= glitch_tokens()


def test_neighbour_words_agree_with_loops(monkeypatch):
    monkeypatch.setattr(vocabulary_module, "CHUNK_BYTES", 900)
    words = a_vocabulary(50)
    runs = a_grid(words)
    found = neighbour_words(runs, vocabulary=words, epsilon=0.75, top=4)
    rows, counts = [], []
    for n, (task, init, seed) in enumerate(runs.table.itertuples(index=False)):
        for p in range(3):
            near = sorted((distance(runs.prompts()[n, p], e), i) for i, e in enumerate(words.embeddings_Vd))
            counts.append(sum(d < 0.75 for d, _ in near))
            for rank, (d, i) in enumerate(near[:4], start=1):
                if d < 0.75:
                    rows.append((n, task, init, seed, p, rank, i, words.tokens[i], d, kind_of(words.tokens[i], None if init == "normal" else init)))
    table = found.tables["neighbour_words"]
    expected = pd.DataFrame(rows, columns=["run", "task", "init", "seed", "position", "rank", "token_id", "token", "distance", "kind"])
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, atol=1e-6)
    assert number(found, "neighbour_words.found").value == pytest.approx(np.mean(counts))
    assert number(found, "neighbour_words.without").value == sum(c == 0 for c in counts)
    for kind in KINDS:
        share = np.mean([row[-1] == kind for row in rows])
        base = np.mean([np.mean([kind_of(t, None if row[2] == "normal" else row[2]) == kind for t in words.tokens]) for row in rows])
        name = f"neighbour_words.{kind.replace(' ', '_')}"
        assert number(found, name).value == pytest.approx(share, abs=1e-6)
        assert number(found, f"{name}.vocabulary").value == pytest.approx(base, abs=1e-6)
        if base:
            assert number(found, f"{name}.enrichment").value == pytest.approx(share / base, abs=1e-6)
    assert any("normal" in line for line in found.omissions)


# Limits


def test_what_the_runs_cannot_support_is_named():
    words = a_vocabulary()
    with pytest.raises(UserError, match="at least 3 runs"):
        neighbours(a_grid(words, tasks=("a",), inits=("cat",), seeds=2), vocabulary=words)
    with pytest.raises(UserError, match="12 wide"):
        neighbours(a_grid(words), vocabulary=a_vocabulary(width=16))
    with pytest.raises(UserError, match="12 wide"):
        neighbour_words(a_grid(words), vocabulary=a_vocabulary(width=16))
    with pytest.raises(UserError, match="between 0 and 2"):
        neighbours(a_grid(words), vocabulary=words, epsilon=0)
    one = neighbours(a_grid(words, tasks=("a",), inits=("cat",), seeds=4, length=1), vocabulary=words, sample=10, permutations=9)
    for start in ("Neighbours with the same init", "Neighbours with the same task", "Neighbours at the same position", "Table 3"):
        assert any(line.startswith(start) for line in one.omissions), start
    nothing = neighbour_words(a_grid(words), vocabulary=words, epsilon=1e-3)
    assert nothing.tables["neighbour_words"].empty and any("within 0.001" in line for line in nothing.omissions)


def test_the_same_bytes_each_time():
    words = a_vocabulary()
    first, second = (neighbours(a_grid(words), vocabulary=words, sample=10, permutations=9) for _ in range(2))
    assert first.figures == second.figures and first.numbers == second.numbers
    one, two = (neighbour_words(a_grid(words), vocabulary=words) for _ in range(2))
    assert one.figures == two.figures and one.numbers == two.numbers


def test_blocks_of_prompt_tokens_change_no_number(monkeypatch):
    words = a_vocabulary()
    whole = neighbours(a_grid(words), vocabulary=words, sample=10, permutations=19)
    monkeypatch.setattr("promptgeo.analysis.pair_counts.BLOCK_BYTES", 700)
    small = neighbours(a_grid(words), vocabulary=words, sample=10, permutations=19)
    assert any(row.quantity.endswith("same_position.expected") for row in whole.numbers)
    for one, other in zip(whole.numbers, small.numbers, strict=True):
        assert one.quantity == other.quantity and one.p == other.p
        assert [one.value, one.low, one.high] == pytest.approx([other.value, other.low, other.high], abs=1e-9)


# The vocabulary in chunks


def test_near_is_exact_whatever_the_chunks(monkeypatch):
    words = a_vocabulary(50)
    words.embeddings_Vd[9] = 0
    asked = np.delete(np.arange(20), 9)
    queries, own = words.unit(asked), np.where(asked % 2, asked, -1)
    whole = words.near(queries, (0.5, 0.8), 6, own)
    distances = 1.0 - queries.astype(np.float64) @ words.unit(np.arange(50)).T.astype(np.float64)
    for k, token in enumerate(own):
        left = [(distances[k, v], v) for v in range(50) if v != token]
        assert whole.distances_Kk[k] == pytest.approx(sorted(d for d, _ in left)[:6], abs=1e-6)
        assert distances[k, whole.nearest_Kk[k]] == pytest.approx(whole.distances_Kk[k], abs=1e-6) and token not in whole.nearest_Kk[k]
        assert len(set(whole.nearest_Kk[k])) == 6
        assert [sum(d < e for d, _ in left) for e in (0.5, 0.8)] == whole.counts_EK[:, k].tolist()
        assert all(a <= b for a, b in pairwise(whole.distances_Kk[k]))
    monkeypatch.setattr(vocabulary_module, "CHUNK_BYTES", 20 * 4 * 3)
    words._last.clear()
    small = words.near(queries, (0.5, 0.8), 6, own)
    assert (small.counts_EK == whole.counts_EK).all() and (small.nearest_Kk == whole.nearest_Kk).all()
    words.embeddings_Vd[31] = words.embeddings_Vd[7]
    assert Vocabulary(words.embeddings_Vd, words.tokens).near(words.unit(np.array([7])), (), 2).nearest_Kk.tolist() == [[7, 31]]
    assert small.distances_Kk == pytest.approx(whole.distances_Kk, abs=1e-6)


MEMORY = """
import numpy as np, torch
from promptgeo.analysis import vocabulary
torch.set_num_threads(1)
vocabulary.CHUNK_BYTES //= 3
V, d, K = 50_176, 512, 1000  # of 250,880, 1,024 and 10,000
generator = np.random.default_rng(0)
table = vocabulary.Vocabulary(generator.standard_normal((V, d), dtype=np.float32), [])
unit = generator.standard_normal((K, d), dtype=np.float32)
unit /= np.sqrt(np.einsum("kd,kd->k", unit, unit))[:, None]
memory = lambda key: next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(key))
before = memory("VmRSS")
near = table.near(unit, (0.3, 0.5, 0.7, 0.9), 20)
print(before, memory("VmHWM") - before, vocabulary.CHUNK_BYTES, table.embeddings_Vd.nbytes, unit.nbytes, 4 * V * K)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_beside_the_vocabulary_is_a_chunk_not_a_copy():
    """The bound that keeps 250,880 x 1,024 against 10,000 prompt tokens under 2 GB (benchmarks/vocabulary_memory.py measures that)."""
    out = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=120).stdout
    before, grown, chunk, embeddings, prompts, whole = map(int, out.split())
    fixed = 30e6  # what a first product costs in libraries and buffers
    assert grown < 1.5 * chunk + fixed < embeddings < whole  # no second copy of the vocabulary, no [K, V] array
    program = before - embeddings - prompts
    assert program + 4 * (250_880 + 10_000) * 1024 + 1.5 * 3 * chunk + fixed < 2e9
