"""Speaking probes: a soft prompt in place of a word of a question. Does what the model says next reveal its task?

After study 1, which put single soft tokens into questions ("Speaking Probes", "prompt leakage") and saw nothing; here
with controls: P0, a Gaussian direction of each token's norm, and another task's prompt.

Tables: `continuations` (a row per run, probe, part of the prompt, kind of prompt and rank), `texts` (what is written
greedily, whole prompts alone), `examples` (a row per run and probe, kinds side by side).

Numbers: `hits.<words>.<kind>`, the share of probes whose likeliest continuations hold a word of the run's task (words:
label, description, init); `hits.<words>.tokens.<kind>` for single tokens; `difference.<words>.<control>`;
`entropy.<kind>` in bits; `js.<control>`, the Jensen-Shannon divergence from the trained prompt's next-token
distribution in bits (Lin 1991; at most 1), and `js.p0_random`; `difference.entropy.<control>`, `difference.js.p0`.

Runs are what is drawn and permuted; runs of one task with the same P0 are one unit. p against P0 and the random prompt:
signs of the units' paired differences flipped, two-sided, exact for up to 12 units. p against other tasks: tasks of
whole units exchanged within an init. Intervals: Student's t over units; of a single unit over its runs, which then
speak for its task and P0 alone. Each p is of one comparison, not corrected for their number.

Shapes: N runs, P prompt tokens, d width, V vocabulary, T probes, A parts of a prompt (whole, and each token), W kinds
of prompt, k ranks, S prompts, L tasks, B permutations.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from promptgeo.analysis.figures import COLOURS, estimates, panels, svg
from promptgeo.analysis.geometry.tokens import order_of_appearance, random_like
from promptgeo.analysis.probing import entropy, js, next_token, probe_row
from promptgeo.analysis.progress import progress
from promptgeo.analysis.question import question
from promptgeo.analysis.resampling import (
    clopper_pearson,
    jackknife_interval,
    least_dealt_p,
    nearly_yes_or_no,
    newcombe,
    orders_within,
    permutation_p,
    sign_flip_p,
    sign_flips_needed,
    t_mean,
)
from promptgeo.analysis.result import Finding, Number, Result
from promptgeo.errors import UserError
from promptgeo.model.interface import LM
from promptgeo.runs.folder import Run
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of

LEVEL = 0.05
"""Of the tests."""
CHUNK = 2**24
"""Probabilities held at once: 64 MiB of float32."""
KINDS = {
    "trained": "the trained prompt",
    "p0": "P0",
    "random": "a random prompt of equal norms",
    "other_task": "another task's prompt",
}
WORDS = {"label": "a label's word", "description": "a word of the task's description", "init": "the init word"}
BEGINNING = 3
"""Letters that the first token of a longer word must have to count as that word."""
STOP = frozenset(
    ["the", "and", "its", "from", "with", "for", "your", "own", "are", "this", "that", "into", "short", "which"]
)
"""Words of descriptions that say nothing of a task."""


@question(lm=True, zero=("say",))
def speaking_probes(
    runs: RunTable,
    *,
    lm: LM,
    probes: Mapping[str, str],
    top_k: int = 5,
    say: int = 8,
    permutations: int = 1000,
    seed: int = 0,
) -> Result:
    """What the model says after each probe, of the trained prompt and of controls.

    The other task's prompt is that of a run with the same init and seed, where there is one.

    Args:
        lm: the frozen model that the runs were trained on.
        probes: name -> text with {prompt}; without it the prompt stands first. A word's space belongs to its token:
            "The meaning of{prompt} is".
        top_k: how many continuations (tokens) count.
        say: tokens that are written greedily; 0: none.
        permutations: sign flips of units, tasks exchanged within an init.
        seed: of these, and of the random prompts.

    Raises UserError for prompts trained elsewhere, fewer than two runs, different shapes, or a probe that does not fit
    the model.
    """
    if runs.runs is None:
        raise UserError(
            "speaking_probes: needs runs trained here; prompts from elsewhere do not say what their task's words are"
        )
    if len(runs) < 2:
        raise UserError(f"speaking_probes: needs at least 2 runs; there is {len(runs)}")
    if not probes or top_k < 1:
        raise UserError("speaking_probes: probes and top_k: at least one probe and one continuation are needed")
    for name, text in probes.items():
        if "{input}" in text:
            raise UserError(f"probes.{name}={text!r}: a probe is about the prompt alone; it has no {{input}}")
    result = Result()
    prompts = _prompts(runs, seed, result)
    spoken = _next_tokens(lm, prompts, probes, min(top_k, lm.vocabulary_size))
    sample = _Sample.of(runs, prompts, permutations, seed)
    _note_power(sample, "other_task" in prompts, result)
    shares = _report_words(spoken, [_words(lm, run) for run in runs.runs], sample, top_k, result)
    _report_distributions(spoken, sample, result)
    result.tables["continuations"] = _continuations(lm, runs, spoken)
    result.tables["examples"] = _examples(lm, runs, spoken)
    if say:
        result.tables["texts"] = _texts(lm, runs, prompts, probes, say)
    result.figures["hits"] = _figure(shares, list(prompts), top_k)
    return result


# Prompts and their controls.


def partners(table: pd.DataFrame) -> np.ndarray | None:
    """[N] int64: for each run one of another task; None where there is one task only.

    The next one in the table with the same init and seed, or else the same init, or else any.
    """
    partner_N = []
    rows = table.to_dict("records")
    for n, row in enumerate(rows):
        following = [*range(n + 1, len(rows)), *range(n)]
        others = [m for m in following if rows[m]["task"] != row["task"]]
        if not others:
            return None
        likeness = [(rows[m]["init"] == row["init"]) * 2 + (rows[m]["seed"] == row["seed"]) for m in others]
        partner_N.append(others[int(np.argmax(likeness))])
    return np.array(partner_N)


def _prompts(runs: RunTable, seed: int, result: Result) -> dict[str, np.ndarray]:
    """Kind -> [N, P, d] float32."""
    generator = np.random.default_rng(seed)
    prompts = {"trained": runs.prompts()}
    if all("initial" in run.tensors for run in runs.runs or []):
        prompts["p0"] = runs.prompts("initial")
    else:
        result.omissions.append("speaking_probes: runs without P0 are among these: nothing is compared with P0.")
    prompts["random"] = random_like(prompts["trained"], generator).astype(np.float32)
    partner_N = partners(runs.table)
    if partner_N is None:
        result.omissions.append("speaking_probes: these runs are of one task: there is no other task's prompt.")
    else:
        prompts["other_task"] = prompts["trained"][partner_N]
    return prompts


# What the model says.


@dataclass(frozen=True, eq=False)
class _Spoken:
    """The next tokens after each probe, for each kind of prompt and each part of it."""

    kinds: list[str]
    parts: list[str]
    probes: list[str]
    tokens_WNATk: np.ndarray
    """int64: the likeliest next tokens."""
    probabilities_WNATk: np.ndarray
    """float64."""
    entropy_WNT: np.ndarray
    """float64, in bits, of whole prompts."""
    js: dict[tuple[str, str], np.ndarray]
    """Two kinds of whole prompts -> [N, T] float64, in bits."""


def _next_tokens(lm: LM, prompts: dict[str, np.ndarray], probes: Mapping[str, str], top_k: int) -> _Spoken:
    kinds, (n, length, _) = list(prompts), prompts["trained"].shape
    parts = ["whole"] + ([f"token {k}" for k in range(length)] if length > 1 else [])
    shape = (len(kinds), n, len(parts), len(probes))
    tokens_WNATk, probabilities_WNATk = np.empty((*shape, top_k), np.int64), np.empty((*shape, top_k))
    entropy_WNT = np.empty((len(kinds), n, len(probes)))
    pairs = [("trained", control) for control in kinds[1:]] + ([("p0", "random")] if "p0" in kinds else [])
    divergences = {pair: np.empty((n, len(probes))) for pair in pairs}
    size = max(CHUNK // (lm.vocabulary_size * len(kinds)), 1)
    for (t, (name, text)), a in progress(list(product(enumerate(probes.items()), range(len(parts)))), "probing"):
        part = slice(None) if a == 0 else slice(a - 1, a)
        row = probe_row(lm, name, text, length if a == 0 else 1)
        for start in range(0, n, size):
            some = slice(start, min(start + size, n))
            prompts_SPd = np.concatenate([prompts[kind][some, part] for kind in kinds])
            logp_SV = next_token(lm, prompts_SPd, [row] * len(prompts_SPd))
            logp_WNV = torch.from_numpy(logp_SV).view(len(kinds), some.stop - start, -1)
            best = logp_WNV.topk(top_k, dim=-1)
            tokens_WNATk[:, some, a, t] = best.indices.numpy()
            probabilities_WNATk[:, some, a, t] = best.values.exp().numpy()
            if a == 0:
                p_WNV = logp_WNV.exp_()
                entropy_WNT[:, some, t] = entropy(p_WNV)
                for one, other in pairs:
                    divergences[one, other][some, t] = js(p_WNV[kinds.index(one)], p_WNV[kinds.index(other)])
    return _Spoken(kinds, parts, list(probes), tokens_WNATk, probabilities_WNATk, entropy_WNT, divergences)


# A task's words.


def _words(lm: LM, run: Run) -> dict[str, np.ndarray]:
    """words -> the tokens that say one of them; none where the run has no such words."""
    task, config = task_of(run), run.info["config"]
    labels = {e.label for split in (task.train, task.validation, task.test) for e in split} | set(task.labels or [])
    described = re.sub(r"\(.*?\)", " ", config["task"].get("description") or "")
    init = config["init"].get("text") if config["init"].get("kind") in ("word", "text") else None
    words = {
        "label": {word for label in labels for word in re.findall(r"\w+", label)},
        "description": {word for word in re.findall(r"[^\W\d_]{3,}", described) if word.lower() not in STOP},
        "init": set(re.findall(r"\w+", init or "")),
    }
    return {kind: word_tokens(lm, these) for kind, these in words.items()}


def word_tokens(lm: LM, words: set[str]) -> np.ndarray:
    """int64, sorted: the first tokens of the words, in any case, with and without a space before them.

    As written, in lower case and capitalised. The first token of a longer word counts only where it says at least three
    letters of it.
    """
    tokens = set()
    for form in {form for word in words for form in (word, word.lower(), word.capitalize())}:
        for text in (form, f" {form}"):
            first = lm.encode(text)[0]
            said = lm.decode([first]).strip()
            if said == form or (len(said) >= BEGINNING and form.startswith(said)):
                tokens.add(first)
    return np.array(sorted(tokens), dtype=np.int64)


def _hits(tokens_NATk: np.ndarray, ids_N: Sequence[np.ndarray]) -> np.ndarray:
    """[N, A, T] bool: whether the likeliest tokens hold one of the run's ids."""
    return np.stack([np.isin(tokens, ids).any(-1) for tokens, ids in zip(tokens_NATk, ids_N, strict=True)])


# Runs as what intervals draw and tests permute.


@dataclass(frozen=True, eq=False)
class _Sample:
    table: pd.DataFrame
    units_N: np.ndarray
    """int64: runs of one task with the same P0 are one independent unit."""
    permutations: int
    seed: int

    @classmethod
    def of(cls, runs: RunTable, prompts: dict[str, np.ndarray], permutations: int, seed: int) -> "_Sample":
        starts_NPd = prompts.get("p0", prompts["trained"])
        names = [f"{task}|{start.tobytes().hex()}" for task, start in zip(runs.table["task"], starts_NPd, strict=True)]
        return cls(runs.table, pd.factorize(pd.Series(names))[0], permutations, seed)

    @property
    def tasks(self) -> list[str]:
        return order_of_appearance(self.table["task"])

    @property
    def units(self) -> int:
        return len(np.unique(self.units_N))

    @property
    def first_U(self) -> np.ndarray:
        """int64: the first run of each unit."""
        return np.unique(self.units_N, return_index=True)[1]

    @property
    def exchangeable(self) -> bool:
        """Whether an init has runs of two tasks."""
        return bool(self.table.groupby("init")["task"].nunique().max() > 1)

    @property
    def least_tasks_p(self) -> float:
        """The least p that tasks of whole units exchanged within inits allow."""
        counts = self.table.loc[self.first_U].groupby(["init", "task"]).size()
        return least_dealt_p([counts_L.tolist() for _, counts_L in counts.groupby("init")])

    def interval(
        self,
        values_N: np.ndarray,
        some_N: np.ndarray | slice = slice(None),
        least: float | None = None,
        most: float | None = None,
    ) -> tuple[float, float]:
        """95 % interval of the mean over some runs, over whole units; over runs where they are one unit.

        No bound but least and most where there is a single run.
        """
        units_N = self.units_N[some_N]
        low, high = t_mean(values_N[some_N], units_N if np.ptp(units_N) > 0 else None, least, most)
        if low is None or high is None:
            return (-np.inf if least is None else least), (np.inf if most is None else most)
        return low, high

    def partners_interval(self, values_N: np.ndarray) -> tuple[float, float]:
        """95 % interval, within 0 to 1, of a mean over runs of what each has with its partner of another task.

        A run is in its own value and in those of whose partner it is: each unit is left out with all of these. Two
        that are each other's partners are left out together, so they count once.
        """
        partner_N = partners(self.table)
        assert partner_N is not None  # there are values
        kept_UN = np.unique([(self.units_N != u) & (self.units_N[partner_N] != u) for u in range(self.units)], axis=0)
        if len(kept_UN) < 3 or not all(kept_N.any() for kept_N in kept_UN):
            return 0.0, 1.0
        low, high = jackknife_interval(values_N.mean(), np.array([values_N[kept_N].mean() for kept_N in kept_UN]))
        return max(low, 0.0), min(high, 1.0)

    def share_interval(self, shares_N: np.ndarray, some_N: np.ndarray) -> tuple[float, float]:
        """Of a mean share over some runs; never narrower than a count's of the units, as if each said yes or no."""
        share, units = shares_N[some_N].mean(), len(np.unique(self.units_N[some_N]))
        low, high = clopper_pearson(share * units, units)
        if np.ptp(shares_N[some_N]) > 0:
            t_low, t_high = self.interval(shares_N, some_N, 0.0, 1.0)
            low, high = min(low, t_low), max(high, t_high)
        return min(low, share), max(high, share)

    def difference_interval(self, one_N: np.ndarray, other_N: np.ndarray, some_N: np.ndarray) -> tuple[float, float]:
        """Of the mean difference of two shares; Newcombe's from an interval of each where runs hardly vary."""
        if not all(nearly_yes_or_no(shares_N[some_N]) for shares_N in (one_N, other_N)):
            return self.interval(one_N - other_N, some_N, -1.0, 1.0)
        one, other = (self.share_interval(shares_N, some_N) for shares_N in (one_N, other_N))
        return newcombe(one_N[some_N].mean(), one, other_N[some_N].mean(), other)

    def p(self, differences_N: np.ndarray, some_N: np.ndarray | slice = slice(None)) -> float:
        """Two-sided, of paired differences: the units' signs flipped."""
        return sign_flip_p(differences_N[some_N], self.units_N[some_N], self.permutations, self.seed)

    def tasks_p(self, hits_NL: np.ndarray) -> float | None:
        """p that runs say their own task's words more or less often than if tasks were dealt anew within each init.

        Whole units are dealt: seeds that start from one P0 say the same by that alone.

        hits_NL: each run's share of hits for the words of each task. None where tasks cannot be exchanged.
        """
        if not self.exchangeable:
            return None
        codes_N, every_N = np.array([self.tasks.index(t) for t in self.table["task"]]), np.arange(len(hits_NL))
        init_U = pd.factorize(self.table["init"])[0][self.first_U]
        orders_BU = orders_within(init_U, self.permutations, self.seed)
        dealt_BN = codes_N[self.first_U][orders_BU][:, self.units_N]
        observed = float(hits_NL[every_N, codes_N].mean())
        return permutation_p(observed, hits_NL[every_N, dealt_BN].mean(1), "two-sided")


def _note_power(sample: _Sample, other_task: bool, result: Result) -> None:
    """Says which tests these runs are too few for."""
    least = 2.0 ** (1 - sample.units)  # all signs as they are, or all flipped
    if least > LEVEL:
        result.omissions.append(
            "speaking_probes: too few runs to test differences from P0 and random prompts: "
            f"with {sample.units} independent ones no p is below {least:.2g}; {sign_flips_needed()} would do."
        )
    if other_task and not sample.exchangeable:
        result.omissions.append(
            "speaking_probes: no init has runs of two tasks, so tasks cannot be exchanged: "
            "differences from other tasks' prompts have no p."
        )
    elif other_task and sample.least_tasks_p > LEVEL:
        result.omissions.append(
            "speaking_probes: too few runs to test differences from other tasks' prompts: "
            f"exchanged within inits, tasks allow no p below {sample.least_tasks_p:.2g}."
        )


# Does it say a word of the task?


class _Share(NamedTuple):
    """How often probes of a kind of prompt are continued so."""

    number: Number
    values_N: np.ndarray
    """Of each run that has such words."""


@dataclass(frozen=True)
class _Hits:
    """How often probes of whole prompts, or of single tokens, are continued by a word of the task."""

    words: str
    tokens: bool
    """Of single tokens."""
    shares: dict[str, _Share]
    """By kind of prompt, the trained one first."""
    differences: dict[str, Number]
    """Trained less control, by control."""


def _report_words(
    spoken: _Spoken, words_N: list[dict[str, np.ndarray]], sample: _Sample, top_k: int, result: Result
) -> dict[str, dict[str, _Share]]:
    """Returns the shares of whole prompts: words -> kind of prompt -> share."""
    shares = {}
    first = sample.table["task"].tolist().index
    for words in WORDS:
        ids_N = [each[words] for each in words_N]
        some_N = np.array([len(ids) > 0 for ids in ids_N])
        if not some_N.any():
            result.omissions.append(
                f"speaking_probes: no run has {WORDS[words]} that begins with a token of this model."
            )
            continue
        hits = {kind: _hits(spoken.tokens_WNATk[w], ids_N) for w, kind in enumerate(spoken.kinds)}
        if words == "init":
            hits.pop("other_task", None)  # it has the same init
        own = spoken.tokens_WNATk[0]
        task_hits_LNAT = [_hits(own, [ids_N[first(task)]] * len(ids_N)) for task in sample.tasks]
        for tokens in (False, True) if len(spoken.parts) > 1 else (False,):
            counted = _report_hits(words, tokens, hits, task_hits_LNAT, some_N, sample, result)
            if not tokens:
                shares[words] = counted.shares
            if not tokens or words == "label":
                result.findings += _hit_findings(counted, top_k, len(spoken.probes))
    return shares


def _report_hits(
    words: str,
    tokens: bool,
    hits: dict[str, np.ndarray],
    task_hits_LNAT: list[np.ndarray],
    some_N: np.ndarray,
    sample: _Sample,
    result: Result,
) -> _Hits:
    """The numbers of one kind of words.

    Args:
        words: label, description or init.
        tokens: of single tokens, else of whole prompts.
        hits: kind of prompt -> [N, A, T] bool, for the words of the run's own task.
        task_hits_LNAT: bool, of trained prompts for the words of each task.
        some_N: bool, the runs that have such words.
    """
    part, name = (slice(1, None), f"{words}.tokens") if tokens else (slice(0, 1), words)
    values = {kind: hits_NAT[:, part].mean((1, 2)) for kind, hits_NAT in hits.items()}
    n = int(some_N.sum())
    shares, differences = {}, {}
    for kind, values_N in values.items():
        interval = sample.share_interval(values_N, some_N)
        number = result.number(f"hits.{name}.{kind}", values_N[some_N].mean(), n, "runs", *interval)
        shares[kind] = _Share(number, values_N[some_N])
    for control in list(values)[1:]:
        difference_N = values["trained"] - values[control]
        if control == "other_task":
            p = sample.tasks_p(np.stack([hits_NAT[:, part].mean((1, 2)) for hits_NAT in task_hits_LNAT], 1))
        else:
            p = sample.p(difference_N, some_N)
        low, high = sample.difference_interval(values["trained"], values[control], some_N)
        quantity = f"difference.{name}.{control}"
        differences[control] = result.number(quantity, difference_N[some_N].mean(), n, "runs", low, high, p)
    return _Hits(words, tokens, shares, differences)


def _hit_findings(hits: _Hits, top_k: int, probes: int) -> list[Finding]:
    """A sentence for each control; a single one where nothing is ever hit."""
    subject = "A single token of a trained prompt" if hits.tokens else "A trained prompt"
    says = f"in place of a word makes the model say {WORDS[hits.words]} among its {top_k} likeliest next tokens"
    own = hits.shares["trained"].number
    if all(share.number.value == 0 for share in hits.shares.values()):
        low, high = own.interval
        evidence = (
            f"0 in {probes} probes of each run; 95 % interval {low:.1%} to {high:.1%}, runs of one task and P0 counted "
            f"once; n = {own.n} runs"
        )
        return [Finding.of(own, f"{subject} {says} never, nor does any control ({evidence}).")]
    findings = []
    for control, difference in hits.differences.items():
        low, high = difference.interval
        more = _compared(difference, "more often than", "less often than", "not detectably more or less often than")
        evidence = (
            f"{own.value:.1%} against {hits.shares[control].number.value:.1%} in {probes} probes of each run, "
            f"difference {100 * difference.value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}"
            f"{'; whether it is the own task: tasks dealt anew within inits' if control == 'other_task' else ''})"
        )
        findings.append(_finding(difference, f"{subject} {says} {more} {KINDS[control]} does", evidence))
    return findings


def _compared(difference: Number, more: str, less: str, neither: str) -> str:
    """The words for a difference, by its p: without one nothing is detected."""
    if difference.p is None or difference.p >= LEVEL or difference.value == 0:
        return neither
    return more if difference.value > 0 else less


def _finding(difference: Number, statement: str, evidence: str) -> Finding:
    p = "" if difference.p is None else f", p = {difference.p:.2g}"
    return Finding.of(difference, f"{statement} ({evidence}{p}; n = {difference.n} runs).")


# Is what it says different?


def _report_distributions(spoken: _Spoken, sample: _Sample, result: Result) -> None:
    """Entropies and divergences of what whole prompts say."""
    entropies = {kind: spoken.entropy_WNT[w].mean(1) for w, kind in enumerate(spoken.kinds)}
    divergences = {pair: js_NT.mean(1) for pair, js_NT in spoken.js.items()}
    for kind, bits_N in entropies.items():
        result.number(f"entropy.{kind}", bits_N.mean(), len(bits_N), "runs", *sample.interval(bits_N, least=0.0))
    for (one, other), bits_N in divergences.items():
        name = other if one == "trained" else f"{one}_{other}"
        of_pairs = "other_task" in (one, other)
        interval = sample.partners_interval(bits_N) if of_pairs else sample.interval(bits_N, least=0.0, most=1.0)
        result.number(f"js.{name}", bits_N.mean(), len(bits_N), "runs", *interval)
    for control in [kind for kind in ("p0", "random") if kind in entropies]:
        trained_N, control_N = entropies["trained"], entropies[control]
        difference = _difference(f"entropy.{control}", trained_N, control_N, sample, result)
        surer = _compared(
            difference,
            "less sure of its next token than",
            "surer of its next token than",
            "not detectably surer or less sure of its next token than",
        )
        statement = f"With a trained prompt in the question the model is {surer} with {KINDS[control]}"
        evidence = f"entropy {_beside(trained_N, control_N, difference)}"
        result.findings.append(_finding(difference, statement, evidence))
    if "p0" in entropies:
        trained_N, random_N = divergences["trained", "p0"], divergences["p0", "random"]
        difference = _difference("js.p0", trained_N, random_N, sample, result)
        more = _compared(difference, "more than", "less than", "not detectably more or less than")
        statement = (
            f"Training changes what P0 makes the model say {more} putting a random prompt of equal norms there does"
        )
        evidence = f"Jensen-Shannon {_beside(trained_N, random_N, difference)}"
        result.findings.append(_finding(difference, statement, evidence))


def _difference(name: str, one_N: np.ndarray, other_N: np.ndarray, sample: _Sample, result: Result) -> Number:
    bits_N = one_N - other_N
    p = sample.p(bits_N)
    return result.number(f"difference.{name}", bits_N.mean(), len(bits_N), "runs", *sample.interval(bits_N), p)


def _beside(one_N: np.ndarray, other_N: np.ndarray, difference: Number) -> str:
    low, high = difference.interval
    means = f"{one_N.mean():.2f} against {other_N.mean():.2f} bits"
    return f"{means}, difference {difference.value:+.2f} ({low:+.2f} to {high:+.2f})"


# Tables and figure.


def _labels(runs: RunTable) -> list[dict[str, Any]]:
    """The columns that name each run."""
    rows = runs.table.to_dict("records")
    return [{"run": n, "task": row["task"], "init": row["init"], "seed": row["seed"]} for n, row in enumerate(rows)]


def _continuations(lm: LM, runs: RunTable, spoken: _Spoken) -> pd.DataFrame:
    labels = _labels(runs)
    rows = []
    for w, n, a, t, k in np.ndindex(spoken.tokens_WNATk.shape):
        row = {"probe": spoken.probes[t], "part": spoken.parts[a], "prompt": spoken.kinds[w], "rank": k + 1}
        row["token"] = lm.token_text(int(spoken.tokens_WNATk[w, n, a, t, k]))
        row["probability"] = spoken.probabilities_WNATk[w, n, a, t, k]
        rows.append(labels[n] | row)
    return pd.DataFrame(rows)


def _examples(lm: LM, runs: RunTable, spoken: _Spoken) -> pd.DataFrame:
    """Whole prompts, kinds side by side: "token 53%, token 12%, ..."."""
    rows = []
    for n, label in enumerate(_labels(runs)):
        for t, probe in enumerate(spoken.probes):
            said = {}
            for w, kind in enumerate(spoken.kinds):
                pairs = zip(spoken.tokens_WNATk[w, n, 0, t], spoken.probabilities_WNATk[w, n, 0, t], strict=True)
                said[kind] = ", ".join(
                    f"{lm.token_text(int(token))!r} {probability:.0%}" for token, probability in pairs
                )
            rows.append(label | {"probe": probe} | said)
    return pd.DataFrame(rows)


def _texts(lm: LM, runs: RunTable, prompts: dict[str, np.ndarray], probes: Mapping[str, str], say: int) -> pd.DataFrame:
    labels, rows = _labels(runs), []
    for kind, prompts_NPd in prompts.items():
        for probe, text in probes.items():
            probe_rows = [probe_row(lm, probe, text, prompts_NPd.shape[1])] * len(prompts_NPd)
            on_device_NPd = torch.as_tensor(prompts_NPd, device=lm.device)
            written = lm.write(on_device_NPd, probe_rows, range(len(probe_rows)), say)
            rows += [
                labels[n] | {"probe": probe, "prompt": kind, "text": lm.decode(tokens)}
                for n, tokens in enumerate(written)
            ]
    return pd.DataFrame(rows)


def _figure(shares: dict[str, dict[str, _Share]], kinds: list[str], top_k: int) -> str:
    """Shares of hits with their intervals, the kinds of prompt beside each other for each kind of words."""
    with panels(width=6.4, height=2.6) as (figure, axes):
        axis, step = axes[0, 0], 0.8 / len(kinds)
        for w, kind in enumerate(kinds):
            shown = [(x, shares[words][kind]) for x, words in enumerate(WORDS) if kind in shares.get(words, {})]
            at = np.array([x for x, _ in shown]) + step * (w - (len(kinds) - 1) / 2)
            numbers, behind = [share.number for _, share in shown], [share.values_N for _, share in shown]
            estimates(axis, at, numbers, behind, color=COLOURS[w], across=0.6 * step, label=KINDS[kind])
        axis.set_xticks(range(len(WORDS)), [words.replace(" of ", " of\n") for words in WORDS.values()])
        axis.set(ylim=(-0.04, 1.04), xlabel="what the model says")
        axis.set_ylabel(f"share of probes\n(among the {top_k} likeliest)")
        axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        title = "How often the model says a word of the prompt's own task, with 95 % intervals; faint: single runs"
        return svg(figure, title)
