"""How alike are the prompts of two tasks? Distances, cosines, outputs, neurons: they may predict whether they transfer.

Every likeness is larger where prompts are more alike, so that all should go with transfer the same way. Of two tasks it
is the mean over all pairs of their runs. Prompts may have different lengths.

Shapes: N runs, P prompt tokens, T tasks, d width, E examples, L labels of a label set,
K feed-forward neurons of all blocks.
"""

from collections.abc import Sequence

import numpy as np
import torch

from promptgeo.analysis.geometry.alignment import Align, distance, distances
from promptgeo.analysis.probing import js
from promptgeo.analysis.progress import progress
from promptgeo.data.example import Example
from promptgeo.data.tasks import Task
from promptgeo.model.interface import LM

WORDS = {
    "transport": "distance, tokens paired by transport",
    "truncate": "distance, tokens paired by position, the longer prompt cut",
    "pad": "distance, tokens paired by position, the shorter prompt padded",
    "mean": "distance of the mean tokens",
    "mean_cosine": "cosine of the mean tokens",
    "token_cosine": "cosine at equal positions",
    "delta_cosine": "cosine of what training added, mean tokens",
    "js": "Jensen-Shannon divergence of label likelihoods on the target's examples",
    "neurons": "overlap of active neurons at the end of the target's inputs, beyond that of P0s",
    "p0": "distance before training",
    "moved": "how far the source moved, whatever the target",
}
"""Every likeness in words. The last two are controls: what they predict needs no trained prompts that are alike."""
NEURON_INPUTS = 8
"""Of each target, after which active neurons are compared."""
CONTROLS = ("p0", "moved")


def likenesses(
    prompts_N: Sequence[np.ndarray], initial_N: Sequence[np.ndarray], task_N: np.ndarray, align: Align
) -> dict[str, np.ndarray]:
    """[T, T] float64 of each likeness that prompts have; the first is the aligned distance that a claim is about.

    Args:
        prompts_N: [P, d] each; initial_N: their P0s.
        task_N: [N] int64, the number of each run's task.
        align: how tokens of whole prompts are paired; by position too (truncate: over equal lengths Frobenius' distance
            over the root of P).
    """
    means_Nd, starts_Nd = (np.stack([x_Pd.astype(np.float64).mean(0) for x_Pd in xs]) for xs in (prompts_N, initial_N))
    moved_N = np.array([distance(p, p0, Align.truncate) for p, p0 in zip(prompts_N, initial_N, strict=True)])
    made_NN = {each.value: -distances(prompts_N, each) for each in dict.fromkeys((align, Align.truncate))}
    made_NN["mean_cosine"] = _cosines(means_Nd)
    if len({len(prompt_Pd) for prompt_Pd in prompts_N}) == 1:
        made_NN["token_cosine"] = np.mean([_cosines(x_Nd) for x_Nd in np.stack(prompts_N, axis=1)], axis=0)
    made_NN["delta_cosine"] = _cosines(means_Nd - starts_Nd)
    made_NN["p0"] = -distances(initial_N, align)
    made_NN["moved"] = np.repeat(-moved_N[:, None], len(moved_N), axis=1)
    return {name: over_runs(values_NN, task_N) for name, values_NN in made_NN.items()}


def over_runs(values_NN: np.ndarray, task_N: np.ndarray) -> np.ndarray:
    """[T, T] float64: the mean over all pairs of a source's run and a target's."""
    of_NT = (task_N[:, None] == np.arange(task_N.max() + 1)).astype(np.float64)
    counts_T = of_NT.sum(0)
    return np.asarray(of_NT.T @ values_NN @ of_NT / np.outer(counts_T, counts_T))


def label_likeness(losses_NT: Sequence[Sequence[np.ndarray]], task_N: np.ndarray) -> np.ndarray:
    """[T, T] float64: minus the divergence of what source and target say on the target's examples, in bits.

    losses_NT: of each run on each task's examples the labels' losses [E, L], in nats; likelihoods are normalised over
    the label set. Of an example's labels alone, not of all tokens that the model might write: no further forward.
    """
    tasks = int(task_N.max()) + 1
    divergence_TT = np.zeros((tasks, tasks))
    for target in progress(range(tasks), "divergences"):
        losses_NEL = torch.from_numpy(np.stack([of_T[target] for of_T in losses_NT]).astype(np.float64))
        said_NEL = torch.softmax(-losses_NEL, dim=-1)
        own = np.flatnonzero(task_N == target)
        apart_NM = np.stack([js(said_NEL, said_NEL[m]).mean(1) for m in own], axis=1)
        divergence_TT[:, target] = [apart_NM[task_N == source].mean() for source in range(tasks)]
    return -divergence_TT


def neuron_likeness(
    lm: LM, prompts_N: Sequence[np.ndarray], initial_N: Sequence[np.ndarray], task_N: np.ndarray, tasks: Sequence[Task]
) -> np.ndarray:
    """[T, T] float64: how much the same feed-forward neurons are active with a source's prompts as with a target's.

    The cosine of which are (LM.active_neurons, all blocks) after a target's training input, mean over NEURON_INPUTS of
    these and pairs of runs, less the same of the runs' P0s: else what is always active dominates. After Su et al. 2022
    (arXiv 2111.06719). tasks: with their templates, in order of their numbers.

    Raises UserError where the model's active neurons cannot be read.
    """
    overlap_TT = np.zeros((len(tasks), len(tasks)))
    for target, task in enumerate(progress(tasks, "active neurons")):
        inputs = task.train[:NEURON_INPUTS]
        trained_NN, before_NN = (_overlaps(lm, xs, task, inputs) for xs in (prompts_N, initial_N))
        overlap_TT[:, target] = over_runs(trained_NN - before_NN, task_N)[:, target]
    return overlap_TT


def _overlaps(lm: LM, prompts_N: Sequence[np.ndarray], task: Task, inputs: Sequence[Example]) -> np.ndarray:
    """[N, N] float64: cosines of what is active with each prompt, mean over inputs."""
    known: dict[bytes, np.ndarray] = {}
    for prompt_Pd in prompts_N:
        if prompt_Pd.tobytes() not in known:
            prompts_1Pd = torch.as_tensor(prompt_Pd, dtype=torch.float32, device=lm.device)[None]
            rows = task.rows(lm, inputs, len(prompt_Pd))
            known[prompt_Pd.tobytes()] = lm.active_neurons(prompts_1Pd, rows, [0] * len(rows)).numpy()
    active_NEK = np.stack([known[prompt_Pd.tobytes()] for prompt_Pd in prompts_N])
    return np.asarray(np.mean([_cosines(active_NEK[:, e]) for e in range(len(inputs))], axis=0))


def _cosines(x_Nd: np.ndarray) -> np.ndarray:
    """[N, N] float64; nan for a vector without a direction."""
    x_Nd = x_Nd.astype(np.float64)
    lengths_N = np.linalg.norm(x_Nd, axis=1)
    lengths_N[lengths_N == 0] = np.nan
    return np.asarray(np.clip(x_Nd @ x_Nd.T / np.outer(lengths_N, lengths_N), -1, 1))
