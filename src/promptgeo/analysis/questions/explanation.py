"""An explanation token, trained to explain its input, with its own prompt as the input: what does it write of itself?

The input's words are replaced by soft tokens: the explaining prompt itself ([P][P]), other runs' prompts, and as
controls P0, random prompts of equal norms, and ordinary inputs of the task. An open direction of study 1.

Table `explanations`: a row per run and input, with the text that is written greedily and its probability. Numbers, a
run as the unit: `accuracy`, that it explains its test inputs at all; `differs.<input>`, the share of inputs for which
it writes another text than for itself; `distinct.<input>`, the share of pairs of runs that write different texts;
`probability.<input>` of what is written; `js.own.<input>`, Jensen-Shannon divergence in bits of the first token's
distribution from the one for itself; `js.among.<input>`, between two of those inputs; `js.random.p0`.

p of js.own.random and js.own.other: is the own prompt further from the rest than one of the random (other) inputs is?
Which of a run's inputs is its own is exchanged within each run, one-sided. p of js.own.p0: against js.random.p0, signs
of runs flipped, which takes 6 runs. Intervals are Student's t over runs, near 0 and 1, and where each run says yes or
no, as wide as Clopper and Pearson's; one run alone has none, but for shares of its inputs. That of `accuracy` is never
narrower than Wilson's over the test inputs, which all runs share.

Shapes: N explaining runs, S inputs of one, P prompt tokens of it, Q tokens of an input, d width, V vocabulary, B draws.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.geometry.tokens import random_like
from promptgeo.analysis.probing import js, label_logp, probe_row
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import (
    clopper_pearson,
    jackknife_interval,
    permutation_p,
    sign_flip_p,
    sign_flips_needed,
    t_mean,
    wilson,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.config.schema import Template
from promptgeo.data.row import Row
from promptgeo.data.tasks import Task
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of

LEVEL = 0.05
"""Of the tests."""
INPUTS = {
    "own": "itself",
    "p0": "P0",
    "random": "random prompts of equal norms",
    "other": "other runs' prompts",
    "word": "ordinary inputs",
}
"""Kinds of input, in the order of the tables and the figure."""
ONE_INPUT = {
    "p0": "P0",
    "random": "a random prompt of equal norms",
    "other": "another run's prompt",
    "word": "an ordinary input",
}
PLACE = re.compile(r"({prompt}|{input})")


@question(lm=True, factors=("template", "prompt_length", "lr", "training"))
def explanation(
    runs: RunTable,
    *,
    lm: LM,
    task: str = "explanation",
    random: int = 19,
    others: int | None = 20,
    words: int = 5,
    permutations: int = 1000,
    seed: int = 0,
) -> Result:
    """What each run of a task writes of itself, of P0, of random and other prompts, and of ordinary inputs.

    An ordinary input is put in as the embeddings of its tokens, a space before it where the template has one; its
    accuracy is that of the run.

    Args:
        lm: the frozen model that the runs were trained on.
        task: whose runs explain.
        random: how many Gaussian prompts with the norms of the run's own tokens.
        others: up to so many other runs' prompts, those of other tasks first, drawn by seed; null: all.
        words: how many of the task's test inputs.
        permutations: of a run's inputs, and sign flips of runs.
        seed: of all of these.

    Raises UserError for prompts trained elsewhere, no run of the task, or an input that does not fit the model.
    """
    all_runs, explaining = _explaining(runs, task)
    generator = np.random.default_rng(seed)
    explained = []
    for run in progress(explaining, "explaining"):
        explained.append(_explain(lm, run, _inputs(lm, run, all_runs, random, others, words, generator)))
    kinds = [kind for kind in INPUTS if any(kind in each.kinds for each in explained)]
    result = Result()
    if "p0" not in kinds:
        result.omissions.append("explanation: these runs have no P0; it is not explained.")
    if "other" not in kinds:
        result.omissions.append("explanation: there are no other runs whose prompts could be explained.")
    result.tables["explanations"] = _table(explaining, explained)
    sample = _Sample(permutations, seed)
    _report_accuracy(explaining, task, result)
    _report_texts(explained, kinds, result)
    _report_distributions(explained, kinds, sample, result)
    if len(explaining) > 1:
        result.figures["divergences"] = _figure(explained, kinds)
    else:
        result.omissions.append("explanation: one run alone: nothing is said of whether runs write the same.")
    return result


def _explaining(runs: RunTable, task: str) -> tuple[list[Run], list[Run]]:
    """(all runs, those of the task). Raises UserError where there are none."""
    if runs.runs is None:
        raise UserError(
            "explanation: needs runs trained here; "
            "prompts from elsewhere do not say how their task's examples are written"
        )
    explaining = [run for run in runs.runs if run.info["config"]["task"]["name"] == task]
    if not explaining:
        raise UserError(
            f"explanation: no run of task {task} is among these ({', '.join(runs.table['task'].unique())}); "
            "train some (sweep=explanation) or set analysis.explanation.task"
        )
    return runs.runs, explaining


# Inputs.


@dataclass(frozen=True, eq=False)
class _Input:
    kind: str
    name: str
    vectors_Qd: np.ndarray


def _inputs(
    lm: LM,
    run: Run,
    all_runs: Sequence[Run],
    random: int,
    others: int | None,
    words: int,
    generator: np.random.Generator,
) -> list[_Input]:
    """What a run is given as input, itself first; for the counts see `explanation`."""
    own_Pd, task = run.prompt(), task_of(run)
    inputs = [_Input("own", "itself", own_Pd)]
    if "initial" in run.tensors:
        inputs.append(_Input("p0", "P0", run.prompt("initial")))
    for i in range(random):
        inputs.append(_Input("random", f"random {i}", random_like(own_Pd, generator).astype(np.float32)))
    rest = [other for other in all_runs if other.id != run.id]
    rest = [rest[i] for i in generator.permutation(len(rest))]
    rest.sort(key=lambda other: other.info["config"]["task"]["name"] == task.name)
    inputs += [_Input("other", _name(other), other.prompt()) for other in rest[:others]]
    space = " " if " {input}" in task.template.text else ""
    for i in generator.permutation(len(task.test))[:words]:
        ids = torch.tensor(lm.encode(space + task.test[i].input), device=lm.device)
        with torch.no_grad():
            inputs.append(_Input("word", task.test[i].input, lm.embed(ids).float().cpu().numpy()))
    return inputs


def _name(run: Run) -> str:
    config = run.info["config"]
    return f"{config['task']['name']} {config['init']['name']} s{config['seed']}"


def soft_input_row(lm: LM, template: Template, prompt_length: int, input_length: int) -> Row:
    """The template's text with soft tokens in both places: tokens 0 to P - 1 at {prompt}, P to P + Q - 1 at {input}.

    A space before {input} is left out: it would belong to the first token of an ordinary input.
    """
    text = template.text if "{prompt}" in template.text else "{prompt}" + template.text
    text = text.replace(" {input}", "{input}")
    soft = {
        "{prompt}": [-1 - k for k in range(prompt_length)],
        "{input}": [-1 - prompt_length - k for k in range(input_length)],
    }
    places = iter(PLACE.findall(text))
    # -1 marks the places, in their order.
    marked = probe_row(lm, template.name, PLACE.sub("{prompt}", text), 1, template.bos)
    ids = [token for one in marked.ids.tolist() for token in (soft[next(places)] if one == -1 else [one])]
    return replace(marked, ids=np.array(ids, dtype=np.int64))


# What is written.


@dataclass(frozen=True, eq=False)
class _Explained:
    """What one run writes of its inputs; the first is itself."""

    kinds: list[str]
    names: list[str]
    texts: list[str]
    probability_S: np.ndarray
    """float64: of the whole text that was written, its terminator included."""
    js_SS: np.ndarray
    """float64: between the first tokens' distributions, in bits."""

    def of(self, kind: str) -> np.ndarray:
        """[S of the kind] int64: where its inputs are."""
        return np.flatnonzero(np.array(self.kinds) == kind)


@torch.no_grad()
def _explain(lm: LM, run: Run, inputs: list[_Input]) -> _Explained:
    """Raises UserError for an input that does not fit the model."""
    task, prompt_Pd = task_of(run), run.prompt()
    by_length: dict[int, list[int]] = defaultdict(list)
    for s, each in enumerate(inputs):
        by_length[len(each.vectors_Qd)].append(s)
    texts, logp_S, first_SV = [""] * len(inputs), np.zeros(len(inputs)), [np.empty(0)] * len(inputs)
    limit = run.info["config"]["evaluation"]["max_new_tokens"]
    for length, members in by_length.items():
        row = soft_input_row(lm, task.template, len(prompt_Pd), length)
        if lm.max_positions is not None and len(row.ids) + limit > lm.max_positions:
            raise UserError(
                f"explanation: {inputs[members[0]].name} as the input takes {len(row.ids)} positions "
                f"and up to {limit} are written; the model has {lm.max_positions}"
            )
        both_SPd = np.stack([np.concatenate([prompt_Pd, inputs[s].vectors_Qd]) for s in members])
        prompts_SPd = torch.as_tensor(both_SPd, dtype=torch.float32, device=lm.device)
        written = lm.write(prompts_SPd, [row] * len(members), range(len(members)), limit, _ended(lm, task))
        rows = [Row(row.ids, np.array(tokens, dtype=np.int64)) for tokens in written]
        logp_S[members], first = label_logp(lm, prompts_SPd, rows)
        for s, tokens, first_V in zip(members, written, first, strict=True):
            texts[s], first_SV[s] = _text(lm, task, tokens), first_V
    p_SV = torch.from_numpy(np.stack(first_SV)).exp_()
    js_SS = np.stack([js(p_SV, p_V) for p_V in p_SV])
    kinds, names = [each.kind for each in inputs], [each.name for each in inputs]
    return _Explained(kinds, names, texts, np.exp(logp_S), js_SS)


def _ended(lm: LM, task: Task) -> Callable[[int, list[int]], bool]:
    end = task.template.end
    return lambda _, tokens: bool(end) and end in lm.decode(tokens)


def _text(lm: LM, task: Task, tokens: list[int]) -> str:
    text = lm.decode(tokens)
    return (text.partition(task.template.end)[0] if task.template.end else text).strip()


def _table(explaining: list[Run], explained: list[_Explained]) -> pd.DataFrame:
    rows = []
    for run, each in zip(explaining, explained, strict=True):
        config = run.info["config"]
        label = {"run": run.id[:8], "init": config["init"]["name"], "seed": config["seed"]}
        inputs = zip(each.kinds, each.names, each.texts, each.probability_S, strict=True)
        rows += [
            label | {"kind": kind, "input": name, "text": text, "probability": probability}
            for kind, name, text, probability in inputs
        ]
    return pd.DataFrame(rows)


# What it says of itself.


@dataclass(frozen=True)
class _Sample:
    """How inputs are permuted and the signs of runs flipped."""

    permutations: int
    seed: int


def _bits(values_N: np.ndarray) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a mean over runs of what lies between 0 and 1, a probability or a divergence; none for one."""
    return t_mean(values_N, least=0.0, most=1.0)


def _share_interval(shares_N: np.ndarray, of: int = 1, of_examples: bool = False) -> tuple[float, float]:
    """95 % interval of a mean share; Clopper and Pearson's where each run says yes or no, or all say the same.

    of: how many inputs one run's share is of: the interval is over these where there is one run. of_examples: they are
    test examples, of which a run may well get nearly all right, so that near 1 is not nearly a yes.
    """
    if len(shares_N) == 1:
        return clopper_pearson(shares_N[0] * of, of)
    if np.isin(shares_N, (0, 1)).all() or np.ptp(shares_N) == 0:
        return clopper_pearson(shares_N.sum(), len(shares_N))
    low, high = t_mean(shares_N) if of_examples else t_mean(shares_N, least=0.0, most=1.0)
    assert low is not None and high is not None  # there are two runs
    return max(low, 0.0), min(high, 1.0)


def _runs(n: int) -> str:
    return f"n = {n} runs" if n > 1 else "n = 1 run, for which alone this is said"


def _report_accuracy(explaining: list[Run], task: str, result: Result) -> None:
    rows = [run.row() for run in explaining]
    accuracy_N = np.array([row["accuracy_final"] for row in rows], dtype=float)
    low, high = _share_interval(accuracy_N, rows[0]["n"], of_examples=True)
    of_examples = wilson(round(accuracy_N.mean() * rows[0]["n"]), rows[0]["n"])
    low, high = min(low, of_examples[0]), max(high, of_examples[1])
    accuracy = result.number("accuracy", accuracy_N.mean(), len(rows), "runs", low, high)
    sentence = (
        f"The tokens of task {task} explain {accuracy.value:.1%} of their test inputs correctly "
        f"({low:.1%} to {high:.1%}; {_runs(accuracy.n)})."
    )
    result.findings.append(Finding.of(accuracy, sentence))


def _report_texts(explained: list[_Explained], kinds: list[str], result: Result) -> None:
    """How probable the texts are, and how often they differ: between runs, and from the one of itself."""
    n = len(explained)
    for kind in kinds:
        probability_N = np.array([each.probability_S[each.of(kind)].mean() for each in explained])
        interval = _bits(probability_N)
        result.number(f"probability.{kind}", probability_N.mean(), n, "runs", *interval)
        if n > 1:
            _report_distinct(kind, [[each.texts[s] for s in each.of(kind)] for each in explained], result)
        if kind == "own":
            continue
        differs_N = np.array([np.mean([each.texts[s] != each.texts[0] for s in each.of(kind)]) for each in explained])
        low, high = _share_interval(differs_N, len(explained[0].of(kind)))
        differs = result.number(f"differs.{kind}", differs_N.mean(), n, "runs", low, high)
        sentence = (
            f"With itself as the input an explanation token writes another text than for {ONE_INPUT[kind]} "
            f"in {differs.value:.1%} of cases ({low:.1%} to {high:.1%}; {_runs(n)})."
        )
        result.findings.append(Finding.of(differs, sentence))


def _report_distinct(kind: str, texts_N: list[list[str]], result: Result) -> None:
    """The share of pairs of runs that write different texts, one input beside another of the same place."""
    n, places = len(texts_N), min(map(len, texts_N))
    different_NN = np.mean([[[a[i] != b[i] for b in texts_N] for a in texts_N] for i in range(places)], axis=0)
    pairs = n * (n - 1) // 2
    share = float(different_NN.sum() / (2 * pairs))
    low, high = clopper_pearson(share * n, n)
    if share not in (0.0, 1.0) and n > 2:
        left = different_NN.sum() - 2 * different_NN.sum(1)
        t_low, t_high = jackknife_interval(share, left / ((n - 1) * (n - 2)))
        low, high = max(min(low, t_low), 0.0), min(max(high, t_high), 1.0)
    result.number(f"distinct.{kind}", share, pairs, "pairs of runs", low, high)


def _report_distributions(explained: list[_Explained], kinds: list[str], sample: _Sample, result: Result) -> None:
    """How far the first token's distribution for each input lies from the one for itself."""
    n = len(explained)
    for kind in kinds[1:]:
        own_N = np.array([each.js_SS[0, each.of(kind)].mean() for each in explained])
        control, p = None, None
        if all(len(each.of(kind)) > 1 for each in explained):
            control, p = _outlying(explained, kind, sample, result)
        elif kind == "p0" and "random" in kinds:
            random_N = np.array([each.js_SS[each.of("random"), each.of("p0")[0]].mean() for each in explained])
            p = sign_flip_p(own_N - random_N, permutations=sample.permutations, seed=sample.seed)
            if n < sign_flips_needed():
                result.omissions.append(
                    f"explanation: {n} runs allow no verdict on P0: signs of runs flipped need {sign_flips_needed()}."
                )
            control = result.number("js.random.p0", random_N.mean(), n, "runs", *_bits(random_N))
        low, high = _bits(own_N)
        own = result.number(f"js.own.{kind}", own_N.mean(), n, "runs", low, high, p)
        if control is not None and p is not None and kind != "word":
            result.findings.append(_finding(kind, own, control, p))


def _outlying(explained: list[_Explained], kind: str, sample: _Sample, result: Result) -> tuple[Number, float]:
    """(mean divergence between two inputs of the kind, p that the own one lies further from the rest than they do)."""
    generator = np.random.default_rng(sample.seed)
    means, among_N = [], []
    for each in explained:
        pool = np.array([0, *each.of(kind)])
        js_SS = each.js_SS[np.ix_(pool, pool)]
        means.append(js_SS.sum(1) / (len(pool) - 1))
        rest = len(pool) - 1
        among_N.append(js_SS[1:, 1:].sum() / (rest * (rest - 1)))
    observed = float(np.mean([mean_S[0] for mean_S in means]))
    draws = sample.permutations
    null_B = np.mean([mean_S[generator.integers(0, len(mean_S), draws)] for mean_S in means], axis=0)
    mean, interval = float(np.mean(among_N)), _bits(np.array(among_N))
    among = result.number(f"js.among.{kind}", mean, len(explained), "runs", *interval)
    return among, permutation_p(observed, null_B)


def _finding(kind: str, own: Number, control: Number, p: float) -> Finding:
    """The own prompt's divergence from one kind of input, beside that of a control."""
    interval = f" ({own.low:.3f} to {own.high:.3f})" if own.low is not None else ""
    evidence = (
        f"first token, Jensen-Shannon {own.value:.3f} bits{interval} against {control.value:.3f}; "
        f"p = {p:.2g}; {_runs(own.n)}"
    )
    subject = "What an explanation token says of itself"
    if kind == "p0":
        way = "further from" if own.value > control.value else "nearer to"
        way = way if p < LEVEL else "not detectably further from or nearer to"
        statement = f"{subject} lies {way} what it says of P0 than what it says of a random prompt does"
    else:
        way = "differs more" if p < LEVEL else "does not differ detectably more"
        statement = f"{subject} {way} from what it says of {INPUTS[kind]} than that differs among these"
    return Finding.of(own, f"{statement} ({evidence}).")


def _figure(explained: list[_Explained], kinds: list[str]) -> str:
    """Per run: divergence from what it says of itself."""
    with panels(width=6.4, height=2.8) as (figure, axes):
        axis = axes[0, 0]
        for k, kind in enumerate(kinds[1:]):
            for n, each in enumerate(explained):
                values = each.js_SS[0, each.of(kind)]
                at, label = n + 0.14 * (k - 1.5) + np.zeros(len(values)), INPUTS[kind] if n == 0 else None
                axis.plot(at, values, "o", ms=3, alpha=0.6, color=COLOURS[k], label=label)
        axis.set_xticks(range(len(explained)), range(len(explained)))
        axis.set_xlabel("explanation token (number of its run)")
        axis.set_ylabel("divergence, bits")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        title = "How far the model's words after other inputs lie from those after the explanation token, each a point"
        return svg(figure, title)
