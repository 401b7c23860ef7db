"""Does a prompt tell which task it was trained on, whatever init it started from? And which init, whatever the task?

Nearest class mean by cosine, trained on the runs of all other inits (or tasks). Runs of one fold never train their own classifier.

Shapes: N runs, P prompt tokens, d width, L classes, B permutations.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import panels, svg
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.stats import permutation_p, wilson
from promptgeo.analysis.variance import Inner, assignments, orders_within
from promptgeo.analysis.vectors import Of, order_of_appearance, require_levels, tokens
from promptgeo.run_table import RunTable

LEVEL = 0.05
OTHER = {"task": "init", "init": "task"}
CHUNK = 2**22
"""Entries of an indicator matrix held at once."""


def decoding(runs: RunTable, *, of: Of = Of.prompt, permutations: int = 1000, seed: int = 0) -> Result:
    """Tables `decoded_<what>` (a row per run) and `confusion_<what>`, what: task or init. Numbers `decoding.<what>.accuracy` with Wilson's
    interval and p, and `decoding.<what>.chance`: the mean accuracy and 95 % range with the classes permuted within folds.

    A run is its P token vectors at length 1, one after another [P * d]. A run whose class no other fold has cannot be decoded and does
    not count. Raises UserError for runs of fewer than two inits or tasks, of different shapes, or without P0 for deltas.
    """
    require_levels(runs, {"init": 2, "task": 2}, "decoding")
    points = tokens(runs, of)
    gram_NN = Inner.of(points.unit_Kd.reshape(len(runs), -1, points.vectors_Kd.shape[1])).equal_NN
    result = Result()
    for what, fold in OTHER.items():
        _decode(what, fold, gram_NN, runs, of, permutations, seed, result)
    return result


def nearest_means(gram_NN: np.ndarray, codes_BN: np.ndarray, folds_N: np.ndarray) -> np.ndarray:
    """[B, N] int64: the class whose mean over the other folds is nearest to a run by cosine, for each assignment of classes.

    gram_NN: inner products of the runs' vectors. A class that only the run's own fold has is never chosen; with equal cosines the first is.
    """
    n, levels = len(gram_NN), int(codes_BN.max()) + 1
    found_BN = np.empty(codes_BN.shape, dtype=np.int64)
    size = max(CHUNK // (n * levels), 1)
    for start in range(0, len(codes_BN), size):
        z_NBL = (codes_BN[start : start + size].T[..., None] == np.arange(levels)).astype(np.float64)
        for fold in np.unique(folds_N):
            rest, held = folds_N != fold, folds_N == fold
            z_Rc = z_NBL[rest].reshape(int(rest.sum()), -1)
            squares_c = np.einsum("rc,rc->c", gram_NN[np.ix_(rest, rest)] @ z_Rc, z_Rc)
            lengths_c = np.sqrt(np.maximum(squares_c, 1e-300))
            scores_Hc = np.where(z_Rc.any(0), gram_NN[np.ix_(held, rest)] @ z_Rc / lengths_c, -np.inf)
            found_BN[start : start + size, held] = scores_Hc.reshape(int(held.sum()), -1, levels).argmax(2).T
    return found_BN


def _decode(what: str, fold: str, gram_NN: np.ndarray, runs: RunTable, of: Of, permutations: int, seed: int, result: Result) -> None:
    names = order_of_appearance(runs.table[what])
    codes_N, folds_N = pd.factorize(runs.table[what])[0], pd.factorize(runs.table[fold])[0]
    folds_of = runs.table.groupby(what, sort=False)[fold].nunique()
    able_N = runs.table[what].map(folds_of).to_numpy() > 1
    ways = assignments(codes_N, folds_N)
    if not able_N.any() or ways < 1.5:
        result.omissions.append(f"The {what} cannot be decoded from other {fold}s' runs: no {what} has runs of two {fold}s, or no {fold} of two {what}s.")
        return
    if ways * LEVEL < 1:
        result.omissions.append(f"Too few runs to test the decoded {what}: permuted within each {fold} they can be grouped in {ways:.0f} ways, so no p is below {1 / ways:.2g}.")
    if not able_N.all():
        result.omissions.append(f"{int((~able_N).sum())} runs have a {what} that no other {fold} was trained on: they cannot be decoded and do not count.")
    decoded_N = nearest_means(gram_NN, codes_N[None], folds_N)[0]
    right_N = decoded_N == codes_N
    n, right = int(able_N.sum()), int(right_N[able_N].sum())
    permuted_BN = codes_N[orders_within(folds_N, permutations, seed)]
    # A class that one fold alone has stays in it under these permutations, so that as many runs can be decoded each time.
    null_B = (nearest_means(gram_NN, permuted_BN, folds_N) == permuted_BN).sum(1) / n
    accuracy, chance = right / n, float(null_B.mean())
    (low, high), p = wilson(right, n), permutation_p(accuracy, null_B)
    chance_low, chance_high = (float(x) for x in np.percentile(null_B, [2.5, 97.5]))
    result.number(f"decoding.{what}.accuracy", accuracy, n, "runs", low, high, p)
    result.number(f"decoding.{what}.chance", chance, n, "runs", chance_low, chance_high)
    result.tables[f"decoded_{what}"] = pd.DataFrame(
        {"task": runs.table["task"], "init": runs.table["init"], "decoded": [names[k] for k in decoded_N], "right": right_N, "counts": able_N}
    )
    confusion_LL = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(confusion_LL, (codes_N[able_N], decoded_N[able_N]), 1)
    result.tables[f"confusion_{what}"] = pd.DataFrame(
        [{what: a, "decoded": b, "runs": int(confusion_LL[i, j])} for i, a in enumerate(names) for j, b in enumerate(names)]
    )
    result.figures[f"confusion_{what}"] = _figure(confusion_LL, names, what, f"{accuracy:.0%} right; chance {chance:.0%}")
    source = "what training added (P - P0)" if of == Of.delta else "the trained prompt"
    numbers = f"{accuracy:.1%} of n = {n} runs ({low:.1%} to {high:.1%}), by chance {chance:.1%} ({chance_low:.1%} to {chance_high:.1%}), p = {p:.2g}"
    if p < LEVEL:
        sentence = f"A classifier trained on other {fold}s tells the {what} from {source} more often than chance"
    else:
        sentence = f"A classifier trained on other {fold}s does not tell the {what} from {source} detectably more often than chance"
    result.findings.append(Finding(f"{sentence} ({numbers}).", accuracy, n, "runs", low, high, p))


def _figure(confusion_LL: np.ndarray, names: list, what: str, title: str) -> str:
    shares_LL = confusion_LL / np.maximum(confusion_LL.sum(1, keepdims=True), 1)
    side = max(2.8, 1.6 + 0.38 * len(names))
    with panels(width=side + 1.2, height=side) as (figure, axes):
        axis = axes[0, 0]
        axis.imshow(shares_LL, cmap="Blues", vmin=0, vmax=1)
        for i, j in np.argwhere(confusion_LL):
            axis.text(j, i, str(confusion_LL[i, j]), ha="center", va="center", fontsize=8, color="white" if shares_LL[i, j] > 0.6 else "black")
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.grid(False)
        axis.set_xlabel(f"decoded {what}")
        axis.set_ylabel(what)
        axis.set_title(title, fontsize=9)
        return svg(figure)
