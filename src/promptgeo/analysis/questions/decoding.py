"""Can the task be decoded from a prompt, whatever init it started from? And the init, whatever the task?

Nearest class mean by cosine, trained on the runs of all other inits (or tasks): runs of one fold never train their own
classifier. What is exchanged to say what chance gives is whole cells: the runs of one init and task, all seeds
together, for they are alike and are decoded together.

Tables `decoded_<factor>` (a row per run) and `confusion_<factor>`, factor: task or init. Numbers
`decoding.<factor>.accuracy` with Clopper and Pearson's interval for its cells (_decode), and p, and
`decoding.<factor>.chance`: the mean accuracy and its 95 % range with the classes of cells permuted within folds.

Shapes: N runs, C cells, P prompt tokens, d width, L classes, B permutations, R training runs, H runs held out,
c columns.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL
from promptgeo.analysis.figures import panels, svg, write_cells
from promptgeo.analysis.geometry.tokens import order_of_appearance, require_levels, tokens
from promptgeo.analysis.geometry.variance import Inner, cells
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import (
    assignments,
    clopper_pearson,
    orders_within,
    percentile_interval,
    permutation_p,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.runs.table import RunTable

FOLD = {"task": "init", "init": "task"}
"""What is decoded, and whose levels are left out together."""
CHUNK = 2**22
"""Entries of an indicator matrix held at once: 32 MiB of float64."""


@question(of=True)
def decoding(runs: RunTable, *, of: Of = Of.prompt, permutations: int = 1000, seed: int = 0) -> Result:
    """How often the task and the init of a run are decoded from its prompt.

    A run is its P token vectors at length 1, one after another [P * d]. A run whose class no other fold has cannot be
    decoded and does not count. permutations: of the cells' classes within folds, for chance and p.

    Raises UserError for runs of fewer than two inits or tasks, of different shapes, or without P0 for deltas.
    """
    require_levels(runs, {"init": 2, "task": 2}, "decoding")
    points = tokens(runs, of)
    gram_NN = Inner.of(points.unit_Kd.reshape(len(runs), -1, points.vectors_Kd.shape[1])).equal_NN
    result = Result()
    for factor, fold in FOLD.items():
        classes = _Classes.of(runs, factor, fold)
        if _decodable(classes, result):
            _decode(classes, gram_NN, of, permutations, seed, result)
    return result


@dataclass(frozen=True)
class _Classes:
    """What is decoded, across which folds."""

    table: pd.DataFrame
    factor: str
    fold: str
    names: list
    """Of the L classes."""
    codes_N: np.ndarray
    """int64: the class of each run."""
    folds_N: np.ndarray
    """int64: its fold."""
    shared_N: np.ndarray
    """bool: whether another fold has its class too."""
    cell_N: np.ndarray
    """int64: its cell, class and fold together."""

    @classmethod
    def of(cls, runs: RunTable, factor: str, fold: str) -> "_Classes":
        column = runs.table[factor]
        folds = runs.table.groupby(factor, sort=False)[fold].nunique()
        codes_N, folds_N = pd.factorize(column)[0], pd.factorize(runs.table[fold])[0]
        names, shared_N = order_of_appearance(column), column.map(folds).to_numpy() > 1
        return cls(runs.table, factor, fold, names, codes_N, folds_N, shared_N, cells(codes_N, folds_N))

    @property
    def first_C(self) -> np.ndarray:
        """int64: the first run of each cell."""
        return np.unique(self.cell_N, return_index=True)[1]

    @property
    def ways(self) -> float:
        """In how many ways the cells can be grouped by their class, permuted within folds."""
        return assignments(self.codes_N[self.first_C], self.folds_N[self.first_C])

    @property
    def testable(self) -> bool:
        return self.ways * LEVEL >= 1

    def permuted_BN(self, permutations: int, seed: int) -> np.ndarray:
        """int64: the classes with whole cells exchanged within folds."""
        first_C = self.first_C
        return self.codes_N[first_C][orders_within(self.folds_N[first_C], permutations, seed)][:, self.cell_N]


def _decodable(classes: _Classes, result: Result) -> bool:
    """Whether there is anything to decode and to permute; the omissions say what there is not."""
    factor, fold = classes.factor, classes.fold
    ways = classes.ways
    if not classes.shared_N.any() or ways < 1.5:  # 1 way, but for rounding
        result.omissions.append(
            f"The {factor} cannot be decoded from other {fold}s' runs: "
            f"no {factor} has runs of two {fold}s, or no {fold} of two {factor}s."
        )
        return False
    if not classes.testable:
        result.omissions.append(
            f"Too few cells of init and task to test the decoded {factor}: permuted within each {fold} they can be "
            f"grouped in {ways:.0f} ways, so no p is below {1 / ways:.2g}; more {fold}s or {factor}s would do, more "
            "seeds would not."
        )
    if not classes.shared_N.all():
        count = int((~classes.shared_N).sum())
        result.omissions.append(
            f"{factor.capitalize()}s that no other {fold} was trained on cannot be decoded; runs that do not count for "
            f"it: {count}."
        )
    return True


def nearest_means(gram_NN: np.ndarray, codes_BN: np.ndarray, folds_N: np.ndarray) -> np.ndarray:
    """[B, N] int64: the class whose mean over the other folds is nearest to a run by cosine.

    A class that only the run's own fold has is never chosen; of equal cosines the first is.

    gram_NN: inner products of the runs' vectors. codes_BN: assignments of classes. folds_N: what is left out together.
    """
    n, levels = len(gram_NN), int(codes_BN.max()) + 1
    nearest_BN = np.empty(codes_BN.shape, dtype=np.int64)
    size = max(CHUNK // (n * levels), 1)
    for start in range(0, len(codes_BN), size):
        z_NBL = (codes_BN[start : start + size].T[..., None] == np.arange(levels)).astype(np.float64)
        for fold in np.unique(folds_N):
            rest_N, held_N = folds_N != fold, folds_N == fold
            z_Rc = z_NBL[rest_N].reshape(int(rest_N.sum()), -1)
            squares_c = np.einsum("rc,rc->c", gram_NN[np.ix_(rest_N, rest_N)] @ z_Rc, z_Rc)
            lengths_c = np.sqrt(np.maximum(squares_c, 1e-300))  # an absent class divides 0 by it, and is left out below
            scores_Hc = np.where(z_Rc.any(0), gram_NN[np.ix_(held_N, rest_N)] @ z_Rc / lengths_c, -np.inf)
            nearest_BN[start : start + size, held_N] = scores_Hc.reshape(int(held_N.sum()), -1, levels).argmax(2).T
    return nearest_BN


def _decode(classes: _Classes, gram_NN: np.ndarray, of: Of, permutations: int, seed: int, result: Result) -> None:
    factor, codes_N, folds_N, counts_N = classes.factor, classes.codes_N, classes.folds_N, classes.shared_N
    decoded_N = nearest_means(gram_NN, codes_N[None], folds_N)[0]
    n, right = int(counts_N.sum()), int((decoded_N == codes_N)[counts_N].sum())
    permuted_BN = classes.permuted_BN(permutations, seed)
    # A class that one fold alone has stays in it when permuted, but its cell may have another number of runs.
    shared_L = np.bincount(codes_N, counts_N, len(classes.names)) > 0
    null_B = (nearest_means(gram_NN, permuted_BN, folds_N) == permuted_BN).sum(1) / shared_L[permuted_BN].sum(1)
    p = max(permutation_p(right / n, null_B), 1.0 / classes.ways)
    cells_tried, levels = len(np.unique(classes.cell_N[counts_N])), len(np.unique(codes_N[counts_N]))
    # A cell's runs are alike: all of them are one try. Of L classes in a fold one follows from the others: of two, as
    # good as always.
    tries = max(round(cells_tried * (levels - 1) / levels), 1)
    interval = clopper_pearson(right / n * tries, tries)
    accuracy = result.number(f"decoding.{factor}.accuracy", right / n, n, "runs", *interval, p)
    by_chance = percentile_interval(null_B)
    chance = result.number(f"decoding.{factor}.chance", float(null_B.mean()), n, "runs", *by_chance)
    confusion_LL = np.zeros((len(classes.names), len(classes.names)), dtype=int)
    np.add.at(confusion_LL, (codes_N[counts_N], decoded_N[counts_N]), 1)
    _add_tables(classes, decoded_N, confusion_LL, result)
    whose = "prompts" if of == Of.prompt else "deltas"
    how_well = f"{accuracy.value:.0%} right, by chance {chance.value:.0%}"
    title = f"The {factor} of runs, and that decoded from their {whose}: {how_well}"
    result.figures[f"confusion_{factor}"] = _figure(confusion_LL, classes.names, factor, title)
    result.findings.append(_finding(classes, accuracy, chance, p, cells_tried, of))


def _add_tables(classes: _Classes, decoded_N: np.ndarray, confusion_LL: np.ndarray, result: Result) -> None:
    factor, names = classes.factor, classes.names
    result.tables[f"decoded_{factor}"] = pd.DataFrame(
        {
            "task": classes.table["task"],
            "init": classes.table["init"],
            "decoded": [names[k] for k in decoded_N],
            "right": decoded_N == classes.codes_N,
            "counts": classes.shared_N,
        }
    )
    result.tables[f"confusion_{factor}"] = pd.DataFrame(
        [
            {factor: true, "decoded": decoded, "runs": int(confusion_LL[i, j])}
            for i, true in enumerate(names)
            for j, decoded in enumerate(names)
        ]
    )


def _finding(classes: _Classes, accuracy: Number, chance: Number, p: float, tries: int, of: Of) -> Finding:
    (low, high), (chance_low, chance_high) = accuracy.interval, chance.interval
    source = "what training added (P - P0)" if of == Of.delta else "the trained prompt"
    classifier, what = f"a classifier trained on other {classes.fold}s", f"the {classes.factor} from {source}"
    if not classes.testable:
        verdict = f"Too few cells to test whether {classifier} decodes {what} more often than chance"
    elif p < LEVEL:
        verdict = f"A{classifier[1:]} decodes {what} more often than chance"
    else:
        verdict = f"A{classifier[1:]} does not decode {what} detectably more often than chance"
    return Finding.of(
        accuracy,
        f"{verdict} ({accuracy.value:.1%} of n = {accuracy.n} runs in {tries} cells ({low:.1%} to {high:.1%}), "
        f"by chance {chance.value:.1%} ({chance_low:.1%} to {chance_high:.1%})"
        f"{f', p = {p:.2g}' if classes.testable else ''}).",
    )


def _figure(confusion_LL: np.ndarray, names: list, factor: str, title: str) -> str:
    """How many runs of each class were decoded as which."""
    shares_LL = confusion_LL / np.maximum(confusion_LL.sum(1, keepdims=True), 1)
    side = max(2.8, 1.6 + 0.38 * len(names))  # inches: room for each class's name
    with panels(width=side + 1.2, height=side) as (figure, axes):
        axis = axes[0, 0]
        axis.imshow(shares_LL, cmap="Blues", vmin=0, vmax=1)
        counts_LL = np.where(confusion_LL, confusion_LL, np.nan)
        write_cells(axis, counts_LL, ".0f", shares_LL > 0.6, at=0.0)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axis.set_yticks(range(len(names)), names)
        axis.grid(False)
        axis.set_xlabel(f"decoded {factor}")
        axis.set_ylabel(f"true {factor}")
        return svg(figure, title)
