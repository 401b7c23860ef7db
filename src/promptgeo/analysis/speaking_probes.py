"""Speaking probes: a soft prompt in place of a word of a natural-language question. Does what the model says next tell of the prompt's task?

After study 1, which put single soft tokens into questions ("Speaking Probes", "prompt leakage") and saw nothing; here with controls.

Shapes: N runs, P prompt tokens, d width, V vocabulary, T probes, A parts of a prompt (whole, and each token), W kinds of prompt, k ranks, S prompts.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, lgamma

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.figures import COLOURS, panels, svg
from promptgeo.analysis.result import Finding, Result
from promptgeo.analysis.stats import bootstrap_mean, permutation_p, progress, wilson
from promptgeo.analysis.variance import orders_within
from promptgeo.analysis.vectors import order_of_appearance, random_like
from promptgeo.batching import IGNORE, Row
from promptgeo.schema import Template
from promptgeo.errors import UserError
from promptgeo.lm import FrozenLM
from promptgeo.planning import task_of
from promptgeo.runs import Run, RunTable
from promptgeo.tasks import Example, Task

LEVEL = 0.05
EXACT = 12
"""Up to so many units all sign flips are enumerated: 4,096."""
CHUNK = 2**24
"""Probabilities held at once."""
WHICH = {"trained": "the trained prompt", "p0": "P0", "random": "a random prompt of equal norms", "other_task": "another task's prompt"}
WORDS = {"label": "a label's word", "description": "a word of the task's description", "init": "the init word"}
BEGINNING = 3
"""Letters that the first token of a longer word must have to count as that word."""
STOP = frozenset(["the", "and", "its", "from", "with", "for", "your", "own", "are", "this", "that", "into", "short", "which"])


def speaking_probes(
    runs: RunTable,
    *,
    lm: FrozenLM,
    probes: Mapping[str, str],
    top_k: int = 5,
    say: int = 8,
    permutations: int = 1000,
    draws: int = 1000,
    seed: int = 0,
) -> Result:
    """What the model says after each probe, of the trained prompt and of controls: P0, a Gaussian direction of each token's norm, another
    task's prompt (with the same init and seed, where there is one).

    probes: name -> text with {prompt}; without it the prompt stands first. A word's space belongs to its token: "The meaning of{prompt} is".
    top_k: how many continuations (tokens) count. say: tokens that are written greedily; 0: none.

    Tables: `continuations` (a row per run, probe, part of the prompt, kind of prompt and rank), `texts` (what is written greedily, whole prompts
    alone), `examples` (a row per run and probe, kinds side by side). Numbers: `hits.<words>.<kind>`, the share of probes whose top_k holds a
    word of the run's task; words: label, description, init; a token counts that is the word, or begins it with three letters or more;
    `hits.<words>.tokens.<kind>` for single tokens; `difference.<words>.<control>`; `entropy.<kind>` in bits; `js.<control>`, the Jensen-Shannon
    divergence from the trained prompt's next-token distribution in bits (Lin 1991; at most 1), and `js.p0_random`.

    Runs are what is drawn and permuted; runs of one task with the same P0 are one unit. p against P0 and the random prompt: signs of the
    units' paired differences flipped, two-sided, exact for up to 12 units. p against other tasks: tasks of whole runs exchanged within an init.
    Each p is of one comparison, not corrected for their number.
    Raises UserError for prompts trained elsewhere, fewer than two runs, different shapes, or a probe that does not fit the model.
    """
    if runs.runs is None:
        raise UserError("speaking_probes: needs runs trained here; prompts from elsewhere do not say what their task's words are")
    if len(runs) < 2:
        raise UserError(f"speaking_probes: needs at least 2 runs; there is {len(runs)}")
    if not probes or top_k < 1:
        raise UserError("speaking_probes: probes and top_k: at least one probe and one continuation are needed")
    for name, text in probes.items():
        if "{input}" in text:
            raise UserError(f"probes.{name}={text!r}: a probe asks of the prompt alone; it has no {{input}}")
    result = Result()
    prompts = _prompts(runs, seed, result)
    spoken = _ask(lm, prompts, probes, min(top_k, len(lm.vocabulary())))
    words = [_words(lm, run) for run in runs.runs]
    sample = _Sample(runs, prompts, permutations, draws, seed)
    _tell_hits(spoken, words, sample, top_k, result)
    _tell_distributions(spoken, sample, result)
    result.tables["continuations"] = _continuations(lm, runs, spoken)
    result.tables["examples"] = _examples(lm, runs, spoken)
    if say:
        result.tables["texts"] = _texts(lm, runs, prompts, probes, say)
    result.figures["hits"] = _figure(result, prompts, top_k)
    return result


# ------------------------------------------------------------------------------------------------- what is asked


def partners(table: pd.DataFrame) -> np.ndarray | None:
    """[N] int64: for each run the next one of another task, with the same init and seed, or else the same init, or else any; None for one task."""
    found = []
    rows = table.to_dict("records")
    for n, row in enumerate(rows):
        following = [*range(n + 1, len(rows)), *range(n)]
        others = [m for m in following if rows[m]["task"] != row["task"]]
        if not others:
            return None
        likeness = [(rows[m]["init"] == row["init"]) * 2 + (rows[m]["seed"] == row["seed"]) for m in others]
        found.append(others[int(np.argmax(likeness))])
    return np.array(found)


def _prompts(runs: RunTable, seed: int, result: Result) -> dict[str, np.ndarray]:
    """Kind -> [N, P, d] float32."""
    generator = np.random.default_rng(seed)
    prompts = {"trained": runs.prompts()}
    if all("initial" in run.tensors for run in runs.runs):
        prompts["p0"] = runs.prompts("initial")
    else:
        result.omissions.append("speaking_probes: runs without P0 are among these: nothing is compared with P0.")
    prompts["random"] = random_like(prompts["trained"], generator).astype(np.float32)
    other_N = partners(runs.table)
    if other_N is None:
        result.omissions.append("speaking_probes: these runs are of one task: no other task's prompt can be asked.")
    else:
        prompts["other_task"] = prompts["trained"][other_N]
    return prompts


def probe_row(lm: FrozenLM, name: str, text: str, length: int) -> Row:
    """A text with `length` prompt tokens at {prompt}, as templates are written, and one token to predict (whose value no logit depends on)."""
    task = Task(f"probe {name}", [], [], [], Template(name=name, text=text, label="{label}"))
    (row,) = task.rows(lm, [Example(0, "", "x")], length)
    return Row(row.ids, np.zeros(1, np.int64))


@torch.no_grad()
def next_token(lm: FrozenLM, prompts_SPd: np.ndarray, rows_S: Sequence[Row]) -> np.ndarray:
    """[S, V] float32: log-probabilities (nats) of the first token to predict, of each prompt in its own row."""
    prompts = torch.as_tensor(prompts_SPd, dtype=torch.float32, device=lm.device)
    found = None
    for batch in lm.batches(rows_S, range(len(rows_S)), prompts.shape[1]):
        logp_MV = lm.label_logits(prompts, batch).log_softmax(-1).cpu().numpy()
        found = np.empty((len(rows_S), logp_MV.shape[1]), np.float32) if found is None else found
        real = np.flatnonzero(batch.targets_M.cpu().numpy() != IGNORE)
        owners, first = np.unique(batch.row_M.cpu().numpy()[real], return_index=True)
        found[owners] = logp_MV[real[first]]
    return found


def entropy(p_SV: torch.Tensor) -> np.ndarray:
    """[S] float64, in bits."""
    return torch.special.entr(p_SV).sum(-1, dtype=torch.float64).cpu().numpy() / np.log(2)


def js(p_SV: torch.Tensor, q_SV: torch.Tensor) -> np.ndarray:
    """[S] float64: Jensen-Shannon divergence of distributions in bits, from 0 to 1 (Lin 1991), to some 1e-6; axes broadcast."""
    return np.clip(entropy((p_SV + q_SV) / 2) - (entropy(p_SV) + entropy(q_SV)) / 2, 0.0, 1.0)


@dataclass(frozen=True, eq=False)
class _Spoken:
    which: list[str]
    parts: list[str]
    probes: list[str]
    tokens_WNATk: np.ndarray
    """int64: the likeliest next tokens."""
    probabilities_WNATk: np.ndarray
    entropy_WNT: np.ndarray
    """Of whole prompts."""
    js: dict[tuple[str, str], np.ndarray]
    """Two kinds of whole prompts -> [N, T]."""


def _ask(lm: FrozenLM, prompts: dict[str, np.ndarray], probes: Mapping[str, str], top_k: int) -> _Spoken:
    which, (n, length, _) = list(prompts), prompts["trained"].shape
    parts = ["whole"] + ([f"token {k}" for k in range(length)] if length > 1 else [])
    shape = (len(which), n, len(parts), len(probes))
    tokens, probabilities, entropies = np.empty((*shape, top_k), np.int64), np.empty((*shape, top_k)), np.empty((len(which), n, len(probes)))
    pairs = [("trained", control) for control in which[1:]] + ([("p0", "random")] if "p0" in which else [])
    divergences = {pair: np.empty((n, len(probes))) for pair in pairs}
    size = max(CHUNK // (len(lm.vocabulary()) * len(which)), 1)
    for (t, (name, text)), a in progress(list(product(enumerate(probes.items()), range(len(parts)))), "asking"):
        part = slice(None) if a == 0 else slice(a - 1, a)
        row = probe_row(lm, name, text, length if a == 0 else 1)
        for start in range(0, n, size):
            some = slice(start, min(start + size, n))
            asked = np.concatenate([prompts[w][some, part] for w in which])
            logp_WSV = torch.from_numpy(next_token(lm, asked, [row] * len(asked))).view(len(which), some.stop - start, -1)
            best = logp_WSV.topk(top_k, dim=-1)
            tokens[:, some, a, t], probabilities[:, some, a, t] = best.indices.numpy(), best.values.exp().numpy()
            if a == 0:
                p_WSV = logp_WSV.exp_()
                entropies[:, some, t] = entropy(p_WSV)
                for one, other in pairs:
                    divergences[one, other][some, t] = js(p_WSV[which.index(one)], p_WSV[which.index(other)])
    return _Spoken(which, parts, list(probes), tokens, probabilities, entropies, divergences)


# ------------------------------------------------------------------------------------------------- a task's words


def _words(lm: FrozenLM, run: Run) -> dict[str, np.ndarray]:
    """words -> the tokens that say one of them; none where the run has no such words."""
    task, config = task_of(run), run.info["config"]
    labels = {e.label for split in (task.train, task.validation, task.test) for e in split} | set(task.labels or [])
    described = re.sub(r"\(.*?\)", " ", config["task"].get("description") or "")
    init = config["init"].get("text") if config["init"].get("kind") in ("word", "text") else None
    found = {
        "label": {word for label in labels for word in re.findall(r"\w+", label)},
        "description": {word for word in re.findall(r"[^\W\d_]{3,}", described) if word.lower() not in STOP},
        "init": set(re.findall(r"\w+", init or "")),
    }
    return {kind: word_tokens(lm, words) for kind, words in found.items()}


def word_tokens(lm: FrozenLM, words: set[str]) -> np.ndarray:
    """int64, sorted: the first tokens of the words, as written, in lower case and capitalised, with and without a space before them.

    The first token of a longer word counts only where it says at least three letters of it.
    """
    found = set()
    for form in {form for word in words for form in (word, word.lower(), word.capitalize())}:
        for text in (form, f" {form}"):
            first = lm.encode(text)[0]
            said = lm.decode([first]).strip()
            if said == form or (len(said) >= BEGINNING and form.startswith(said)):
                found.add(first)
    return np.array(sorted(found), dtype=np.int64)


# ------------------------------------------------------------------------------------------------- what it says


class _Sample:
    """Runs as what intervals draw and tests permute."""

    def __init__(self, runs: RunTable, prompts: dict[str, np.ndarray], permutations: int, draws: int, seed: int):
        self.table, self.permutations, self.draws, self.seed = runs.table, permutations, draws, seed
        self.tasks = order_of_appearance(runs.table["task"])
        starts = prompts.get("p0", prompts["trained"])
        self.units_N = pd.factorize(pd.Series([f"{task}|{start.tobytes().hex()}" for task, start in zip(runs.table["task"], starts, strict=True)]))[0]

    @property
    def exchangeable(self) -> bool:
        """Whether an init has runs of two tasks."""
        return bool(self.table.groupby("init")["task"].nunique().max() > 1)

    @property
    def least_tasks_p(self) -> float:
        """Two-sided: 2 over the ways of dealing the tasks within the inits."""
        counts = self.table.groupby(["init", "task"]).size()
        log = sum(lgamma(n + 1) for n in counts.groupby("init").sum()) - sum(lgamma(n + 1) for n in counts)
        return min(2 * exp(-min(log, 700.0)), 1.0)

    def interval(self, values_N: np.ndarray, some_N: np.ndarray | slice = slice(None)) -> tuple[float, float]:
        """95 % interval of the mean over some runs, whole units drawn."""
        return bootstrap_mean(values_N[some_N], self.units_N[some_N], self.draws, self.seed)

    def share_interval(self, values_N: np.ndarray, some_N: np.ndarray) -> tuple[float, float]:
        """Likewise; Wilson's where every run has 0 or every run 1, so that draws cannot vary."""
        if np.ptp(values_N[some_N]) > 0:
            return self.interval(values_N, some_N)
        units = len(np.unique(self.units_N[some_N]))
        return wilson(round(values_N[some_N][0] * units), units)

    def difference_interval(self, one_N: np.ndarray, other_N: np.ndarray, some_N: np.ndarray) -> tuple[float, float]:
        """Of a difference of shares; Newcombe's (1998, method 10) where draws cannot vary."""
        if np.ptp((one_N - other_N)[some_N]) > 0:
            return self.interval(one_N - other_N, some_N)
        (low, high), (other_low, other_high) = self.share_interval(one_N, some_N), self.share_interval(other_N, some_N)
        one, other = one_N[some_N].mean(), other_N[some_N].mean()
        return float(one - other - np.hypot(one - low, other_high - other)), float(one - other + np.hypot(high - one, other - other_low))

    def p(self, differences_N: np.ndarray, some_N: np.ndarray | slice = slice(None)) -> float:
        return sign_flip_p(differences_N[some_N], self.units_N[some_N], self.permutations, self.seed)

    def tasks_p(self, hits_NL: np.ndarray) -> float | None:
        """p that runs say the words of their own task more or less often than if tasks were dealt anew within each init.

        hits_NL: each run's share of hits for the words of each task. None where tasks cannot be exchanged.
        """
        if not self.exchangeable:
            return None
        codes_N, every = np.array([self.tasks.index(t) for t in self.table["task"]]), np.arange(len(hits_NL))
        orders_BN = orders_within(pd.factorize(self.table["init"])[0], self.permutations, self.seed)
        return permutation_p(float(hits_NL[every, codes_N].mean()), hits_NL[every, codes_N[orders_BN]].mean(1), "two-sided")


def sign_flip_p(differences_N: np.ndarray, units_N: np.ndarray | None = None, permutations: int = 1000, seed: int = 0) -> float:
    """Two-sided p of a mean of paired differences: each unit's sign flipped as a whole (Fisher 1935).

    All flips are enumerated for up to 12 units; else `permutations` are drawn.
    """
    units_N = np.arange(len(differences_N)) if units_N is None else np.unique(units_N, return_inverse=True)[1]
    sums_U = np.bincount(units_N, differences_N)
    observed, count = abs(float(sums_U.sum())), len(sums_U)
    if count <= EXACT:
        signs_BU = np.array(list(product((1.0, -1.0), repeat=count)))
        return float((np.abs(signs_BU @ sums_U) >= observed - 1e-12 * max(observed, 1.0)).mean())
    signs_BU = np.random.default_rng(seed).choice((1.0, -1.0), (permutations, count))
    return permutation_p(observed, np.abs(signs_BU @ sums_U))


def _hits(tokens_NATk: np.ndarray, ids_N: Sequence[np.ndarray]) -> np.ndarray:
    """[N, A, T] bool: whether the likeliest tokens hold one of the run's ids."""
    return np.stack([np.isin(tokens, ids).any(-1) for tokens, ids in zip(tokens_NATk, ids_N, strict=True)])


def _tell_hits(spoken: _Spoken, words: list[dict[str, np.ndarray]], sample: _Sample, top_k: int, result: Result) -> None:
    units = len(np.unique(sample.units_N))
    if (least := 2.0 ** (1 - units)) > LEVEL:
        result.omissions.append(f"speaking_probes: too few runs to test differences from P0 and random prompts: with {units} independent ones no p is below {least:.2g}.")
    if "other_task" in spoken.which and not sample.exchangeable:
        result.omissions.append("speaking_probes: no init has runs of two tasks, so tasks cannot be exchanged: differences from other tasks' prompts have no p.")
    elif "other_task" in spoken.which and sample.least_tasks_p > LEVEL:
        result.omissions.append(f"speaking_probes: too few runs to test differences from other tasks' prompts: exchanged within inits, tasks allow no p below {sample.least_tasks_p:.2g}.")
    for kind in WORDS:
        ids_N = [w[kind] for w in words]
        some_N = np.array([len(ids) > 0 for ids in ids_N])
        if not some_N.any():
            result.omissions.append(f"speaking_probes: no run has {WORDS[kind]} that begins with a token of this model.")
            continue
        hits = {which: _hits(spoken.tokens_WNATk[w], ids_N) for w, which in enumerate(spoken.which)}
        hits_LNAT = [_hits(spoken.tokens_WNATk[0], [_of_task(words, sample.table, task, kind)] * len(ids_N)) for task in sample.tasks]
        if kind == "init":
            hits.pop("other_task", None)  # it has the same init
        for name, part in (("", slice(0, 1)), ("tokens.", slice(1, None)))[: 1 + (len(spoken.parts) > 1)]:
            values = {which: hits_NAT[:, part].mean((1, 2)) for which, hits_NAT in hits.items()}
            for which, values_N in values.items():
                result.number(f"hits.{kind}.{name}{which}", values_N[some_N].mean(), some_N.sum(), "runs", *sample.share_interval(values_N, some_N))
            for which in list(values)[1:]:
                difference_N = values["trained"] - values[which]
                by_task = which == "other_task"
                p = sample.tasks_p(np.stack([h[:, part].mean((1, 2)) for h in hits_LNAT], 1)) if by_task else sample.p(difference_N, some_N)
                low, high = sample.difference_interval(values["trained"], values[which], some_N)
                result.number(f"difference.{kind}.{name}{which}", difference_N[some_N].mean(), some_N.sum(), "runs", low, high, p)
            if not name or kind == "label":
                _find_hits(result, kind, name, list(values), top_k, len(spoken.probes))


def _of_task(words: list[dict[str, np.ndarray]], table: pd.DataFrame, task: str, kind: str) -> np.ndarray:
    return words[table["task"].tolist().index(task)][kind]


def _row(result: Result, quantity: str) -> dict:
    return next(row for row in result.numbers if row["quantity"] == quantity)


def _find_hits(result: Result, kind: str, name: str, which: list[str], top_k: int, probes: int) -> None:
    own, *controls = (_row(result, f"hits.{kind}.{name}{w}") for w in which)
    subject, says = "A single token of a trained prompt" if name else "A trained prompt", f"in place of a word makes the model say {WORDS[kind]} among its {top_k} likeliest next tokens"
    if all(row["value"] == 0 for row in (own, *controls)):
        sentence = f"{subject} {says} never, nor does any control (0 of {probes} probes; 95 % interval {own['low']:.1%} to {own['high']:.1%}; n = {own['n']} runs)."
        result.findings.append(Finding(sentence, 0.0, own["n"], "runs", own["low"], own["high"]))
        return
    for other, control in zip(which[1:], controls, strict=True):
        found = _row(result, f"difference.{kind}.{name}{other}")
        more = _compared(found, "more often than", "less often than", "not detectably more or less often than")
        numbers = f"{own['value']:.1%} against {control['value']:.1%} of {probes} probes, difference {100 * found['value']:+.1f} points ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
        _find(result, f"{subject} {says} {more} {WHICH[other]} does ({numbers}", found)


def _compared(found: dict, more: str, less: str, neither: str) -> str:
    """The words for a difference: by its p, or where it has none by its interval."""
    settled = found["p"] < LEVEL if found["p"] is not None else found["low"] > 0 or found["high"] < 0
    return neither if not settled or found["value"] == 0 else more if found["value"] > 0 else less


def _find(result: Result, said: str, found: dict) -> None:
    """A finding of a difference; `said` is its sentence up to the numbers' last."""
    p = "" if found["p"] is None else f", p = {found['p']:.2g}"
    result.findings.append(Finding(f"{said}{p}; n = {found['n']} runs).", found["value"], found["n"], "runs", found["low"], found["high"], found["p"]))


def _tell_distributions(spoken: _Spoken, sample: _Sample, result: Result) -> None:
    """Entropies and divergences of what whole prompts say."""
    entropies = {which: spoken.entropy_WNT[w].mean(1) for w, which in enumerate(spoken.which)}
    divergences = {other if one == "trained" else f"{one}_{other}": js_NT.mean(1) for (one, other), js_NT in spoken.js.items()}
    for quantity, values in (("entropy", entropies), ("js", divergences)):
        for name, values_N in values.items():
            result.number(f"{quantity}.{name}", values_N.mean(), len(values_N), "runs", *sample.interval(values_N))
    for control in [w for w in ("p0", "random") if w in entropies]:
        found = _difference(result, f"entropy.{control}", entropies["trained"], entropies[control], sample)
        surer = _compared(found, "less sure of its next token than", "surer of its next token than", "not detectably surer or less sure of its next token than")
        _find(result, f"With a trained prompt in the question the model is {surer} with {WHICH[control]} (entropy {_beside(entropies['trained'], entropies[control], found)}", found)
    if "p0" in entropies:
        trained_N, random_N = divergences["p0"], divergences["p0_random"]
        found = _difference(result, "js.p0", trained_N, random_N, sample)
        more = _compared(found, "more than", "less than", "not detectably more or less than")
        _find(result, f"Training changes what P0 makes the model say {more} putting a random prompt of equal norms there does (Jensen-Shannon {_beside(trained_N, random_N, found)}", found)


def _difference(result: Result, quantity: str, one_N: np.ndarray, other_N: np.ndarray, sample: _Sample) -> dict:
    difference_N = one_N - other_N
    result.number(f"difference.{quantity}", difference_N.mean(), len(one_N), "runs", *sample.interval(difference_N), sample.p(difference_N))
    return result.numbers[-1]


def _beside(one_N: np.ndarray, other_N: np.ndarray, found: dict) -> str:
    return f"{one_N.mean():.2f} against {other_N.mean():.2f} bits, difference {found['value']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})"


# ------------------------------------------------------------------------------------------------- tables, figure


def _token(lm: FrozenLM, token: int) -> str:
    return lm.tokenizer.decode([int(token)], clean_up_tokenization_spaces=False)


def _labels(runs: RunTable) -> Iterator[dict]:
    return ({"run": n, "task": row.task, "init": row.init, "seed": row.seed} for n, row in enumerate(runs.table.itertuples()))


def _continuations(lm: FrozenLM, runs: RunTable, spoken: _Spoken) -> pd.DataFrame:
    who = list(_labels(runs))
    rows = []
    for w, n, a, t, k in np.ndindex(spoken.tokens_WNATk.shape):
        rows.append(
            who[n]
            | {
                "probe": spoken.probes[t], "part": spoken.parts[a], "prompt": spoken.which[w], "rank": k + 1,
                "token": _token(lm, spoken.tokens_WNATk[w, n, a, t, k]), "probability": spoken.probabilities_WNATk[w, n, a, t, k],
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _examples(lm: FrozenLM, runs: RunTable, spoken: _Spoken) -> pd.DataFrame:
    """Whole prompts, kinds side by side: "token 53%, token 12%, ..."."""
    rows = []
    for n, who in enumerate(_labels(runs)):
        for t, probe in enumerate(spoken.probes):
            said = {}
            for w, which in enumerate(spoken.which):
                pairs = zip(spoken.tokens_WNATk[w, n, 0, t], spoken.probabilities_WNATk[w, n, 0, t], strict=True)
                said[which] = ", ".join(f"{_token(lm, token)!r} {probability:.0%}" for token, probability in pairs)
            rows.append(who | {"probe": probe} | said)
    return pd.DataFrame(rows)


def _texts(lm: FrozenLM, runs: RunTable, prompts: dict[str, np.ndarray], probes: Mapping[str, str], say: int) -> pd.DataFrame:
    who, rows = list(_labels(runs)), []
    for which, prompts_NPd in prompts.items():
        for probe, text in probes.items():
            asked = [probe_row(lm, probe, text, prompts_NPd.shape[1])] * len(prompts_NPd)
            written = lm.greedy(torch.as_tensor(prompts_NPd, device=lm.device), asked, range(len(asked)), say)
            rows += [who[n] | {"probe": probe, "prompt": which, "text": lm.decode(tokens)} for n, tokens in enumerate(written)]
    return pd.DataFrame(rows)


def _figure(result: Result, prompts: dict[str, np.ndarray], top_k: int) -> str:
    given = {row["quantity"]: row for row in result.numbers}
    with panels(width=6.4, height=2.6) as (figure, axes):
        axis = axes[0, 0]
        for w, which in enumerate(prompts):
            found = [(x, given[f"hits.{kind}.{which}"]) for x, kind in enumerate(WORDS) if f"hits.{kind}.{which}" in given]
            at = np.array([x for x, _ in found]) + 0.15 * (w - (len(prompts) - 1) / 2)
            value, low, high = (np.array([row[key] for _, row in found]) for key in ("value", "low", "high"))
            axis.errorbar(at, value, yerr=np.clip([value - low, high - value], 0, None), fmt="o", color=COLOURS[w], label=WHICH[which], capsize=2)
        axis.set_xticks(range(len(WORDS)), list(WORDS.values()))
        axis.set_ylim(-0.03, 1.03)
        axis.set_ylabel(f"share of probes\n(among the {top_k} likeliest)")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        return svg(figure)
