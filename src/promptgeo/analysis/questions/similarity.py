"""Are the trained prompts of a task alike? Cosines within and between tasks, and nearly orthogonal pairs beside chance.

Shapes: N runs, P prompt tokens, d width, S sampled pairs, B bootstrap draws.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import panels, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance, require_levels, tokens
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import (
    bootstrap_mean,
    exchangeable,
    null_draws,
    pair_interval,
    pair_means,
    permutation_p,
    permuted_within,
    run_weights,
    share_interval,
    wilson,
)
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.errors import UserError
from promptgeo.runs.table import RunTable

WITHIN, BETWEEN = "within", "between"


@question(vocabulary=True, claims=("tokens_not_similar", "some_orthogonal"), factors=("prompt_length",))
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
    """Numbers `cosine.<pairs>`, `orthogonal.<pairs>` and `same_task`; tables `matrix` and `tokens`.

    `cosine.<pairs>`: the cosine of two runs' tokens at equal position, mean over positions and pairs of runs.
    `orthogonal.<pairs>`: the share of pairs of tokens at equal position that are nearly orthogonal. pairs: within,
    between, within.<task>. Self-pairs are out. Base rates: `.random` of Gaussian directions of this width,
    `.vocabulary` of random pairs of vocabulary tokens, which is what prompts at a random-word init would have.

    Intervals draw whole runs (a share of all or none has Wilson's for as many runs). `same_task` carries p for "runs of
    a task lie closer": tasks of whole runs exchanged within an init. Table `matrix`: a row per ordered pair of runs;
    `tokens`: a row per unordered pair of runs and position. The claims are about pairs within tasks.

    Args:
        orthogonal: |cosine| below which tokens count as nearly orthogonal.
        alike: cosine from which tokens would count as similar.
        sample: random pairs for each base rate.
        permutations: for the p.
        draws: bootstrap draws.
        length: only prompts of so many tokens; null: all, which must have the same.
        seed: of all draws.

    Raises UserError where no task has two runs, or shapes differ.
    """
    if length is not None:
        runs = runs.query(f"prompt_length == {length}")
    require_levels(runs, {"task": 1}, "similarity")
    unit_NPd = tokens(runs).unit_NPd.astype(np.float64)
    cosines_PNN = np.clip(np.einsum("npd,mpd->pnm", unit_NPd, unit_NPd), -1, 1)
    mean_NN = cosines_PNN.mean(0)
    tasks_N = runs.table["task"].to_numpy()
    pairs = _pairs_of_runs(tasks_N)
    result = Result()
    cosine, near = _pair_numbers(result, cosines_PNN, pairs, orthogonal, run_weights(len(runs), draws, seed))
    bases = _base_rates(result, vocabulary, unit_NPd.shape[2], orthogonal, sample, seed)
    p = _same_task(result, mean_NN, tasks_N, runs.table["init"].to_numpy(), permutations, seed)
    of = f"n = {cosine[WITHIN].n} pairs of runs, {len(cosines_PNN)} token{'s' if len(cosines_PNN) > 1 else ''} each"
    findings = [
        _alike_finding(cosine[WITHIN], cosine.get(BETWEEN), alike, p, of),
        _orthogonal_finding(near[WITHIN], bases, orthogonal, of),
    ]
    result.findings += findings
    result.claims += [
        Claim("tokens_not_similar", Outcome.of(cosine[WITHIN].interval[1] < alike), findings[0].sentence),
        Claim("some_orthogonal", Outcome.of(near[WITHIN].value > 0), findings[1].sentence),
    ]
    result.tables |= {"matrix": _matrix_table(mean_NN, tasks_N), "tokens": _token_table(cosines_PNN, tasks_N)}
    result.figures["matrix"] = _figure(mean_NN, tasks_N)
    return result


def _pairs_of_runs(tasks_N: np.ndarray) -> dict[str, np.ndarray]:
    """[N, N] bool by name. Raises UserError where no task has two runs."""
    same_NN = tasks_N[:, None] == tasks_N
    within_NN = same_NN & ~np.eye(len(tasks_N), dtype=bool)
    if not within_NN.any():
        raise UserError("similarity: no task has two or more runs; train more seeds (-m seed=0,1,2,3)")
    of_tasks = {f"{WITHIN}.{task}": within_NN & (tasks_N[:, None] == task) for task in order_of_appearance(tasks_N)}
    return {WITHIN: within_NN, BETWEEN: ~same_NN} | of_tasks


def _pair_numbers(
    result: Result,
    cosines_PNN: np.ndarray,
    pairs: dict[str, np.ndarray],
    orthogonal: float,
    weights_BN: np.ndarray,
) -> tuple[dict[str, Number], dict[str, Number]]:
    """Numbers cosine.<pairs> and orthogonal.<pairs>, by pairs."""
    mean_NN, near_NN = cosines_PNN.mean(0), (np.abs(cosines_PNN) < orthogonal).mean(0)
    cosine, near = {}, {}
    for name, pairs_NN in pairs.items():
        count = int(pairs_NN.sum()) // 2
        if not count:
            result.omissions.append(f"similarity: there are no pairs of runs for {name}.")
            continue
        interval = pair_interval(mean_NN, pairs_NN, weights_BN)
        cosine[name] = result.number(f"cosine.{name}", mean_NN[pairs_NN].mean(), count, "pairs of runs", *interval)
        share = near_NN[pairs_NN].mean()
        shares_B = pair_means(weights_BN, np.where(pairs_NN, near_NN, 0.0), pairs_NN.astype(np.float64))
        # Of all pairs or none: no more is known than there are runs.
        interval = share_interval(shares_B, share, int(pairs_NN.any(1).sum()))
        near[name] = result.number(f"orthogonal.{name}", share, count, "pairs of runs", *interval)
    return cosine, near


def _base_rates(
    result: Result, vocabulary: Vocabulary | None, width: int, orthogonal: float, sample: int, seed: int
) -> dict[str, Number]:
    """Numbers of independent pairs, with bootstrap and Wilson's intervals; returns orthogonal.<kind> by kind."""
    generator = np.random.default_rng(seed)
    pairs = {"random": generator.standard_normal((2, sample, width))}
    if vocabulary is None:
        result.omissions.append("similarity: the base rate of vocabulary tokens needs the model.")
    else:
        picked = generator.integers(0, len(vocabulary), (2, sample))
        picked[1] = np.where(picked[0] == picked[1], (picked[1] + 1) % len(vocabulary), picked[1])
        pairs["vocabulary"] = vocabulary.embeddings_Vd[picked].astype(np.float64)
    bases = {}
    for kind, (one_Sd, other_Sd) in pairs.items():
        norms_S = np.linalg.norm(one_Sd, axis=1) * np.linalg.norm(other_Sd, axis=1)
        cosines_S = (one_Sd * other_Sd).sum(1) / np.where(norms_S > 0, norms_S, 1)
        near = int((np.abs(cosines_S) < orthogonal).sum())
        interval = bootstrap_mean(cosines_S, seed=seed)
        result.number(f"cosine.{kind}", cosines_S.mean(), sample, "pairs of vectors", *interval)
        interval = wilson(near, sample)
        bases[kind] = result.number(f"orthogonal.{kind}", near / sample, sample, "pairs of vectors", *interval)
    return bases


def _same_task(
    result: Result, mean_NN: np.ndarray, tasks_N: np.ndarray, inits_N: np.ndarray, permutations: int, seed: int
) -> float | None:
    """Number `same_task`: mean cosine within less between tasks; returns its p, None where nothing can be exchanged."""
    if not exchangeable(tasks_N, inits_N):
        result.omissions.append(
            "similarity: whether runs of a task lie closer needs runs of two tasks with the same init."
        )
        return None
    apart_NN = ~np.eye(len(tasks_N), dtype=bool)

    def closer(labels_N: np.ndarray) -> float:
        same_NN = labels_N[:, None] == labels_N
        return float(mean_NN[same_NN & apart_NN].mean() - mean_NN[~same_NN].mean())

    observed = closer(tasks_N)
    null = null_draws(lambda generator: closer(tasks_N[permuted_within(inits_N, generator)]), permutations, seed)
    p = permutation_p(observed, null)
    result.number("same_task", observed, len(tasks_N), "runs", p=p)
    return p


def _with_interval(number: Number, form: str = ".2f") -> str:
    low, high = number.interval
    return f"{number.value:{form}} ({low:{form}} to {high:{form}})"


def _alike_finding(within: Number, between: Number | None, alike: float, p: float | None, of: str) -> Finding:
    """Whether tokens of one task's prompts are alike. of: what it rests on, in words."""
    low, high = within.interval
    verdict = "are not alike" if high < alike else "are alike" if low >= alike else "may or may not be alike"
    closer = ""
    if p is not None and between is not None:
        how = "closer" if p < 0.05 else "no closer"
        closer = f"; runs of the same task lie {how} than others (p = {p:.3g}, {_with_interval(between)} between tasks)"
    sentence = (
        f"Tokens of one task's trained prompts {verdict}: "
        f"mean cosine {_with_interval(within)} against {alike:g}{closer} ({of})."
    )
    return Finding.of(replace(within, p=p), sentence)


def _orthogonal_finding(within: Number, bases: dict[str, Number], orthogonal: float, of: str) -> Finding:
    """How many pairs of tokens of a task are nearly orthogonal, beside the base rates."""
    (low, high), (base_low, base_high) = within.interval, bases["random"].interval
    often = "fewer than" if high < base_low else "more than" if low > base_high else "about as many as"
    words = {"random": "random directions", "vocabulary": "pairs of vocabulary tokens"}
    rates = " and ".join(f"{_with_interval(base, '.1%')} of {words[kind]}" for kind, base in bases.items())
    return Finding.of(
        within,
        f"Within a task {_with_interval(within, '.1%')} of pairs of tokens are nearly orthogonal "
        f"(|cos| < {orthogonal:g}), {often} chance gives: {rates} ({of}).",
    )


def _matrix_table(mean_NN: np.ndarray, tasks_N: np.ndarray) -> pd.DataFrame:
    """A row per ordered pair of runs."""
    n = len(tasks_N)
    run, other = np.repeat(np.arange(n), n), np.tile(np.arange(n), n)
    columns = {"run": run, "other": other, "task": tasks_N[run], "other_task": tasks_N[other]}
    return pd.DataFrame(columns | {"cosine": mean_NN.ravel()})


def _token_table(cosines_PNN: np.ndarray, tasks_N: np.ndarray) -> pd.DataFrame:
    """A row per unordered pair of runs and position."""
    a, b = np.triu_indices(len(tasks_N), 1)
    pairs = pd.DataFrame({"run": a, "other": b, "position": 0, "same_task": tasks_N[a] == tasks_N[b]})
    parts = [pairs.assign(position=p, cosine=cosines_NN[a, b]) for p, cosines_NN in enumerate(cosines_PNN)]
    return pd.concat(parts, ignore_index=True)


def _figure(mean_NN: np.ndarray, tasks_N: np.ndarray) -> str:
    """Run by run, the cosine in colour, tasks side by side."""
    order = np.argsort(pd.factorize(tasks_N)[0], kind="stable")
    names = order_of_appearance(tasks_N)
    starts = [int(np.flatnonzero(tasks_N[order] == task)[0]) for task in names]
    ends = [*starts[1:], len(tasks_N)]
    with panels(width=5.2, height=4.4) as (figure, axes):
        axis = axes[0, 0]
        mesh = axis.pcolormesh(mean_NN[np.ix_(order, order)], vmin=-1, vmax=1, cmap="RdBu_r")
        axis.invert_yaxis()
        axis.grid(False)
        for start in starts[1:]:
            axis.axhline(start, color="black", linewidth=0.7)
            axis.axvline(start, color="black", linewidth=0.7)
        middles = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
        axis.set(xticks=middles, yticks=middles, aspect="equal")
        axis.set_xticklabels(names, rotation=30, ha="right")
        axis.set_yticklabels(names)
        figure.colorbar(mesh, ax=axis, label="cosine, mean over positions")
        return svg(figure)
