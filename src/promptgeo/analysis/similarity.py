"""Are the trained prompts of a task alike? Cosines within and between tasks, and how many pairs are nearly orthogonal, beside chance.

Shapes: N runs, P prompt tokens, d width.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import panels, svg
from promptgeo.analysis.resampling import (
    bootstrap_mean,
    null_draws,
    pair_means,
    permutation_p,
    permuted_within,
    run_weights,
    wilson,
)
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.vectors import order_of_appearance, require_levels, tokens
from promptgeo.analysis.vocabulary import Vocabulary
from promptgeo.errors import UserError
from promptgeo.run_table import RunTable


def similarity(
    runs: RunTable,
    *,
    vocabulary: Vocabulary | None = None,
    orthogonal: float = 0.1,
    alike: float = 0.5,
    sample: int = 2000,
    permutations: int = 1000,
    draws: int = 1000,
    length: int | None = None,
    seed: int = 0,
) -> Result:
    """Numbers: `cosine.<pairs>`, the cosine of two runs' tokens at equal position, mean over positions and pairs of runs; `orthogonal.<pairs>`,
    the share of pairs of tokens at equal position with |cosine| < orthogonal; pairs: within, between, within.<task>. Self-pairs are out.
    Base rates: `orthogonal.random` and `cosine.random` of Gaussian directions of this width, `orthogonal.vocabulary` and `cosine.vocabulary` of
    `sample` random pairs of vocabulary tokens: what prompts at a random-word init would have.

    Tables: `matrix`, a row per ordered pair of runs (cosine); `tokens`, a row per unordered pair of runs and position.
    Intervals draw whole runs (a share of all or none has Wilson's for as many runs); `same_task` carries p for "runs of a task lie closer": tasks of whole runs exchanged within an init.
    length: only prompts of so many tokens; null: all, which must have the same.
    alike: the cosine from which tokens would count as similar. Claims: tokens_not_similar, some_orthogonal (within tasks).
    Raises UserError where no task has two runs, or shapes differ.
    """
    if length is not None:
        runs = runs.query(f"prompt_length == {length}")
    require_levels(runs, {"task": 1}, "similarity")
    found = tokens(runs)
    n, length = len(runs), int(found.table["position"].max()) + 1
    unit_NPd = found.unit_Kd.reshape(n, length, -1).astype(np.float64)
    cosines_PNN = np.clip(np.einsum("npd,mpd->pnm", unit_NPd, unit_NPd), -1, 1)
    tasks = runs.table["task"].to_numpy()
    same_NN, apart_NN = tasks[:, None] == tasks, ~np.eye(n, dtype=bool)
    if not (same_NN & apart_NN).any():
        raise UserError("similarity: no task has two or more runs; train more seeds (-m seed=0,1,2,3)")
    result, weights_BN = Result(), run_weights(n, draws, seed)
    chosen = {"within": same_NN & apart_NN, "between": ~same_NN}
    chosen |= {f"within.{task}": chosen["within"] & (tasks[:, None] == task) for task in order_of_appearance(tasks)}
    mean_NN, near_NN = cosines_PNN.mean(0), (np.abs(cosines_PNN) < orthogonal).mean(0)
    for pairs, pairs_NN in chosen.items():
        count = int(pairs_NN.sum()) // 2
        if not count:
            result.omissions.append(f"similarity: there are no pairs of runs for {pairs}.")
            continue
        for quantity, values_NN in (("cosine", mean_NN), ("orthogonal", near_NN)):
            low, high = _interval(values_NN, pairs_NN, weights_BN)
            if quantity == "orthogonal" and high - low < 1e-9:  # all pairs or none: no more is known than there are runs
                low, high = wilson(round(values_NN[pairs_NN].mean() * pairs_NN.any(1).sum()), int(pairs_NN.any(1).sum()))
            result.number(f"{quantity}.{pairs}", values_NN[pairs_NN].mean(), count, "pairs of runs", low, high)
    _tell_base_rates(result, vocabulary, unit_NPd.shape[2], orthogonal, sample, seed)
    p = _tell_same_task(result, mean_NN, tasks, runs.table["init"].to_numpy(), permutations, seed)
    _tell(result, orthogonal, alike, length, p)
    ids = np.arange(n)
    matrix = pd.DataFrame({"run": np.repeat(ids, n), "other": np.tile(ids, n), "task": np.repeat(tasks, n), "other_task": np.tile(tasks, n), "cosine": mean_NN.ravel()})
    a, b = np.triu_indices(n, 1)
    result.tables["matrix"] = matrix
    result.tables["tokens"] = pd.concat(
        [pd.DataFrame({"run": a, "other": b, "position": p, "same_task": same_NN[a, b], "cosine": cosines_PNN[p][a, b]}) for p in range(length)], ignore_index=True
    )
    result.figures["matrix"] = _figure(mean_NN, tasks)
    return result


def _interval(values_NN: np.ndarray, pairs_NN: np.ndarray, weights_BN: np.ndarray) -> tuple[float, float]:
    """95 %, whole runs drawn. Draws without such a pair say nothing and are left out."""
    means_B = pair_means(weights_BN, np.where(pairs_NN, values_NN, 0.0), pairs_NN.astype(np.float64))
    low, high = np.nanpercentile(means_B, [2.5, 97.5])
    return float(low), float(high)


def _tell_base_rates(result: Result, vocabulary: Vocabulary | None, width: int, orthogonal: float, sample: int, seed: int) -> None:
    """Cosines of independent pairs: bootstrap and Wilson's intervals."""
    generator = np.random.default_rng(seed)
    pairs = {"random": generator.standard_normal((2, sample, width))}
    if vocabulary is None:
        result.omissions.append("similarity: the base rate of vocabulary tokens needs the model.")
    else:
        picked = generator.integers(0, len(vocabulary), (2, sample))
        picked[1] = np.where(picked[0] == picked[1], (picked[1] + 1) % len(vocabulary), picked[1])
        pairs["vocabulary"] = vocabulary.embeddings_Vd[picked].astype(np.float64)
    for name, (one, other) in pairs.items():
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        cosines = (one * other).sum(1) / np.where(norms > 0, norms, 1)
        near = int((np.abs(cosines) < orthogonal).sum())
        result.number(f"cosine.{name}", cosines.mean(), sample, "pairs of vectors", *bootstrap_mean(cosines, seed=seed))
        result.number(f"orthogonal.{name}", near / sample, sample, "pairs of vectors", *wilson(near, sample))


def _tell_same_task(result: Result, mean_NN: np.ndarray, tasks: np.ndarray, inits: np.ndarray, permutations: int, seed: int) -> float | None:
    """`same_task`: mean cosine within less between tasks, with p; None where runs cannot be exchanged."""
    n, off = len(tasks), ~np.eye(len(tasks), dtype=bool)
    if not any(len(set(tasks[inits == init])) > 1 for init in set(inits)):
        result.omissions.append("similarity: whether runs of a task lie closer needs runs of two tasks with the same init.")
        return None

    def closer(of: np.ndarray) -> float:
        same_NN = of[:, None] == of
        return float(mean_NN[same_NN & off].mean() - mean_NN[~same_NN].mean())

    observed = closer(tasks)
    null = null_draws(lambda generator: closer(tasks[permuted_within(inits, generator)]), permutations, seed)
    p = permutation_p(observed, null)
    result.number("same_task", observed, n, "runs", p=p)
    return p


def _tell(result: Result, orthogonal: float, alike: float, length: int, p: float | None) -> None:
    rows = {row["quantity"]: row for row in result.numbers}

    def said(name: str, form: str = "{:.2f}") -> str:
        row = rows[name]
        return f"{form.format(row['value'])} ({form.format(row['low'])} to {form.format(row['high'])})"

    within, near = rows["cosine.within"], rows["orthogonal.within"]
    of = f"n = {within['n']} pairs of runs, {length} token{'s' if length > 1 else ''} each"
    closer = "" if p is None else f"; runs of the same task lie {'closer' if p < 0.05 else 'no closer'} than others (p = {p:.3g}, {said('cosine.between')} between tasks)"
    verb = "are not alike" if within["high"] < alike else "are alike" if within["low"] >= alike else "cannot be told from alike"
    sentence = f"Tokens of one task's trained prompts {verb}: mean cosine {said('cosine.within')} against {alike:g}{closer} ({of})."
    result.findings.append(Finding(sentence, within["value"], within["n"], within["unit"], within["low"], within["high"], p))
    result.claims.append(Claim("tokens_not_similar", within["high"] < alike, sentence))
    bases = {"random directions": "orthogonal.random", "pairs of vocabulary tokens": "orthogonal.vocabulary"}
    rates = " and ".join(f"{said(name, '{:.1%}')} of {words}" for words, name in bases.items() if name in rows)
    often = "fewer than" if near["high"] < rows["orthogonal.random"]["low"] else "more than" if near["low"] > rows["orthogonal.random"]["high"] else "about as many as"
    sentence = f"Within a task {said('orthogonal.within', '{:.1%}')} of pairs of tokens are nearly orthogonal (|cos| < {orthogonal:g}), {often} chance gives: {rates} ({of})."
    result.findings.append(Finding(sentence, near["value"], near["n"], near["unit"], near["low"], near["high"]))
    result.claims.append(Claim("some_orthogonal", near["value"] > 0, sentence))


def _figure(mean_NN: np.ndarray, tasks: np.ndarray) -> str:
    order = np.argsort(pd.factorize(tasks)[0], kind="stable")
    starts = [int(np.flatnonzero(tasks[order] == task)[0]) for task in order_of_appearance(tasks)]
    ends = [*starts[1:], len(tasks)]
    with panels(width=5.2, height=4.4) as (figure, axes):
        axis = axes[0, 0]
        shown = axis.pcolormesh(mean_NN[np.ix_(order, order)], vmin=-1, vmax=1, cmap="RdBu_r")
        axis.invert_yaxis()
        axis.grid(False)
        for start in starts[1:]:
            axis.axhline(start, color="black", linewidth=0.7)
            axis.axvline(start, color="black", linewidth=0.7)
        middles = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
        axis.set(xticks=middles, yticks=middles, aspect="equal")
        axis.set_xticklabels(order_of_appearance(tasks), rotation=30, ha="right")
        axis.set_yticklabels(order_of_appearance(tasks))
        figure.colorbar(shown, ax=axis, label="cosine, mean over positions")
        return svg(figure)
