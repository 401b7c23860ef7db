"""Whose neighbours are prompt tokens? Cosine neighbourhoods among prompts and vocabulary, Table 3, nearest tokens.

By the convention `paper`, as study 3 counted: a token is its own neighbour, tokens of one prompt are neighbours of each
other, the init words stand in the vocabulary twice and in the random sample besides, and a mean of nearest distances
leaves out the tokens without a neighbour. `corrected`: none of that.

GPT-2's cosine distances are GPT-2's: within .7 a token of another model has next to no neighbours, or thousands. So the
counts are also given at the model's own radius, within which random vocabulary tokens have as many neighbours as there.

Shapes: N runs, P prompt tokens of a run, K = N * P, S sampled vocabulary tokens, E radii, J leave-outs, L tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from promptgeo.analysis.crossed import Error, LeaveOuts
from promptgeo.analysis.deciding import LEVEL, learned, tested
from promptgeo.analysis.figures import COLOURS, NEUTRAL, lines_behind, panels, svg
from promptgeo.analysis.geometry.how_far import NO_P0, OTHER, Control, Moved, cell_orders, least_p, too_few
from promptgeo.analysis.geometry.pair_counts import PairCounts, count_pairs, equal_label_null, near_between
from promptgeo.analysis.geometry.task_table import (
    GEOGRAPHY,
    Rows,
    own_margin,
    pair_margin,
    pairs_by_task,
    task_claims,
)
from promptgeo.analysis.geometry.tokens import Tokens, order_of_appearance, require_runs, tokens
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.geometry.word_counts import WordCounts, count_words
from promptgeo.analysis.question import Convention, Of, question
from promptgeo.analysis.resampling import pair_means, percentile_interval, permutation_p
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

TABLE_3 = (0.5, 0.7)
"""Radii of study 3's Table 3: its code has 0.5, its caption says 0.7."""
TABLE_3_SHARE = 5 / 7
"""Table 3's radius in that of the neighbourhoods: of the model's own radius, too."""
NEAREST_WORD = 0.53
"""Study 3's mean distance of a prompt token to the nearest word, those without one within 0.7 left out."""
NEAREST_MARGIN = 0.05
"""A mean that certainly lies within so much of the study's is called the same."""
FEW_WORDS = 0.5
"""The study says that few of the neighbours are words: less than half."""
EXCHANGED = {
    "init": "whole cells exchange inits within a task",
    "task": "whole cells exchange tasks within an init",
    "position": "positions are exchanged within runs",
}
"""What the permutations of each factor do."""


@question(
    of=True,
    convention=True,
    vocabulary=True,
    claims=("each_task_nearest_itself", "only_geography_mutual", "prompts_have_neighbours", "nearest_word"),
)
def neighbours(
    runs: RunTable,
    *,
    of: Of = Of.prompt,
    convention: Convention = Convention.corrected,
    vocabulary: Vocabulary | None = None,
    epsilons: Sequence[float] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    epsilon: float = 0.7,
    own_radius: bool = False,
    sample: int = 100,
    permutations: int = 999,
    seed: int = 0,
) -> Result:
    """Numbers `neighbours.*`, `nearest.*` and `table3.*`.

    Tables `epsilon_sweep`, `table3` and `prompt_tokens` (one row per prompt token). A neighbour lies closer than
    epsilon in cosine distance. Intervals: 95 %, over inits and tasks (crossed.py). p: labels of whole cells permuted
    (inits within a task, tasks within an init), positions within each run.

    `.same_task.how_far`: the share of neighbours with another init that have the same task, where tasks only differ in
    how far they move their prompts (how_far.py); the finding says "more often" only beyond it. `own_radius.*`: counts
    at the model's own radius. `at_p0.*`: counts around the tokens of P0. `nearest.*.within`: means without the tokens
    that have none within epsilon, as `paper` takes all of them.

    Args:
        epsilons: radii of the sweep, cosine distances.
        epsilon: the radius of the numbers, and the one beyond which `paper` leaves out nearest distances.
        own_radius: the model's own radius in place of epsilon, and 5/7 of it and itself in place of Table 3's.
        sample: random vocabulary tokens to compare with.
        permutations: for each p.
        seed: of the sample and the permutations.

    Raises UserError for fewer than 3 runs, a vector of length 0, or a vocabulary of another width.
    """
    # Long because its numbers and options are named here.
    require_runs(runs, 3, "neighbours")
    if sample < 2 or permutations < 1:
        raise UserError(
            f"neighbours: sample={sample}, permutations={permutations}: "
            "at least 2 sampled tokens and 1 permutation are needed"
        )
    own = None if vocabulary is None else vocabulary.own_radius()
    radii, epsilon, table_radii = _radii(epsilons, epsilon, own, own_radius)
    points = tokens(runs, of)
    within = convention == Convention.paper
    pairs = count_pairs(points, radii, epsilon, within_runs=within, permutations=permutations, seed=seed)
    seen = _Seen(runs, points, pairs, convention, Moved.of(runs, of), table_radii, permutations, seed)
    result = Result()
    _among_prompts(result, seen)
    _tasks(result, seen)
    words = None
    if of == Of.prompt and vocabulary is not None:
        words = count_words(runs, vocabulary, points, radii, sample, seed, convention, seen.initial_Kd)
    _nearby_words(result, seen, words, own, of)
    sweep = _sweep(words, seen)
    result.tables["epsilon_sweep"] = sweep
    result.figures["epsilon_sweep"] = _sweep_figure(sweep, _sweep_behind(words, seen), epsilon, of)
    result.tables["prompt_tokens"] = _token_table(points, pairs, words)
    return result


def _radii(
    epsilons: Sequence[float], epsilon: float, own: float | None, own_radius: bool
) -> tuple[tuple[float, ...], float, tuple[float, float]]:
    """(all radii in order, the one of the numbers, those of Table 3). own: the model's own radius; None: not known.

    Raises UserError for one that no cosine distance can have, or where the own radius is asked for and not known.
    """
    given = sorted({*map(float, epsilons), float(epsilon)})
    if not 0 < given[0] <= given[-1] <= 2:
        raise UserError(
            f"neighbours: epsilons={list(epsilons)}, epsilon={epsilon}: cosine distances lie between 0 and 2"
        )
    if own_radius and own is None:
        raise UserError("neighbours.own_radius=true: needs the frozen model's vocabulary")
    table_radii = TABLE_3
    if own_radius and own is not None:
        epsilon, table_radii = own, (TABLE_3_SHARE * own, own)
    radii = tuple(sorted({*given, epsilon, *table_radii, *([own] if own is not None else [])}))
    return radii, float(epsilon), table_radii


@dataclass(frozen=True)
class _Seen:
    """The runs, the pairs of their tokens that are counted, and how numbers of them are tested."""

    runs: RunTable
    points: Tokens
    pairs: PairCounts
    convention: Convention
    moved: Moved | None
    table_radii: tuple[float, ...]
    permutations: int
    seed: int

    @cached_property
    def left_out(self) -> LeaveOuts:
        """Of inits and tasks."""
        return LeaveOuts(self.runs.table["init"], self.runs.table["task"])

    @property
    def k(self) -> int:
        """Prompt tokens."""
        return len(self.points)

    @cached_property
    def other_init_NN(self) -> np.ndarray:
        """bool: pairs of runs with different inits."""
        inits_N = self.runs.table["init"].to_numpy()
        return inits_N[:, None] != inits_N

    @cached_property
    def initial_Kd(self) -> np.ndarray | None:
        """float32: the tokens of P0; None where it is not known, or deltas are looked at."""
        if self.moved is None or not self.moved.initial_NPd.any():
            return None
        return self.moved.initial_NPd.reshape(self.k, -1)

    def mean_of(
        self, values_K: np.ndarray, counted_K: np.ndarray | None = None, with_K: np.ndarray | None = None
    ) -> tuple[float, Error | None]:
        """(the mean of the tokens' values that count, its error).

        with_K: the run that each value also rests on, without which it is left out too; None: its own alone.
        """
        counted_K = np.ones(self.k, dtype=bool) if counted_K is None else counted_K
        own_K = np.repeat(np.arange(self.pairs.runs), self.pairs.length)
        place = (own_K, own_K if with_K is None else with_K)
        sums_NN, counts_NN = np.zeros((2, self.pairs.runs, self.pairs.runs))
        np.add.at(sums_NN, place, np.where(counted_K, values_K, 0.0))
        np.add.at(counts_NN, place, counted_K)
        sums_NN, counts_NN = sums_NN + sums_NN.T, counts_NN + counts_NN.T
        without_J = pair_means(self.left_out.weights_JN, sums_NN, counts_NN)
        return float(sums_NN.sum() / counts_NN.sum()), self.left_out.error(without_J, np.asarray(counts_NN.any(axis=1)))

    def mean_count(self, near_NN: np.ndarray) -> tuple[float, Error | None]:
        """(neighbours per prompt token, its error)."""
        value, without_J = self.pairs.mean_count(near_NN, self.left_out.weights_JN)
        return value, self.left_out.error(without_J)

    def counted(self, near_NN: np.ndarray) -> tuple[float, float | None, float | None]:
        """(neighbours per prompt token, its 95 % interval): a share of all pairs, and few of them may be near."""
        value, error = self.mean_count(near_NN)
        scale = self.pairs.scale
        if error is None or not scale:
            return value, None, None
        low, high = error._replace(standard=error.standard / scale).share_interval(value / scale)
        return value, low * scale, high * scale


def _at_least_0(value: float, error: Error | None) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of what is never negative."""
    if error is None:
        return None, None
    low, high = error.interval(value)
    return max(low, 0.0), high


def _of_sample(values_S: np.ndarray) -> tuple[float, Error]:
    """(the mean over vocabulary tokens, its error)."""
    count = len(values_S)
    spread = float(values_S.std(ddof=1)) if count > 1 else 0.0
    return float(values_S.mean()), Error(spread / np.sqrt(count), max(count - 1, 1), 0, count)


# Prompt tokens among themselves.


def _among_prompts(result: Result, seen: _Seen) -> None:
    """Numbers neighbours.prompts.prompts and, for init, task and position, .same_<factor> with its enrichment."""
    pairs, table = seen.pairs, seen.runs.table
    _mean_count(result, "neighbours.prompts.prompts", pairs.near_NN, seen)
    for factor, stratum in {"init": "task", "task": "init"}.items():
        labels_N = pd.factorize(table[factor])[0]
        if len(set(labels_N)) < 2:
            result.omissions.append(f"Neighbours with the same {factor}: these runs have one {factor} only.")
            continue
        same_NN = labels_N[:, None] == labels_N
        orders_BN = cell_orders(table, stratum, factor, seen.permutations, seen.seed)
        null_B = None if orders_BN is None else equal_label_null(pairs.near_NN, labels_N, orders_BN)
        same = _Same(factor, pairs.near_NN * same_NN, pairs.possible_NN * same_NN, null_B)
        _enrichment(result, same, seen)
    if pairs.length < 2:
        result.omissions.append("Neighbours at the same position: these prompts have one token only.")
    else:
        same = _Same("position", pairs.equal_NN, pairs.equal_possible_NN, pairs.equal_null_D)
        _enrichment(result, same, seen)
    if seen.initial_Kd is not None:
        initial_NPd = seen.initial_Kd.reshape(pairs.runs, pairs.length, -1)
        value, *bounds = seen.counted(near_between(initial_NPd, pairs.epsilon))
        result.number("neighbours.prompts.prompts.at_p0", value, seen.k, "tokens of P0", *bounds)


def _mean_count(result: Result, name: str, near_NN: np.ndarray, seen: _Seen) -> None:
    """Adds the number of neighbours per prompt token."""
    value, *bounds = seen.counted(near_NN)
    result.number(name, value, seen.k, "prompt tokens", *bounds)


@dataclass(frozen=True)
class _Same:
    """Pairs of prompt tokens with the same level of a factor."""

    factor: str
    near_NN: np.ndarray
    """float64: those that are neighbours."""
    possible_NN: np.ndarray
    """float64: all of them."""
    null_D: np.ndarray | None
    """Neighbours among them under permutations; None where nothing can be permuted."""


def _enrichment(result: Result, same: _Same, seen: _Seen) -> None:
    """How many neighbours share a factor's level, and their share of all neighbours beside what chance gives.

    Numbers: .share, .base_rate (their share of all pairs), .expected (their share under permutations), .enrichment
    (share / base rate), with a two-sided p by permutations; of the task .how_far.
    """
    name, pairs, left_out = f"neighbours.prompts.same_{same.factor}", seen.pairs, seen.left_out
    _mean_count(result, name, same.near_NN, seen)
    near, base = int(pairs.near_NN.sum()), same.possible_NN.sum() / pairs.possible_NN.sum()
    if not same.possible_NN.sum() or not near:
        why = "no two runs share it" if near else "no prompt token has a neighbour"
        result.omissions.append(f"Enrichment of neighbours with the same {same.factor}: {why}.")
        return
    p = None if same.null_D is None else permutation_p(float(same.near_NN.sum()), same.null_D, "two-sided")
    if p is not None and same.factor in OTHER:
        p = max(p, least_p(seen.runs.table, OTHER[same.factor], same.factor))
    shares_J = pair_means(left_out.weights_JN, same.near_NN, pairs.near_NN)
    bases_J = pair_means(left_out.weights_JN, same.possible_NN, pairs.possible_NN)
    ratios_J = np.divide(shares_J, bases_J, out=np.full(len(shares_J), np.nan), where=bases_J > 0)
    unit, of_all = "pairs of neighbours", int(pairs.possible_NN.sum())
    value = same.near_NN.sum() / near
    low, high = _share_interval(value, left_out.error(shares_J))
    share = result.number(f"{name}.share", value, near, unit, low, high, p)
    # Which pairs there are is known: no sampling error, so no width.
    base_rate = result.number(f"{name}.base_rate", base, of_all, "pairs of prompt tokens", base, base)
    low, high = _at_least_0(value / base, left_out.error(ratios_J))
    ratio = result.number(f"{name}.enrichment", value / base, near, unit, low, high, p)
    expected = None
    if same.null_D is not None:
        null_interval = percentile_interval(same.null_D / near)
        null_mean = same.null_D.mean() / near
        expected = result.number(f"{name}.expected", null_mean, len(same.null_D), "permutations", *null_interval)
    far = _how_far(result, name, seen, p) if same.factor == "task" else None
    result.findings.append(_enrichment_finding(same.factor, share, base_rate, ratio, expected, seen, far))


def _share_interval(share: float, error: Error | None) -> tuple[float, float] | tuple[None, None]:
    return (None, None) if error is None else error.share_interval(share)


def _how_far(result: Result, name: str, seen: _Seen, plain_p: float | None) -> bool | None:
    """Number <name>.how_far: whether the same task is commoner than how far tasks move makes it; None: not known."""
    same_NN = seen.runs.table["task"].to_numpy()[:, None] == seen.runs.table["task"].to_numpy()

    def share(near_NN: np.ndarray) -> float:
        """Of the neighbours with another init, those with the same task; their share of all pairs where none is."""
        of_NN = near_NN if near_NN[seen.other_init_NN].any() else np.ones(near_NN.shape)
        return float(of_NN[seen.other_init_NN & same_NN].sum() / of_NN[seen.other_init_NN].sum())

    if seen.moved is None or not (seen.other_init_NN & same_NN).any():
        return None
    epsilon = seen.pairs.epsilon
    drawn = seen.permutations, seen.seed
    control = seen.moved.control(lambda prompts: share(near_between(prompts, epsilon)), *drawn, plain_p)
    if control is None:
        return None
    result.number(f"{name}.how_far", *control.row)
    return control.beyond(share(seen.pairs.near_NN))


def _enrichment_finding(
    factor: str,
    share: Number,
    base_rate: Number,
    ratio: Number,
    expected: Number | None,
    seen: _Seen,
    beyond_how_far: bool | None,
) -> Finding:
    # Where one factor rules all neighbourhoods, the other's share leaves its base rate too: only the permutations keep
    # the first as it is. So the share is compared with what they give.
    how, by_permutations = "not detectably more or less often than by chance", ""
    if expected is not None and ratio.p is not None:
        few = too_few(seen.runs.table, OTHER[factor], factor) if factor in OTHER else ""
        if few:
            how = f"not testably more or less often than by chance ({few})"
        elif ratio.p < LEVEL:
            how = f"{'more' if share.value > expected.value else 'less'} often than by chance"
        by_permutations = f" against {expected.value:.1%} where {EXCHANGED[factor]}, p = {ratio.p:.3g}"
    if factor == "task":
        if how.startswith("more") and not beyond_how_far:
            how = "not detectably more often than how far tasks move makes it"
        by_permutations += f"; {NO_P0 if seen.moved is None else seen.moved.words}"
    between = "" if ratio.low is None else f" ({ratio.low:.2f} to {ratio.high:.2f})"
    return Finding.of(
        ratio,
        f"Neighbouring prompt tokens (cosine distance < {seen.pairs.epsilon:.3g}) have the same {factor} {how}: "
        f"{share.value:.1%} of them{by_permutations}; of all pairs {base_rate.value:.1%} do, {ratio.value:.2f} times "
        f"as many{between} (n = {ratio.n} pairs in {seen.pairs.runs} runs).",
    )


# Table 3.


def _tasks(result: Result, seen: _Seen) -> None:
    """Numbers table3.<epsilon>.<task>.<task>, table and finding, and the claims on them."""
    table, pairs = seen.runs.table, seen.pairs
    names, codes_N = order_of_appearance(table["task"]), pd.factorize(table["task"])[0]
    if len(names) < 2 or np.bincount(codes_N).min() < 2:
        result.omissions.append("Table 3 (neighbours task by task): needs at least 2 tasks with at least 2 runs each.")
        return
    onehot_NL = np.eye(len(names))[codes_N]
    _task_numbers(result, names, onehot_NL, seen)
    if len(names) < 3:
        result.omissions.append("Which tasks are mutual neighbours: needs at least 3 tasks.")
        return
    if not set(GEOGRAPHY) <= set(names):
        result.omissions.append(f"only_geography_mutual: {' and '.join(GEOGRAPHY)} are not both among these tasks.")
    radius = seen.table_radii[0]
    near_NN, possible_NN = pairs.near_ENN[pairs.radii.index(radius)], pairs.possible_NN
    paper = seen.convention == Convention.paper
    if not paper:
        if table["init"].nunique() < 2:
            result.omissions.append("Which tasks have their neighbours in themselves: needs at least 2 inits.")
            return
        # Two runs of a task share their init only where there are several seeds: pairs of other inits alone compare.
        near_NN, possible_NN = near_NN * seen.other_init_NN, possible_NN * seen.other_init_NN
    possible_LL = onehot_NL.T @ possible_NN @ onehot_NL
    if (possible_LL == 0).any():
        result.omissions.append("Which tasks have their neighbours in themselves: needs two inits of every two tasks.")
        return
    rates_LL = onehot_NL.T @ near_NN @ onehot_NL / possible_LL
    rows = Rows.over_inits(near_NN, possible_NN, onehot_NL, table["init"].to_numpy(), seen.seed)
    scale, unit = (possible_LL, "") if paper else (1000.0, ", neighbours per 1000 pairs of tokens with other inits")
    compared = pd.DataFrame(rates_LL * scale, names, names)
    control_p = (0.0, 0.0) if paper else _table_controls(names, onehot_NL, possible_LL, seen)
    at = f"at epsilon = {radius:.3g}{unit}"
    claims = task_claims(compared, rows, at, control_p, learned(table))
    result.claims += claims
    result.findings.append(_task_finding(compared, claims[0], int(possible_LL.sum()), seen))


def _table_controls(
    names: list[str], onehot_NL: np.ndarray, possible_LL: np.ndarray, seen: _Seen
) -> tuple[float, float]:
    """p of both claims against tasks that only move their prompts differently far; 1 where that cannot be told."""
    geography = [names.index(task) for task in GEOGRAPHY] if set(GEOGRAPHY) <= set(names) else None

    def margins(of_LL: np.ndarray) -> tuple[float, float]:
        return own_margin(of_LL), 0.0 if geography is None else pair_margin(of_LL, *geography)

    def of_prompts(prompts_NPd: np.ndarray) -> tuple[float, float]:
        near_NN = near_between(prompts_NPd, seen.table_radii[0]) * seen.other_init_NN
        return margins(onehot_NL.T @ near_NN @ onehot_NL / possible_LL)

    null_BS = None if seen.moved is None else seen.moved.null(of_prompts, seen.permutations, seen.seed)
    if seen.moved is None or null_BS is None:
        return 1.0, 1.0
    observed_S = of_prompts(seen.moved.prompts_NPd)
    own, pair = (Control.of(value, null_B).p for value, null_B in zip(observed_S, null_BS.T, strict=True))
    return own, pair


def _task_numbers(result: Result, names: list[str], onehot_NL: np.ndarray, seen: _Seen) -> None:
    """Numbers and table table3, with intervals over inits."""
    pairs, by_init = seen.pairs, LeaveOuts(seen.runs.table["init"])
    possible_LL = onehot_NL.T @ pairs.possible_NN @ onehot_NL
    possible_JLL = pairs_by_task(by_init.weights_JN, pairs.possible_NN, onehot_NL)
    rows = []
    for epsilon in seen.table_radii:
        near_NN = pairs.near_ENN[pairs.radii.index(epsilon)]
        counts_LL, counts_JLL = onehot_NL.T @ near_NN @ onehot_NL, pairs_by_task(by_init.weights_JN, near_NN, onehot_NL)
        with np.errstate(invalid="ignore"):  # without some init there are no such pairs
            shares_JLL = counts_JLL / possible_JLL
        for (i, task), (j, other) in ((a, b) for a in enumerate(names) for b in enumerate(names)):
            n, members_N = int(possible_LL[i, j]), np.asarray(onehot_NL[:, [i, j]].any(axis=1))
            low, high = _share_interval(counts_LL[i, j] / n, by_init.error(shares_JLL[:, i, j], members_N))
            bounds = (None, None) if low is None or high is None else (low * n, high * n)
            name = f"table3.{epsilon:.3g}.{task}.{other}"
            number = result.number(name, counts_LL[i, j], n, "pairs of prompt tokens", *bounds)
            row = {"epsilon": epsilon, "task": task, "neighbour_task": other, "count": int(number.value)}
            rows.append(row | {"low": number.low, "high": number.high, "pairs": n, "share": number.value / n})
    result.tables["table3"] = pd.DataFrame(rows)


def _task_finding(compared: pd.DataFrame, claim: Claim, cells: int, seen: _Seen) -> Finding:
    """What the claim says of all tasks, and the task that is the closest call. cells: pairs that the table rests on."""
    weakest = min(compared.index, key=lambda t: compared.loc[t, t] - compared.loc[t].drop(t).max())
    other = compared.loc[weakest].drop(weakest).idxmax()
    own, far = float(compared.loc[weakest, weakest]), float(compared.loc[weakest, other])
    start = {
        Outcome.holds: "Every task has most of its prompt neighbours in itself",
        Outcome.fails: "Not every task has most of its prompt neighbours in itself",
        Outcome.undecidable: "Whether every task has most of its prompt neighbours in itself is not decidable",
    }[claim.outcome]
    of = "" if seen.convention == Convention.paper else " of 1000 pairs of tokens with other inits"
    p = 1.0 if claim.p is None else claim.p
    sentence = (
        f"{start} (cosine distance < {seen.table_radii[0]:.3g}, p = {p:.3g}); the closest call is {weakest}: "
        f"{own:.4g}{of} are neighbours in itself, {far:.4g} in {other} "
        f"(n = {cells} pairs in {seen.pairs.runs} runs)."
    )
    return Finding(sentence, own - far, cells, "pairs of prompt tokens", p=p)


# The vocabulary.


def _nearby_words(result: Result, seen: _Seen, words: WordCounts | None, own: float | None, of: Of) -> None:
    """All numbers of the vocabulary's tokens; without these the one of `nearest` that needs none."""
    if words is not None:
        _around_words(result, seen, words)
        _at_own_radius(result, seen, words, own)
        _nearest(result, seen, words)
        return
    if of == Of.prompt:
        result.omissions.append("Neighbours among the vocabulary: no frozen model was given.")
    value, error = seen.mean_of(seen.pairs.nearest_K, with_K=seen.pairs.nearest_run_K)
    result.number("nearest.prompts.to_prompts", value, seen.k, "prompt tokens", *_at_least_0(value, error))


def _around_words(result: Result, seen: _Seen, words: WordCounts) -> None:
    """Numbers neighbours.vocabulary.* and neighbours.prompts.all, .words; the claim prompts_have_neighbours."""
    pairs, k = seen.pairs, seen.k
    e = pairs.radii.index(pairs.epsilon)
    around_S = words.sample_words_ES[e] + words.sample_prompts_ES[e]
    sampled = {"all": around_S, "words": words.sample_words_ES[e], "init_words": words.sample_inits_ES[e]}
    for name, counts_S in sampled.items():
        bounds = _at_least_0(*_of_sample(counts_S))
        result.number(f"neighbours.vocabulary.{name}", counts_S.mean(), len(counts_S), "vocabulary tokens", *bounds)
    prompts, prompts_J = pairs.mean_count(pairs.near_NN, seen.left_out.weights_JN)
    words_NP = words.prompt_words_EK[e].reshape(pairs.runs, -1).astype(float)
    words_J = seen.left_out.means(words_NP.mean(1), np.ones(pairs.runs))
    near_words = float(words_NP.mean())
    every, error = prompts + near_words, seen.left_out.error(prompts_J + words_J)
    bounds = _at_least_0(every, error)
    result.number("neighbours.prompts.all", every, k, "prompt tokens", *bounds)
    _mean_words(result, "neighbours.prompts.words", words.prompt_words_EK[e], seen)
    _mean_words(result, "neighbours.prompts.init_words", words.prompt_inits_EK[e], seen)
    if words.initial_words_EK is not None:
        _mean_words(result, "neighbours.prompts.words.at_p0", words.initial_words_EK[e], seen, "tokens of P0")
    if error is None:
        result.omissions.append("Whether prompt tokens have more neighbours than words: too few inits, tasks and runs.")
        return
    around, around_error = _of_sample(around_S)
    more, more_error = every - around, error.plus(around_error)
    more_low, more_high = more_error.interval(more)
    share = near_words / every if every else 0.0
    all_J = prompts_J + words_J
    shares_J = np.divide(words_J, all_J, out=np.zeros(len(all_J)), where=all_J > 0)
    share_error = seen.left_out.error(shares_J) or error
    (low, high), (share_low, share_high) = bounds, share_error.share_interval(share)
    how = "more" if more_low > 0 else "fewer" if more_high < 0 else "not detectably more or fewer"
    sentence = (
        f"A prompt token has {how} tokens within cosine distance {pairs.epsilon:.3g} than a vocabulary token: "
        f"{every:.2f} ({low:.2f} to {high:.2f}; n = {k} prompt tokens of {pairs.runs} runs) against "
        f"{around:.2f} (n = {len(around_S)} random tokens), "
        f"a difference of {more:.2f} ({more_low:.2f} to {more_high:.2f}); "
        f"{share:.0%} of a prompt token's neighbours are words ({share_low:.0%} to {share_high:.0%})."
    )
    result.findings.append(Finding(sentence, more, k, "prompt tokens", more_low, more_high))
    beyond_few, within_few = (share_error.greater_p(sign * (share - FEW_WORDS)) for sign in (1, -1))
    result.claims.append(
        tested(
            "prompts_have_neighbours",
            max(more_error.greater_p(more), within_few),
            min(2 * min(more_error.greater_p(-more), beyond_few), 1.0),
            sentence,
            premises=learned(seen.runs.table),
            needs="more inits and tasks",
            quantity="neighbours.prompts.all",
        )
    )


def _mean_words(result: Result, name: str, counts_K: np.ndarray, seen: _Seen, unit: str = "prompt tokens") -> None:
    """Adds the mean number of words around a token."""
    value, error = seen.mean_of(counts_K)
    result.number(name, value, seen.k, unit, *_at_least_0(value, error))


def _at_own_radius(result: Result, seen: _Seen, words: WordCounts, own: float | None) -> None:
    """Numbers own_radius and own_radius.*: the counts where this model's words have as many neighbours as GPT-2's."""
    if own is None:
        return
    e = seen.pairs.radii.index(own)
    result.number("own_radius", own, words.sample_words_ES.shape[1], "vocabulary tokens")
    value, error = _of_sample(words.sample_words_ES[e])
    bounds = _at_least_0(value, error)
    result.number("own_radius.vocabulary.words", value, words.sample_words_ES.shape[1], "vocabulary tokens", *bounds)
    _mean_count(result, "own_radius.prompts.prompts", seen.pairs.near_ENN[e], seen)
    _mean_words(result, "own_radius.prompts.words", words.prompt_words_EK[e], seen)
    if words.initial_words_EK is not None:
        _mean_words(result, "own_radius.prompts.words.at_p0", words.initial_words_EK[e], seen, "tokens of P0")


def _nearest(result: Result, seen: _Seen, words: WordCounts) -> None:
    """Numbers nearest.*: mean distance to the nearest token but itself; finding and claim on the nearest word.

    By the convention `paper`, tokens that have none within epsilon are left out of the means; by `corrected` out of
    those that end in .within.
    """
    epsilon = seen.pairs.epsilon
    paper = seen.convention == Convention.paper

    def mean(name: str, within: bool) -> tuple[Number, Error | None] | None:
        distances, of_prompts = quantities[name], name.startswith("nearest.prompts")
        counted = distances < epsilon if within else np.isfinite(distances)
        name, with_K = f"{name}.within" if within and not paper else name, rests.get(name)
        if not counted.any():
            result.omissions.append(
                f"{name}: no token has one within {epsilon:.3g}, so the censored mean has nothing to average."
            )
            return None
        value, error = seen.mean_of(distances, counted, with_K) if of_prompts else _of_sample(distances[counted])
        unit = f"{'prompt' if of_prompts else 'vocabulary'} tokens" + (f" with one within {epsilon:.3g}" * within)
        return result.number(name, value, int(counted.sum()), unit, *_at_least_0(value, error)), error

    quantities = {
        "nearest.vocabulary": np.minimum(words.sample_nearest_S, words.sample_nearest_prompt_S),
        "nearest.vocabulary.to_words": words.sample_nearest_S,
        "nearest.prompts": np.minimum(words.prompt_nearest_K, seen.pairs.nearest_K),
        "nearest.prompts.to_words": words.prompt_nearest_K,
        "nearest.prompts.to_prompts": seen.pairs.nearest_K,
    }
    # The nearest token may be a prompt's: without that run the distance is not known.
    own_K = np.repeat(np.arange(seen.pairs.runs), seen.pairs.length)
    to_word_K = words.prompt_nearest_K <= seen.pairs.nearest_K
    rests = {
        "nearest.prompts": np.where(to_word_K, own_K, seen.pairs.nearest_run_K),
        "nearest.prompts.to_prompts": seen.pairs.nearest_run_K,
    }
    published = {}
    for name in quantities:
        whole = mean(name, paper)
        published[name] = whole if paper else mean(name, True)
    alone_K = words.prompt_nearest_K >= epsilon
    low, high = _share_interval(*seen.mean_of(alone_K))
    ends = (None, None) if low is None or high is None else (low * seen.k, high * seen.k)
    alone = result.number("nearest.prompts.without_word", alone_K.sum(), seen.k, "prompt tokens", *ends)
    if (to_words := published["nearest.prompts.to_words"]) is not None:
        _nearest_word(result, seen, *to_words, alone)


def _nearest_word(result: Result, seen: _Seen, to_words: Number, error: Error | None, alone: Number) -> None:
    """Finding and claim: the mean over tokens with a word within epsilon, as the study has it, beside the study's."""
    if error is None or alone.low is None or alone.high is None:
        result.omissions.append("Where the nearest word of a prompt token lies: too few inits, tasks and runs.")
        return
    low, high = to_words.interval
    sentence = (
        f"The nearest word of a prompt token lies at cosine distance {to_words.value:.3f} ({low:.3f} to {high:.3f}; "
        f"n = {to_words.n} {to_words.unit}); {alone.value:.0f} of {alone.n} have none "
        f"({alone.low:.0f} to {alone.high:.0f})."
    )
    result.findings.append(Finding.of(to_words, sentence))
    less, more = (to_words.value - NEAREST_WORD + sign * NEAREST_MARGIN for sign in (1, -1))
    result.claims.append(
        tested(
            "nearest_word",
            max(error.greater_p(less), error.greater_p(-more)),
            min(error.greater_p(-less), error.greater_p(more)),
            f"{sentence} The study's is {NEAREST_WORD:g}, tokens without one left out likewise; "
            f"within {NEAREST_MARGIN:g} of it is the same.",
            premises=learned(seen.runs.table),
            needs="more inits and tasks",
            quantity=to_words.quantity,
        )
    )


# Tables and figures.


def _sweep(words: WordCounts | None, seen: _Seen) -> pd.DataFrame:
    """Mean counts of neighbours against epsilon, with 95 % intervals."""
    rows = []
    for e, radius in enumerate(seen.pairs.radii):
        rows.append(("prompt tokens", "prompts", radius, *seen.counted(seen.pairs.near_ENN[e]), seen.k))
        if words is None:
            continue
        value, error = seen.mean_of(words.prompt_words_EK[e])
        rows.append(("prompt tokens", "words", radius, value, *_at_least_0(value, error), seen.k))
        for name, counts_S in (("prompts", words.sample_prompts_ES[e]), ("words", words.sample_words_ES[e])):
            mean, spread = _of_sample(counts_S)
            rows.append(("vocabulary tokens", name, radius, mean, *_at_least_0(mean, spread), len(counts_S)))
    return pd.DataFrame(rows, columns=["around", "neighbours", "epsilon", "mean", "low", "high", "n"])


def _sweep_behind(words: WordCounts | None, seen: _Seen) -> dict[tuple[str, str], np.ndarray]:
    """By kind of token and of neighbours the counts at each radius [M, E], float64: of each run, or sampled token."""
    runs, length = seen.pairs.runs, seen.pairs.length
    behind = {("prompt tokens", "prompts"): seen.pairs.near_ENN.sum(2).T / length}
    if words is not None:
        behind["prompt tokens", "words"] = words.prompt_words_EK.reshape(-1, runs, length).mean(2).T
        behind["vocabulary tokens", "prompts"] = words.sample_prompts_ES.T.astype(np.float64)
        behind["vocabulary tokens", "words"] = words.sample_words_ES.T.astype(np.float64)
    return behind


def _sweep_figure(table: pd.DataFrame, behind: dict[tuple[str, str], np.ndarray], epsilon: float, of: Of) -> str:
    """A panel per kind of token around which neighbours are counted; the dotted line is the radius of the numbers."""
    centres = order_of_appearance(table["around"])
    with panels(1, len(centres), sharex=True, sharey=True, width=7.2 if len(centres) > 1 else 4.2) as (figure, axes):
        for axis, around in zip(axes[0], centres, strict=True):
            centre = table[table["around"] == around]
            for colour, (kind, part) in zip(COLOURS, centre.groupby("neighbours"), strict=False):
                radii = part["epsilon"]
                lines_behind(axis, [(radii, counts_E) for counts_E in behind[around, str(kind)]], color=colour)
                axis.plot(radii, part["mean"], color=colour, marker="o", markersize=3, linewidth=1.4, label=kind)
                axis.fill_between(
                    radii, part["low"].astype(float), part["high"].astype(float), color=colour, alpha=0.2, linewidth=0
                )
            axis.set_title(f"around {around} (n = {centre['n'].iloc[0]})", fontsize=9)
            axis.set_xlabel("radius epsilon, cosine distance")
            axis.axvline(epsilon, color=NEUTRAL, linewidth=0.8, linestyle=":")
        axes[0, 0].set_yscale("symlog", linthresh=1)
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("neighbours of a token, mean")
        axes[0, 0].legend(fontsize=8)
        whose = "" if of == Of.prompt else " of deltas"
        tokens = "" if len(centres) == 1 else " or sampled tokens"
        title = f"Mean count of neighbours{whose} by radius, with 95 % intervals; faint: single runs{tokens}"
        return svg(figure, title)


def _token_table(points: Tokens, pairs: PairCounts, words: WordCounts | None) -> pd.DataFrame:
    """One row per prompt token: its nearest prompt token and word, and how many words are neighbours."""
    table = points.table.assign(nearest_prompt=pairs.nearest_K)
    if words is None:
        return table
    return table.assign(
        words=words.prompt_words_EK[pairs.radii.index(pairs.epsilon)],
        nearest_word=words.prompt_nearest_K,
        nearest_word_token=words.prompt_nearest_token_K,
    )
