"""What is left of a soft prompt when its tokens change places, are repeated, left out or added up? Scored on the runs' test examples.

Study 1 (Promptmanteau) tried this on one prompt of three tokens that means +1.

Shapes: N runs, S scored prompts, P prompt tokens, d width, E test examples of a task.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations

import numpy as np
import pandas as pd

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.groups import names_of
from promptgeo.analysis.progress import progress
from promptgeo.analysis.resampling import wilson
from promptgeo.analysis.result import Claim, Finding, Result
from promptgeo.analysis.scoring import BLOCK, Bootstrap, EvaluationSet, Scored, evaluation_sets, percent, points
from promptgeo.errors import UserError
from promptgeo.evaluation import evaluate
from promptgeo.frozen_lm import FrozenLM
from promptgeo.run_table import RunTable
from promptgeo.schema import Scoring


def token_operations(
    runs: RunTable,
    *,
    lm: FrozenLM,
    repeats: Sequence[int] = (2, 3),
    number: str = r"[+-]?\d+",
    max_orders: int = 23,
    max_subsets: int = 12,
    max_runs: int | None = 8,
    max_examples: int | None = 100,
    well: float = 0.5,
    enough: float = 0.9,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """Per task and prompt length P >= 2, prompts made of each trained prompt's tokens:

    trained: as they are; order: in every other order; subset.<k>: every k of them, in order; repeat.<k>: each one k times (`repeats`, and P
    times); sum: their sum as one token; delta_sum: a P0 token plus the sum of all deltas, for each P0 token. Beside them initial: P0;
    initial_sum: the sum of its tokens; random_sum: a P0 token plus a random direction as long as the sum of the deltas; none: no prompt.

    Numbers: `<kind>.<task>`, accuracy; `numeric.<kind>.<task>`, the share of outputs that `number` (a regular expression) matches as a whole,
    where every label is a number; `difference.<kind>.<task>` and `difference.numeric.<kind>.<task>`, the kind less the trained prompts,
    `difference.delta_sum.sum.<task>` likewise. Where a task adds c to its input, `repeat.<k>.<task>.as_plus_<k c>` scores the repeats
    on what they would mean if meanings added up, and `difference.repeat.<k>.<task>.as_plus_<k c>` compares with a token once, asked for the same.
    Tables: `prompts`, a row per scored prompt (Wilson's intervals). Intervals of means draw whole runs and test examples with replacement.

    max_orders, max_subsets (of each size), max_runs (of a task and length), max_examples (of a task): drawn by seed where there are more; named.
    Claims, of number tasks: orders_work and repeats_fail (against `well` times the trained prompts' accuracy), one_token_numeric (against the
    share `enough`, which must not be reached without a prompt), sum_of_deltas. Raises UserError where no prompt has two tokens, or for prompts that were trained elsewhere.
    """
    if max_orders < 1 or max_subsets < 1 or any(k < 2 for k in repeats):
        raise UserError("token_operations: needs max_orders >= 1, max_subsets >= 1 and repeats of at least 2")
    result, generator = Result(), np.random.default_rng(seed)
    sets_N = evaluation_sets(runs, "token_operations", max_examples, seed)
    groups = _groups(runs, sets_N, number, max_runs, generator, result)
    bootstrap = Bootstrap(len(runs), draws, seed)
    for group in groups:
        _lay_out(lm, group, runs, repeats, max_orders, max_subsets, generator, result)
    _score(lm, groups, re.compile(number))
    for group in groups:
        _tell(result, group, bootstrap)
    short = [evaluation_set for evaluation_set in dict.fromkeys(group.evaluation_set for group in groups) if evaluation_set.n < evaluation_set.of]
    if short:
        names = ", ".join(f"{evaluation_set.task.name} ({evaluation_set.of})" for evaluation_set in short)
        result.omissions.append(f"token_operations: {max_examples} test examples of a task, drawn by seed {seed}, stand for all of {names} (max_examples=null scores all).")
    _judge(result, [group for group in groups if group.numbers], well, enough)
    result.tables["prompts"] = pd.concat([_table(group, runs) for group in groups], ignore_index=True)
    result.figures["operations"] = _figure(result, groups)
    return result


# What is scored.


@dataclass(eq=False)
class _Kind:
    """Prompts made in one way, and what they score."""

    evaluation_set: EvaluationSet
    prompts_S: list[np.ndarray] = field(default_factory=list)
    runs_S: list[tuple[int, ...]] = field(default_factory=list)
    made_S: list[str] = field(default_factory=list)
    """Which tokens: "2 0 1"."""
    correct_S: list[np.ndarray] = field(default_factory=list)
    numeric_S: list[np.ndarray] = field(default_factory=list)

    def add(self, prompt_Pd: np.ndarray, run: int, made: Sequence[int]) -> None:
        self.prompts_S.append(prompt_Pd.astype(np.float32))
        self.runs_S.append((run,))
        self.made_S.append(" ".join(map(str, made)))

    @property
    def accuracy(self) -> Scored:
        return Scored(self.correct_S, [self.evaluation_set] * len(self.correct_S), self.runs_S)

    @property
    def numeric(self) -> Scored:
        return Scored(self.numeric_S, [self.evaluation_set] * len(self.numeric_S), self.runs_S)


@dataclass(eq=False)
class _Group:
    """One task's runs of one prompt length."""

    name: str
    evaluation_set: EvaluationSet
    members: list[int]
    length: int
    numbers: bool
    """Whether every label is a number."""
    kinds: dict[str, _Kind] = field(default_factory=dict)

    @property
    def offset(self) -> int:
        """c, where every label is its input + c; 0 where there is no such c."""
        try:
            found = {int(e.label) - int(e.input) for e in self.evaluation_set.task.test}
        except ValueError:
            return 0
        return found.pop() if len(found) == 1 else 0


def _groups(runs: RunTable, sets_N: list[EvaluationSet], number: str, max_runs: int | None, generator: np.random.Generator, result: Result) -> list[_Group]:
    members: dict[tuple[EvaluationSet, int], list[int]] = {}
    for n, (run, evaluation_set) in enumerate(zip(runs.runs, sets_N, strict=True)):
        members.setdefault((evaluation_set, len(run.prompt())), []).append(n)
    groups = []
    for ((evaluation_set, length), own), name in zip(members.items(), names_of(runs, list(members.values())), strict=True):
        if length < 2:
            result.omissions.append(f"token_operations: the prompts of {name} have one token: there is nothing to reorder, leave out or add up.")
            continue
        chosen = own
        if max_runs is not None and len(own) > max_runs:
            chosen = [own[i] for i in np.sort(generator.permutation(len(own))[:max_runs])]
            result.omissions.append(f"token_operations: {max_runs} of {len(own)} runs of {name} were asked, drawn by seed (max_runs=null asks all).")
        numbers = all(re.fullmatch(number, e.label.strip()) for e in evaluation_set.task.test)
        if not numbers:
            result.omissions.append(f"token_operations: the labels of {name} are no numbers, so whether its outputs are numbers is not asked.")
        groups.append(_Group(name, evaluation_set, chosen, length, numbers))
    if not groups:
        raise UserError("token_operations: needs prompts of at least two tokens (prompt.length=3); these have one")
    return groups


def _lay_out(
    lm: FrozenLM, group: _Group, runs: RunTable, repeats: Sequence[int], max_orders: int, max_subsets: int, generator: np.random.Generator, result: Result
) -> None:
    length, positions = group.length, list(range(group.length))
    orders = _orders(length, max_orders, generator)
    if len(orders) < math.factorial(length) - 1:
        result.omissions.append(f"token_operations: {len(orders)} of {math.factorial(length) - 1} other orders of {group.name} were scored, drawn by seed (max_orders).")
    subsets = {k: _subsets(length, k, max_subsets, generator) for k in range(1, length)}
    drawn = [k for k, chosen in subsets.items() if len(chosen) < math.comb(length, k)]
    if drawn:
        result.omissions.append(f"token_operations: {max_subsets} subsets each of {', '.join(map(str, drawn))} tokens of {group.name} were scored, drawn by seed (max_subsets).")
    times = sorted({*repeats, length})
    meant = {k: _meaning(lm, group, k) for k in times} if group.offset else {}
    meant = {k: (ending, evaluation_set) for k, (ending, evaluation_set) in meant.items() if evaluation_set.n}
    unknown = [n for n in group.members if "initial" not in runs.runs[n].tensors]
    if unknown:
        result.omissions.append(f"token_operations: {len(unknown)} of {len(group.members)} runs of {group.name} have no P0; sums of deltas need one and leave them out.")

    def kind(name: str, evaluation_set: EvaluationSet = group.evaluation_set) -> _Kind:
        return group.kinds.setdefault(name, _Kind(evaluation_set))

    for n in group.members:
        prompt_Pd = runs.runs[n].prompt().astype(np.float64)
        kind("trained").add(prompt_Pd, n, positions)
        for order in orders:
            kind("order").add(prompt_Pd[list(order)], n, order)
        for k, chosen in subsets.items():
            for subset in chosen:
                kind(f"subset.{k}").add(prompt_Pd[list(subset)], n, subset)
        for k in times:
            for i in positions:
                kind(f"repeat.{k}").add(prompt_Pd[[i] * k], n, [i] * k)
                if k in meant:
                    kind(f"repeat.{k}{meant[k][0]}", meant[k][1]).add(prompt_Pd[[i] * k], n, [i] * k)
                    kind(f"subset.1{meant[k][0]}", meant[k][1]).add(prompt_Pd[[i]], n, [i])
        kind("sum").add(prompt_Pd.sum(0, keepdims=True), n, positions)
        if n not in unknown:
            p0_Pd = runs.runs[n].prompt("initial").astype(np.float64)
            delta_d = (prompt_Pd - p0_Pd).sum(0)
            kind("initial").add(p0_Pd, n, positions)
            kind("initial_sum").add(p0_Pd.sum(0, keepdims=True), n, positions)
            for i in _different(p0_Pd):
                noise_d = generator.standard_normal(len(delta_d))
                kind("delta_sum").add(p0_Pd[[i]] + delta_d, n, [i])
                kind("random_sum").add(p0_Pd[[i]] + noise_d * (np.linalg.norm(delta_d) / np.linalg.norm(noise_d)), n, [i])
    none = kind("none")
    none.add(np.zeros((0, prompt_Pd.shape[1])), 0, [])
    none.runs_S = [()]


def _orders(length: int, most: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Orders of the positions other than their own: all, or `most` different ones drawn at random."""
    own = tuple(range(length))
    if math.factorial(length) - 1 <= most:
        return [order for order in permutations(own) if order != own]
    found: dict[tuple[int, ...], None] = {}
    while len(found) < most:
        order = tuple(generator.permutation(length).tolist())
        if order != own:
            found[order] = None
    return sorted(found)


def _subsets(length: int, size: int, most: int, generator: np.random.Generator) -> list[tuple[int, ...]]:
    """Subsets of the positions, each in order: all, or `most` different ones drawn at random."""
    if math.comb(length, size) <= most:
        return list(combinations(range(length), size))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < most:
        found[tuple(sorted(generator.permutation(length)[:size].tolist()))] = None
    return sorted(found)


def _meaning(lm: FrozenLM, group: _Group, times: int) -> tuple[str, EvaluationSet]:
    """The group's inputs with the label that its task, done so many times, would give: (the end of a kind's name, an evaluation_set).

    Labels that are several tokens are left out where the template scores one.
    """
    task, add = group.evaluation_set.task, times * group.offset
    test = [replace(e, label=str(int(e.input) + add)) for e in task.test]
    if task.template.scoring is Scoring.token:
        test = [e for e, row in zip(test, task.rows(lm, test, 0), strict=True) if len(row.label) == 1]
    return f".as_plus_{add}", EvaluationSet(replace(task, test=test), group.evaluation_set.max_new_tokens, group.evaluation_set.of)


def _different(p0_Pd: np.ndarray) -> list[int]:
    """The positions of different P0 tokens: a word as init has one."""
    return sorted(np.unique(p0_Pd, axis=0, return_index=True)[1].tolist())


def _score(lm: FrozenLM, groups: list[_Group], number: re.Pattern) -> None:
    """Each different prompt once, those of one evaluation_set and length together."""
    together: dict[tuple[EvaluationSet, int], dict[bytes, np.ndarray]] = {}
    kinds = [kind for group in groups for kind in group.kinds.values()]
    for kind in kinds:
        for prompt_Pd in kind.prompts_S:
            together.setdefault((kind.evaluation_set, len(prompt_Pd)), {})[prompt_Pd.tobytes()] = prompt_Pd
    blocks = [(evaluation_set, list(prompts.items())[k : k + BLOCK]) for (evaluation_set, _), prompts in together.items() for k in range(0, len(prompts), BLOCK)]
    found: dict[tuple[EvaluationSet, bytes], tuple[np.ndarray, np.ndarray]] = {}
    for evaluation_set, block in progress(blocks, "scoring prompts"):
        scored = evaluate(lm, np.stack([prompt for _, prompt in block]), evaluation_set.task, max_new_tokens=evaluation_set.max_new_tokens, outputs=True)
        for (key, _), correct_E, texts in zip(block, scored.correct, scored.outputs, strict=True):
            found[evaluation_set, key] = correct_E, np.array([number.fullmatch(text.strip()) is not None for text in texts])
    for kind in kinds:
        both = [found[kind.evaluation_set, prompt_Pd.tobytes()] for prompt_Pd in kind.prompts_S]
        kind.correct_S, kind.numeric_S = [correct for correct, _ in both], [numeric for _, numeric in both]


# What is told.


def _words(kind: str) -> str:
    fixed = {
        "order": "its tokens in another order", "sum": "the sum of its tokens", "delta_sum": "a P0 token plus the sum of the deltas",
        "random_sum": "a P0 token plus a random direction of that length", "initial": "P0", "initial_sum": "the sum of P0's tokens",
    }  # fmt: skip
    if kind in fixed:
        return fixed[kind]
    what, k = kind.split(".")
    return f"one of its tokens, {k} times" if what == "repeat" else "one of its tokens" if k == "1" else f"{k} of its tokens"


def _own(group: _Group) -> list[str]:
    """The kinds that are scored on the task itself."""
    return [kind for kind in group.kinds if "as_plus" not in kind]


def _tell(result: Result, group: _Group, bootstrap: Bootstrap) -> None:
    trained = group.kinds["trained"]
    metrics = [("", "accuracy"), ("numeric.", "numeric")] if group.numbers else [("", "accuracy")]
    for kind, found in group.kinds.items():
        unit = "test examples" if kind == "none" else "prompts"
        what, _, meaning = kind.partition(".as_plus")
        quantity = f"{what}.{group.name}" + (f".as_plus{meaning}" if meaning else "")
        for prefix, metric in metrics[: 1 if meaning else None]:
            scored = getattr(found, metric)
            result.number(f"{prefix}{quantity}", scored.mean, group.evaluation_set.n if kind == "none" else len(scored), unit, *bootstrap.interval(scored))
    for kind in _own(group):
        if kind in ("trained", "none"):
            continue
        # P0 may be known of some runs only: then those are compared.
        known = {members for members in group.kinds[kind].runs_S}
        for prefix, metric in metrics:
            scored, whole = getattr(group.kinds[kind], metric), getattr(trained, metric)
            control = whole.where(lambda s, known=known: trained.runs_S[s] in known)
            told = bootstrap.difference(scored, control)
            result.number(f"difference.{prefix}{kind}.{group.name}", told[0], len(scored), "prompts", *told[1:])
            if metric == "accuracy":
                result.findings.append(_finding(group, kind, bootstrap, told, control))
    if "delta_sum" in group.kinds:
        known = set(group.kinds["delta_sum"].runs_S)
        told = bootstrap.difference(group.kinds["delta_sum"].accuracy, group.kinds["sum"].accuracy.where(lambda s: group.kinds["sum"].runs_S[s] in known))
        result.number(f"difference.delta_sum.sum.{group.name}", told[0], len(group.kinds["delta_sum"].prompts_S), "prompts", *told[1:])
    _tell_meanings(result, group, bootstrap)


def _finding(group: _Group, kind: str, bootstrap: Bootstrap, told: tuple[float, float, float], control: Scored) -> Finding:
    found, (difference, low, high) = group.kinds[kind], told
    verdict = "fewer than" if high < 0 else "more than" if low > 0 else "not told from"
    numeric = f" ({percent(found.numeric.mean, *bootstrap.interval(found.numeric))} of its outputs are numbers)" if group.numbers else ""
    sentence = (
        f"{group.name}: {_words(kind)} solves {percent(found.accuracy.mean, *bootstrap.interval(found.accuracy))} of the test examples{numeric}, {verdict} the trained prompt "
        f"({control.mean:.1%}): {points(difference, low, high)} (n = {_count(len(found.prompts_S), 'prompt')} of {_count(len(set(found.runs_S)), 'run')}, {group.evaluation_set.n} test examples)."
    )
    return Finding(sentence, difference, len(found.prompts_S), "prompts", low, high)


def _tell_meanings(result: Result, group: _Group, bootstrap: Bootstrap) -> None:
    for kind, found in group.kinds.items():
        what, _, meaning = kind.partition(".as_plus_")
        if not meaning or not what.startswith("repeat."):
            continue
        once = group.kinds[f"subset.1.as_plus_{meaning}"]
        difference, low, high = bootstrap.difference(found.accuracy, once.accuracy)
        result.number(f"difference.{what}.{group.name}.as_plus_{meaning}", difference, len(found.prompts_S), "prompts", low, high)
        verdict = "more than" if low > 0 else "fewer than" if high < 0 else "not told from"
        result.findings.append(Finding(
            f"{group.name}: {_words(what)} gives the input plus {meaning} in {percent(found.accuracy.mean, *bootstrap.interval(found.accuracy))} of the test examples, {verdict} the token once "
            f"({once.accuracy.mean:.1%}): {points(difference, low, high)} (n = {_count(len(found.prompts_S), 'prompt')} of {_count(len(set(found.runs_S)), 'run')}, {found.evaluation_set.n} test examples).",
            difference, len(found.prompts_S), "prompts", low, high,
        ))  # fmt: skip


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _judge(result: Result, groups: list[_Group], well: float, enough: float) -> None:
    """The study's claims, which are about a number task; they hold if they hold for every one here."""
    rows = {row["quantity"]: row for row in result.numbers}

    def claim(name: str, said: list[tuple[bool, str]]) -> None:
        if said:
            result.claims.append(Claim(name, all(holds for holds, _ in said), "; ".join(text for _, text in said) + "."))

    def shown(quantity: str) -> str:
        row = rows[quantity]
        return percent(row["value"], row["low"], row["high"])

    def against_trained(kind: str, group: _Group, quantity: str, at_least: bool) -> tuple[bool, str]:
        bar = well * rows[f"trained.{group.name}"]["value"]
        works = rows[quantity]["value"] >= bar > 0
        return works == at_least, f"{group.name}: {kind} {shown(quantity)}, {'at least' if works else 'less than'} {well:g} times the trained prompt's accuracy ({bar:.1%}; n = {rows[quantity]['n']} prompts)"

    claim("orders_work", [against_trained("in another order", group, f"order.{group.name}", True) for group in groups])
    hoped = [(group, f"repeat.2.{group.name}.as_plus_{2 * group.offset}") for group in groups if group.offset]
    claim("repeats_fail", [against_trained("a token twice, asked for twice the sum,", group, quantity, False) for group, quantity in hoped if quantity in rows])
    single = [(rows[f"numeric.subset.1.{group.name}"]["value"] >= enough > rows[f"numeric.none.{group.name}"]["value"],
               f"{group.name}: {shown(f'numeric.subset.1.{group.name}')} of a single token's outputs are numbers, "
               f"of P0's {shown(f'numeric.initial.{group.name}') if f'numeric.initial.{group.name}' in rows else 'not known'}, without a prompt {shown(f'numeric.none.{group.name}')}; "
               f"{enough:.0%} would be enough{', and is reached without a prompt: the token has no part in it' if rows[f'numeric.none.{group.name}']['value'] >= enough else ''} (n = {rows[f'numeric.subset.1.{group.name}']['n']} prompts)") for group in groups]  # fmt: skip
    claim("one_token_numeric", single)
    sums = []
    for group in groups:
        if row := rows.get(f"difference.delta_sum.sum.{group.name}"):
            difference = points(row["value"], row["low"], row["high"])
            sums.append((row["low"] > 0, f"{group.name}: the sum of the deltas on a P0 token {shown(f'delta_sum.{group.name}')}, the sum of the tokens {shown(f'sum.{group.name}')}: {difference} (n = {row['n']} prompts)"))
    claim("sum_of_deltas", sums)


def _table(group: _Group, runs: RunTable) -> pd.DataFrame:
    rows = []
    for kind, found in group.kinds.items():
        for correct_E, numeric_E, members, made in zip(found.correct_S, found.numeric_S, found.runs_S, found.made_S, strict=True):
            low, high = wilson(int(correct_E.sum()), len(correct_E))
            of = {column: runs.table[column][members[0]] if members else None for column in ("init", "seed")}
            numeric = numeric_E.mean() if group.numbers else np.nan
            rows.append({"task": group.name, "kind": kind, **of, "tokens": made, "accuracy": correct_E.mean(), "low": low, "high": high, "numeric": numeric, "n": len(correct_E)})
    return pd.DataFrame(rows)


def _figure(result: Result, groups: list[_Group]) -> str:
    rows = {row["quantity"]: row for row in result.numbers}
    columns, most = min(len(groups), 2), max(len(_own(group)) for group in groups)
    with panels(-(-len(groups) // columns), columns, height=0.9 + 0.24 * most, sharex=True) as (figure, axes):
        for axis, group in zip(axes.flat, groups, strict=False):
            kinds = _own(group)
            for prefix, label, colour, marker, shift in (("", "accuracy", COLOURS[0], "o", 0.12), ("numeric.", "output is a number", COLOURS[2], "s", -0.12)):
                told = [(len(kinds) - 1 - k + shift, rows[f"{prefix}{kind}.{group.name}"]) for k, kind in enumerate(kinds) if f"{prefix}{kind}.{group.name}" in rows]
                if told:
                    values = np.array([row["value"] for _, row in told])
                    bars = np.clip([values - [row["low"] for _, row in told], [row["high"] for _, row in told] - values], 0, None)
                    axis.errorbar(values, [y for y, _ in told], xerr=bars, linestyle="none", marker=marker, markersize=4, color=colour, elinewidth=0.8, capsize=2, label=label)
            axis.set(title=group.name, xlim=(-0.03, 1.03), yticks=range(len(kinds)), yticklabels=list(reversed(kinds)))
        for axis in axes.flat[len(groups) :]:
            axis.set_visible(False)
        figure.supxlabel("share of the test examples", fontsize=9)
        labelled = next((axis for axis, group in zip(axes.flat, groups, strict=False) if group.numbers), axes[0, 0])
        figure.legend(*labelled.get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
        return svg(figure)
