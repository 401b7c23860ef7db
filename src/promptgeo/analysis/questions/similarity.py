"""Are the trained prompts of a task alike? Cosines within and between tasks, and nearly orthogonal pairs beside chance.

Shapes: N runs, P prompt tokens, d width, S sampled pairs.
"""

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, decided, learned
from promptgeo.analysis.figures import panels, svg
from promptgeo.analysis.geometry.how_far import Moved
from promptgeo.analysis.geometry.run_pairs import closer, over_runs, pair_units, same_task
from promptgeo.analysis.geometry.tokens import order_of_appearance, require_levels, tokens
from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.question import Of, question
from promptgeo.analysis.resampling import (
    STILL,
    bootstrap_mean,
    drawn_means,
    exchangeable,
    newcombe,
    or_exact,
    t_interval,
    t_p,
    wilson,
)
from promptgeo.analysis.result import Claim, Finding, Number, Result
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
    between, within.<task>. Self-pairs are out. Base rates: `.p0`, of the same pairs within tasks before training;
    `.vocabulary`, of random pairs of vocabulary tokens; `.random`, of Gaussian directions of this width.

    Intervals leave out whole runs (a share of all or none has Clopper and Pearson's; two runs say nothing).
    `same_task` (run_pairs.py): runs of one task less runs of others, at as many shared inits; its p is the larger of
    that of tasks exchanged within an init and that beside tasks that only move differently far, `same_task.how_far`;
    `moved.<task>`, the mean norm of the deltas. Table `matrix`: a row per ordered pair of runs; `tokens`: a row per
    unordered pair of runs and position. The claims are about pairs within tasks; nearly orthogonal pairs are a finding
    where there are more than P0s and the vocabulary have: in many dimensions most pairs are.

    Args:
        orthogonal: |cosine| below which tokens count as nearly orthogonal.
        alike: cosine from which tokens would count as similar.
        sample: random pairs for each base rate.
        permutations: for the two p of same_task (how_far.py draws fewer).
        draws: bootstrap draws, of the base rates.
        length: only prompts of so many tokens; null: all, which must have the same.
        seed: of all draws.

    Raises UserError where no task has two runs, or shapes differ.
    """
    # Long because all its numbers and options are named here.
    if length is not None:
        runs = runs.query(f"prompt_length == {length}")
    require_levels(runs, {"task": 1}, "similarity")
    cosines_PNN = _cosines(tokens(runs).unit_NPd)
    tasks_N = runs.table["task"].to_numpy()
    pairs = _pairs_of_runs(tasks_N)
    result = Result()
    cosine, near = _pair_numbers(result, cosines_PNN, pairs, orthogonal)
    bases = _base_rates(result, vocabulary, runs.prompts().shape[2], orthogonal, sample, draws, seed)
    initial_NPd = _initial(runs, result)
    above = {kind: _above(near[WITHIN], base) for kind, base in bases.items() if kind != "random"}
    if initial_NPd is not None:
        p0_NN = (np.abs(_cosines(tokens(runs, which="initial").unit_NPd)) < orthogonal).mean(0)
        near_NN = (np.abs(cosines_PNN) < orthogonal).mean(0)
        bases["p0"], above["p0"] = _beside_p0(result, near_NN, p0_NN, pairs[WITHIN])
    of = f"n = {cosine[WITHIN].n} pairs of runs, {len(cosines_PNN)} token{'s' if len(cosines_PNN) > 1 else ''} each"
    findings = [
        _alike_finding(cosine[WITHIN], alike, of),
        _orthogonal_finding(near[WITHIN], bases, above, orthogonal, of),
    ]
    result.findings += findings
    _same_task(result, runs, initial_NPd, permutations, seed)
    units = len(pair_units(pairs[WITHIN]))
    premises = learned(runs.table)
    result.claims += [
        decided(
            "tokens_not_similar",
            cosine[WITHIN].interval,
            findings[0].sentence,
            threshold=alike,
            below=True,
            p=t_p(alike - cosine[WITHIN].value, cosine[WITHIN].interval[1] - cosine[WITHIN].value, units),
            premises=premises,
            needs="three runs of a task" if units < 2 else "more runs of a task",
            quantity=cosine[WITHIN].quantity,
        ),
        _orthogonal_claim(above, near[WITHIN], findings[1].sentence, units, premises),
    ]
    mean_NN = cosines_PNN.mean(0)
    result.tables |= {"matrix": _matrix_table(mean_NN, tasks_N), "tokens": _token_table(cosines_PNN, tasks_N)}
    result.figures["matrix"] = _figure(mean_NN, tasks_N)
    return result


def _cosines(unit_NPd: np.ndarray) -> np.ndarray:
    """[P, N, N] float64: of tokens at equal position."""
    unit_NPd = unit_NPd.astype(np.float64)
    return np.clip(np.einsum("npd,mpd->pnm", unit_NPd, unit_NPd), -1, 1)


def _initial(runs: RunTable, result: Result) -> np.ndarray | None:
    """[N, P, d], the P0s; None, and an omission, where runs have none."""
    try:
        initial_NPd = runs.prompts("initial")
    except UserError:
        result.omissions.append("similarity: the base rate of untrained prompts, and how far training moved, need P0s.")
        return None
    if (np.linalg.norm(initial_NPd, axis=2) == 0).any():
        result.omissions.append("similarity: a P0 of length 0 has no direction: there is no base rate of P0s.")
        return None
    return initial_NPd


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
) -> tuple[dict[str, Number], dict[str, Number]]:
    """Numbers cosine.<pairs> and orthogonal.<pairs>, by pairs."""
    mean_NN, near_NN = cosines_PNN.mean(0), (np.abs(cosines_PNN) < orthogonal).mean(0)
    cosine, near = {}, {}
    for name, pairs_NN in pairs.items():
        count = int(pairs_NN.sum()) // 2
        if not count:
            which = "of different tasks" if name == BETWEEN else f"of {name.removeprefix(f'{WITHIN}.')}"
            result.omissions.append(f"similarity: there are no pairs of runs {which}.")
            continue
        interval = over_runs(mean_NN, pairs_NN, -1.0, 1.0)
        cosine[name] = result.number(f"cosine.{name}", mean_NN[pairs_NN].mean(), count, "pairs of runs", *interval)
        share = near_NN[pairs_NN].mean()
        # Of all pairs or none: no more is known than there are units.
        interval = or_exact(over_runs(near_NN, pairs_NN, 0.0, 1.0), share, len(pair_units(pairs_NN)))
        near[name] = result.number(f"orthogonal.{name}", share, count, "pairs of runs", *interval)
    return cosine, near


def _base_rates(
    result: Result,
    vocabulary: Vocabulary | None,
    width: int,
    orthogonal: float,
    sample: int,
    draws: int,
    seed: int,
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
        interval = bootstrap_mean(cosines_S, draws=draws, seed=seed)
        result.number(f"cosine.{kind}", cosines_S.mean(), sample, "pairs of vectors", *interval)
        interval = wilson(near, sample)
        bases[kind] = result.number(f"orthogonal.{kind}", near / sample, sample, "pairs of vectors", *interval)
    return bases


def _above(within: Number, base: Number) -> tuple[float, float, float]:
    """(how far the share lies above a base rate of other pairs, its 95 % interval: Newcombe's of both)."""
    return within.value - base.value, *newcombe(within.value, within.interval, base.value, base.interval)


def _beside_p0(
    result: Result, near_NN: np.ndarray, p0_NN: np.ndarray, within_NN: np.ndarray
) -> tuple[Number, tuple[float, float, float]]:
    """(number orthogonal.p0, how far the trained share lies above it with its interval: the same pairs of runs)."""
    units, count = len(pair_units(within_NN)), int(within_NN.sum()) // 2
    share = float(p0_NN[within_NN].mean())
    interval = or_exact(over_runs(p0_NN, within_NN, 0.0, 1.0), share, units)
    base = result.number("orthogonal.p0", share, count, "pairs of runs", *interval)
    trained = float(near_NN[within_NN].mean())
    low, high = over_runs(near_NN - p0_NN, within_NN, -1.0, 1.0)
    if high - low < STILL:  # every pair changed alike: no more is known than there are units
        ends = (wilson(round(x * units), units) for x in (trained, share))
        low, high = newcombe(trained, next(ends), share, next(ends))
    result.number("difference.orthogonal.p0", trained - share, count, "pairs of runs", low, high)
    return base, (trained - share, low, high)


def _same_task(result: Result, runs: RunTable, initial_NPd: np.ndarray | None, permutations: int, seed: int) -> None:
    """Numbers `same_task`, `same_task.how_far` and `moved.<task>`, and the finding, where tasks can be exchanged."""
    tasks_N, inits_N = (runs.table[factor].to_numpy() for factor in ("task", "init"))
    if not exchangeable(tasks_N, inits_N) or np.isnan(closer(np.eye(len(runs)), tasks_N, inits_N)):
        result.omissions.append(
            "similarity: whether runs of a task lie closer needs runs of two tasks with the same init, and pairs of "
            "runs within a task and between tasks that share an init, or that do not."
        )
        return
    compared = same_task(runs, Moved.of(runs, Of.prompt), permutations, seed)
    control = compared.how_far
    number = result.number(
        "same_task", compared.difference, len(runs), "runs", p=max(compared.p, control.p if control else 0.0)
    )
    cause, beside = "", ""
    if control is None or initial_NPd is None:
        cause = ", which may be because they moved differently far"
    else:
        result.number("same_task.how_far", *control.row)
        lengths_N = np.linalg.norm((runs.prompts() - initial_NPd).reshape(len(runs), -1), axis=1)
        means = [_moved(result, task, lengths_N[tasks_N == task]) for task in order_of_appearance(tasks_N)]
        beside = f"; where each run goes as far, but the way of any task's run of its init, {control.mean:+.3f} "
        beside += f"(p = {control.p:.2g}), prompts moved {min(means):.2f} to {max(means):.2f} by task"
    if compared.p < LEVEL and (control is None or control.beyond(compared.difference)):
        says = f"lie closer than runs of others{cause}"
    elif compared.p < LEVEL:
        says = "are not shown to lie closer than runs of others but by how far they moved"
    else:
        says = "are not shown to lie closer than runs of others"
    sentence = (
        f"Runs of one task {says}: a difference of {compared.difference:+.3f} in mean cosine at as many shared inits "
        f"(p = {compared.p:.2g}){beside} (n = {len(runs)} runs)."
    )
    result.findings.append(Finding.of(number, sentence))


def _moved(result: Result, task: str, lengths_N: np.ndarray) -> float:
    """Number `moved.<task>`: the mean norm of P - P0."""
    interval = (
        t_interval(lengths_N.mean(), drawn_means(lengths_N, 1000, 0), len(lengths_N), 0.0)
        if (len(lengths_N) > 1)
        else (0.0, float("inf"))
    )
    return result.number(f"moved.{task}", lengths_N.mean(), len(lengths_N), "runs", *interval).value


def _with_interval(number: Number, form: str = ".2f") -> str:
    low, high = number.interval
    return f"{number.value:{form}} ({low:{form}} to {high:{form}})"


def _alike_finding(within: Number, alike: float, of: str) -> Finding:
    """Whether tokens of one task's prompts are alike. of: what it rests on, in words."""
    low, high = within.interval
    verdict = "are not alike" if high < alike else "are alike" if low >= alike else "may or may not be alike"
    return Finding.of(
        within,
        f"Tokens of one task's trained prompts {verdict}: mean cosine {_with_interval(within)} against {alike:g} "
        f"({of}).",
    )


BASES = {
    "p0": "the same pairs before training",
    "vocabulary": "pairs of vocabulary tokens",
    "random": "random directions",
}
"""Base rates, in words."""


def _orthogonal_finding(
    within: Number,
    bases: dict[str, Number],
    above: dict[str, tuple[float, float, float]],
    orthogonal: float,
    of: str,
) -> Finding:
    """How many pairs of tokens of a task are nearly orthogonal, beside the base rates."""
    said = []
    for kind in [kind for kind in BASES if kind in bases]:
        _, low, high = above.get(kind) or _above(within, bases[kind])
        often = "more than" if low > 0 else "fewer than" if high < 0 else "not shown to differ from"
        said.append(f"{often} {BASES[kind]}, {_with_interval(bases[kind], '.1%')}")
    return Finding.of(
        within,
        f"Within a task {_with_interval(within, '.1%')} of pairs of tokens are nearly orthogonal "
        f"(|cos| < {orthogonal:g}): {'; '.join(said)} ({of}).",
    )


def _orthogonal_claim(
    above: dict[str, tuple[float, float, float]], within: Number, evidence: str, units: int, premises: list[Premise]
) -> Claim:
    """More nearly orthogonal pairs than P0s have, and than the vocabulary has: in many dimensions most pairs are."""
    based = Premise(bool(above), "there is a base rate of P0s or of the vocabulary", "P0s, or the model's vocabulary")
    if not above:
        return decided("some_orthogonal", None, evidence, premises=[*premises, based], quantity=within.quantity)
    values, lows, highs = zip(*above.values(), strict=True)
    p = max(t_p(value, value - low, units) for value, low in zip(values, lows, strict=True))
    interval = (min(lows), min(highs))
    needs, about = "more runs of a task", within.quantity
    return decided("some_orthogonal", interval, evidence, p=p, premises=premises, needs=needs, quantity=about)


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
        axis.set(xticks=middles, yticks=middles, aspect="equal", xlabel="runs of", ylabel="runs of")
        axis.set_xticklabels(names, rotation=30, ha="right")
        axis.set_yticklabels(names)
        figure.colorbar(mesh, ax=axis, label="cosine, mean over positions")
        return svg(figure, "Cosine of any two runs' prompts, a cell per pair, runs of a task side by side")
