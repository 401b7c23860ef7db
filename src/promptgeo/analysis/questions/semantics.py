"""What do the words nearest to each prompt token say? Six readings, beside P0, random walks and other words.

Study 2 reads trained prompts by the 3 nearest words of each token (cosine, input embedding), marks those of the init's
text that survived, and looks for words for "accurate" in any language. Any prompt has nearest words, so each number
stands beside what it is for the untrained P0s, and for prompts that went as far in random directions (walks.py).

A *survivor* is a prompt token among whose nearest tokens the one that it began as still is. A run has a *hit* where a
word of the lexicon is among the nearest tokens of any of its prompt tokens; words that its own init has do not count.
A token spells a word whole, spaces and word-boundary marks around it and its case aside (lexicon.py).

Shapes: N runs, P prompt tokens of one of them, K of all, k nearest, V vocabulary, d width, B walks, W words, L of the
lexicon.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import Premise, decided, learned
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, small_multiples, svg
from promptgeo.analysis.geometry.lexicon import NO_LETTER, Words, normal
from promptgeo.analysis.geometry.readings import HUB_NEAREST, Nearest, Reading, Readings, tied_scale
from promptgeo.analysis.geometry.tokens import order_of_appearance
from promptgeo.analysis.geometry.vocabulary import Vocabulary, require_width
from promptgeo.analysis.geometry.walks import Walks
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import Convention, question
from promptgeo.analysis.resampling import (
    clopper_pearson,
    near_an_end,
    newcombe,
    percentile_interval,
    permutation_p,
    t_mean,
    wilson,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.analysis.scoring import percent
from promptgeo.analysis.word_prompts import add_accuracies
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

STUDY = 3
"""Nearest tokens that study 2 prints."""
BEGAN_AS = 1e-4
"""Cosine distance within which P0's token is a word of the vocabulary: rounding alone."""
MARGINS = {"survival": 0.05, "hits": 0.2, "not_latin": 0.05}
"""More than the walks' by less than this (of tokens, of runs, of nearest tokens) would not matter."""
LIKE_DRAWS = 399
"""Lexicons of other words. They cost nothing: the nearest tokens are there."""
AT_ONCE = 8192
"""Vectors of one pass over the vocabulary."""
CLAIMS = {"survival": "init_tokens_survive", "hits": "lexicon_appears", "not_latin": "other_languages_appear"}
TABLES_SHOWN, TEXT_SHOWN = 6, 14
"""Prompts of the printed token table; characters of a token in it."""


@question(
    lm=True,
    vocabulary=True,
    convention=True,
    claims=tuple(CLAIMS.values()),
    factors=("prompt_length", "init.text"),
)
def semantics(
    runs: RunTable,
    *,
    lm: LM,
    vocabulary: Vocabulary,
    convention: Convention = Convention.corrected,
    nearest: int = STUDY,
    readings: Sequence[str] = tuple(Reading),
    unembedding: bool = True,
    lexicon: Sequence[str] = ("accurate", "correct"),
    walks: int = 39,
    hub_sample: int = 10_000,
    max_examples: int | None = 40,
    seed: int = 0,
) -> Result:
    """Tables `nearest` (a row per prompt token, reading and rank), `scripts`, `accuracies`; figures of the first.

    Numbers, `<reading>` with `output.` before it in the unembedding: `survival.<reading>` (share of prompt tokens that
    survive), `hits.<reading>` (share of runs with a word of the lexicon), `not_latin.<reading>` (share of nearest
    tokens in other scripts than Latin); each with `.p0` and `.walk`; `difference.<what>.<reading>`: less the walks'.
    `hits.<reading>.vocabulary` and `difference.hits_words.<reading>`: other words like the lexicon's in its place.
    `agreement.<reading>`: share of prompt tokens whose nearest token is that of the first reading. `<what>.<task>` of
    the first reading, for hits beside `difference.hits.<task>.others`. Accuracies: word_prompts.py.

    Intervals are over whole runs. p: of walks, by turning the deltas of all runs with one rotation, 1 / (walks + 1) at
    least; of words, by drawing lexicons. The claims are about the first reading; lexicon_appears must pass both.
    convention=paper: study 2's reading (cosine, 3 nearest, input embedding) and plain hits, without a null.

    Args:
        nearest: k.
        readings: of Reading; claims, accuracies and numbers by task are about the first.
        unembedding: whether the output layer is read too, where it is as wide and not tied.
        lexicon: words, in any language; those that no token spells whole cannot be hit.
        walks: random rotations of what training added.
        hub_sample: tokens among which CSLS looks for neighbours.
        max_examples: test examples of a task that prompts are scored on; None: all.
        seed: of all draws.

    Raises UserError for an unknown reading, runs without P0, or a vocabulary of another width.
    """
    # Long because all its numbers and options are named here.
    kinds = _readings(readings)
    points = Walks.of(runs)
    require_width(vocabulary, points.final_Kd)
    words = Words.of(vocabulary.tokens)
    asked = _Asked(runs, points, vocabulary, words, words.lexicon(lexicon), _init_tokens(points, vocabulary))
    if hub_sample <= HUB_NEAREST:
        raise UserError(
            f"analysis.semantics.hub_sample={hub_sample}: must be at least {HUB_NEAREST + 1}: "
            f"CSLS takes the mean of the {HUB_NEAREST} nearest of them"
        )
    matrix = Readings(vocabulary.embeddings_Vd, hub_sample, seed)
    result = Result()
    if convention == Convention.paper:
        _as_the_study(result, asked, matrix)
        return result
    spaces = {"": matrix} | (_output(result, lm, vocabulary, hub_sample, seed) if unembedding else {})
    generator = np.random.default_rng(seed)
    turned_B = [points.turned(generator) for _ in range(walks)]
    calls = [(prefix, reading) for prefix in spaces for reading in kinds]
    seen = [_seen(asked, spaces[p], p, r, nearest, turned_B) for p, r in progress(calls, "readings")]
    numbers = {each.name: _numbers(result, asked, each, seed) for each in seen}
    _lexicon_numbers(result, asked, lexicon)
    agreements = [_agreement(result, asked, seen[0], each) for each in seen[1:]]
    _by_task(result, asked, seen[0])
    _tell(result, asked, seen[0], numbers[seen[0].name], agreements)
    result.tables["nearest"] = pd.concat([asked.table(each.name, each.nearest) for each in seen], ignore_index=True)
    result.tables["scripts"] = _scripts(asked, seen[0])
    result.figures["tokens"] = _tokens_figure(asked, seen[0].nearest)
    result.figures["readings"] = _readings_figure(seen, numbers)
    _accuracies(result, asked, seen[0], lm, max_examples, seed)
    return result


def _readings(names: Sequence[str]) -> list[Reading]:
    known = ", ".join(Reading)
    if not names or any(name not in list(Reading) for name in names):
        raise UserError(f"semantics: readings={list(names)}: one or more of {known} are needed")
    return [Reading(name) for name in dict.fromkeys(names)]


def _init_tokens(points: Walks, vocabulary: Vocabulary) -> np.ndarray:
    """[K] int64: the token that each prompt token began as; -1 where P0 is no word."""
    first = Readings(vocabulary.embeddings_Vd).nearest(points.initial_Kd, Reading.cosine, 1)
    return np.where(first.scores_Kk[:, 0] > 1 - BEGAN_AS, first.tokens_Kk[:, 0], -1)


def _output(result: Result, lm: LM, vocabulary: Vocabulary, sample: int, seed: int) -> dict[str, Readings]:
    """{"output.": the unembedding}; empty, and an omission, where it says nothing of its own."""
    matrix = lm.unembedding()
    if matrix is None:
        result.omissions.append("semantics: the output layer is not as wide as a prompt: it is not read.")
        return {}
    scale = tied_scale(vocabulary.embeddings_Vd, matrix.numpy())
    if scale is not None:
        times = "" if abs(scale - 1) < 1e-3 else f", {scale:.4g} times larger"
        result.omissions.append(
            f"semantics: input and output embeddings are tied (the input's are the output's{times}): what the input's "
            "readings say is said of both."
        )
        return {}
    return {"output.": Readings(matrix.numpy(), sample, seed)}


# What a reading shows.


@dataclass(frozen=True, eq=False)
class _Asked:
    """The runs, the vocabulary and the words that are looked for."""

    runs: RunTable
    points: Walks
    vocabulary: Vocabulary
    words: Words
    lexicon_L: np.ndarray
    init_K: np.ndarray

    def survives(self, tokens_Kk: np.ndarray) -> np.ndarray:
        """[K] bool."""
        survives_K: np.ndarray = (tokens_Kk == self.init_K[:, None]).any(1)
        return survives_K

    def is_hit(self, tokens_Kk: np.ndarray) -> np.ndarray:
        """[K, k] bool: words of the lexicon, the init's own too."""
        return np.isin(self.words.word_V[tokens_Kk], self.lexicon_L)

    def not_latin(self, tokens_Kk: np.ndarray) -> np.ndarray:
        """[K, k] bool: tokens whose first letter is of another script than Latin."""
        return ~np.isin(self.words.script_V[tokens_Kk], ["Latin", NO_LETTER])

    def shown(self, tokens_Kk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(words among the nearest tokens [U] int64, sorted; which of them are so for which run [N, U] bool).

        A run does not show the words of its own init.
        """
        word_U, column = np.unique(self.words.word_V[tokens_Kk].ravel(), return_inverse=True)
        shown_NU = np.zeros((self.points.runs, len(word_U)), dtype=bool)
        shown_NU[np.repeat(self.points.run_K, tokens_Kk.shape[1]), column] = True
        run_K, word_K = self.points.run_K[self.init_K >= 0], self.words.word_V[self.init_K[self.init_K >= 0]]
        there_K = np.isin(word_K, word_U)
        shown_NU[run_K[there_K], np.searchsorted(word_U, word_K[there_K])] = False
        return word_U, shown_NU

    def hits(self, tokens_Kk: np.ndarray, lexicons_BL: np.ndarray) -> np.ndarray:
        """[B, N] bool: which runs show a word of which lexicon."""
        word_U, shown_NU = self.shown(tokens_Kk)
        column_W = np.full(len(self.words.words), -1)  # of a word that nobody shows the last, which is empty
        column_W[word_U] = np.arange(len(word_U))
        shown_NU = np.pad(shown_NU, ((0, 0), (0, 1)))
        return np.stack([shown_NU[:, column_L].any(1) for column_L in column_W[lexicons_BL]])

    def measured(self, tokens_Kk: np.ndarray) -> dict[str, np.ndarray]:
        """[N] float64 of each run: survival (NaN without an init of words), hits (0 or 1), not_latin."""
        return {
            "survival": self.points.by_run(self.survives(tokens_Kk), self.init_K >= 0),
            "hits": self.hits(tokens_Kk, self.lexicon_L[None])[0].astype(float),
            "not_latin": self.points.by_run(self.not_latin(tokens_Kk)),
        }

    def table(self, name: str, nearest: Nearest) -> pd.DataFrame:
        """A row per prompt token and rank."""
        k = nearest.tokens_Kk.shape[1]
        rows = self.runs.table.iloc[np.repeat(self.points.run_K, k)].reset_index(drop=True)
        tokens = nearest.tokens_Kk.ravel()
        texts = np.array([*self.vocabulary.tokens, ""], dtype=object)  # the last is -1's
        init = np.repeat(self.init_K, k)
        columns: dict[str, Any] = {"run": np.repeat(self.points.run_K, k)}
        columns |= {column: rows[column] for column in ("task", "init", "seed") if column in rows}
        columns |= {
            "position": np.repeat(self.points.position_K, k),
            "init_token": texts[init],
            "reading": name,
            "rank": np.tile(np.arange(1, k + 1), len(self.init_K)),
            "token_id": tokens,
            "token": texts[tokens],
            "score": nearest.scores_Kk.ravel().astype(float),
            "script": self.words.script_V[tokens],
            "survivor": tokens == init,
            "lexicon": self.is_hit(nearest.tokens_Kk).ravel(),
        }
        return pd.DataFrame(columns)


@dataclass(frozen=True, eq=False)
class _Seen:
    """One reading: the nearest tokens of trained prompts, and what is measured of these, of P0s and of walks."""

    name: str
    nearest: Nearest
    initial_Kk: np.ndarray
    trained: dict[str, np.ndarray]
    """[N]."""
    initial: dict[str, np.ndarray]
    """[N]."""
    walks: dict[str, np.ndarray]
    """[B, N]."""
    walk_scripts: dict[str, float]
    """Share of the walks' nearest tokens by script."""


def _seen(
    asked: _Asked, matrix: Readings, prefix: str, reading: Reading, k: int, turned_B: Sequence[np.ndarray]
) -> _Seen:
    nearest = matrix.nearest(asked.points.final_Kd, reading, k)
    initial_Kk = matrix.nearest(asked.points.initial_Kd, reading, k).tokens_Kk
    per_pass = max(AT_ONCE // len(asked.init_K), 1)
    walks, scripts = [], []
    for b in range(0, len(turned_B), per_pass):
        together = np.concatenate(turned_B[b : b + per_pass])
        tokens = matrix.nearest(together, reading, k).tokens_Kk
        walks += [asked.measured(tokens_Kk) for tokens_Kk in np.split(tokens, len(together) // len(asked.init_K))]
        scripts.append(asked.words.script_V[tokens].ravel())
    return _Seen(
        f"{prefix}{reading}",
        nearest,
        initial_Kk,
        asked.measured(nearest.tokens_Kk),
        asked.measured(initial_Kk),
        {what: np.stack([walk[what] for walk in walks]) for what in CLAIMS},
        _shares(np.concatenate(scripts)),
    )


def _shares(scripts: np.ndarray) -> dict[str, float]:
    kinds, counts = np.unique(scripts, return_counts=True)
    return {str(kind): float(count / len(scripts)) for kind, count in zip(kinds, counts, strict=True)}


# Numbers.


def _mean(result: Result, quantity: str, values_N: np.ndarray, unit: str = "runs") -> Number:
    """Adds a mean share over runs, those without one left out, with its interval."""
    values_N = values_N[np.isfinite(values_N)]
    return result.number(quantity, values_N.mean(), len(values_N), unit, *t_mean(values_N, None, 0.0, 1.0))


def _walk_mean(result: Result, quantity: str, values_N: np.ndarray) -> Number:
    """Likewise, with the interval of a count: Student's covers 89 % of runs few of whose walks end near a word."""
    values_N = values_N[np.isfinite(values_N)]
    ends = clopper_pearson(values_N.sum(), len(values_N)) if len(values_N) > 1 else (None, None)
    return result.number(quantity, values_N.mean(), len(values_N), "runs", *ends)


def _numbers(result: Result, asked: _Asked, seen: _Seen, seed: int) -> dict[str, Number]:
    """By name, without the reading's: survival, survival.p0, survival.walk, difference.survival, ..."""
    made = {}
    for what in CLAIMS:
        if not np.isfinite(seen.trained[what]).any():
            continue
        name = f"{what}.{seen.name}"
        made[what] = _mean(result, name, seen.trained[what])
        made[f"{what}.p0"] = _mean(result, f"{name}.p0", seen.initial[what])
        made[f"{what}.walk"] = _walk_mean(result, f"{name}.walk", seen.walks[what].mean(0))
        made[f"difference.{what}"] = _beyond_walks(result, seen, what, made[what], made[f"{what}.walk"])
    if len(asked.lexicon_L):
        made["hits.vocabulary"], made["difference.hits_words"] = _beyond_words(result, asked, seen, made["hits"], seed)
    return made


def _beyond_walks(result: Result, seen: _Seen, what: str, trained: Number, walk: Number) -> Number:
    """Number `difference.<what>.<reading>`: the trained prompts' less the walks', with the rotations' one-sided p."""
    counted_N = np.isfinite(seen.trained[what])
    walks_N = seen.walks[what].mean(0)
    differences_N = (seen.trained[what] - walks_N)[counted_N]
    low, high = t_mean(differences_N, None, -1.0, 1.0)
    walk_low, walk_high = t_mean(walks_N[np.isfinite(walks_N)], None, 0.0, 1.0)
    near = near_an_end(trained.value) or near_an_end(walk.value)
    if near and low is not None and high is not None and walk_low is not None and walk_high is not None:
        # Few runs that all do, or none of which does, say little of the one that would not, or would.
        exact = clopper_pearson(trained.value * trained.n, trained.n)
        wide_low, wide_high = newcombe(trained.value, exact, walk.value, (walk_low, walk_high))
        low, high = min(low, wide_low), max(high, wide_high)
    p = permutation_p(trained.value, seen.walks[what][:, counted_N].mean(1))
    return result.number(f"difference.{what}.{seen.name}", differences_N.mean(), trained.n, "runs", low, high, p)


def _beyond_words(result: Result, asked: _Asked, seen: _Seen, hits: Number, seed: int) -> tuple[Number, Number]:
    """(share of runs that show another lexicon of words alike, how far the lexicon's lies above it with the p)."""
    drawn_BL = asked.words.like(asked.lexicon_L, LIKE_DRAWS, np.random.default_rng(seed))
    null_B = asked.hits(seen.nearest.tokens_Kk, drawn_BL).mean(1)
    ends = percentile_interval(null_B)
    expected = result.number(f"hits.{seen.name}.vocabulary", null_B.mean(), LIKE_DRAWS, "lexicons", *ends)
    p = permutation_p(hits.value, null_B)
    name = f"difference.hits_words.{seen.name}"
    return expected, result.number(name, hits.value - null_B.mean(), hits.n, "runs", p=p)


def _lexicon_numbers(result: Result, asked: _Asked, lexicon: Sequence[str]) -> None:
    """Number `lexicon.vocabulary`: the share of all tokens that spell a word of the lexicon; what cannot be hit."""
    tokens = int(np.isin(asked.words.word_V, asked.lexicon_L).sum())
    size = len(asked.vocabulary)
    result.number("lexicon.vocabulary", tokens / size, size, "vocabulary tokens", *wilson(tokens, size))
    wanted = len({normal(word) for word in lexicon})
    if len(asked.lexicon_L) < wanted:
        result.omissions.append(
            f"semantics: {wanted - len(asked.lexicon_L)} of {wanted} words of the lexicon are no single token of this "
            "vocabulary: they cannot be hit."
        )


def _agreement(result: Result, asked: _Asked, first: _Seen, other: _Seen) -> Number:
    pairs_2K = np.stack([each.nearest.tokens_Kk[:, 0] for each in (first, other)])
    return _mean(result, f"agreement.{other.name}", asked.points.by_run(np.ptp(pairs_2K, axis=0) == 0))


def _by_task(result: Result, asked: _Asked, seen: _Seen) -> None:
    """Numbers of each task's runs, and its hits less those of other tasks' prompts."""
    tasks_N = asked.runs.table["task"].to_numpy()
    for task in order_of_appearance(tasks_N):
        own_N = tasks_N == task
        for what in ("survival", "hits"):
            if np.isfinite(seen.trained[what][own_N]).any():
                own = _mean(result, f"{what}.{task}", seen.trained[what][own_N])
        if not own_N.all() and len(asked.lexicon_L):
            others = _mean(Result(), "others", seen.trained["hits"][~own_N])
            if own.low is not None and others.low is not None:
                ends = newcombe(own.value, own.interval, others.value, others.interval)
                name = f"difference.hits.{task}.others"
                result.number(name, own.value - others.value, own.n, "runs", *ends)


def _scripts(asked: _Asked, seen: _Seen) -> pd.DataFrame:
    """A row per script: its share of the nearest tokens of trained prompts, P0s and walks, and of the vocabulary."""
    script_V = asked.words.script_V
    found = {
        "trained": _shares(script_V[seen.nearest.tokens_Kk].ravel()),
        "p0": _shares(script_V[seen.initial_Kk].ravel()),
        "walks": seen.walk_scripts,
        "vocabulary": _shares(script_V),
    }
    names = sorted({name for shares in found.values() for name in shares}, key=lambda n: (-found["vocabulary"][n], n))
    rows = [{"script": name} | {kind: shares.get(name, 0.0) for kind, shares in found.items()} for name in names]
    return pd.DataFrame(rows)


def _as_the_study(result: Result, asked: _Asked, matrix: Readings) -> None:
    """Study 2's table and counts: cosine, 3 nearest, input embedding; every hit counts, nothing is compared."""
    nearest = matrix.nearest(asked.points.final_Kd, Reading.cosine, STUDY)
    if (known_K := asked.init_K >= 0).any():
        _mean(result, "survival.cosine", asked.points.by_run(asked.survives(nearest.tokens_Kk), known_K))
    hits_N = asked.points.by_run(asked.is_hit(nearest.tokens_Kk))
    _mean(result, "hits.cosine", (hits_N > 0).astype(float))
    _mean(result, "not_latin.cosine", asked.points.by_run(asked.not_latin(nearest.tokens_Kk)))
    result.tables["nearest"] = asked.table("cosine", nearest)
    result.figures["tokens"] = _tokens_figure(asked, nearest)


def _accuracies(result: Result, asked: _Asked, seen: _Seen, lm: LM, max_examples: int | None, seed: int) -> None:
    nearest_Kd = asked.vocabulary.embeddings_Vd[seen.nearest.tokens_Kk[:, 0]]
    ends = np.flatnonzero(np.diff(asked.points.run_K)) + 1
    words_N, survives_N = (np.split(x, ends) for x in (nearest_Kd, asked.survives(seen.nearest.tokens_Kk)))
    try:
        add_accuracies(result, asked.runs, lm, words_N, survives_N, max_examples, seed)
    except UserError as error:
        result.omissions.append(f"semantics: no accuracies: {str(error).removeprefix('semantics: ')}.")


# What it says.


def _tell(result: Result, asked: _Asked, seen: _Seen, numbers: dict[str, Number], agreements: Sequence[Number]) -> None:
    """The findings and claims of the first reading."""
    if asked.points.runs < 2:
        result.omissions.append("semantics: one run gives no interval; train more (-m seed=0,1,2,3).")
        return
    premises = learned(asked.runs.table)
    untaught = [premise.words for premise in premises if not premise.met]
    if untaught:
        result.omissions.append(
            f"semantics: findings of nearest words are of runs that learned, and it is not shown that {untaught[0]}."
        )
    k = seen.nearest.tokens_Kk.shape[1]
    subjects = {
        "survival": f"prompt tokens have the token that they began as among their {k} nearest",
        "hits": f"prompts have a word of the lexicon among the {k} nearest of a token",
        "not_latin": f"the {k} nearest tokens are in another script than Latin",
    }
    for what, claim in CLAIMS.items():
        if what not in numbers:
            result.omissions.append("semantics: survivors need runs that start from tokens of the vocabulary.")
            continue
        sentence, p = _sentence(seen, what, subjects[what], numbers)
        difference, walk = numbers[f"difference.{what}"], numbers[f"{what}.walk"]
        if not untaught:
            result.findings.append(Finding.of(difference, sentence))
        room = Premise(walk.value < 1, "prompts that went as far in random directions leave room for more", _FARTHER)
        own = [room, *_vocabulary_premises(asked, what)]
        result.claims.append(
            decided(
                claim,
                difference.interval,
                sentence,
                margin=MARGINS[what],
                p=p,
                premises=[*premises, *own],
                quantity=difference.quantity,
            )
        )
    if agreements and not untaught:
        least = min(agreements, key=lambda number: number.value)
        result.findings.append(
            Finding.of(
                least,
                f"The nearest token depends on the reading: by {least.quantity.removeprefix('agreement.')} it is that "
                f"of {seen.name} for {percent(least.value, *least.interval)} of prompt tokens (n = {least.n} runs).",
            )
        )


_FARTHER = "runs that went farther from P0"


def _vocabulary_premises(asked: _Asked, what: str) -> list[Premise]:
    """What is looked for can be seen at all: the vocabulary has such tokens."""
    if what == "hits":
        met, words = bool(len(asked.lexicon_L)), "the vocabulary has tokens that spell words of the lexicon"
        return [Premise(met, words, "a lexicon of its own words")]
    if what == "not_latin":
        met = bool(asked.not_latin(np.arange(len(asked.words.script_V))).any())
        words = f"the vocabulary has tokens in other scripts than Latin ({'some' if met else 'none'} has)"
        return [Premise(met, words, "a model whose vocabulary has other scripts")]
    return []


def _sentence(seen: _Seen, what: str, subject: str, numbers: dict[str, Number]) -> tuple[str, float]:
    """(what is found, the p by which its claim holds)."""
    own, p0, walk = (numbers[f"{what}{which}"] for which in ("", ".p0", ".walk"))
    difference = numbers[f"difference.{what}"]
    low, high = difference.interval
    p, beside = difference.p or 0.0, ""
    if what == "hits" and "hits.vocabulary" in numbers:
        other = numbers["difference.hits_words"].p or 0.0
        p = max(p, other)
        beside = f", of other words like the lexicon's {numbers['hits.vocabulary'].value:.1%} (p = {other:.2g})"
    above = low > 0 and p < 0.05
    verdict = "more than" if above else "fewer than" if high < 0 else "not shown to be more than"
    sentence = (
        f"{percent(own.value, *own.interval)} of {subject} ({seen.name}), {verdict} where training's way is turned at "
        f"random, {percent(walk.value, *walk.interval)} ({difference.value:+.1%}, {low:+.1%} to {high:+.1%}, "
        f"p = {difference.p:.2g}){beside}; of P0s {p0.value:.1%} (n = {own.n} runs)."
    )
    return sentence, p


# Figures.


def _printed(text: str) -> str:
    """A token's text in one short line."""
    text = "".join(c if c.isprintable() else "\u00b7" for c in text)
    text = text if len(text) <= TEXT_SHOWN else f"{text[: TEXT_SHOWN - 1]}\u2026"
    return text.replace(" ", "\u2423")


def _tokens_figure(asked: _Asked, nearest: Nearest) -> str:
    """As the study prints it, of the first run of each task: a row per prompt token, * a survivor, + in the lexicon."""
    table = asked.table("", nearest)
    first = table.groupby("task", sort=False)["run"].first().head(TABLES_SHOWN)
    most = int(table[table["run"].isin(first)].groupby("run")["position"].max().max()) + 1
    k = nearest.tokens_Kk.shape[1]
    size = {"width": 1.15 * (k + 1) * min(len(first), 2), "height": 0.17 * (most + 3)}
    with small_multiples(len(first), **size) as (figure, axes):
        for axis, (task, run) in zip(axes, first.items(), strict=True):
            rows = table[table["run"] == run]
            axis.set(title=f"{task}, run {run}", xlim=(0, k + 1), ylim=(most + 1, 0))
            axis.set_axis_off()
            for column, title in enumerate(["init", *(f"nearest {rank}" for rank in range(1, k + 1))]):
                axis.text(column, 0.4, title, fontsize=7, color=NEUTRAL)
            for _, row in rows.iterrows():
                mark = "*" * bool(row["survivor"]) + "+" * bool(row["lexicon"])
                colour = COLOURS[2] if row["lexicon"] else COLOURS[0] if row["survivor"] else "black"
                style: dict[str, Any] = {"fontsize": 7, "parse_math": False, "in_layout": False}
                axis.text(row["rank"], row["position"] + 1.4, _printed(row["token"]) + mark, color=colour, **style)
                if row["rank"] == 1:
                    axis.text(0, row["position"] + 1.4, _printed(row["init_token"]), color=NEUTRAL, **style)
        with warnings.catch_warnings():  # the page's fonts write what matplotlib's have no glyph for
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            return svg(figure, "Nearest tokens of a run of each task (* init token survives, + in the lexicon)")


def _readings_figure(seen: Sequence[_Seen], numbers: dict[str, dict[str, Number]]) -> str:
    """Survival, hits and other scripts by reading: trained prompts, P0s and walks, with their runs as points."""
    titles = {"survival": "init token survives", "hits": "prompts with a hit", "not_latin": "script not Latin"}
    shown = [what for what in CLAIMS if what in numbers[seen[0].name] and numbers[seen[0].name][what].low is not None]
    if not shown:
        return ""
    places = np.arange(len(seen))
    with panels(1, len(shown), width=2.6 * len(shown) + 1, height=3.2, sharey=True) as (figure, axes):
        for axis, what in zip(axes[0], shown, strict=True):
            kinds = {
                "": ("trained", [each.trained[what] for each in seen]),
                ".walk": ("random walks", [each.walks[what].mean(0) for each in seen]),
                ".p0": ("P0", [each.initial[what] for each in seen]),
            }
            for k, (which, (label, behind)) in enumerate(kinds.items()):
                given = [numbers[each.name][f"{what}{which}"] for each in seen]
                estimates(axis, places + 0.27 * (k - 1), given, behind, color=COLOURS[k], across=0.18, label=label)
            axis.set(title=titles[what], ylim=(-0.04, 1.04), xticks=places, xlabel="reading")
            axis.set_xticklabels([re.sub("[_.]", " ", each.name) for each in seen], rotation=60, ha="right", fontsize=7)
        axes[0, 0].set_ylabel("share")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
        return svg(figure, "What nearest words say, by how they are read, with 95 % intervals; faint: single runs")
