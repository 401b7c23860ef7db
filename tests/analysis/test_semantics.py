"""Nearest words: six readings by definition, turned deltas, a lexicon planted and none, prompts read as words."""

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import beta, binomtest

import reference
from promptgeo.analysis.deciding import learned
from promptgeo.analysis.geometry import readings as readings_module
from promptgeo.analysis.geometry.lexicon import NO_LETTER, Words, normal, script_of
from promptgeo.analysis.geometry.readings import Reading, Readings, tied_scale
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.geometry.walks import Walks, random_rotation
from promptgeo.analysis.question import Convention
from promptgeo.analysis.questions.semantics import semantics
from promptgeo.analysis.result import Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.model.frozen_lm import FrozenLM
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable, table_of
from promptgeo.tiny import PATH as TINY
from promptgeo.training.engine import train_pack

RARE = 1e-3
"""Of the few rates that are counted here, none is so improbable if it is at most the nominal one."""
LEXICON = [f"w{i}" for i in range(100, 120)]
LEXICON_OF_200 = [f"w{i}" for i in range(70, 100)]


def number(result: Result, quantity: str) -> Number:
    (match,) = (each for each in result.numbers if each.quantity == quantity)
    return match


@pytest.fixture(autouse=True)
def undrawn(request, monkeypatch):
    """Figures take most of the time: one test looks at them."""
    if "printed" not in request.node.name:
        for name in ("_tokens_figure", "_readings_figure"):
            monkeypatch.setattr(f"promptgeo.analysis.questions.semantics.{name}", lambda *_: "")


# Readings.


def a_matrix(tokens=300, width=200, seed=0) -> np.ndarray:
    """Tokens about a mean, with a direction that dominates, of different lengths, and one that is 0."""
    generator = np.random.default_rng(seed)
    matrix_Vd = generator.normal(size=(tokens, width)) + 0.5 * generator.normal(size=width)
    matrix_Vd += 4 * generator.normal(size=(tokens, 1)) * generator.normal(size=width) / np.sqrt(width)
    matrix_Vd *= generator.uniform(0.3, 2, size=(tokens, 1))
    matrix_Vd[17] = 0
    return matrix_Vd.astype(np.float32)


def cosine(a, b) -> float:
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def slow_scores(matrix_Vd, p_d, reading, sample=None) -> list[float]:
    """One token after another, from the definitions, in float64."""
    matrix_Vd, p_d = matrix_Vd.astype(float), p_d.astype(float)
    mean_d = sum(matrix_Vd) / len(matrix_Vd)
    if reading is Reading.cosine:
        return [cosine(p_d, v_d) for v_d in matrix_Vd]
    if reading is Reading.l2:
        return [-float(np.linalg.norm(p_d - v_d)) for v_d in matrix_Vd]
    if reading is Reading.dot:
        return [float(p_d @ v_d) for v_d in matrix_Vd]
    if reading is Reading.centred:
        return [cosine(p_d - mean_d, v_d - mean_d) for v_d in matrix_Vd]
    if reading is Reading.all_but_the_top:
        top_Dd = np.linalg.svd(matrix_Vd - mean_d)[2][: round(matrix_Vd.shape[1] / 100)]

        def rest(v_d):
            left_d = v_d - mean_d
            for u_d in top_Dd:
                left_d = left_d - (u_d @ (v_d - mean_d)) * u_d
            return left_d

        return [cosine(rest(p_d), rest(v_d)) for v_d in matrix_Vd]
    hubness_V = []
    for v, v_d in enumerate(matrix_Vd):
        others = sorted((cosine(v_d, matrix_Vd[s]) for s in sample if s != v), reverse=True)
        hubness_V.append(sum(others[:10]) / 10)
    return [2 * cosine(p_d, v_d) - r for v_d, r in zip(matrix_Vd, hubness_V, strict=True)]


@pytest.mark.parametrize("reading", Reading)
def test_a_reading_is_its_definition_whatever_the_chunks(reading, monkeypatch):
    matrix_Vd = a_matrix(150)
    prompts_Kd = a_matrix(50, seed=1)[:3]
    prompts_Kd[0] = matrix_Vd[40]
    sample = np.sort(np.random.default_rng(3).choice(150, 40, replace=False))
    monkeypatch.setattr(readings_module, "CHUNK_BYTES", 4 * 200 * 40)  # four chunks, the last of 30 tokens
    near = Readings(matrix_Vd, sample=40, seed=3).nearest(prompts_Kd, reading, 4)
    for p_d, tokens_k, scores_k in zip(prompts_Kd, near.tokens_Kk, near.scores_Kk, strict=True):
        slow_V = np.array(slow_scores(matrix_Vd, p_d, reading, sample))
        assert tokens_k.tolist() == np.argsort(-slow_V, kind="stable")[:4].tolist()
        np.testing.assert_allclose(scores_k, slow_V[tokens_k], rtol=1e-4, atol=2e-5)
    if reading is Reading.l2:
        assert near.tokens_Kk[0, 0] == 40 and near.scores_Kk[0, 0] == 0  # no rounding of what is the same
    if reading in (Reading.centred, Reading.all_but_the_top):
        plain = Readings(matrix_Vd).nearest(prompts_Kd, Reading.cosine, 4)
        assert not np.array_equal(near.tokens_Kk, plain.tokens_Kk)


def test_of_equally_near_tokens_the_lower_number_comes_first_and_few_tokens_are_all():
    matrix_Vd = np.eye(3, dtype=np.float32)[[2, 0, 0]]
    near = Readings(matrix_Vd).nearest(np.eye(3, dtype=np.float32)[:1], Reading.cosine, 5)
    assert near.tokens_Kk.tolist() == [[1, 2, 0]]


def test_the_unembedding_writes_the_models_logits_and_tied_ones_are_found(lm: FrozenLM):
    """Of all families: GPT-2, BLOOM, OPT (projected) and Gemma (scaled) are tied, NeoX and Llama are not."""
    model = reference.original(lm.name)
    family = model.config.model_type
    head = model.get_output_embeddings()
    hidden_Kh = torch.randn(3, head.weight.shape[1], generator=torch.Generator().manual_seed(0))
    matrix_Vd = lm.unembedding()
    assert matrix_Vd is not None and matrix_Vd.dtype == torch.float32
    torch.testing.assert_close(hidden_Kh @ matrix_Vd.T, head(hidden_Kh)[:, : lm.vocabulary_size])
    scale = tied_scale(lm.vocabulary().numpy(), matrix_Vd.numpy())
    if model.config.get_text_config().tie_word_embeddings:
        assert scale == pytest.approx(32**0.5 if family.startswith("gemma") else 1, rel=1e-3)
    else:
        assert scale is None


def test_an_output_layer_of_another_width_is_none(gpt2, monkeypatch):
    monkeypatch.setattr(gpt2, "width", 8)
    assert gpt2.unembedding() is None


def test_tied_matrices_are_tied_through_bf16_rounding_and_others_are_not():
    matrix_Vd = a_matrix()
    rounded_Vd = torch.from_numpy(25.3 * matrix_Vd).bfloat16().float().numpy()
    assert tied_scale(rounded_Vd, matrix_Vd) == pytest.approx(25.3, rel=1e-3)
    noise_Vd = np.random.default_rng(2).normal(size=matrix_Vd.shape).astype(np.float32)
    assert tied_scale(matrix_Vd + 0.05 * noise_Vd, matrix_Vd) is None
    assert tied_scale(matrix_Vd, matrix_Vd[:, :9]) is None and tied_scale(0 * matrix_Vd, matrix_Vd) is None


# Words.


def test_a_token_spells_a_word_without_spaces_marks_and_case():
    tokens = [" Correct", "CORRECT", "\u2581correct", "correctly", "ve\u0301rite\u0301", "\n", "", "正确"]
    words = Words.of(tokens)
    assert normal(" V\u00c9rit\u00e9 ") == unicodedata.normalize("NFC", "ve\u0301rite\u0301")
    assert words.word_V.tolist() == [0, 0, 0, 1, 2, 3, 3, 4]
    assert [words.words[i] for i in words.lexicon(["Correct", "v\u00e9rit\u00e9", "exact", "", "正确"])] == [
        "correct",
        "vérité",
        "正确",
    ]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        (" 12:ab", "Latin"),
        ("ж", "Cyrillic"),
        ("正", "Han"),
        ("の", "Hiragana"),
        ("\uff41", "Latin"),  # a full-width a
        ("한", "Hangul"),
        ("ق", "Arabic"),
        ("µ", "Greek"),
        ("12%", NO_LETTER),
        ("\ufffd", NO_LETTER),
    ],
)
def test_a_script_is_that_of_the_first_letter(text, script):
    assert script_of(text) == script


def test_words_in_a_lexicons_place_are_as_often_spelled_and_of_its_script():
    cyrillic = [chr(0x430 + i) + chr(0x430 + j) for i in range(8) for j in range(8)]
    tokens = [f"a{chr(97 + i)}b" for i in range(26)] * 2 + [f"q{chr(97 + i)}" for i in range(26)] + cyrillic + ["7"]
    words = Words.of(tokens)
    lexicon_L = words.lexicon(["aab", "qz", "\u0430\u0431"])
    drawn_BL = words.like(lexicon_L, 900, np.random.default_rng(0))
    texts_BL = np.array(words.words)[drawn_BL]
    twice, once, russian = (set(texts_L) for texts_L in texts_BL.T)  # sorted as the lexicon's words are
    assert twice == {f"a{chr(97 + i)}b" for i in range(1, 26)}
    assert once == {f"q{chr(97 + i)}" for i in range(25)}
    assert russian == set(cyrillic) - {"\u0430\u0431"}


# Walks.


def in_memory(prompts, initials, tasks, inits, accuracy=0.9) -> RunTable:
    """Runs of any prompt lengths, that learned."""
    runs = []
    for n, (final_Pd, initial_Pd) in enumerate(zip(prompts, initials, strict=True)):
        config = {"model": {"name": "m"}, "task": {"name": tasks[n]}, "init": {"name": inits[n]}, "seed": n}
        config |= {"template": {"name": "t"}, "optimizer": {"lr": 0.1}}
        results = {"prompt_length": len(final_Pd), "steps": 1, "n": 10}
        results |= {"accuracy": {"none": 0.1, "initial": 0.1, "final": accuracy}}
        run = Run(Path("nowhere"), {"id": str(n), "status": "completed", "config": config, "results": results})
        run.__dict__["tensors"] = {"initial": np.float32(initial_Pd), "final": np.float32(final_Pd)}
        runs.append(run)
    return RunTable(pd.DataFrame([run.row() for run in runs]), runs)


def some_runs(vocabulary, lengths=(2, 3, 2, 3, 2, 3, 2, 3), moved=0.5, seed=0, way=None) -> RunTable:
    """P0: words of the vocabulary; moved in random directions, or each token towards `way` [d]."""
    generator = np.random.default_rng(seed)
    initials = [vocabulary.embeddings_Vd[generator.integers(0, 80, length)] for length in lengths]
    finals = []
    for initial_Pd in initials:
        towards_Pd = generator.normal(size=initial_Pd.shape)
        if way is not None:
            towards_Pd = 0.3 * towards_Pd + way
        finals.append(initial_Pd + moved * towards_Pd)
    return in_memory(finals, initials, ["a", "b"] * (len(lengths) // 2), ["text"] * len(lengths))


def a_vocabulary(tokens=400, width=24, seed=5) -> Vocabulary:
    embeddings_Vd = np.random.default_rng(seed).normal(size=(tokens, width)).astype(np.float32)
    texts = [f" w{i}" for i in range(tokens - 100)] + [chr(0x4E00 + i) for i in range(100)]
    return Vocabulary(embeddings_Vd, texts)


class Silent:
    """An LM of which only the output layer is asked: these runs have no examples."""

    def __init__(self, unembedding=None):
        self._unembedding = unembedding

    def unembedding(self):
        return self._unembedding


def test_turned_deltas_keep_norms_and_all_angles_from_each_p0():
    points = Walks.of(some_runs(a_vocabulary()))
    assert points.run_K.tolist() == [n for n in range(8) for _ in range((2, 3)[n % 2])]
    assert points.position_K.tolist() == [0, 1, 0, 1, 2] * 4
    delta_Kd = points.final_Kd - points.initial_Kd
    turned_Kd = points.turned(np.random.default_rng(0)) - points.initial_Kd
    np.testing.assert_allclose(turned_Kd @ turned_Kd.T, delta_Kd @ delta_Kd.T, atol=1e-4)
    assert np.abs(turned_Kd - delta_Kd).max() > 0.1


def test_a_rotation_is_uniform():
    """Where the first axis goes has mean 0 and equal variance in all directions; the plain QR has a sign."""
    first_Bd = np.array([random_rotation(3, np.random.default_rng(b))[0] for b in range(400)])
    np.testing.assert_allclose(first_Bd.mean(0), 0, atol=0.1)
    np.testing.assert_allclose((first_Bd**2).mean(0), 1 / 3, atol=0.06)


# What is said.


def test_numbers_agree_with_loops_over_runs_of_unequal_length():
    vocabulary = a_vocabulary(200, 12)
    runs = some_runs(vocabulary, lengths=(2, 3, 2, 3), moved=0.9)
    asked = {"lm": Silent(), "vocabulary": vocabulary, "lexicon": LEXICON_OF_200}
    result = semantics(runs, **asked, readings=["dot", "cosine"], walks=4)
    generator = np.random.default_rng(0)
    walks = [np.split(Walks.of(runs).turned(generator), (2, 5, 7)) for _ in range(4)]

    def measured(reading, prompts):
        """[survival, hits, not_latin] of each run, and the numbers of the nearest tokens."""
        every, nearest_tokens = [], []
        for run, prompt_Pd in zip(runs.runs, prompts, strict=True):
            survived, hit, others = [], False, []
            starts = [int(np.abs(vocabulary.embeddings_Vd - p0_d).sum(1).argmin()) for p0_d in run.prompt("initial")]
            for start, p_d in zip(starts, prompt_Pd, strict=True):
                order = np.argsort(-np.array(slow_scores(vocabulary.embeddings_Vd, p_d, reading)))[:3]
                nearest = [vocabulary.tokens[i].strip() for i in order]
                survived.append(f"w{start}" in nearest)
                hit |= bool(set(nearest) & set(LEXICON_OF_200) - {f"w{s}" for s in starts})
                others += [word[0] >= "\u4e00" for word in nearest]
                nearest_tokens.append(int(order[0]))
            every.append((np.mean(survived), float(hit), np.mean(others)))
        return np.array(every).T, nearest_tokens

    finals, initials = ([run.prompt(which) for run in runs.runs] for which in ("final", "initial"))
    for reading in (Reading.dot, Reading.cosine):
        own_N, p0_N, turned = (measured(reading, p)[0] for p in (finals, initials, walks[0]))
        turned = np.array([turned, *(measured(reading, walk)[0] for walk in walks[1:])])
        assert own_N.mean(1).min() > 0 and turned.mean((0, 2)).min() > 0  # there is something to count
        for k, what in enumerate(("survival", "hits", "not_latin")):
            own, null_B = own_N[k].mean(), turned[:, k].mean(1)
            assert number(result, f"{what}.{reading}").value == pytest.approx(own)
            assert number(result, f"{what}.{reading}.p0").value == pytest.approx(p0_N[k].mean())
            walk, count = number(result, f"{what}.{reading}.walk"), 4 * null_B.mean()
            assert walk.value == pytest.approx(null_B.mean())
            assert walk.interval == pytest.approx(beta.ppf((0.025, 0.975), (count, count + 1), (5 - count, 4 - count)))
            difference = number(result, f"difference.{what}.{reading}")
            assert difference.value == pytest.approx(own - null_B.mean())
            assert difference.p == pytest.approx((1 + (null_B >= own - 1e-9).sum()) / 5)
            if reading is Reading.dot and what != "not_latin":
                assert number(result, f"{what}.a").value == pytest.approx(own_N[k][[0, 2]].mean())
    first, second = (measured(reading, finals)[1] for reading in (Reading.dot, Reading.cosine))
    agree = [np.mean(x) for x in np.split(np.equal(first, second), (2, 5, 7))]
    assert number(result, "agreement.cosine").value == pytest.approx(np.mean(agree))
    table = result.tables["nearest"]
    assert len(table) == 10 * 3 * 2
    assert table[(table["reading"] == "dot") & (table["rank"] == 1)]["token_id"].tolist() == first
    assert number(result, "lexicon.vocabulary").value == 30 / 200
    assert any("no accuracies" in line for line in result.omissions)


def test_the_inits_own_words_are_no_hits_but_the_study_counts_them():
    vocabulary = a_vocabulary()
    runs = some_runs(vocabulary, moved=0.05)  # every token stays next to its word
    words = [f"w{i}" for i in range(80)]
    asked = {"lm": Silent(), "vocabulary": vocabulary, "lexicon": words, "readings": ["cosine"]}
    corrected = semantics(runs, **asked, nearest=1)
    assert number(corrected, "survival.cosine").value == 1 and number(corrected, "hits.cosine").value == 0
    paper = semantics(runs, **asked, convention=Convention.paper)
    assert number(paper, "hits.cosine").value == 1 and not paper.claims and not paper.findings
    assert set(paper.tables["nearest"]["reading"]) == {"cosine"} and paper.tables["nearest"]["rank"].max() == 3


def test_survivors_of_training_that_hardly_moves_are_no_evidence():
    """All tokens survive, and so do those of walks: nothing could be more."""
    vocabulary = a_vocabulary()
    result = semantics(some_runs(vocabulary, moved=0.01), lm=Silent(), vocabulary=vocabulary, readings=["cosine"])
    claim = next(c for c in result.claims if c.name == "init_tokens_survive")
    assert claim.outcome is Outcome.undecidable and claim.needs == "runs that went farther from P0"


def test_runs_that_did_not_learn_decide_nothing_and_no_finding_is_told():
    vocabulary = a_vocabulary()
    runs = some_runs(vocabulary)
    failed = RunTable(runs.table.assign(accuracy_final=0.1), runs.runs)
    result = semantics(failed, lm=Silent(), vocabulary=vocabulary, lexicon=LEXICON, readings=["cosine", "l2"])
    assert {claim.outcome for claim in result.claims} == {Outcome.undecidable}
    assert not result.findings and any("of runs that learned" in line for line in result.omissions)


def test_the_majority_class_is_a_premise_where_a_task_has_labels():
    table = some_runs(a_vocabulary()).table
    assert [p.met for p in learned(table)] == [True, True]
    table = table.assign(label_accuracy=table["accuracy_final"])
    assert [p.met for p in learned(table.assign(majority=0.95))] == [True, True, False]
    assert "the most frequent one" in learned(table.assign(majority=0.95))[2].words


def test_what_cannot_be_asked_is_a_line():
    vocabulary = a_vocabulary()
    runs = some_runs(vocabulary)
    with pytest.raises(UserError, match=r"readings=\['euclid'\]: one or more of cosine, l2"):
        semantics(runs, lm=Silent(), vocabulary=vocabulary, readings=["euclid"])
    with pytest.raises(UserError, match=r"hub_sample=10: must be at least 11"):
        semantics(runs, lm=Silent(), vocabulary=vocabulary, readings=["csls"], hub_sample=10)
    nothing = semantics(runs, lm=Silent(), vocabulary=vocabulary, lexicon=["absent"], readings=["cosine"])
    assert any("1 of 1 words of the lexicon are no single token" in line for line in nothing.omissions)
    claim = next(c for c in nothing.claims if c.name == "lexicon_appears")
    assert claim.outcome is Outcome.undecidable and "a lexicon of its own words" in claim.needs
    far = Vocabulary(a_vocabulary(seed=9).embeddings_Vd, vocabulary.tokens)  # P0 are none of its words
    result = semantics(runs, lm=Silent(), vocabulary=far, readings=["cosine"])
    assert any("survivors need runs that start from tokens" in line for line in result.omissions)


def test_an_untied_output_layer_is_read_too_and_a_tied_one_is_said():
    vocabulary = a_vocabulary()
    runs = some_runs(vocabulary)
    other_Vd = torch.from_numpy(a_vocabulary(seed=11).embeddings_Vd)
    both = semantics(runs, lm=Silent(other_Vd), vocabulary=vocabulary, readings=["dot"], walks=19)
    table = both.tables["nearest"]
    row = table[(table["reading"] == "output.dot") & (table["run"] == 0) & (table["rank"] == 1)].iloc[0]
    assert row["token_id"] == int((other_Vd @ torch.from_numpy(runs.runs[0].prompt()[0])).argmax())
    tied = semantics(runs, lm=Silent(2 * torch.from_numpy(vocabulary.embeddings_Vd)), vocabulary=vocabulary, walks=19)
    assert not any("output." in n.quantity for n in tied.numbers)
    assert any("tied (the input's are the output's, 0.5 times larger)" in line for line in tied.omissions)


def test_the_printed_table_marks_survivors_and_hits():
    vocabulary = a_vocabulary()
    result = semantics(
        some_runs(vocabulary, moved=0.05), lm=Silent(), vocabulary=vocabulary, lexicon=["w3"], readings=["cosine"]
    )
    figure = result.figures["tokens"]
    start = vocabulary.tokens[int(result.tables["nearest"]["token_id"].iloc[0])].strip()
    assert f"{start}*" in figure and "a, run 0" in figure and "b, run 1" in figure


# A lexicon that is there, and one that is not.


def planted(vocabulary, seed, strength) -> RunTable:
    """Training goes towards one word of the lexicon: each run's last token."""
    generator = np.random.default_rng([seed, 1])
    runs = some_runs(vocabulary, moved=0.8, seed=seed)
    for run in runs.runs:
        word_d = vocabulary.embeddings_Vd[generator.integers(100, 120)]
        run.tensors["final"][-1] += strength * word_d
    return runs


def outcome(runs, vocabulary, seed) -> Outcome:
    result = semantics(
        runs, lm=Silent(), vocabulary=vocabulary, lexicon=LEXICON, readings=["cosine"], walks=39, seed=seed
    )
    return next(c.outcome for c in result.claims if c.name == "lexicon_appears")


def test_a_planted_lexicon_is_found():
    vocabulary = a_vocabulary()
    assert [outcome(planted(vocabulary, seed, 2.0), vocabulary, seed) for seed in range(3)] == [Outcome.holds] * 3


@pytest.mark.long
@pytest.mark.parametrize("alike", [False, True])
def test_no_lexicon_is_found_where_there_is_none(alike):
    """At most 5 % of draws, also where all runs are moved alike: the words that one way leads to are in all of them."""
    vocabulary, held, draws = a_vocabulary(), 0, 60
    for seed in range(draws):
        way_d = np.random.default_rng([seed, 2]).normal(size=24) if alike else None
        held += outcome(some_runs(vocabulary, moved=0.9, seed=seed, way=way_d), vocabulary, seed) is Outcome.holds
    assert binomtest(held, draws, 0.05, alternative="greater").pvalue > RARE, f"{held} of {draws}"


# Read as words, by the real model.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("semantics")
    small = ("task.split.max_train=16", "task.split.max_test=5", "training.epochs=1", "evaluation.every=end")
    small += ("evaluation.max_new_tokens=6", "template.longer_labels=warn", "init=text")
    plans = [
        reference.make_plan(TINY, out, "task=plus_one", f"init.text={text}", f"seed={seed}", *small)
        for text, seed in (("'add one'", 0), ("'the next number is'", 1))
    ]
    assert train_pack([plans[0]]) == {} and train_pack([plans[1]]) == {}
    return plans, table_of([Run.load(plan.folder) for plan in plans])


def test_prompts_read_as_words_and_without_a_token_are_scored_as_the_runs_were(trained):
    import promptgeo as pg

    plans, runs = trained
    lm = plans[0].lm
    vocabulary = Vocabulary.of(lm)
    result = semantics(runs, lm=lm, vocabulary=vocabulary, readings=["cosine"], walks=1, max_examples=None)
    table = result.tables["accuracies"]

    def accuracy(n, prompt_Pd):
        return pg.evaluate(lm, prompt_Pd[None], plans[n].task, max_new_tokens=6).accuracy[0]

    drops = []
    for n, run in enumerate(runs.runs):
        rows = table[table["run"] == n].set_index("kind")
        final_Pd, initial_Pd = run.prompt(), run.prompt("initial")
        unit_Vd = vocabulary.embeddings_Vd / np.linalg.norm(vocabulary.embeddings_Vd, axis=1, keepdims=True)
        words_Pd = vocabulary.embeddings_Vd[(final_Pd @ unit_Vd.T).argmax(1)]
        assert rows.loc["trained", "accuracy"] == accuracy(n, final_Pd)
        assert rows.loc["initial", "accuracy"] == accuracy(n, initial_Pd)
        assert rows.loc["discretised", "accuracy"] == accuracy(n, words_Pd)
        resets = rows.loc[["reset"]]
        assert resets["position"].tolist() == list(range(len(final_Pd)))
        for p, value in zip(resets["position"], resets["accuracy"], strict=True):
            reset_Pd = final_Pd.copy()
            reset_Pd[int(p)] = initial_Pd[int(p)]
            assert value == accuracy(n, reset_Pd)
        drops.append(resets["drop"].mean())
    # Each run weighs the same, however many tokens it has.
    assert number(result, "difference.accuracy.reset.trained").value == pytest.approx(-np.mean(drops))
