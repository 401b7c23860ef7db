"""Whose neighbours are prompt tokens? Cosine neighbourhoods among prompts and vocabulary, Table 3, nearest tokens.

By the convention `paper`, as study 3 counted: a token is its own neighbour, tokens of one prompt are neighbours of each
other, the init words stand in the vocabulary twice and in the random sample besides, and a mean of nearest distances
leaves out the tokens without a neighbour. `corrected`: none of that.

Shapes: N runs, P prompt tokens of a run, K = N * P, S sampled vocabulary tokens, E radii, B bootstrap draws, L tasks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.geometry.pair_counts import PairCounts, count_pairs, equal_label_null
from promptgeo.analysis.geometry.task_table import GEOGRAPHY, nearest_itself, pairs_by_task, task_claims
from promptgeo.analysis.geometry.tokens import Tokens, order_of_appearance, require_runs, tokens
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.geometry.word_counts import WordCounts, count_words
from promptgeo.analysis.question import Convention, Of, question
from promptgeo.analysis.resampling import (
    bootstrap_mean,
    drawn_means,
    pair_means,
    percentile_interval,
    permutation_p,
    run_weights,
    run_weights_within,
)
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

TABLE_3 = (0.5, 0.7)
"""Radii of study 3's Table 3: its code has 0.5, its caption says 0.7."""
NEAREST_WORD = 0.53
"""Study 3's mean distance of a prompt token to the nearest word."""
DRAWS = 1000
"""Bootstrap draws of runs."""
EXCHANGED = {
    "init": "runs exchange inits within a task",
    "task": "runs exchange tasks within an init",
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
    sample: int = 100,
    permutations: int = 999,
    seed: int = 0,
) -> Result:
    """Numbers `neighbours.*`, `nearest.*` and `table3.*`.

    Tables `epsilon_sweep`, `table3` and `prompt_tokens` (one row per prompt token). A neighbour lies closer than
    epsilon in cosine distance. Intervals: 95 %, whole runs drawn with replacement. p: labels of whole runs permuted
    (inits within a task, tasks within an init), positions within each run.

    Args:
        epsilons: radii of the sweep, cosine distances.
        epsilon: the radius of the numbers, and the one beyond which `paper` leaves out nearest distances.
        sample: random vocabulary tokens to compare with.
        permutations: for each p.
        seed: of the sample, the draws and the permutations.

    Raises UserError for fewer than 3 runs, a vector of length 0, or a vocabulary of another width.
    """
    require_runs(runs, 3, "neighbours")
    radii = _radii(epsilons, epsilon)
    if sample < 2 or permutations < 1:
        raise UserError(
            f"neighbours: sample={sample}, permutations={permutations}: "
            "at least 2 sampled tokens and 1 permutation are needed"
        )
    points = tokens(runs, of)
    paper = convention == Convention.paper
    pairs = count_pairs(points, radii, epsilon, within_runs=paper, permutations=permutations, seed=seed)
    weights_BN = run_weights(len(runs), DRAWS, seed)
    result, words = Result(), None
    _among_prompts(result, runs, pairs, weights_BN, permutations, seed)
    _tasks(result, runs, pairs, convention, seed)
    if of == Of.prompt and vocabulary is not None:
        words = count_words(runs, vocabulary, points, radii, sample, seed, convention)
        _around_words(result, words, pairs, weights_BN, seed)
        _nearest(result, words, pairs, points, convention, seed)
    else:
        if of == Of.prompt:
            result.omissions.append("Neighbours among the vocabulary: no frozen model was given.")
        nearest_K = pairs.nearest_K
        interval = bootstrap_mean(nearest_K, points.table["run"], seed=seed)
        result.number("nearest.prompts.to_prompts", nearest_K.mean(), len(nearest_K), "prompt tokens", *interval)
    sweep = _sweep(words, pairs, weights_BN, seed)
    result.tables["epsilon_sweep"] = sweep
    result.figures["epsilon_sweep"] = _sweep_figure(sweep, epsilon)
    result.tables["prompt_tokens"] = _token_table(points, pairs, words)
    return result


def _radii(epsilons: Sequence[float], epsilon: float) -> tuple[float, ...]:
    """All radii, in order. Raises UserError for one that no cosine distance can have."""
    radii = tuple(sorted({*map(float, epsilons), float(epsilon), *TABLE_3}))
    if not 0 < radii[0] <= radii[-1] <= 2:
        raise UserError(
            f"neighbours: epsilons={list(epsilons)}, epsilon={epsilon}: cosine distances lie between 0 and 2"
        )
    return radii


# Prompt tokens among themselves.


def _among_prompts(
    result: Result, runs: RunTable, pairs: PairCounts, weights_BN: np.ndarray, permutations: int, seed: int
) -> None:
    """Numbers neighbours.prompts.prompts and, for init, task and position, .same_<factor> with its enrichment."""
    _mean_count(result, "neighbours.prompts.prompts", pairs.near_NN, pairs, weights_BN)
    for factor, stratum in {"init": "task", "task": "init"}.items():
        labels_N, strata_N = (pd.factorize(runs.table[column])[0] for column in (factor, stratum))
        if len(set(labels_N)) < 2:
            result.omissions.append(f"Neighbours with the same {factor}: these runs have one {factor} only.")
            continue
        same_NN = labels_N[:, None] == labels_N
        null_D = equal_label_null(pairs.near_NN, labels_N, strata_N, permutations, seed)
        counts = _Same(factor, pairs.near_NN * same_NN, pairs.possible_NN * same_NN, null_D)
        _enrichment(result, counts, pairs, weights_BN)
    if pairs.length < 2:
        result.omissions.append("Neighbours at the same position: these prompts have one token only.")
    else:
        counts = _Same("position", pairs.equal_NN, pairs.equal_possible_NN, pairs.equal_null_D)
        _enrichment(result, counts, pairs, weights_BN)


def _mean_count(result: Result, name: str, near_NN: np.ndarray, pairs: PairCounts, weights_BN: np.ndarray) -> None:
    """Adds the number of neighbours per prompt token."""
    value, draws_B = pairs.mean_count(near_NN, weights_BN)
    result.number(name, value, pairs.runs * pairs.length, "prompt tokens", *percentile_interval(draws_B))


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


def _enrichment(result: Result, same: _Same, pairs: PairCounts, weights_BN: np.ndarray) -> None:
    """How many neighbours share a factor's level, and their share of all neighbours beside what chance gives.

    Numbers: .share, .base_rate (their share of all pairs), .expected (their share under permutations), .enrichment
    (share / base rate), with a two-sided p by permutations.
    """
    name, near_NN = f"neighbours.prompts.same_{same.factor}", pairs.near_NN
    _mean_count(result, name, same.near_NN, pairs, weights_BN)
    near, base = int(near_NN.sum()), same.possible_NN.sum() / pairs.possible_NN.sum()
    if not same.possible_NN.sum() or not near:
        why = "no two runs share it" if near else "no prompt token has a neighbour"
        result.omissions.append(f"Enrichment of neighbours with the same {same.factor}: {why}.")
        return
    p = None if same.null_D is None else permutation_p(float(same.near_NN.sum()), same.null_D, "two-sided")
    shares_B = pair_means(weights_BN, same.near_NN, near_NN)
    bases_B = pair_means(weights_BN, same.possible_NN, pairs.possible_NN)
    ratios_B = np.divide(shares_B, bases_B, out=np.full(len(shares_B), np.nan), where=bases_B > 0)
    unit, of_all = "pairs of neighbours", int(pairs.possible_NN.sum())
    value = same.near_NN.sum() / near
    share = result.number(f"{name}.share", value, near, unit, *percentile_interval(shares_B), p=p)
    base_interval = percentile_interval(bases_B)
    base_rate = result.number(f"{name}.base_rate", base, of_all, "pairs of prompt tokens", *base_interval)
    ratio = result.number(f"{name}.enrichment", value / base, near, unit, *percentile_interval(ratios_B), p=p)
    expected = None
    if same.null_D is not None:
        null_interval = percentile_interval(same.null_D / near)
        null_mean = same.null_D.mean() / near
        expected = result.number(f"{name}.expected", null_mean, len(same.null_D), "permutations", *null_interval)
    result.findings.append(_enrichment_finding(same.factor, share, base_rate, ratio, expected, pairs))


def _enrichment_finding(
    factor: str, share: Number, base_rate: Number, ratio: Number, expected: Number | None, pairs: PairCounts
) -> Finding:
    # Where one factor rules all neighbourhoods, the other's share leaves its base rate too: only the permutations keep
    # the first as it is. So the share is compared with what they give.
    how, by_permutations = "not detectably more or less often than by chance", ""
    if expected is not None and ratio.p is not None:
        if ratio.p < 0.05:
            how = f"{'more' if share.value > expected.value else 'less'} often than by chance"
        by_permutations = f"; {expected.value:.1%} where {EXCHANGED[factor]}, p = {ratio.p:.3g}"
    low, high = ratio.interval
    return Finding.of(
        ratio,
        f"Neighbouring prompt tokens (cosine distance < {pairs.epsilon:g}) have the same {factor} {how}: "
        f"{share.value:.1%} of them against {base_rate.value:.1%} of all pairs, {ratio.value:.2f} times as many "
        f"({low:.2f} to {high:.2f}){by_permutations} (n = {ratio.n} pairs in {pairs.runs} runs).",
    )


# Table 3.


def _tasks(result: Result, runs: RunTable, pairs: PairCounts, convention: Convention, seed: int) -> None:
    """Numbers table3.<epsilon>.<task>.<task>, table and finding, and the claims on them."""
    names = order_of_appearance(runs.table["task"])
    codes_N = pd.factorize(runs.table["task"])[0]
    if len(names) < 2 or np.bincount(codes_N).min() < 2:
        result.omissions.append("Table 3 (neighbours task by task): needs at least 2 tasks with at least 2 runs each.")
        return
    onehot_NL = np.eye(len(names))[codes_N]
    cells = _task_numbers(result, names, codes_N, onehot_NL, pairs, seed)
    if len(names) < 3:
        result.omissions.append("Which tasks are mutual neighbours: needs at least 3 tasks.")
        return
    if not set(GEOGRAPHY) <= set(names):
        result.omissions.append(f"only_geography_mutual: {' and '.join(GEOGRAPHY)} are not both among these tasks.")
    counts_LL = onehot_NL.T @ pairs.near_ENN[pairs.radii.index(TABLE_3[0])] @ onehot_NL
    if convention == Convention.paper:
        compared, unit = pd.DataFrame(counts_LL, names, names), ""
    else:
        # Without same-run pairs a task has fewer possible pairs with itself than with others: counts do not compare.
        possible_LL = onehot_NL.T @ pairs.possible_NN @ onehot_NL
        compared = pd.DataFrame(1000 * counts_LL / possible_LL, names, names)
        unit = ", neighbours per 1000 pairs, same-run pairs out"
    result.claims += task_claims(compared, TABLE_3[0], unit)
    result.findings.append(_task_finding(cells, compared, len(runs)))


def _task_numbers(
    result: Result, names: list[str], codes_N: np.ndarray, onehot_NL: np.ndarray, pairs: PairCounts, seed: int
) -> dict[tuple[float, str, str], Number]:
    """Numbers and table table3, runs drawn within their tasks; the numbers by radius, task and neighbours' task."""
    generator = np.random.default_rng(seed)
    groups = [np.flatnonzero(codes_N == code).tolist() for code in range(len(names))]
    weights_BN = run_weights_within(groups, pairs.runs, DRAWS, generator)
    possible_LL = onehot_NL.T @ pairs.possible_NN @ onehot_NL
    possible_BLL = pairs_by_task(weights_BN, pairs.possible_NN, onehot_NL)
    numbers, rows = {}, []
    for epsilon in TABLE_3:
        near_NN = pairs.near_ENN[pairs.radii.index(epsilon)]
        counts_LL, counts_BLL = onehot_NL.T @ near_NN @ onehot_NL, pairs_by_task(weights_BN, near_NN, onehot_NL)
        with np.errstate(invalid="ignore"):  # a draw without such pairs
            drawn_BLL = counts_BLL / possible_BLL * possible_LL
        for (i, task), (j, other) in ((a, b) for a in enumerate(names) for b in enumerate(names)):
            n, interval = int(possible_LL[i, j]), percentile_interval(drawn_BLL[:, i, j])
            name = f"table3.{epsilon:g}.{task}.{other}"
            number = result.number(name, counts_LL[i, j], n, "pairs of prompt tokens", *interval)
            numbers[epsilon, task, other] = number
            row = {"epsilon": epsilon, "task": task, "neighbour_task": other, "count": int(number.value)}
            rows.append(row | {"low": number.low, "high": number.high, "pairs": n, "share": number.value / n})
    result.tables["table3"] = pd.DataFrame(rows)
    return numbers


def _task_finding(cells: dict[tuple[float, str, str], Number], compared: pd.DataFrame, runs: int) -> Finding:
    """The task that is the closest call, or the first to fail."""
    itself = nearest_itself(compared)
    failing = [task for task, holds in itself.items() if not holds]
    weakest = min(compared.index, key=lambda t: compared.loc[t, t] - compared.loc[t].drop(t).max())
    other = compared.loc[weakest].drop(weakest).idxmax()
    own, far = cells[TABLE_3[0], weakest, weakest], cells[TABLE_3[0], weakest, other]
    if failing:
        start = (
            f"{len(failing)} of {len(itself)} tasks have no more prompt neighbours in themselves than in another task"
        )
    else:
        start = "Every task has most of its prompt neighbours in itself"

    def count(number: Number) -> str:
        low, high = number.interval
        return f"({low:.0f} to {high:.0f}; n = {number.n}"

    return Finding.of(
        own,
        f"{start} (cosine distance < {TABLE_3[0]:g}); "
        f"{'first of all' if failing else 'the closest call is'} {weakest}: "
        f"{own.value:.0f} in itself {count(own)} pairs), {far.value:.0f} in {other} {count(far)}), {runs} runs.",
    )


# The vocabulary.


def _around_words(result: Result, words: WordCounts, pairs: PairCounts, weights_BN: np.ndarray, seed: int) -> None:
    """Numbers neighbours.vocabulary.* and neighbours.prompts.all, .words; the claim prompts_have_neighbours."""
    e = pairs.radii.index(pairs.epsilon)
    s, k = words.sample_words_ES.shape[1], pairs.runs * pairs.length
    around_S = words.sample_words_ES[e] + words.sample_prompts_ES[e]
    for name, counts_S in {"all": around_S, "words": words.sample_words_ES[e]}.items():
        interval = bootstrap_mean(counts_S, seed=seed)
        result.number(f"neighbours.vocabulary.{name}", counts_S.mean(), s, "vocabulary tokens", *interval)
    prompts, prompts_B = pairs.mean_count(pairs.near_NN, weights_BN)
    words_B = weights_BN @ words.prompt_words_EK[e].reshape(pairs.runs, -1).mean(1) / pairs.runs
    near_words = float(words.prompt_words_EK[e].mean())
    low, high = percentile_interval(prompts_B + words_B)
    result.number("neighbours.prompts.all", prompts + near_words, k, "prompt tokens", low, high)
    result.number("neighbours.prompts.words", near_words, k, "prompt tokens", *percentile_interval(words_B))
    more = prompts + near_words - around_S.mean()
    # The sampled tokens are drawn apart from the runs, so by another seed.
    more_low, more_high = percentile_interval(prompts_B + words_B - drawn_means(around_S, DRAWS, seed + 1))
    share = near_words / (prompts + near_words) if prompts + near_words else 0.0
    how = "more" if more_low > 0 else "fewer" if more_high < 0 else "no more"
    sentence = (
        f"A prompt token has {how} tokens within cosine distance {pairs.epsilon:g} than a vocabulary token: "
        f"{prompts + near_words:.2f} ({low:.2f} to {high:.2f}; n = {k} prompt tokens of {pairs.runs} runs) against "
        f"{around_S.mean():.2f} (n = {s} random tokens), "
        f"a difference of {more:.2f} ({more_low:.2f} to {more_high:.2f}); "
        f"{share:.0%} of a prompt token's neighbours are words."
    )
    result.findings.append(Finding(sentence, more, k, "prompt tokens", more_low, more_high))
    # The study says that few of the neighbours are words: less than half.
    result.claims.append(Claim("prompts_have_neighbours", Outcome.of(bool(more_low > 0 and share < 0.5)), sentence))


def _nearest(
    result: Result, words: WordCounts, pairs: PairCounts, points: Tokens, convention: Convention, seed: int
) -> None:
    """Numbers nearest.*: mean distance to the nearest token but itself; finding and claim on the nearest word.

    By the convention `paper`, tokens that have none within epsilon are left out of the means.
    """
    run_K, epsilon = points.table["run"].to_numpy(), pairs.epsilon
    paper = convention == Convention.paper

    def mean(name: str, distances: np.ndarray, unit: str, run: np.ndarray | None = None) -> Number | None:
        counted = distances < epsilon if paper else np.isfinite(distances)
        if not counted.any():
            result.omissions.append(
                f"{name}: no token has one within {epsilon:g}, so the censored mean has nothing to average."
            )
            return None
        interval = bootstrap_mean(distances[counted], None if run is None else run[counted], seed=seed)
        return result.number(name, distances[counted].mean(), int(counted.sum()), unit, *interval)

    nearest_S = np.minimum(words.sample_nearest_S, words.sample_nearest_prompt_S)
    mean("nearest.vocabulary", nearest_S, "vocabulary tokens")
    mean("nearest.vocabulary.to_words", words.sample_nearest_S, "vocabulary tokens")
    mean("nearest.prompts", np.minimum(words.prompt_nearest_K, pairs.nearest_K), "prompt tokens", run_K)
    to_words = mean("nearest.prompts.to_words", words.prompt_nearest_K, "prompt tokens", run_K)
    mean("nearest.prompts.to_prompts", pairs.nearest_K, "prompt tokens", run_K)
    k, alone_K = len(points), words.prompt_nearest_K >= epsilon
    share_low, share_high = bootstrap_mean(alone_K, run_K, seed=seed)
    ends = share_low * k, share_high * k
    alone = result.number("nearest.prompts.without_word", alone_K.sum(), k, "prompt tokens", *ends)
    if to_words is None:
        return
    (low, high), (fewest, most) = to_words.interval, alone.interval
    over = f"n = {to_words.n} prompt tokens" + (f" that have one within {epsilon:g}" if paper else "")
    sentence = (
        f"The nearest word of a prompt token lies at cosine distance {to_words.value:.3f} ({low:.3f} to {high:.3f}; "
        f"{over}); {alone.value:.0f} of {k} have none within {epsilon:g} ({fewest:.0f} to {most:.0f})."
    )
    result.findings.append(Finding.of(to_words, sentence))
    result.claims.append(Claim("nearest_word", Outcome.of(low <= NEAREST_WORD <= high), sentence))


# Tables and figures.


def _sweep(words: WordCounts | None, pairs: PairCounts, weights_BN: np.ndarray, seed: int) -> pd.DataFrame:
    """Mean counts of neighbours against epsilon, with 95 % intervals."""
    rows = []
    for e, radius in enumerate(pairs.radii):
        value, draws_B = pairs.mean_count(pairs.near_ENN[e], weights_BN)
        k = pairs.runs * pairs.length
        rows.append(("prompt tokens", "prompts", radius, value, *percentile_interval(draws_B), k))
        if words is None:
            continue
        words_N = words.prompt_words_EK[e].reshape(pairs.runs, -1).mean(1)
        interval = percentile_interval(weights_BN @ words_N / pairs.runs)
        rows.append(("prompt tokens", "words", radius, words_N.mean(), *interval, k))
        for name, counts_S in (("prompts", words.sample_prompts_ES[e]), ("words", words.sample_words_ES[e])):
            interval = bootstrap_mean(counts_S, seed=seed)
            rows.append(("vocabulary tokens", name, radius, counts_S.mean(), *interval, len(counts_S)))
    return pd.DataFrame(rows, columns=["around", "neighbours", "epsilon", "mean", "low", "high", "n"])


def _sweep_figure(table: pd.DataFrame, epsilon: float) -> str:
    """A panel per kind of token around which neighbours are counted; the dotted line is the radius of the numbers."""
    centres = order_of_appearance(table["around"])
    with panels(1, len(centres), sharey=True, width=7.2 if len(centres) > 1 else 4.2) as (figure, axes):
        for axis, around in zip(axes[0], centres, strict=True):
            centre = table[table["around"] == around]
            for colour, (kind, part) in zip(COLOURS, centre.groupby("neighbours"), strict=False):
                radii = part["epsilon"]
                axis.plot(radii, part["mean"], color=colour, marker="o", markersize=3, linewidth=1.2, label=kind)
                axis.fill_between(radii, part["low"], part["high"], color=colour, alpha=0.2, linewidth=0)
            axis.set_title(f"around {around} (n = {centre['n'].iloc[0]})", fontsize=9)
            axis.set_xlabel("epsilon, cosine distance")
            axis.axvline(epsilon, color="#777777", linewidth=0.8, linestyle=":")
        axes[0, 0].set_yscale("symlog", linthresh=1)
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("neighbours, mean of a token")
        axes[0, 0].legend(fontsize=8)
        return svg(figure)


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
