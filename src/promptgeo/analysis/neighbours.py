"""Whose neighbours are prompt tokens? Cosine neighbourhoods among vocabulary and prompts, task x task counts, nearest tokens.

By the convention `paper`, as study 3 counted: a token is its own neighbour, tokens of one prompt are neighbours of each other, the
init words stand in the vocabulary twice and in the random sample besides, and a mean of nearest distances leaves out whoever has
no neighbour. `corrected`: none of that.

Shapes: N runs, P prompt tokens of a run, K = N * P, V vocabulary, S sampled vocabulary tokens, E radii, B bootstrap draws,
L levels (tasks, inits), d width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.stats import bootstrap_mean, permutation_p, permuted_within
from promptgeo.analysis.vectors import Convention, Of, Tokens, order_of_appearance, require_runs, tokens
from promptgeo.analysis.vocabulary import Vocabulary
from promptgeo.schema import InitKind
from promptgeo.errors import UserError
from promptgeo.runs import RunTable

TABLE_3 = (0.5, 0.7)
"""Study 3's Table 3: its caption says 0.7, its code 0.5."""
GEOGRAPHY = ("country_capital", "landmark_country")
BLOCK_BYTES = 2**26
DRAWS = 1000


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
    """Tables `epsilon_sweep`, `table3` and `prompt_tokens` (one row per prompt token), numbers `neighbours.*`, `nearest.*` and `table3.*`.

    epsilons: radii of the sweep. epsilon: the radius of the numbers, and where `paper` censors nearest distances.
    sample: random vocabulary tokens to compare with. A neighbour lies closer than epsilon in cosine distance.
    Intervals: 95 %, whole runs drawn with replacement. p: labels of whole runs permuted (inits within a task, tasks within an
    init), positions within each run. Raises UserError for fewer than 3 runs, a zero vector, or a vocabulary of another width.
    """
    require_runs(runs, 3, "neighbours")
    radii = _radii(epsilons, epsilon)
    if len(runs) < 3:
        raise UserError(f"neighbours: needs at least 3 runs; there are {len(runs)}")
    if sample < 2 or permutations < 1:
        raise UserError(f"neighbours: sample={sample}, permutations={permutations}: at least 2 sampled tokens and 1 permutation are needed")
    found = tokens(runs, of)
    pairs = _Pairs.of(found, radii, epsilon, permutations, seed, self_too=convention == Convention.paper)
    result = Result()
    same = _among_prompts(result, runs, found, pairs, permutations, seed)
    _tasks(result, runs, pairs, convention, seed)
    if of == Of.prompt and vocabulary is not None:
        words = _Words.of(runs, vocabulary, found, radii, epsilon, sample, seed, convention)
        _with_vocabulary(result, words, pairs, found, seed)
        _nearest(result, words, pairs, found, convention, seed)
    else:
        if of == Of.prompt:
            result.omissions.append("Neighbours among the vocabulary: no frozen model was given.")
        nearest = pairs.nearest_K
        result.number("nearest.prompts.to_prompts", nearest.mean(), len(nearest), "prompt tokens", *bootstrap_mean(nearest, found.table["run"], seed=seed))
        words = None
    _sweep(result, words, pairs, seed)
    result.tables["prompt_tokens"] = _token_table(found, pairs, words, same)
    return result


def _radii(epsilons: Sequence[float], epsilon: float) -> tuple[float, ...]:
    radii = tuple(sorted({*map(float, epsilons), float(epsilon), *TABLE_3}))
    if not 0 < radii[0] <= radii[-1] <= 2:
        raise UserError(f"neighbours: epsilons={list(epsilons)}, epsilon={epsilon}: cosine distances lie between 0 and 2")
    return radii


# Prompt tokens among themselves


@dataclass(frozen=True)
class _Pairs:
    """Neighbouring pairs of prompt tokens, counted by the runs they belong to.

    By the corrected convention the diagonals are 0: no token is a neighbour of its own run.
    """

    radii: tuple[float, ...]
    epsilon: float
    length: int
    near_ENN: np.ndarray
    """float64: pairs (token of one run, token of the other) closer than each radius."""
    possible_NN: np.ndarray
    equal_NN: np.ndarray
    """Pairs at equal position within `epsilon`."""
    equal_possible_NN: np.ndarray
    equal_null: np.ndarray
    """[permutations]: equal_NN's sum with positions permuted within each run."""
    nearest_K: np.ndarray
    """float64: distance to the nearest other prompt token that counts."""

    @classmethod
    def of(cls, found: Tokens, radii: tuple[float, ...], epsilon: float, permutations: int, seed: int, self_too: bool) -> "_Pairs":
        unit_Kd = found.unit_Kd.astype(np.float64)
        length = int(found.table["position"].max()) + 1
        count, n = len(found), len(found) // length
        labels_DK = np.random.default_rng(seed).permuted(np.tile(np.arange(length), (permutations * n, 1)), axis=1).reshape(permutations, count)
        near_ENN, equal_NN = np.zeros((len(radii), n, n)), np.zeros((n, n))
        null, nearest_K = np.zeros(permutations), np.empty(count)
        block = max(BLOCK_BYTES // (8 * count * length), 1) * length
        for start in range(0, count, block):
            rows = np.arange(start, min(start + block, count))
            own = rows[:, None] // length == np.arange(count) // length
            itself = rows[:, None] == np.arange(count)
            distances = np.clip(1.0 - unit_Kd[rows] @ unit_Kd.T, 0.0, 2.0)
            distances[itself] = 0.0
            if not self_too:
                distances[own] = np.inf
            nearest_K[rows] = np.where(itself, np.inf, distances).min(1)
            at = slice(start // length, start // length + len(rows) // length)
            for e, radius in enumerate(radii):
                near = (distances < radius).reshape(-1, length, n, length)
                near_ENN[e, at] = near.sum(axis=(1, 3))
                if radius == epsilon:
                    equal_NN[at] = np.einsum("apbp->ab", near.astype(np.float64))
                    null += _equal_labels(near.reshape(len(rows), count), rows, labels_DK, length)
        possible_NN, equal_possible_NN = np.full((n, n), float(length**2)), np.full((n, n), float(length))
        if not self_too:
            np.fill_diagonal(possible_NN, 0.0)
            np.fill_diagonal(equal_possible_NN, 0.0)
        return cls(radii, epsilon, length, near_ENN, possible_NN, equal_NN, equal_possible_NN, null, nearest_K)

    @property
    def near_NN(self) -> np.ndarray:
        return self.near_ENN[self.radii.index(self.epsilon)]

    @property
    def runs(self) -> int:
        return len(self.possible_NN)

    def mean_count(self, near_NN: np.ndarray, weights_BN: np.ndarray) -> tuple[float, np.ndarray]:
        """Neighbours per prompt token, and under each draw of runs: the drawn share of possible pairs, scaled to the observed number."""
        scale = self.possible_NN.sum() / (self.runs * self.length)
        return float(near_NN.sum() / self.possible_NN.sum() * scale), _ratio(weights_BN, near_NN, self.possible_NN) * scale


def _equal_labels(near_bK: np.ndarray, rows: np.ndarray, labels_DK: np.ndarray, levels: int) -> np.ndarray:
    """[D] float64: neighbouring pairs whose labels are equal, for D labellings at once."""
    near_bK = near_bK.astype(np.float32)
    size = max(BLOCK_BYTES // (4 * levels * near_bK.shape[1]), 1)
    sums = []
    for start in range(0, len(labels_DK), size):
        onehot_KDL = (labels_DK[start : start + size].T[:, :, None] == np.arange(levels)).astype(np.float32)
        flat = onehot_KDL.reshape(len(onehot_KDL), -1)
        agreeing = (near_bK @ flat) * flat[rows]
        sums.append(agreeing.reshape(len(rows), -1, levels).sum(axis=(0, 2), dtype=np.float64))
    return np.concatenate(sums)


def _drawn(groups_N: np.ndarray, seed: int) -> np.ndarray:
    """[B, N] float64: how often each run is drawn, with replacement among the runs of its group."""
    generator = np.random.default_rng(seed)
    weights_BN = np.zeros((DRAWS, len(groups_N)))
    for group in np.unique(groups_N):
        members = np.flatnonzero(groups_N == group)
        weights_BN[:, members] = generator.multinomial(len(members), np.full(len(members), 1 / len(members)), size=DRAWS)
    return weights_BN


def _total(weights_BN: np.ndarray, pairs_NN: np.ndarray) -> np.ndarray:
    """[B]: pairs under each draw. A run drawn a times and another drawn b times have a * b times their pairs; a run's pairs with itself count a times."""
    between_NN = pairs_NN - np.diag(np.diag(pairs_NN))
    return ((weights_BN @ between_NN) * weights_BN).sum(1) + weights_BN @ np.diag(pairs_NN)


def _ratio(weights_BN: np.ndarray, over_NN: np.ndarray, under_NN: np.ndarray) -> np.ndarray:
    """[B]: NaN where a draw has nothing to divide by."""
    over, under = _total(weights_BN, over_NN), _total(weights_BN, under_NN)
    return np.divide(over, under, out=np.full(len(over), np.nan), where=under > 0)


def _interval(draws_B: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(draws_B[np.isfinite(draws_B)], [2.5, 97.5])
    return float(low), float(high)


def _among_prompts(result: Result, runs: RunTable, found: Tokens, pairs: _Pairs, permutations: int, seed: int) -> dict[str, np.ndarray]:
    """Numbers neighbours.prompts.prompts and, for init, task and position, .same_<factor> with share, base rate and enrichment."""
    near_NN, k = pairs.near_NN, len(found)
    weights_BN = _drawn(np.zeros(pairs.runs), seed)
    value, draws = pairs.mean_count(near_NN, weights_BN)
    result.number("neighbours.prompts.prompts", value, k, "prompt tokens", *_interval(draws))
    same = {}
    strata = {"init": "task", "task": "init"}
    for factor, stratum in strata.items():
        labels_N = pd.factorize(runs.table[factor])[0]
        if len(set(labels_N)) < 2:
            result.omissions.append(f"Neighbours with the same {factor}: these runs have one {factor} only.")
            continue
        equal_NN = labels_N[:, None] == labels_N
        null = _label_null(near_NN, labels_N, pd.factorize(runs.table[stratum])[0], permutations, seed)
        _enrichment(result, factor, near_NN * equal_NN, pairs.possible_NN * equal_NN, pairs, weights_BN, null, k)
        same[factor] = labels_N
    if pairs.length < 2:
        result.omissions.append("Neighbours at the same position: these prompts have one token only.")
    else:
        _enrichment(result, "position", pairs.equal_NN, pairs.equal_possible_NN, pairs, weights_BN, pairs.equal_null, k)
    return same


def _label_null(near_NN: np.ndarray, labels_N: np.ndarray, strata_N: np.ndarray, permutations: int, seed: int) -> np.ndarray | None:
    """[permutations]: neighbouring pairs with equal labels when whole runs exchange labels within a stratum; None where none can."""
    generator = np.random.default_rng(seed)
    cells = pd.DataFrame({"stratum": strata_N, "label": labels_N}).groupby("stratum")["label"].nunique()
    if cells.max() < 2:
        return None
    null = np.empty(permutations)
    for draw in range(permutations):
        onehot_NL = np.eye(labels_N.max() + 1)[labels_N[permuted_within(strata_N, generator)]]
        null[draw] = (onehot_NL * (near_NN @ onehot_NL)).sum()
    return null


def _enrichment(
    result: Result, factor: str, same_NN: np.ndarray, possible_NN: np.ndarray, pairs: _Pairs, weights_BN: np.ndarray, null: np.ndarray | None, k: int
) -> None:
    """How many neighbours share a factor's level; their share of all neighbours, of all pairs (base rate) and under permutations (expected).

    enrichment: share / base rate. Its p is two-sided, by permutations.
    """
    name, near_NN = f"neighbours.prompts.same_{factor}", pairs.near_NN
    value, draws = pairs.mean_count(same_NN, weights_BN)
    result.number(name, value, k, "prompt tokens", *_interval(draws))
    pairs_found, base = int(near_NN.sum()), possible_NN.sum() / pairs.possible_NN.sum()
    if not possible_NN.sum() or not pairs_found:
        result.omissions.append(f"Enrichment of neighbours with the same {factor}: {'no prompt token has a neighbour' if not pairs_found else 'no two runs share it'}.")
        return
    p = None if null is None else permutation_p(float(same_NN.sum()), null, "two-sided")
    shares, bases = _ratio(weights_BN, same_NN, near_NN), _ratio(weights_BN, possible_NN, pairs.possible_NN)
    ratios = np.divide(shares, bases, out=np.full(len(shares), np.nan), where=bases > 0)
    share = same_NN.sum() / pairs_found
    low, high = _interval(ratios)
    result.number(f"{name}.share", share, pairs_found, "pairs of neighbours", *_interval(shares), p=p)
    result.number(f"{name}.base_rate", base, int(pairs.possible_NN.sum()), "pairs of prompt tokens", *_interval(bases))
    result.number(f"{name}.enrichment", share / base, pairs_found, "pairs of neighbours", low, high, p)
    # Where one factor rules all neighbourhoods, the other's share leaves its base rate too: only the permutations keep the first as it is.
    expected = base if null is None else null.mean() / pairs_found
    if null is not None:
        null_low, null_high = np.percentile(null / pairs_found, [2.5, 97.5])
        result.number(f"{name}.expected", expected, len(null), "permutations", null_low, null_high)
    apart = p is not None and p < 0.05
    how = "no more or less often than by chance, as far as can be told" if not apart else "more often than by chance" if share > expected else "less often than by chance"
    exchanged = {"init": "runs exchange inits within a task", "task": "runs exchange tasks within an init", "position": "positions are exchanged within runs"}[factor]
    shown = "" if p is None else f"; {expected:.1%} where {exchanged}, p = {p:.3g}"
    result.findings.append(
        Finding(
            f"Neighbouring prompt tokens (cosine distance < {pairs.epsilon:g}) have the same {factor} {how}: {share:.1%} of them against "
            f"{base:.1%} of all pairs, {share / base:.2f} times as many ({low:.2f} to {high:.2f}){shown} (n = {pairs_found} pairs in {pairs.runs} runs).",
            share / base, pairs_found, "pairs of neighbours", low, high, p,
        )
    )  # fmt: skip


# Table 3


def without_self(table: pd.DataFrame, tokens_per_task: int) -> pd.DataFrame:
    """A task x task table of neighbour counts without the self-matches on its diagonal, one for each of a task's prompt tokens."""
    return table - tokens_per_task * np.eye(len(table), dtype=int)


def nearest_itself(table: pd.DataFrame) -> dict[str, bool]:
    """For each task (row) of a neighbour table: does it have strictly more neighbours in itself than in any other task?"""
    return {task: bool(table.loc[task, task] > table.loc[task].drop(task).max()) for task in table.index}


def mutual_neighbours(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Pairs of different tasks of which each has most of its neighbours outside itself in the other; ties count, zeros do not."""
    first = {task: set(row[row == row.max()].index) if row.max() > 0 else set() for task, row in ((t, table.loc[t].drop(t)) for t in table.index)}
    names = list(table.index)
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :] if b in first[a] and a in first[b]]


def task_claims(table: pd.DataFrame, epsilon: float, unit: str = "") -> list[Claim]:
    """Study 3's two statements about its Table 3, from a task x task table: counts, or shares of the possible pairs.

    only_geography_mutual is left out where its tasks are not among these.
    """
    at = f"at epsilon = {epsilon:g}{unit}"
    itself = nearest_itself(table)
    failing = []
    for task in (t for t, holds in itself.items() if not holds):
        others = table.loc[task].drop(task)
        failing.append(f"{task} has {table.loc[task, task]:.4g} neighbours in itself and {others.max():.4g} in {others.idxmax()}")
    said = "; ".join(failing) if failing else "every task has most of its neighbours in itself"
    mutual = mutual_neighbours(table)
    named = ", ".join(f"{a} and {b} ({table.loc[a, b]:.4g})" for a, b in mutual) or "none"
    claims = [Claim("each_task_nearest_itself", not failing, f"{said} ({at}).")]
    if set(GEOGRAPHY) <= set(table.index):
        only = {frozenset(pair) for pair in mutual} == {frozenset(GEOGRAPHY)}
        claims.append(Claim("only_geography_mutual", only, f"Mutual neighbours {at}: {named}."))
    return claims


def _tasks(result: Result, runs: RunTable, pairs: _Pairs, convention: Convention, seed: int) -> None:
    names = order_of_appearance(runs.table["task"])
    codes_N = pd.factorize(runs.table["task"])[0]
    if len(names) < 2 or np.bincount(codes_N).min() < 2:
        result.omissions.append("Table 3 (neighbours task by task): needs at least 2 tasks with at least 2 runs each.")
        return
    onehot_NL = np.eye(len(names))[codes_N]
    weights_BN = _drawn(codes_N, seed)
    possible_LL, possible_BLL = onehot_NL.T @ pairs.possible_NN @ onehot_NL, _by_task(weights_BN, pairs.possible_NN, onehot_NL)
    rows, claimed = [], None
    for epsilon in TABLE_3:
        near_NN = pairs.near_ENN[pairs.radii.index(epsilon)]
        counts_LL, counts_BLL = onehot_NL.T @ near_NN @ onehot_NL, _by_task(weights_BN, near_NN, onehot_NL)
        with np.errstate(invalid="ignore"):
            drawn_BLL = counts_BLL / possible_BLL * possible_LL
        for i, row in enumerate(names):
            for j, column in enumerate(names):
                low, high = _interval(drawn_BLL[:, i, j])
                n = int(possible_LL[i, j])
                result.number(f"table3.{epsilon:g}.{row}.{column}", counts_LL[i, j], n, "pairs of prompt tokens", low, high)
                rows.append({"epsilon": epsilon, "task": row, "neighbour_task": column, "count": int(counts_LL[i, j]), "low": low, "high": high, "pairs": n, "share": counts_LL[i, j] / n})
        if epsilon == TABLE_3[0]:
            claimed = pd.DataFrame(counts_LL if convention == Convention.paper else 1000 * counts_LL / possible_LL, names, names)
    result.tables["table3"] = pd.DataFrame(rows)
    if len(names) < 3:
        result.omissions.append("Which tasks are mutual neighbours: needs at least 3 tasks.")
        return
    if not set(GEOGRAPHY) <= set(names):
        result.omissions.append(f"only_geography_mutual: {' and '.join(GEOGRAPHY)} are not both among these tasks.")
    # Without same-run pairs a task has fewer possible pairs with itself than with others: counts would not be comparable.
    unit = "" if convention == Convention.paper else ", neighbours per 1000 pairs, same-run pairs out"
    claims = task_claims(claimed, TABLE_3[0], unit)
    result.claims += claims
    _task_finding(result, rows, claimed, len(runs))


def _by_task(weights_BN: np.ndarray, pairs_NN: np.ndarray, onehot_NL: np.ndarray) -> np.ndarray:
    """[B, L, L]: pairs by the tasks of both runs under each draw, weighed as in _total."""
    between_NN = pairs_NN - np.diag(np.diag(pairs_NN))
    table_BLL = np.stack([(((weights_BN * onehot_N) @ between_NN) * weights_BN) @ onehot_NL for onehot_N in onehot_NL.T], axis=1)
    levels = np.arange(onehot_NL.shape[1])
    table_BLL[:, levels, levels] += (weights_BN * np.diag(pairs_NN)) @ onehot_NL
    return table_BLL


def _task_finding(result: Result, rows: list[dict], table: pd.DataFrame, n: int) -> None:
    itself = nearest_itself(table)
    failing = [task for task, holds in itself.items() if not holds]
    weakest = min(table.index, key=lambda task: table.loc[task, task] - table.loc[task].drop(task).max())
    other = table.loc[weakest].drop(weakest).idxmax()
    cell = {(r["task"], r["neighbour_task"]): r for r in rows if r["epsilon"] == TABLE_3[0]}
    own, far = cell[weakest, weakest], cell[weakest, other]
    start = "Every task has most of its prompt neighbours in itself" if not failing else f"{len(failing)} of {len(itself)} tasks have no more prompt neighbours in themselves than in another task"
    sentence = (
        f"{start} (cosine distance < {TABLE_3[0]:g}); {'the closest call is' if not failing else 'first of all'} {weakest}: {own['count']} in itself "
        f"({own['low']:.0f} to {own['high']:.0f}; n = {own['pairs']} pairs), {far['count']} in {other} ({far['low']:.0f} to {far['high']:.0f}; n = {far['pairs']}), {n} runs."
    )
    result.findings.append(Finding(sentence, own["count"], own["pairs"], "pairs of prompt tokens", own["low"], own["high"]))


# The vocabulary


def init_words(runs: RunTable) -> dict[str, str]:
    """The word that each init repeats, by the init's name; inits that are no word (random, a text, labels, ...) have none.

    Of prompts that were trained elsewhere, an init's name is taken for its word unless it names one of promptgeo's kinds of init.
    """
    if runs.runs is None:
        kinds = {kind.name for kind in InitKind}
        return {init: str(init) for init in order_of_appearance(runs.table["init"]) if str(init) not in kinds}
    words = {}
    for run, init in zip(runs.runs, runs.table["init"], strict=True):
        config = run.info["config"]["init"]
        if config.get("kind") == InitKind.word.name and config.get("text"):
            words.setdefault(init, config["text"])
    return words


@dataclass(frozen=True)
class _Words:
    """What lies around the prompt tokens and around sampled vocabulary tokens, as the convention counts."""

    prompt_words_EK: np.ndarray
    sample_words_ES: np.ndarray
    sample_prompts_ES: np.ndarray
    prompt_nearest_K: np.ndarray
    """float64: distance of each prompt token to the nearest vocabulary token."""
    prompt_nearest_token_K: list[str]
    sample_nearest_S: np.ndarray
    """The same for sampled tokens, themselves left out; likewise to the nearest prompt token."""
    sample_nearest_prompt_S: np.ndarray

    @classmethod
    def of(
        cls, runs: RunTable, vocabulary: Vocabulary, found: Tokens, radii: tuple[float, ...], epsilon: float, sample: int, seed: int, convention: Convention
    ) -> "_Words":
        unit_Kd = found.unit_Kd
        require_width(vocabulary, unit_Kd)
        k, sampled_S = len(unit_Kd), vocabulary.sample(sample, seed)
        doubled = np.array([vocabulary.index[w] for w in dict.fromkeys(init_words(runs).values()) if w in vocabulary.index], dtype=np.int64)
        queries_S = np.concatenate([sampled_S, doubled])
        queries = np.concatenate([unit_Kd, vocabulary.unit(queries_S)])
        near = vocabulary.near(queries, radii, 1, np.concatenate([np.full(k, -1), queries_S]))
        counts = near.counts_EK
        if convention == Convention.paper:
            again = 1.0 - queries.astype(np.float64) @ vocabulary.unit(doubled).T.astype(np.float64)
            counts = counts + np.stack([(again < radius).sum(1) for radius in radii])
            counts[:, k:] += 1  # each sampled token matches itself
            sampled_S = queries_S
        counts, sample_Sd = counts[:, : k + len(sampled_S)], queries[k : k + len(sampled_S)]
        to_prompts_SK = 1.0 - sample_Sd.astype(np.float64) @ unit_Kd.T.astype(np.float64)
        distances = np.maximum(near.distances_Kk[: k + len(sampled_S), 0].astype(np.float64), 0.0)
        return cls(
            counts[:, :k],
            counts[:, k:],
            np.stack([(to_prompts_SK < radius).sum(1) for radius in radii]),
            distances[:k],
            [vocabulary.tokens[i] for i in near.nearest_Kk[:k, 0]],
            distances[k:],
            np.maximum(to_prompts_SK.min(1), 0.0),
        )


def require_width(vocabulary: Vocabulary, vectors_Kd: np.ndarray) -> None:
    """Raises UserError where the vocabulary's embeddings are not as wide as the prompts."""
    if vocabulary.embeddings_Vd.shape[1] != vectors_Kd.shape[1]:
        raise UserError(f"these prompts are {vectors_Kd.shape[1]} wide, the model's embeddings {vocabulary.embeddings_Vd.shape[1]}: it is not the model that they were trained on")


def _with_vocabulary(result: Result, words: _Words, pairs: _Pairs, found: Tokens, seed: int) -> None:
    """Numbers neighbours.vocabulary.* and neighbours.prompts.all, .words; the claim prompts_have_neighbours."""
    e = pairs.radii.index(pairs.epsilon)
    s, k = words.sample_words_ES.shape[1], len(found)
    around_sample = words.sample_words_ES[e] + words.sample_prompts_ES[e]
    for name, values in {"all": around_sample, "words": words.sample_words_ES[e]}.items():
        result.number(f"neighbours.vocabulary.{name}", values.mean(), s, "vocabulary tokens", *bootstrap_mean(values, seed=seed))
    weights_BN = _drawn(np.zeros(pairs.runs), seed)
    prompts, prompts_B = pairs.mean_count(pairs.near_NN, weights_BN)
    words_B = weights_BN @ words.prompt_words_EK[e].reshape(pairs.runs, -1).mean(1) / pairs.runs
    near_words = float(words.prompt_words_EK[e].mean())
    low, high = _interval(prompts_B + words_B)
    result.number("neighbours.prompts.all", prompts + near_words, k, "prompt tokens", low, high)
    result.number("neighbours.prompts.words", near_words, k, "prompt tokens", *_interval(words_B))
    drawn_S = np.random.default_rng(seed + 1).integers(0, s, (DRAWS, s))
    more = prompts + near_words - around_sample.mean()
    more_low, more_high = _interval(prompts_B + words_B - around_sample[drawn_S].mean(1))
    share = near_words / (prompts + near_words) if prompts + near_words else 0.0
    how = "more" if more_low > 0 else "fewer" if more_high < 0 else "no more"
    sentence = (
        f"A prompt token has {how} tokens within cosine distance {pairs.epsilon:g} than a vocabulary token: {prompts + near_words:.2f} ({low:.2f} to {high:.2f}; "
        f"n = {k} prompt tokens of {pairs.runs} runs) against {around_sample.mean():.2f} (n = {s} random tokens), a difference of {more:.2f} ({more_low:.2f} to {more_high:.2f}); "
        f"{share:.0%} of a prompt token's neighbours are words."
    )
    result.findings.append(Finding(sentence, more, k, "prompt tokens", more_low, more_high))
    result.claims.append(Claim("prompts_have_neighbours", bool(more_low > 0 and share < 0.5), sentence))


def _nearest(result: Result, words: _Words, pairs: _Pairs, found: Tokens, convention: Convention, seed: int) -> None:
    """Numbers nearest.*: mean distance to the nearest token but itself. `paper` leaves out tokens that have none within epsilon."""
    run_K = found.table["run"].to_numpy()
    values = {
        "nearest.vocabulary": (np.minimum(words.sample_nearest_S, words.sample_nearest_prompt_S), None, "vocabulary tokens"),
        "nearest.vocabulary.to_words": (words.sample_nearest_S, None, "vocabulary tokens"),
        "nearest.prompts": (np.minimum(words.prompt_nearest_K, pairs.nearest_K), run_K, "prompt tokens"),
        "nearest.prompts.to_words": (words.prompt_nearest_K, run_K, "prompt tokens"),
        "nearest.prompts.to_prompts": (pairs.nearest_K, run_K, "prompt tokens"),
    }
    for name, (distances, groups, unit) in values.items():
        counted = distances < pairs.epsilon if convention == Convention.paper else np.isfinite(distances)
        if not counted.any():
            result.omissions.append(f"{name}: no token has one within {pairs.epsilon:g}, so the censored mean has nothing to average.")
            continue
        groups = None if groups is None else groups[counted]
        result.number(name, distances[counted].mean(), int(counted.sum()), unit, *bootstrap_mean(distances[counted], groups, seed=seed))
    k, alone = len(found), words.prompt_nearest_K >= pairs.epsilon
    low, high = bootstrap_mean(alone, run_K, seed=seed)
    result.number("nearest.prompts.without_word", alone.sum(), k, "prompt tokens", low * k, high * k)
    try:
        mean = result.value("nearest.prompts.to_words")
    except KeyError:
        return
    number = next(row for row in result.numbers if row["quantity"] == "nearest.prompts.to_words")
    over = f"n = {number['n']} prompt tokens" + (f" that have one within {pairs.epsilon:g}" if convention == Convention.paper else "")
    sentence = (
        f"The nearest word of a prompt token lies at cosine distance {mean:.3f} ({number['low']:.3f} to {number['high']:.3f}; {over}); "
        f"{int(alone.sum())} of {k} have none within {pairs.epsilon:g} ({low * k:.0f} to {high * k:.0f})."
    )
    result.findings.append(Finding(sentence, mean, number["n"], "prompt tokens", number["low"], number["high"]))
    result.claims.append(Claim("nearest_word", bool(number["low"] <= 0.53 <= number["high"]), sentence))


# What is shown


def _sweep(result: Result, words: _Words | None, pairs: _Pairs, seed: int) -> None:
    """Table and figure epsilon_sweep: mean counts against epsilon."""
    weights_BN = _drawn(np.zeros(pairs.runs), seed)
    rows = []
    for e, radius in enumerate(pairs.radii):
        value, draws = pairs.mean_count(pairs.near_ENN[e], weights_BN)
        rows.append(("prompt tokens", "prompts", radius, value, *_interval(draws), pairs.runs * pairs.length))
        if words is not None:
            of_runs = words.prompt_words_EK[e].reshape(pairs.runs, -1).mean(1)
            rows.append(("prompt tokens", "words", radius, of_runs.mean(), *_interval(weights_BN @ of_runs / pairs.runs), pairs.runs * pairs.length))
            for name, counts in (("prompts", words.sample_prompts_ES[e]), ("words", words.sample_words_ES[e])):
                rows.append(("vocabulary tokens", name, radius, counts.mean(), *bootstrap_mean(counts, seed=seed), len(counts)))
    table = pd.DataFrame(rows, columns=["around", "neighbours", "epsilon", "mean", "low", "high", "n"])
    result.tables["epsilon_sweep"] = table
    centres = order_of_appearance(table["around"])
    with panels(1, len(centres), sharey=True, width=7.2 if len(centres) > 1 else 4.2) as (figure, axes):
        for axis, around in zip(axes[0], centres, strict=True):
            for colour, (kind, part) in zip(COLOURS, table[table["around"] == around].groupby("neighbours"), strict=False):
                axis.plot(part["epsilon"], part["mean"], color=colour, marker="o", markersize=3, linewidth=1.2, label=kind)
                axis.fill_between(part["epsilon"], part["low"], part["high"], color=colour, alpha=0.2, linewidth=0)
            axis.set_title(f"around {around} (n = {table[table['around'] == around]['n'].iloc[0]})", fontsize=9)
            axis.set_xlabel("epsilon, cosine distance")
            axis.axvline(pairs.epsilon, color="#777777", linewidth=0.8, linestyle=":")
        axes[0, 0].set_yscale("symlog", linthresh=1)
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].set_ylabel("neighbours, mean of a token")
        axes[0, 0].legend(fontsize=8)
        result.figures["epsilon_sweep"] = svg(figure)


def _token_table(found: Tokens, pairs: _Pairs, words: _Words | None, same: dict[str, np.ndarray]) -> pd.DataFrame:
    table = found.table.assign(nearest_prompt=pairs.nearest_K)
    if words is not None:
        table = table.assign(
            words=words.prompt_words_EK[pairs.radii.index(pairs.epsilon)], nearest_word=words.prompt_nearest_K, nearest_word_token=words.prompt_nearest_token_K
        )
    return table
