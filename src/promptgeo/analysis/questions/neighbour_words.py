"""Which vocabulary tokens lie next to each prompt token, and what kind of tokens are they?

Study 3 sorts them by eye; here each kind is a rule (token_kinds.kind_of), so that its share among the neighbours can be
compared with its share in the whole vocabulary.

Shapes: K prompt tokens, k nearest, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.crossed import Error, LeaveOuts
from promptgeo.analysis.figures import COLOURS, NEUTRAL, estimates, panels, svg
from promptgeo.analysis.geometry.token_kinds import KINDS, knows_glitch_tokens, vocabulary_kinds
from promptgeo.analysis.geometry.tokens import Tokens, order_of_appearance, require_runs, tokens
from promptgeo.analysis.geometry.vocabulary import Near, Vocabulary, init_words, require_width
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

OWN = ("init word", "inflection")
"""Kinds that depend on the init."""
PLURALS = {
    "glitch token": "Known glitch tokens",
    "rare alphabet": "Tokens in rare alphabets",
    "unreadable": "Unreadable tokens",
}
"""Kinds that a finding compares with the vocabulary."""


@question(vocabulary=True)
def neighbour_words(runs: RunTable, *, vocabulary: Vocabulary, epsilon: float = 0.7, top: int = 20) -> Result:
    """Table `neighbour_words`: for each prompt token its nearest vocabulary tokens, with the kind of each.

    Numbers `neighbour_words.<kind>` (share of these neighbours), `.vocabulary` (share expected of tokens drawn from the
    vocabulary) and `.enrichment` (their ratio). Intervals: 95 %, over inits and tasks (crossed.py). Glitch tokens are
    known of GPT-2's own vocabulary only.

    Args:
        epsilon: cosine distance within which a token is a neighbour.
        top: neighbours of a prompt token that are named, the nearest ones.

    Raises UserError for fewer than 3 runs, a vector of length 0, or a vocabulary of another width.
    """
    require_runs(runs, 3, "neighbour_words")
    if top < 1 or not 0 < epsilon <= 2:
        raise UserError(
            f"neighbour_words: top={top}, epsilon={epsilon}: "
            "at least one neighbour and a cosine distance between 0 and 2 are needed"
        )
    points = tokens(runs, Of.prompt)
    require_width(vocabulary, points.vectors_Kd)
    near = vocabulary.near(points.unit_Kd, (epsilon,), top)
    words = init_words(runs)
    kinds = {init: vocabulary_kinds(vocabulary, words.get(init)) for init in order_of_appearance(runs.table["init"])}
    table = _table(runs, points, near, vocabulary, kinds, epsilon)
    result = Result(tables={"neighbour_words": table})
    if without := sorted(init for init in kinds if init not in words):
        names = ", ".join(map(str, without))
        result.omissions.append(f"Init words and their inflections: {names} start from no word.")
    if not knows_glitch_tokens(vocabulary):
        result.omissions.append("Glitch tokens: the list is of GPT-2's vocabulary, and this is another one.")
    left_out = LeaveOuts(runs.table["init"], runs.table["task"])
    alone = _counts(result, near.counts_EK[0], points.table["run"].to_numpy(), left_out)
    if table.empty:
        result.omissions.append(
            f"Kinds of neighbouring words: no prompt token has a vocabulary token within {epsilon:g}."
        )
        return result
    shares = _shares(result, table, kinds, left_out, knows_glitch_tokens(vocabulary))
    result.tables["kinds"] = pd.DataFrame([share.row for share in shares])
    own, error = _share_of(table["kind"].isin(OWN).to_numpy(), table["run"].to_numpy(), left_out)
    if error is None:
        result.omissions.append("Kinds of neighbouring words: fewer than 3 runs have neighbours, no interval.")
    else:
        result.findings.append(_own_finding(own, error, len(table), alone, epsilon, top))
        result.findings += _kind_findings(shares, table["run"].nunique())
    result.figures["neighbour_words"] = _figure(table, shares)
    return result


def _share_of(holds_K: np.ndarray, run_K: np.ndarray, left_out: LeaveOuts) -> tuple[float, Error | None]:
    """(the mean of some tokens' or words' values, its error over the runs that have any)."""
    runs = left_out.weights_JN.shape[1]
    counts_N = np.bincount(run_K, minlength=runs).astype(float)
    return left_out.mean(np.bincount(run_K, holds_K, minlength=runs), counts_N)


def _counts(result: Result, counts_K: np.ndarray, run_K: np.ndarray, left_out: LeaveOuts) -> Number:
    """Numbers: neighbours of a prompt token, and how many prompt tokens have none; returns the second."""
    k, unit = len(counts_K), "prompt tokens"
    found, error = _share_of(counts_K, run_K, left_out)
    low, high = (None, None) if error is None else error.interval(found)
    result.number("neighbour_words.found", found, k, unit, None if low is None else max(low, 0.0), high)
    share, error = _share_of(counts_K == 0, run_K, left_out)
    low, high = (None, None) if error is None else error.share_interval(share)
    ends = (None, None) if low is None or high is None else (low * k, high * k)
    return result.number("neighbour_words.without", int((counts_K == 0).sum()), k, unit, *ends)


def _table(
    runs: RunTable,
    points: Tokens,
    near: Near,
    vocabulary: Vocabulary,
    kinds: dict[str, np.ndarray],
    epsilon: float,
) -> pd.DataFrame:
    """A row per prompt token and neighbour. kinds: by init, the kind of every token of the vocabulary."""
    k, at = np.nonzero(near.distances_Kk < epsilon)
    token = near.nearest_Kk[k, at]
    rows = points.table.iloc[k].reset_index(drop=True)
    columns = {column: rows[column] for column in ("run", "task", "init")}
    if "seed" in runs.table:
        columns["seed"] = runs.table["seed"].to_numpy()[rows["run"]]
    codes = np.array([kinds[init][i] for init, i in zip(rows["init"], token, strict=True)], dtype=np.int64)
    return pd.DataFrame(
        columns
        | {
            "position": rows["position"],
            "rank": at + 1,
            "token_id": token,
            "token": [vocabulary.tokens[i] for i in token],
            "distance": np.maximum(near.distances_Kk[k, at].astype(np.float64), 0.0),
            "kind": [KINDS[code] for code in codes],
        }
    )


@dataclass(frozen=True)
class _Share:
    """How common a kind of token is."""

    kind: str
    share: Number
    """Among the neighbours."""
    vocabulary: Number
    """Among tokens drawn from the vocabulary."""

    @property
    def row(self) -> dict[str, Any]:
        share = self.share
        ends = {"share": share.value, "low": share.low, "high": share.high}
        return {"kind": self.kind} | ends | {"vocabulary": self.vocabulary.value, "n": share.n}


def _shares(
    result: Result, table: pd.DataFrame, kinds: dict[str, np.ndarray], left_out: LeaveOuts, glitch: bool
) -> list[_Share]:
    """Share of each kind among the neighbours and among as many tokens drawn from the vocabulary, as numbers.

    glitch: whether it is known which tokens of the vocabulary are glitch tokens.
    """
    run, rows = table["run"].to_numpy(), len(table)
    size = len(next(iter(kinds.values())))
    per_init = table["init"].value_counts(sort=False)
    # An init's inflections depend on it: their share in the vocabulary counts as often as the init has neighbours.
    parts = (count * np.bincount(kinds[init], minlength=len(KINDS)) / size for init, count in per_init.items())
    expected = sum(parts, start=np.zeros(len(KINDS))) / rows
    shares = []
    for kind, base in zip(KINDS, expected, strict=True):
        if kind == "glitch token" and not glitch:
            continue
        name = f"neighbour_words.{kind.replace(' ', '_')}"
        share, error = _share_of((table["kind"] == kind).to_numpy(), run, left_out)
        low, high = (None, None) if error is None else error.share_interval(share)
        among = result.number(name, share, rows, "neighbouring words", low, high)
        # All tokens of the vocabulary: no sampling error, so no width.
        overall = result.number(f"{name}.vocabulary", base, size, "vocabulary tokens", base, base)
        if base > 0:
            ends = (None, None) if low is None or high is None else (low / base, high / base)
            result.number(f"{name}.enrichment", share / base, rows, "neighbouring words", *ends)
        shares.append(_Share(kind, among, overall))
    return shares


def _own_finding(share: float, error: Error, words: int, alone: Number, epsilon: float, top: int) -> Finding:
    """How many neighbours are the init word or a form of it. alone: prompt tokens without a neighbour."""
    low, high = error.share_interval(share)
    sentence = (
        f"{share:.1%} of the words next to prompt tokens are the init word or a form of it "
        f"({low:.1%} to {high:.1%}; n = {words} words, "
        f"at most {top} within cosine distance {epsilon:g} of each of {alone.n} prompt tokens, "
        f"{alone.value:.0f} of which have none)."
    )
    return Finding(sentence, share, words, "neighbouring words", low, high)


def _kind_findings(shares: Sequence[_Share], runs: int) -> list[Finding]:
    """A finding per kind of PLURALS that the vocabulary has."""
    findings = []
    for share in shares:
        base = share.vocabulary.value
        if share.kind not in PLURALS or base == 0 or share.share.low is None:
            continue
        low, high = share.share.interval
        how = "more common" if low > base else "rarer" if high < base else "not detectably more or less common"
        findings.append(
            Finding.of(
                share.share,
                f"{PLURALS[share.kind]} are {how} next to prompt tokens than in the vocabulary: "
                f"{share.share.value:.2%} ({low:.2%} to {high:.2%}; n = {share.share.n} words next to {runs} runs' "
                f"prompts) against {base:.2%}.",
            )
        )
    return findings


def _figure(table: pd.DataFrame, shares: Sequence[_Share]) -> str:
    """The share of each kind of words near prompt tokens, with its interval and each run's, beside the vocabulary's."""
    shown = [share for share in shares if share.kind != "other"]
    at, runs = np.arange(len(shown)), table.groupby("run")["kind"]
    behind = [runs.apply(lambda kinds, kind=share.kind: (kinds == kind).mean()).to_numpy() for share in shown]
    with panels(height=0.36 * len(shown) + 1.2) as (figure, axes):
        axis, near = axes[0, 0], [share.share for share in shown]
        style: dict[str, Any] = {"sideways": True, "label": "near prompt tokens"}
        estimates(axis, at - 0.12, near, behind, color=COLOURS[0], across=0.3, **style)
        values = [share.vocabulary.value for share in shown]
        axis.plot(values, at + 0.2, "D", color=NEUTRAL, markersize=4, label="in the whole vocabulary")
        axis.set(yticks=at, yticklabels=[share.kind for share in shown], xlabel="share of words")
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure, "Which kinds of words lie near prompt tokens, with 95 % intervals; faint: single runs")


def _kind_shares(table: pd.DataFrame) -> list[float]:
    return [float((table["kind"] == kind).mean()) for kind in KINDS]
