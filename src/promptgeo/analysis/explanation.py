"""An explanation token, trained to explain its input, applied to itself: what does it write where its own prompt stands as the input?

The input's words are replaced by soft tokens: the explaining prompt itself ([P][P]), other runs' prompts, and as controls P0, random prompts of
equal norms, and ordinary inputs of the task. An open direction of study 1.

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
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.speaking_probes import js, probe_row, sign_flip_p
from promptgeo.analysis.stats import bootstrap_mean, pair_means, permutation_p, progress, run_weights, wilson
from promptgeo.analysis.vectors import random_like
from promptgeo.batching import IGNORE, Row
from promptgeo.schema import Template
from promptgeo.errors import UserError
from promptgeo.lm import FrozenLM
from promptgeo.planning import task_of
from promptgeo.runs import Run, RunTable
from promptgeo.tasks import Task

LEVEL = 0.05
INPUTS = {"own": "itself", "p0": "P0", "random": "random prompts of equal norms", "other": "other runs' prompts", "word": "ordinary inputs"}
PLACE = re.compile(r"({prompt}|{input})")


def explanation(
    runs: RunTable,
    *,
    lm: FrozenLM,
    task: str = "explanation",
    random: int = 19,
    others: int | None = 20,
    words: int = 5,
    permutations: int = 1000,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """What each run of `task` writes of itself, of P0, of `random` Gaussian prompts with its tokens' norms, of up to `others` other runs' prompts
    (null: all; those of other tasks come first, drawn by seed) and of `words` of its task's test inputs: text and its probability, greedily.

    An ordinary input is put in as the embeddings of its tokens, a space before it where the template has one; its accuracy is that of the run.
    Table `explanations`: a row per run and input. Numbers, a run as the unit: `accuracy`, that it explains its test inputs at all;
    `differs.<input>`, the share of inputs for which it writes another text than for itself; `distinct.<input>`, the share of pairs of runs that
    write different texts; `probability.<input>` of what is written; `js.own.<input>`, Jensen-Shannon divergence in bits of the first token's
    distribution from the one for itself; `js.among.<input>`, between two of those inputs.
    p of js.own.random and js.own.other: is the own prompt further from the rest than one of the random (other) inputs is? Which of a run's inputs
    is its own is exchanged within each run, one-sided. p of js.own.p0: against js.random.p0, signs of runs flipped.
    Intervals draw runs; Wilson's where each run says yes or no; one run alone has none, but for shares of its inputs.
    Raises UserError for prompts trained elsewhere, no run of the task, or an input that does not fit the model.
    """
    explaining = _explaining(runs, task)
    generator = np.random.default_rng(seed)
    result = Result()
    asked = []
    for run in progress(explaining, "explaining"):
        asked.append(_explain(lm, run, _inputs(lm, run, runs.runs, random, others, words, generator)))
    kinds = [kind for kind in INPUTS if any(kind in one.kinds for one in asked)]
    if "p0" not in kinds:
        result.omissions.append("explanation: these runs have no P0; it is not explained.")
    if "other" not in kinds:
        result.omissions.append("explanation: there are no other runs whose prompts could be explained.")
    result.tables["explanations"] = pd.DataFrame(
        [
            {"run": run.id[:8], "init": run.info["config"]["init"]["name"], "seed": run.info["config"]["seed"], "kind": kind, "input": name, "text": text, "probability": probability}
            for run, one in zip(explaining, asked, strict=True)
            for kind, name, text, probability in zip(one.kinds, one.names, one.texts, one.probabilities, strict=True)
        ]
    )
    _tell_accuracy(explaining, task, result, draws, seed)
    _tell_texts(asked, kinds, result, draws, seed)
    _tell_distributions(asked, kinds, result, permutations, draws, seed)
    if len(explaining) > 1:
        result.figures["divergences"] = _figure(asked, kinds)
    else:
        result.omissions.append("explanation: one run alone: nothing is said of whether runs write the same.")
    return result


# ------------------------------------------------------------------------------------------------- what is asked


@dataclass(frozen=True, eq=False)
class _Input:
    kind: str
    name: str
    vectors_Qd: np.ndarray


@dataclass(frozen=True, eq=False)
class _Explained:
    """What one run says of its inputs; the first is itself."""

    kinds: list[str]
    names: list[str]
    texts: list[str]
    probabilities: np.ndarray
    """[S] of the whole text that was written, its terminator included."""
    js_SS: np.ndarray
    """Between the first tokens' distributions, in bits."""

    def of(self, kind: str) -> np.ndarray:
        """[S of the kind] int64: where its inputs are."""
        return np.flatnonzero(np.array(self.kinds) == kind)


def _explaining(runs: RunTable, task: str) -> list[Run]:
    if runs.runs is None:
        raise UserError("explanation: needs runs trained here; prompts from elsewhere do not say how their task's examples are written")
    found = [run for run in runs.runs if run.info["config"]["task"]["name"] == task]
    if not found:
        raise UserError(f"explanation: no run of task {task} is among these ({', '.join(runs.table['task'].unique())}); train some (sweep=explanation) or set analysis.explanation.task")
    return found


def _inputs(lm: FrozenLM, run: Run, all_runs: Sequence[Run], random: int, others: int | None, words: int, generator: np.random.Generator) -> list[_Input]:
    own_Pd, task = run.prompt(), task_of(run)
    found = [_Input("own", "itself", own_Pd)]
    if "initial" in run.tensors:
        found.append(_Input("p0", "P0", run.prompt("initial")))
    found += [_Input("random", f"random {i}", random_like(own_Pd, generator).astype(np.float32)) for i in range(random)]
    rest = [other for other in all_runs if other.id != run.id]
    rest = [rest[i] for i in generator.permutation(len(rest))]
    rest.sort(key=lambda other: other.info["config"]["task"]["name"] == task.name)
    found += [_Input("other", _name(other), other.prompt()) for other in rest[:others]]
    space = " " if " {input}" in task.template.text else ""
    for i in generator.permutation(len(task.test))[:words]:
        ids = torch.tensor(lm.encode(space + task.test[i].input), device=lm.device)
        with torch.no_grad():
            found.append(_Input("word", task.test[i].input, lm.embed(ids).float().cpu().numpy()))
    return found


def _name(run: Run) -> str:
    config = run.info["config"]
    return f"{config['task']['name']} {config['init']['name']} s{config['seed']}"


def soft_input_row(lm: FrozenLM, template: Template, prompt_length: int, input_length: int) -> Row:
    """The template's text with soft tokens in both places: tokens 0 to P - 1 at {prompt}, P to P + Q - 1 at {input}.

    A space before {input} is left out: it would belong to the first token of an ordinary input.
    """
    text = template.text if "{prompt}" in template.text else "{prompt}" + template.text
    text = text.replace(" {input}", "{input}")
    prompt = [-1 - k for k in range(prompt_length)]
    stands = {"{prompt}": prompt, "{input}": [-1 - prompt_length - k for k in range(input_length)]}
    places = iter(PLACE.findall(text))
    marked = probe_row(lm, template.name, PLACE.sub("{prompt}", text), 1)  # -1 marks the places, in their order
    ids = [token for one in marked.ids.tolist() for token in (stands[next(places)] if one == -1 else [one])]
    return replace(marked, ids=np.array(ids, dtype=np.int64))


@torch.no_grad()
def _explain(lm: FrozenLM, run: Run, inputs: list[_Input]) -> _Explained:
    task, prompt_Pd = task_of(run), run.prompt()
    by_length: dict[int, list[int]] = defaultdict(list)
    for s, one in enumerate(inputs):
        by_length[len(one.vectors_Qd)].append(s)
    texts, logp_S, first_SV = [""] * len(inputs), np.zeros(len(inputs)), [np.empty(0)] * len(inputs)
    limit = run.info["config"]["evaluation"]["max_new_tokens"]
    for length, members in by_length.items():
        prompts = torch.as_tensor(np.stack([np.concatenate([prompt_Pd, inputs[s].vectors_Qd]) for s in members]), dtype=torch.float32, device=lm.device)
        row = soft_input_row(lm, task.template, len(prompt_Pd), length)
        if lm.max_positions is not None and len(row.ids) + limit > lm.max_positions:
            raise UserError(f"explanation: {inputs[members[0]].name} as the input takes {len(row.ids)} positions and up to {limit} are written; the model has {lm.max_positions}")
        written = lm.greedy(prompts, [row] * len(members), range(len(members)), limit, _ended(lm, task))
        rows = [Row(row.ids, np.array(tokens, dtype=np.int64)) for tokens in written]
        for s, tokens in zip(members, written, strict=True):
            texts[s] = _text(lm, task, tokens)
        for s, (logp, first_V) in zip(members, _said(lm, prompts, rows), strict=True):
            logp_S[s], first_SV[s] = logp, first_V
    p_SV = torch.from_numpy(np.stack(first_SV)).exp_()
    js_SS = np.stack([js(p_SV, p_V) for p_V in p_SV])
    return _Explained([i.kind for i in inputs], [i.name for i in inputs], texts, np.exp(logp_S), js_SS)


def _ended(lm: FrozenLM, task: Task) -> Callable[[int, list[int]], bool]:
    return lambda _, tokens: bool(task.template.end) and task.template.end in lm.decode(tokens)


def _text(lm: FrozenLM, task: Task, tokens: list[int]) -> str:
    text = lm.decode(tokens)
    return (text.partition(task.template.end)[0] if task.template.end else text).strip()


def _said(lm: FrozenLM, prompts_SPd: torch.Tensor, rows_S: Sequence[Row]) -> list[tuple[float, np.ndarray]]:
    """Per row: the log-probability of its label, and the first token's log-probabilities [V] float32; in nats."""
    totals, first = np.zeros(len(rows_S)), {}
    for batch in lm.batches(rows_S, range(len(rows_S)), prompts_SPd.shape[1]):
        logp_MV = lm.label_logits(prompts_SPd, batch).log_softmax(-1).cpu().numpy()
        targets_M, row_M = batch.targets_M.cpu().numpy(), batch.row_M.cpu().numpy()
        for m in np.flatnonzero(targets_M != IGNORE):
            first.setdefault(int(row_M[m]), logp_MV[m])
            totals[row_M[m]] += logp_MV[m, targets_M[m]]
    return [(float(total), first[s]) for s, total in enumerate(totals)]


# ------------------------------------------------------------------------------------------------- what it says


def _interval(values_N: np.ndarray, draws: int, seed: int) -> tuple[float | None, float | None]:
    """95 % interval of the mean over runs; none for one run."""
    return bootstrap_mean(values_N, draws=draws, seed=seed) if len(values_N) > 1 else (None, None)


def _share_interval(values_N: np.ndarray, draws: int, seed: int, of: int = 1) -> tuple[float, float]:
    """95 % interval of a mean share; Wilson's where each run says yes or no, and for one run, over the `of` inputs that its share is of."""
    if len(values_N) == 1:
        return wilson(round(values_N[0] * of), of)
    if np.isin(values_N, (0, 1)).all():
        return wilson(round(values_N.sum()), len(values_N))
    return bootstrap_mean(values_N, draws=draws, seed=seed)


def _tell_accuracy(explaining: list[Run], task: str, result: Result, draws: int, seed: int) -> None:
    accuracies_N = np.array([run.row()["accuracy_final"] for run in explaining], dtype=float)
    (low, high), n, value = _share_interval(accuracies_N, draws, seed, explaining[0].row()["n"]), len(explaining), float(accuracies_N.mean())
    result.number("accuracy", value, n, "runs", low, high)
    result.findings.append(Finding(f"The tokens of task {task} explain {value:.1%} of their test inputs rightly ({low:.1%} to {high:.1%}; n = {n} runs).", value, n, "runs", low, high))


def _tell_texts(asked: list[_Explained], kinds: list[str], result: Result, draws: int, seed: int) -> None:
    n = len(asked)
    for kind in kinds:
        probability_N = np.array([one.probabilities[one.of(kind)].mean() for one in asked])
        result.number(f"probability.{kind}", probability_N.mean(), n, "runs", *_interval(probability_N, draws, seed))
        if n > 1:
            result.number(f"distinct.{kind}", *_distinct([[one.texts[s] for s in one.of(kind)] for one in asked], draws, seed))
        if kind == "own":
            continue
        differs_N = np.array([np.mean([one.texts[s] != one.texts[0] for s in one.of(kind)]) for one in asked])
        low, high = _share_interval(differs_N, draws, seed, len(asked[0].of(kind)))
        result.number(f"differs.{kind}", differs_N.mean(), n, "runs", low, high)
        what = {"p0": "for P0", "random": "for a random prompt of equal norms", "other": "for another run's prompt", "word": "for an ordinary input"}[kind]
        sentence = f"With itself as the input an explanation token writes another text than {what} in {differs_N.mean():.1%} of cases ({low:.1%} to {high:.1%}; n = {n} runs)."
        result.findings.append(Finding(sentence, float(differs_N.mean()), n, "runs", low, high))


def _distinct(texts_N: list[list[str]], draws: int, seed: int) -> tuple[float, int, str, float, float]:
    """(share of pairs of runs that write different texts, pairs, unit, 95 % interval with runs drawn), one input beside another of the same place."""
    n, places = len(texts_N), min(map(len, texts_N))
    different_NN = np.mean([[[a[i] != b[i] for b in texts_N] for a in texts_N] for i in range(places)], axis=0)
    apart_NN = 1.0 - np.eye(n)
    pairs = n * (n - 1) // 2
    share = float(different_NN.sum() / (2 * pairs))
    if share in (0.0, 1.0):
        return share, pairs, "pairs of runs", *wilson(round(share * n), n)
    low, high = np.nanpercentile(pair_means(run_weights(n, draws, seed), different_NN, apart_NN), [2.5, 97.5])
    return share, pairs, "pairs of runs", float(low), float(high)


def _tell_distributions(asked: list[_Explained], kinds: list[str], result: Result, permutations: int, draws: int, seed: int) -> None:
    n = len(asked)
    for kind in kinds[1:]:
        own_N = np.array([one.js_SS[0, one.of(kind)].mean() for one in asked])
        low, high = _interval(own_N, draws, seed)
        p, beside = None, None
        if all(len(one.of(kind)) > 1 for one in asked):
            beside, p = _outlying(asked, kind, result, permutations, draws, seed)
        elif kind == "p0" and "random" in kinds:
            random_N = np.array([one.js_SS[one.of("random"), one.of("p0")[0]].mean() for one in asked])
            p = sign_flip_p(own_N - random_N, permutations=permutations, seed=seed)
            beside = float(random_N.mean())
            result.number("js.random.p0", beside, n, "runs", *_interval(random_N, draws, seed))
        result.number(f"js.own.{kind}", own_N.mean(), n, "runs", low, high, p)
        if p is not None and kind != "word":
            _find(result, kind, float(own_N.mean()), beside, low, high, p, n)


def _outlying(asked: list[_Explained], kind: str, result: Result, permutations: int, draws: int, seed: int) -> tuple[float, float]:
    """(mean divergence between two inputs of the kind, p that the own one lies further from the rest than one of them does)."""
    generator = np.random.default_rng(seed)
    means, among_N = [], []
    for one in asked:
        pool = np.array([0, *one.of(kind)])
        js_SS = one.js_SS[np.ix_(pool, pool)]
        means.append(js_SS.sum(1) / (len(pool) - 1))
        rest = len(pool) - 1
        among_N.append(js_SS[1:, 1:].sum() / (rest * (rest - 1)))
    observed = float(np.mean([mean_S[0] for mean_S in means]))
    null_B = np.mean([mean_S[generator.integers(0, len(mean_S), permutations)] for mean_S in means], axis=0)
    result.number(f"js.among.{kind}", float(np.mean(among_N)), len(asked), "runs", *_interval(np.array(among_N), draws, seed))
    return float(np.mean(among_N)), permutation_p(observed, null_B)


def _find(result: Result, kind: str, own: float, beside: float, low: float | None, high: float | None, p: float, n: int) -> None:
    interval = f" ({low:.3f} to {high:.3f})" if low is not None else ""
    numbers = f"(first token, Jensen-Shannon {own:.3f} bits{interval} against {beside:.3f}; p = {p:.2g}; n = {n} runs)"
    if kind == "p0":
        way = ("further from" if own > beside else "nearer to") if p < LEVEL else "not detectably further from or nearer to"
        sentence = f"What an explanation token says of itself lies {way} what it says of P0 than what it says of a random prompt does {numbers}."
    else:
        way = "differs more" if p < LEVEL else "does not differ detectably more"
        sentence = f"What an explanation token says of itself {way} from what it says of {INPUTS[kind]} than that differs among these {numbers}."
    result.findings.append(Finding(sentence, own, n, "runs", low, high, p))


def _figure(asked: list[_Explained], kinds: list[str]) -> str:
    """Per run: divergence from what it says of itself."""
    with panels(width=6.4, height=2.8) as (figure, axes):
        axis = axes[0, 0]
        for k, kind in enumerate(kinds[1:]):
            for n, one in enumerate(asked):
                values = one.js_SS[0, one.of(kind)]
                axis.plot(n + 0.14 * (k - 1.5) + np.zeros(len(values)), values, "o", ms=3, alpha=0.6, color=COLOURS[k], label=INPUTS[kind] if n == 0 else None)
        axis.set_xticks(range(len(asked)), range(len(asked)))
        axis.set_xlabel("explanation token (run)")
        axis.set_ylabel("bits from what it\nsays of itself")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)
