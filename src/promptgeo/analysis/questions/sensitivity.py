"""Does a prompt token's angle count more than its magnitude? Tokens are turned or scaled, both equally far.

Bailey et al. 2023 ("Soft prompting might be a bug, not a feature"), whom study 3 quotes, say so of soft prompts. Every
token p of a prompt is moved by ||dp|| = r ||p||: turned by the angle 2 arcsin(r / 2) in a random plane, or scaled by
1 - r and by 1 + r (their mean). The same is done to P0 and to random word tokens. A model that normalises its
embeddings does not see a token's scale: there scale is a gauge, which is measured, and nothing can be compared.

Numbers: `accuracy.<prompts>`, `loss.<prompts>` (nats a label token) as they are, prompts being `trained`, `initial` or
`words`; `accuracy.<prompts>.<turned|scaled>.<r>`, likewise `loss`; `reaction.<prompts>.<...>`: by how many nats the
loss of an example changes, whichever way; `difference.<measure>.<prompts>`: turned less scaled, mean over all r (of
accuracy: scaled less turned), so that above 0 the angle counts more; `scale_share`: scaling's part of both reactions of
a trained prompt, 0 where scale is a gauge, .5 where it counts as much as the angle. n counts different prompts, which
are all that is drawn anew: the numbers hold for these test examples. Table `sensitivity`: a row per run, prompts,
manner and displacement.

Shapes: N runs, S prompts to score, P prompt tokens, d width, E test examples, R displacements.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from promptgeo.analysis.deciding import LEVEL, Premise, decided
from promptgeo.analysis.figures import COLOURS, estimates, panels, svg
from promptgeo.analysis.groups import TaskRuns, by_task, distinct
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import sign_flip_p, sign_flips_needed, t_interval
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result
from promptgeo.analysis.scoring import BLOCK, EvaluationSet, in_percent, sampled_examples
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.table import RunTable

TURNED, SCALED = "turned", "scaled"
PROMPTS = {"trained": "trained prompts", "initial": "untrained P0s", "words": "random words"}
"""What is moved, in words."""
GAUGE = 0.01
"""Scale is a gauge where scaling's part of both reactions is smaller; rounding alone moves losses a little."""
MEASURES = ("accuracy", "loss", "reaction")

Score = Callable[[np.ndarray, EvaluationSet], tuple[np.ndarray, np.ndarray]]
"""(prompts [S, P, d], examples) -> (correct [S, E] bool, loss of a label token of each example [S, E] in nats)."""


@question(lm=True, claims=("angle_counts_more",))
def sensitivity(
    runs: RunTable,
    *,
    lm: LM,
    displacements: Sequence[float] = (0.25, 0.5, 0.75),
    planes: int = 2,
    max_examples: int | None = 40,
    seed: int = 0,
) -> Result:
    """Scores prompts whose tokens were turned or scaled, and says which costs more.

    The claim `angle_counts_more`: turning a trained prompt's tokens costs more accuracy than scaling them equally far,
    mean over the displacements; t interval and sign flips over different prompts (all of them for up to 12).

    Args:
        displacements: r, how far each token is moved as a share of its norm: above 0, below 1 (scaled by 1 - r).
        planes: random planes of rotation, for each prompt and displacement.
        max_examples: test examples of a task, drawn by seed; None: all.
        seed: of planes, word tokens and test examples.

    Raises UserError for prompts that were trained elsewhere or have no P0, and for displacements not within 0 and 1.
    """
    radii = sorted({float(r) for r in displacements})
    if not radii or radii[0] <= 0 or radii[-1] >= 1:
        raise UserError(f"sensitivity: displacements={list(displacements)}: numbers above 0 and below 1 are needed")
    runs.prompts("initial")  # refuses runs without
    vocabulary_Vd = lm.vocabulary().numpy()
    result = Result()
    kept = distinct(runs, range(len(runs)))
    if len(kept) < len(runs):
        result.omissions.append(f"sensitivity: {len(runs) - len(kept)} runs have the same prompt as another: left out.")
    groups = by_task(runs, "sensitivity", max_examples, seed, among=kept)
    reactions = _Reactions(radii, _measured(groups, vocabulary_Vd, radii, planes, seed, scores_of(lm)))
    result.omissions += sampled_examples("sensitivity", [g.evaluation_set for g in groups], max_examples, seed)
    _report(reactions, _without_prompt(runs, kept), result)
    return result


def scores_of(lm: LM) -> Score:
    """As the frozen model scores prompts."""

    def score(prompts_SPd: np.ndarray, examples: EvaluationSet) -> tuple[np.ndarray, np.ndarray]:
        evaluation = examples.evaluate(lm, prompts_SPd)
        return evaluation.correct, evaluation.losses / evaluation.tokens

    return score


# Prompts.


def turned(prompt_Pd: np.ndarray, displacement: float, generator: np.random.Generator) -> np.ndarray:
    """[P, d] float64: each token turned in a random plane of its own, so that it ends `displacement` norms away."""
    prompt_Pd = np.asarray(prompt_Pd, dtype=np.float64)
    norms_P1 = np.linalg.norm(prompt_Pd, axis=1, keepdims=True)
    unit_Pd = prompt_Pd / norms_P1
    noise_Pd = generator.standard_normal(prompt_Pd.shape)
    noise_Pd -= (noise_Pd * unit_Pd).sum(1, keepdims=True) * unit_Pd
    angle = 2 * np.arcsin(displacement / 2)
    across_Pd = noise_Pd / np.linalg.norm(noise_Pd, axis=1, keepdims=True)
    turned_Pd: np.ndarray = norms_P1 * (np.cos(angle) * unit_Pd + np.sin(angle) * across_Pd)
    return turned_Pd


def _moved(
    prompt_Pd: np.ndarray, radii: Sequence[float], planes: int, seed: int
) -> list[tuple[str, float, np.ndarray]]:
    """(how, r, prompt [P, d]): the prompt as it is, turned and scaled."""
    generator = np.random.default_rng(seed)
    moved = [("", 0.0, np.asarray(prompt_Pd, dtype=np.float64))]
    for r in radii:
        moved += [(TURNED, r, turned(prompt_Pd, r, generator)) for _ in range(planes)]
        moved += [(SCALED, r, factor * moved[0][2]) for factor in (1 - r, 1 + r)]
    return moved


def _measured(
    groups: Sequence[TaskRuns], vocabulary_Vd: np.ndarray, radii: Sequence[float], planes: int, seed: int, score: Score
) -> pd.DataFrame:
    """A row per run, prompts, manner and displacement, with accuracy, loss and reaction.

    Equal prompts (P0s of one init) are one, whatever tasks they are scored on: that of the run named in scored_for.
    Means are over planes, or the two scales.
    """
    norms_V = np.linalg.norm(vocabulary_Vd, axis=1)
    usable = np.flatnonzero(norms_V > 0)
    frames = []
    first: dict[bytes, int] = {}
    for group in progress(groups, "tasks"):
        initial_NPd = group.initial()
        if initial_NPd is None:  # runs.prompts("initial") has refused such runs
            raise UserError("sensitivity: some of these runs have no P0")
        seen: dict[bytes, pd.DataFrame] = {}
        for member, final_Pd, p0_Pd in zip(group.members, group.prompts(), initial_NPd, strict=True):
            generator = np.random.default_rng([seed, member])
            words_Pd = vocabulary_Vd[generator.choice(usable, len(p0_Pd), replace=False)]
            for prompts, prompt_Pd in (("trained", final_Pd), ("initial", p0_Pd), ("words", words_Pd)):
                key = prompt_Pd.astype(np.float32).tobytes()
                if key not in seen:
                    plane_seed = generator.integers(2**32)
                    rows = _scored(_moved(prompt_Pd, radii, planes, int(plane_seed)), group.evaluation_set, score)
                    seen[key] = rows.assign(scored_for=first.setdefault(key, member))
                frames.append(seen[key].assign(run=member, task=group.name, prompts=prompts))
    return pd.concat(frames, ignore_index=True)


def _scored(moved: list[tuple[str, float, np.ndarray]], examples: EvaluationSet, score: Score) -> pd.DataFrame:
    """A row per manner and displacement."""
    prompts_SPd = np.stack([prompt_Pd for _, _, prompt_Pd in moved]).astype(np.float32)
    blocks = [score(prompts_SPd[k : k + BLOCK], examples) for k in range(0, len(prompts_SPd), BLOCK)]
    correct_SE, losses_SE = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    rows = pd.DataFrame(
        {
            "how": [how for how, _, _ in moved],
            "displacement": [r for _, r, _ in moved],
            "accuracy": correct_SE.mean(1),
            "loss": losses_SE.mean(1),
            "reaction": np.abs(losses_SE - losses_SE[0]).mean(1),
        }
    )
    return rows.groupby(["how", "displacement"], sort=False).mean().reset_index()


def _without_prompt(runs: RunTable, kept: Sequence[int]) -> np.ndarray:
    """[N] float64: what each run logged without a prompt; NaN where it did not."""
    column = runs.table.get("accuracy_none", pd.Series(np.nan, index=runs.table.index))
    return column.to_numpy(dtype=np.float64)[list(kept)]


# What it says.


@dataclass(frozen=True, eq=False)
class _Reactions:
    """What turning and scaling do to the prompts of each run."""

    radii: list[float]
    table: pd.DataFrame

    def of(
        self, prompts: str, measure: str, how: str = "", radius: float | None = None, each: str = "scored_for"
    ) -> np.ndarray:
        """[N] float64, one for each different prompt, or each run: the mean over all displacements, or at one."""
        rows = self.table[(self.table["prompts"] == prompts) & (self.table["how"] == how)]
        if radius is not None:
            rows = rows[rows["displacement"] == radius]
        return rows.groupby(each)[measure].mean().sort_index().to_numpy()

    def angle_over_scale(self, prompts: str, measure: str) -> np.ndarray:
        """[N] float64: by how much more turning costs a prompt than scaling, mean over the displacements."""
        sign = -1.0 if measure == "accuracy" else 1.0
        return sign * (self.of(prompts, measure, TURNED) - self.of(prompts, measure, SCALED))

    def scale_share(self) -> np.ndarray:
        """[N] float64: scaling's part of what both do to trained prompts' losses; .5 where neither does anything."""
        turning, scaling = self.of("trained", "reaction", TURNED), self.of("trained", "reaction", SCALED)
        return np.divide(scaling, turning + scaling, out=np.full(len(turning), 0.5), where=turning + scaling > 0)


def _mean(result: Result, quantity: str, values_N: np.ndarray, *bounds: float | None, p: float | None = None) -> Number:
    """Adds a mean over prompts with its t interval; without one for a single prompt."""
    n = len(values_N)
    low, high = (None, None)
    if n > 1:
        # Draws with replacement have the variance of the values over n: no need to draw them.
        spread = values_N.std() / np.sqrt(n)
        low, high = t_interval(float(values_N.mean()), np.array([-spread, spread]), n, *bounds)
    return result.number(quantity, float(values_N.mean()), n, "prompts", low, high, p)


def _report(reactions: _Reactions, none_N: np.ndarray, result: Result) -> None:
    lines: dict[tuple[str, str, str], list[Number]] = {}
    for prompts in PROMPTS:
        for measure in MEASURES:
            most = 1.0 if measure == "accuracy" else None
            if measure != "reaction":
                _mean(result, f"{measure}.{prompts}", reactions.of(prompts, measure), 0.0, most)
            for how in (TURNED, SCALED):
                lines[prompts, measure, how] = [
                    _mean(result, f"{measure}.{prompts}.{how}.{r:g}", reactions.of(prompts, measure, how, r), 0.0, most)
                    for r in reactions.radii
                ]
    differences = {}
    for prompts in PROMPTS:
        for measure in MEASURES:
            values_N = reactions.angle_over_scale(prompts, measure)
            p = sign_flip_p(values_N)
            differences[prompts, measure] = _mean(result, f"difference.{measure}.{prompts}", values_N, p=p)
    share = _mean(result, "scale_share", reactions.scale_share(), 0.0, 1.0)
    _tell(differences, share, result)
    result.claims.append(_claim(reactions, differences["trained", "accuracy"], share, none_N))
    result.tables["sensitivity"] = reactions.table
    result.figures["sensitivity"] = _figure(lines, reactions)


def _enough(n: int) -> str:
    """What an exact test over so few runs lacks, in words; empty where they are enough."""
    return "" if n >= sign_flips_needed() else f"; {n} are too few to decide it, {sign_flips_needed()} would do"


def _tell(differences: dict[tuple[str, str], Number], share: Number, result: Result) -> None:
    """The findings: accuracy and loss of the trained prompts, the controls' reactions, and whether scale is a gauge."""
    if share.n < 2:
        result.omissions.append("sensitivity: one run gives no interval; train more (-m seed=0,1,2,3,4,5).")
        return
    gauged = share.value < GAUGE
    for prompts, measure in (
        ("trained", "accuracy"),
        ("trained", "loss"),
        ("initial", "reaction"),
        ("words", "reaction"),
    ):
        result.findings.append(_difference_finding(differences[prompts, measure], prompts, measure, gauged))
    verdict = "does not see a prompt token's scale, which is a gauge" if gauged else "sees a prompt token's scale"
    sentence = (
        f"The model {verdict}: of what scaling and turning tokens equally far do to an example's loss, scaling does "
        f"{in_percent(share)} (a gauge would be below {GAUGE:.0%}; n = {share.n} prompts)."
    )
    result.findings.append(Finding.of(share, sentence))


def _difference_finding(number: Number, prompts: str, measure: str, gauged: bool) -> Finding:
    low, high = number.interval
    values = f"{number.value:+.3g}", f"{low:+.3g} to {high:+.3g}"
    if measure == "accuracy":
        values = f"{100 * number.value:+.1f} points", f"{100 * low:+.1f} to {100 * high:+.1f}"
    costs = {"accuracy": "costs", "loss": "raises the loss by", "reaction": "changes an example's loss by"}[measure]
    what = {"accuracy": "accuracy", "loss": "nats a label token", "reaction": "nats a label token"}[measure]
    told = not _enough(number.n) and number.p is not None and number.p < LEVEL
    words = "neither more nor less, as far as can be told,"
    if told and (low > 0 or high < 0):
        words = "more" if low > 0 else "less"
    object_ = words if measure != "accuracy" else f"{words} {what}" if words in ("more", "less") else f"{what} {words}"
    unit = "" if measure == "accuracy" else f" {what}"
    caveat = " (scale is a gauge here)" if gauged else ""
    sentence = (
        f"Turning the tokens of {PROMPTS[prompts]} {costs} {object_} than scaling them equally far{caveat}: "
        f"{values[0]}{unit} ({values[1]}, p = {number.p:.2g}; n = {number.n} prompts{_enough(number.n)})."
    )
    return Finding.of(number, sentence)


def _claim(reactions: _Reactions, difference: Number, share: Number, none_N: np.ndarray) -> Claim:
    """Whether turning costs a trained prompt more accuracy than scaling."""
    n, needed = difference.n, sign_flips_needed()
    if n < 2:
        return Claim("angle_counts_more", Outcome.undecidable, "One run says nothing.", needs=f"{needed} runs")
    accuracy_N = reactions.of("trained", "accuracy")
    scratch = Result()  # numbers that only premises need
    untrained_N = np.fmax(reactions.of("initial", "accuracy", each="run"), none_N)
    gain = _mean(scratch, "gain", accuracy_N - untrained_N)
    costs = {
        how: _mean(scratch, how, accuracy_N - reactions.of("trained", "accuracy", how)) for how in (TURNED, SCALED)
    }
    hurts = any(cost.interval[0] > 0 for cost in costs.values())
    premises = [
        Premise(n >= needed, f"{n} runs are enough for exact sign flips ({needed} are needed)", f"{needed} runs"),
        Premise(
            gain.interval[0] > 0,
            f"the trained prompts solve the task better than P0 and no prompt ({100 * gain.value:+.1f} points, "
            f"{100 * gain.interval[0]:+.1f} to {100 * gain.interval[1]:+.1f})",
            "prompts that solve the task",
        ),
        Premise(
            not share.value < GAUGE,
            f"the model sees a token's scale (scaling does {share.value:.1%} of both reactions)",
            "a model that does not normalise its embeddings",
        ),
        Premise(
            hurts,
            "moving tokens costs accuracy at all (turned "
            f"{100 * costs[TURNED].value:.1f} points, scaled {100 * costs[SCALED].value:.1f})",
            "larger displacements",
        ),
    ]
    sentence = _difference_finding(difference, "trained", "accuracy", share.value < GAUGE).sentence
    about = difference.quantity
    return decided(
        "angle_counts_more", difference.interval, sentence, p=difference.p, premises=premises, quantity=about
    )


# Figure.


def _figure(lines: dict[tuple[str, str, str], list[Number]], reactions: _Reactions) -> str:
    """Accuracy and loss of each kind of prompts against the displacement; behind the means each prompt."""
    measures = {"accuracy": "test accuracy", "loss": "loss, nats a label token"}
    colours = {TURNED: COLOURS[0], SCALED: COLOURS[2]}
    at = np.array([0.0, *reactions.radii])
    apart = float(np.diff(at).min())
    with panels(len(measures), len(PROMPTS), width=8.0, height=2.5, sharex=True, sharey="row") as (figure, axes):
        for i, (measure, label) in enumerate(measures.items()):
            for j, (prompts, title) in enumerate(PROMPTS.items()):
                axis, start_N = axes[i, j], reactions.of(prompts, measure)
                start = Number("", float(start_N.mean()), len(start_N), "prompts")
                for k, (how, colour) in enumerate(colours.items()):
                    numbers = [start, *lines[prompts, measure, how]]
                    behind = [start_N, *(reactions.of(prompts, measure, how, radius) for radius in reactions.radii)]
                    style: dict[str, Any] = {"linestyle": "-", "label": how}
                    places = at + 0.2 * apart * (k - 0.5)
                    estimates(axis, places, numbers, behind, color=colour, across=0.15 * apart, **style)
                axis.set(title=title if i == 0 else "", ylabel=label if j == 0 else "")
                if i == len(measures) - 1:
                    axis.set_xlabel("distance moved / norm of the token")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
        title = "What moving a prompt's tokens does, by how far, with 95 % intervals; faint: single prompts"
        return svg(figure, title)
