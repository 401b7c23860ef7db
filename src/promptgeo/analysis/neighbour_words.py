"""Which vocabulary tokens lie next to each prompt token, and what kind of tokens are they?

Study 3 sorts them by eye: inflections of the init word, letters of rare alphabets, unreadable groups, and others. Here each kind is a
rule on the token's text (see `kind_of` and `forms`), so that its share in the whole vocabulary can be set beside it.

Shapes: K prompt tokens, k nearest, V vocabulary.
"""

import unicodedata
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.question import Of
from promptgeo.analysis.resampling import bootstrap_mean
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.vectors import order_of_appearance, require_runs, tokens
from promptgeo.analysis.vocabulary import Vocabulary, init_words, require_width
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable

KINDS = ("init word", "inflection", "glitch token", "rare alphabet", "unreadable", "other")


def neighbour_words(runs: RunTable, *, vocabulary: Vocabulary, epsilon: float = 0.7, top: int = 20, seed: int = 0) -> Result:
    """Table `neighbour_words`: for each prompt token its `top` nearest vocabulary tokens within cosine distance epsilon, with the kind of each.

    Numbers `neighbour_words.<kind>` (share of these neighbours), `.vocabulary` (share expected of tokens drawn from the vocabulary) and
    `.enrichment` (their ratio). Intervals: 95 %, whole runs drawn with replacement. Raises UserError for a zero vector or a vocabulary
    of another width.
    """
    require_runs(runs, 3, "neighbour_words")
    if top < 1 or not 0 < epsilon <= 2:
        raise UserError(f"neighbour_words: top={top}, epsilon={epsilon}: at least one neighbour and a cosine distance between 0 and 2 are needed")
    found = tokens(runs, Of.prompt)
    require_width(vocabulary, found.vectors_Kd)
    near = vocabulary.near(found.unit_Kd, (epsilon,), top)
    words = init_words(runs)
    kinds = {init: vocabulary_kinds(vocabulary, words.get(init)) for init in order_of_appearance(runs.table["init"])}
    table = _table(runs, found.table, near.nearest_Kk, near.distances_Kk, vocabulary, kinds, epsilon)
    result = Result(tables={"neighbour_words": table})
    if without := sorted(init for init in kinds if init not in words):
        result.omissions.append(f"Init words and their inflections: {', '.join(map(str, without))} start from no word.")
    counts_K = near.counts_EK[0]
    result.number("neighbour_words.found", counts_K.mean(), len(found), "prompt tokens", *bootstrap_mean(counts_K, found.table["run"], seed=seed))
    alone = counts_K == 0
    low, high = bootstrap_mean(alone, found.table["run"], seed=seed)
    result.number("neighbour_words.without", alone.sum(), len(found), "prompt tokens", low * len(found), high * len(found))
    if table.empty:
        result.omissions.append(f"Kinds of neighbouring words: no prompt token has a vocabulary token within {epsilon:g}.")
        return result
    shares = _shares(result, table, kinds, seed)
    _finding(result, shares, table, len(found), int(alone.sum()), epsilon, top)
    result.figures["neighbour_words"] = _figure(table, shares)
    return result


# Kinds of tokens


def forms(word: str) -> set[str]:
    """A word's spellings in lower case: itself, -s, -es, -'s, -ed, -d, -ing, also with the last letter doubled, a last e dropped, or y turned to i."""
    word = word.strip().lower()
    stems = {word, word + word[-1:]}
    inflected = {word, f"{word}s", f"{word}es", f"{word}'s", f"{word}s'", f"{word}d" if word.endswith("e") else word}
    if word.endswith("e"):
        stems.add(word[:-1])
    if word.endswith("y"):
        inflected |= {f"{word[:-1]}ies", f"{word[:-1]}ied"}
    return inflected | {stem + ending for stem in stems for ending in ("ed", "ing")}


def kind_of(text: str, word: str | None = None) -> str:
    """The kind of a token by its text; the first that fits of KINDS.

    init word: the very word that the prompt started from. inflection: stripped and in lower case one of the word's `forms` (Cat, " cat", CATS).
    glitch token: in glitch_tokens.txt, GPT-2's. rare alphabet: holds a letter that is not Latin. unreadable: nothing, bytes that are no
    character, control, private or unassigned characters.
    """
    if word is not None and text == word:
        return "init word"
    if word is not None and text.strip().lower() in forms(word):
        return "inflection"
    if text in glitch_tokens():
        return "glitch token"
    if any(_unreadable(character) for character in text) or not text:
        return "unreadable"
    return "rare alphabet" if any(_foreign(character) for character in text) else "other"


@cache
def glitch_tokens() -> frozenset[str]:
    text = (files("promptgeo.analysis") / "glitch_tokens.txt").read_text(encoding="utf-8")
    return frozenset(line for line in text.split("\n") if line and not line.startswith("#"))


@cache
def _unreadable(character: str) -> bool:
    return character == "\ufffd" or (unicodedata.category(character).startswith("C") and character not in "\n\t\r")


@cache
def _foreign(character: str) -> bool:
    return character >= "\u00c0" and character.isalpha() and "LATIN" not in unicodedata.name(character, "")


def vocabulary_kinds(vocabulary: Vocabulary, word: str | None) -> np.ndarray:
    """[V] int64: the number in KINDS of every token, seen from prompts that started from `word` (None: from none)."""
    codes = _plain_kinds(tuple(vocabulary.tokens)).copy()
    if word is not None:
        spellings = _spellings(tuple(vocabulary.tokens))
        for i in (i for form in forms(word) for i in spellings.get(form, ())):
            codes[i] = KINDS.index(kind_of(vocabulary.tokens[i], word))
    return codes


@cache
def _spellings(texts: tuple[str, ...]) -> dict[str, list[int]]:
    """The numbers of the tokens that say the same, but for spaces and case."""
    spellings: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        spellings.setdefault(text.strip().lower(), []).append(i)
    return spellings


@cache
def _plain_kinds(texts: tuple[str, ...]) -> np.ndarray:
    return np.array([KINDS.index(kind_of(text)) for text in texts], dtype=np.int64)


# What is found


def _table(
    runs: RunTable, found: pd.DataFrame, nearest_Kk: np.ndarray, distances_Kk: np.ndarray, vocabulary: Vocabulary, kinds: dict[str, np.ndarray], epsilon: float
) -> pd.DataFrame:
    k, at = np.nonzero(distances_Kk < epsilon)
    which = nearest_Kk[k, at]
    rows = found.iloc[k].reset_index(drop=True)
    columns = {column: rows[column] for column in ("run", "task", "init")}
    if "seed" in runs.table:
        columns["seed"] = runs.table["seed"].to_numpy()[rows["run"]]
    codes = np.array([kinds[init][token] for init, token in zip(rows["init"], which, strict=True)], dtype=np.int64)
    return pd.DataFrame(
        columns
        | {
            "position": rows["position"],
            "rank": at + 1,
            "token_id": which,
            "token": [vocabulary.tokens[i] for i in which],
            "distance": np.maximum(distances_Kk[k, at].astype(np.float64), 0.0),
            "kind": [KINDS[code] for code in codes],
        }
    )


def _shares(result: Result, table: pd.DataFrame, kinds: dict[str, np.ndarray], seed: int) -> pd.DataFrame:
    """Share of each kind among the neighbours and among as many tokens drawn from the vocabulary; also as numbers and as table `kinds`."""
    run_K, rows = table["run"].to_numpy(), len(table)
    per_init = table["init"].value_counts(sort=False)
    # What an init's inflections are depends on the init: its share of the vocabulary counts as often as the init has neighbours.
    expected = sum(count * np.bincount(kinds[init], minlength=len(KINDS)) / len(kinds[init]) for init, count in per_init.items()) / rows
    shown = []
    for kind, base in zip(KINDS, expected, strict=True):
        of_kind = (table["kind"] == kind).to_numpy()
        share = of_kind.mean()
        low, high = bootstrap_mean(of_kind, run_K, seed=seed)
        name = f"neighbour_words.{kind.replace(' ', '_')}"
        result.number(name, share, rows, "neighbouring words", low, high)
        result.number(f"{name}.vocabulary", base, len(next(iter(kinds.values()))), "vocabulary tokens", base, base)  # all of them: no sampling error
        if base > 0:
            result.number(f"{name}.enrichment", share / base, rows, "neighbouring words", low / base, high / base)
        shown.append({"kind": kind, "share": share, "low": low, "high": high, "vocabulary": base, "n": rows})
    result.tables["kinds"] = pd.DataFrame(shown)
    return result.tables["kinds"]


def _finding(result: Result, shares: pd.DataFrame, table: pd.DataFrame, k: int, alone: int, epsilon: float, top: int) -> None:
    own = table["kind"].isin(("init word", "inflection")).to_numpy()
    low, high = bootstrap_mean(own, table["run"].to_numpy())
    runs = table["run"].nunique()
    result.findings.append(
        Finding(
            f"{own.mean():.1%} of the words next to prompt tokens are the init word or a form of it ({low:.1%} to {high:.1%}; n = {len(table)} words, at most {top} "
            f"within cosine distance {epsilon:g} of each of {k} prompt tokens, {alone} of which have none).",
            own.mean(), len(table), "neighbouring words", low, high,
        )
    )  # fmt: skip
    for row in shares[shares["kind"].isin(("glitch token", "rare alphabet", "unreadable"))].itertuples():
        if row.vocabulary == 0:
            continue
        how = "more common" if row.low > row.vocabulary else "rarer" if row.high < row.vocabulary else "no more common, as far as can be told,"
        result.findings.append(
            Finding(
                f"{_plural(row.kind)} are {how} next to prompt tokens than in the vocabulary: {row.share:.2%} ({row.low:.2%} to {row.high:.2%}; "
                f"n = {row.n} words next to {runs} runs' prompts) against {row.vocabulary:.2%}.",
                row.share, row.n, "neighbouring words", row.low, row.high,
            )
        )  # fmt: skip


def _plural(kind: str) -> str:
    return {"glitch token": "Known glitch tokens", "rare alphabet": "Tokens in rare alphabets", "unreadable": "Unreadable tokens"}[kind]


def _figure(table: pd.DataFrame, shares: pd.DataFrame) -> str:
    """Stacked bars: the kinds of each init's neighbours, all inits' together, and the vocabulary's own."""
    inits = order_of_appearance(table["init"])
    bars = [*((str(init), _of(table[table["init"] == init])) for init in inits), ("all", shares["share"]), ("vocabulary", shares["vocabulary"])]
    at = np.append(np.arange(len(inits)), [len(inits) + 0.5, len(inits) + 1.5])
    with panels(1, 1, height=3.0) as (figure, axes):
        bottom = np.zeros(len(bars))
        for colour, kind, heights in zip(COLOURS, KINDS, zip(*(values for _, values in bars), strict=True), strict=False):
            axes[0, 0].bar(at, heights, bottom=bottom, color=colour if kind != "other" else "#dddddd", width=0.8, label=kind)
            bottom += heights
        axes[0, 0].set_xticks(at, [name for name, _ in bars], rotation=45, ha="right")
        axes[0, 0].set_ylabel("share of neighbouring words")
        axes[0, 0].grid(False)
        figure.legend(loc="outside lower center", ncols=3, fontsize=8)
        return svg(figure)


def _of(table: pd.DataFrame) -> Iterable[float]:
    return [(table["kind"] == kind).mean() for kind in KINDS]
