"""Synthetic runs of which the truth is known: nulls, in which one or more effects are absent, and planted effects.

A scenario's fixed effects (inits, tasks, positions) are the same in all of its draws; what runs differ in by chance is
drawn anew. So each number has one truth: what it is over all draws.

Shapes: N runs, P prompt tokens, d width, C checkpoints.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from calibrating.stand_in import FREQUENCY, WIDTH, Answers, StandIn, content_of
from promptgeo.data.tasks import Task
from promptgeo.evaluation.evaluate import Evaluation, evaluate, majority_accuracy, most_frequent_label
from promptgeo.runs.folder import METRICS_COLUMNS, Run
from promptgeo.runs.table import RunTable
from promptgeo.runs.task import task_of

WORDS = ("cat", "dog", "bird", "book", "house", "chair", "pen", "paper", "water", "river")
TASKS = ("plus_one", "plus_two", "country_capital", "lowercase_first_letter", "present_past", "singular_plural")
CHECKPOINTS = 3
STUDY_2 = ("stochasticity",)
"""Analyses of runs by whole prompts, which need several seeds of a cell."""


# Where prompts lie: no model is asked.


@dataclass(frozen=True)
class Geometry:
    """Runs by their prompts. P = P0 + delta; each effect is a standard deviation of a random direction's coordinates.

    P0 is the init's word, at each position. delta = moved * (init + task + position + run + cell + noise).
    """

    name: str
    inits: int = 3
    tasks: int = 4
    seeds: int = 2
    length: int = 3
    word: float = 1.0
    """Of P0 by init; 0: all inits have one P0."""
    init: float = 0.0
    task: float = 0.0
    position: float = 0.0
    run: float = 0.0
    cell: float = 0.0
    noise: float = 1.0
    moved: float = 1.0
    """How many times farther the last task moves its prompts than the first."""
    drop: tuple[tuple[int, int, int], ...] = ()
    """(init, task, seed) of runs that are missing."""
    own: float = 0.0
    """Of the P0s of the last init: each run has one of its own, at each position."""
    apart: str = ""
    """Where the runs of a task and init lie of each other, noise aside: equidistant, or in two groups."""
    graded: float = 0.0
    """By how much P0's accuracy falls from the first task to the last."""
    unsure: float = 0.0
    """Standard deviation of trained accuracy between runs."""
    only: tuple[str, ...] = ()
    """The analyses that are asked about it; (): all of places."""

    def absent(self, of: str) -> set[str]:
        """The effects that there are none of; of: prompt or delta, "" for a question that asks of both.

        task: any of the task. where: no task's prompts lie elsewhere than another's; they may be moved differently far.
        trained_init: none of the init on what training added. spread.<factor>: none of the factor, in place either, for
        tokens are compared at length 1: whoever lies farther from 0 spreads over a smaller angle.
        """
        init = self.init + (self.word if of != "delta" else 0)
        strengths = {
            "init": init,
            "trained_init": self.init,
            "task": self.task + (self.moved - 1),
            "where": self.task,
            "position": self.position,
            "cell": self.cell,
            "moved": self.moved - 1,
            "spread.init": self.moved - 1 + init,
            "spread.task": self.moved - 1 + self.task,
            "spread.position": self.moved - 1 + self.position,
            "rate": 0.0,  # the runs of both rates are drawn alike
            "equidistant": float(self.apart == "equidistant"),
            "groups": float(self.apart == "groups"),
            "harder": self.graded * (self.moved - 1),
            "unsure": 0.0,  # no task's runs differ more than another's
        }
        return {effect for effect, strength in strengths.items() if not strength}

    def draw(self, seed: int, name: str = "") -> RunTable:
        """The runs that an analysis of this name is given: all the same, but matched, whose runs have two rates."""
        if name != "matched":
            return self._draw(seed, name)
        parts = [self._draw(2 * seed + k, name, lr) for k, lr in enumerate((0.01, 0.1))]
        table = pd.concat([part.table for part in parts]).assign(id=lambda t: [f"{n:064d}" for n in range(len(t))])
        final, initial, path = (
            np.concatenate([part.arrays[which] for part in parts]) for which in ("final", "initial", "trajectory")
        )
        return RunTable.from_arrays(final, table, initial, path, parts[0].arrays["steps"])

    def _draw(self, seed: int, name: str, lr: float = 0.01) -> RunTable:
        fixed, generator = np.random.default_rng(2000), np.random.default_rng([seed, 3])
        grid = product(range(self.inits), range(self.tasks), range(self.seeds))
        rows = [row for row in grid if row not in self.drop]
        init_N, task_N, seed_N = np.array(rows).T
        shape = (len(rows), self.length, WIDTH)
        init_Id, task_Td, position_Pd = (fixed.normal(size=(n, WIDTH)) for n in (self.inits, self.tasks, self.length))
        moved_T = np.geomspace(1, self.moved, self.tasks)
        embeddings = stand_in(name).embeddings_Vd.numpy()
        words_Id = embeddings[[stand_in(name).encode(f" {word}")[0] for word in WORDS[: self.inits]]]
        initial = np.broadcast_to((self.word * words_Id)[init_N][:, None], shape)
        if self.own:
            initial = initial + self.own * (init_N == self.inits - 1)[:, None, None] * generator.normal(size=shape)
        cells = generator.normal(size=(self.inits, self.tasks, 1, WIDTH))[init_N, task_N]
        delta = self.init * init_Id[init_N][:, None] + self.task * task_Td[task_N][:, None]
        delta = delta + self.position * position_Pd + self.cell * cells
        delta = delta + self.run * generator.normal(size=(len(rows), 1, WIDTH))
        noise = self.noise * (generator.normal(size=shape) if not self.apart else self._placed(rows, fixed, generator))
        delta = (delta + noise) * moved_T[task_N][:, None, None]
        steps = np.arange(1, CHECKPOINTS + 1)
        path = initial[:, None] + delta[:, None] * (steps / CHECKPOINTS)[:, None, None]
        table = pd.DataFrame(
            {
                "id": [f"{n:064d}" for n in range(len(rows))],
                "status": "completed",
                "model": "stand-in",
                "task": [TASKS[t] for t in task_N],
                "init": [WORDS[i] for i in init_N],
                "template": "input_label",
                "seed": seed_N,
                "prompt_length": self.length,
                "lr": lr,
                "steps": 100,
                "n": 100,
                "accuracy_none": 0.05,
                "accuracy_initial": 0.05 - self.graded * task_N / max(self.tasks - 1, 1),
                "accuracy_final": 0.95,
            }
        )
        if self.unsure:
            table["accuracy_final"] += self.unsure * generator.normal(size=len(table))
        return RunTable.from_arrays(initial + delta, table, initial, path, steps)

    def _placed(
        self, rows: list[tuple[int, int, int]], fixed: np.random.Generator, generator: np.random.Generator
    ) -> np.ndarray:
        """[N, P, d]: the runs of each cell at the corners of a regular simplex, or about two centres that stay."""
        placed = np.empty((len(rows), self.length, WIDTH))
        cells = [row[:2] for row in rows]
        for cell in dict.fromkeys(cells):
            members = [n for n, other in enumerate(cells) if other == cell]
            if self.apart == "equidistant":
                corners = np.linalg.qr(generator.normal(size=(self.length * WIDTH, len(members))))[0].T
                corners *= np.sqrt(self.length * WIDTH)
            else:
                centres = fixed.normal(size=(2, self.length * WIDTH))
                corners = centres[np.arange(len(members)) % 2]
                corners = corners + 0.3 * generator.normal(size=corners.shape)
            placed[members] = corners.reshape(len(members), self.length, WIDTH)
        return placed


GEOMETRY = (
    Geometry("nothing", word=0.0),
    Geometry("init only"),
    Geometry("position only", word=0.0, position=1.0),
    Geometry("run and cell", init=0.7, position=0.7, run=0.7, cell=0.7),
    Geometry("how far", moved=4.0, run=0.5),
    Geometry(
        "unequal",
        inits=4,
        seeds=3,
        position=0.5,
        run=0.5,
        drop=((0, 0, 1), (0, 0, 2), (1, 0, 2), (2, 1, 0), (3, 3, 0), (3, 3, 1), (3, 3, 2)),
    ),
    Geometry("untrained", noise=0.01),
    Geometry("four runs", inits=2, tasks=2, seeds=1),
    Geometry("eight runs", inits=2, tasks=4, seeds=1),
    # Study 2's question: tasks of four runs from one P0, and of four from P0s of their own.
    Geometry("own P0s", 2, 6, 4, 4, task=0.5, own=0.7, unsure=0.02, graded=0.04, only=STUDY_2),
    Geometry("six tasks", 1, 6, 4, 4, task=0.5, position=0.5, run=0.4, unsure=0.02, graded=0.04, only=STUDY_2),
    Geometry("harder move", 1, 6, 4, 4, task=0.5, moved=3.0, unsure=0.02, graded=0.04, only=STUDY_2),
    Geometry("equidistant", 1, 4, 4, 4, task=0.5, apart="equidistant", unsure=0.02, only=STUDY_2),
    Geometry("groups", 1, 4, 4, 8, task=0.5, apart="groups", unsure=0.02, only=STUDY_2),
    # Study 3's grid and sizes: 10 inits x 6 tasks, P = 4; R2 of the init .247, of the task .072.
    Geometry("study 3", 10, 6, 1, 4, word=0.0, init=0.92, task=0.5, position=0.6, run=0.6, noise=1.24),
)


# What prompts can do: the stand-in is asked.


@dataclass(frozen=True)
class Skills:
    """Runs by what their prompts, and whatever is made of them, can do.

    What an analysis' intervals take as given (test examples, or the runs) is the same in all of its draws.

    level: of every prompt, or None where it depends on the prompt: trained ones solve their task and P0 does not.
    """

    name: str
    level: float | None = 0.0
    flip: float = 1.0
    wells: bool = False
    """Trained prompts alone solve the task, with what lies near them; else all that lie far enough along its way."""
    seeds: int = 2
    inits: int = 2
    way: float = 1.0
    """How far trainings move their prompts in their task's direction; beside it they move at random."""
    kin: int = 0
    """Tasks' directions lie in so few dimensions, some near others: what is trained for one does what is near it."""
    shift: float = 0.0
    """How much kin have in common; 0: other tasks' directions point away as often as the same way."""
    bottom: float = -2.5
    """The level of a prompt that is good for nothing."""
    whim: float = 0.0
    """A level of each prompt on each task that nothing about where the prompt lies tells."""
    only: tuple[str, ...] = ()
    """Analyses that are asked about it; () for all."""
    pulled: float = 1.0
    """How many times as far trainings that are pulled to a text do."""
    hears: bool = True
    """Whether states that are added at the end of an input do anything; else no vector does, of prompts that do."""

    def absent(self, of: str) -> set[str]:
        """skill: no kind of prompt does better than another; words: none says more of anything; way: trainings move in
        no direction of their own; inits_differ: one learns more or faster than another; kin: no task's prompts do
        another's better for lying nearer to it; vector: no state that is added does what a prompt does; read: no word
        that lies near a prompt does its job."""
        effects = {
            "skill": self.level is None,
            "vector": self.level is None and self.hears,
            "way": bool(self.way),
            "kin": bool(self.kin),
            "read": self.level is None and not self.wells,
        }
        return {"words", "inits_differ"} | {effect for effect, there in effects.items() if not there}

    def draw(self, seed: int, name: str = "") -> RunTable:
        """The runs that an analysis of this name is given; the stand-in knows of them from now on."""
        fixed = np.random.default_rng(2001)
        generator = np.random.default_rng([given_seed(name, seed), 4])
        grid = (GRIDS.get(name, "plain"), self.inits, 1 if name in ONE_PAIR else self.seeds)
        lm, infos = stand_in(name), infos_of(*grid)
        names = list(dict.fromkeys(info["config"]["task"]["name"] for info in infos))
        drawn = name in DRAWN_TASKS
        ways = self._ways(names, generator if drawn and not self.kin else fixed, generator)
        runs = []
        for info in infos:
            config = info["config"]
            length, way = config["prompt"]["length"], self.way
            gamma, pulled_to = config["regulariser"]["gamma"], config["regulariser"]["text"]
            ids = lm.encode(pulled_to or f" {config['init']['text'] or WORDS[-1]}")
            text = np.repeat(lm.embeddings_Vd[ids].numpy(), length // len(ids), axis=0)
            p0 = start = 0.2 * text
            if pulled_to:  # the text alone is good at nothing
                beside = np.stack(list(ways.values()))
                p0 = 0.2 * (text - text @ beside.T @ beside)
                start, way = (20 * p0, self.pulled * way) if gamma else (p0, way)
            delta = generator.normal(size=p0.shape) * 0.2 + way * ways[config["task"]["name"]]
            runs.append(_run(info, p0.astype(np.float32), (start + delta).astype(np.float32)))
        examples = 0 if name in GIVEN_EXAMPLES else seed
        lm.hears = self.hears
        lm.set_world(self._level_of(runs, ways), self.flip, answers_of(name, *grid), examples)
        alike: dict[tuple[str, int], list[Run]] = {}
        for run in runs:
            alike.setdefault((_task_name(run), len(run.prompt())), []).append(run)
        for those in alike.values():
            _score(those, lm, POINTS if grid[0] == "inits" else (0.0, 1.0))
        return RunTable(pd.DataFrame([run.row() for run in runs]), runs)

    def _ways(self, names: list[str], of_axes: np.random.Generator, generator: np.random.Generator) -> dict[str, Any]:
        """The direction [d] of each task, of length 1; all at right angles unless tasks are kin."""
        axes = np.linalg.qr(of_axes.normal(size=(WIDTH, WIDTH)))[0]
        if self.kin:
            near = generator.normal(size=(len(names), self.kin)) + self.shift * np.eye(self.kin)[0]
            axes = near / np.linalg.norm(near, axis=1, keepdims=True) @ axes[: self.kin]
        return dict(zip(names, axes, strict=False))

    def _level_of(self, runs: list[Run], ways: dict[str, np.ndarray]) -> Callable[[torch.Tensor, str], torch.Tensor]:
        if self.level is not None:
            constant = self.level
            return lambda mean_Nd, task: torch.full((len(mean_Nd),), constant)
        directions = {task: torch.from_numpy(way.astype(np.float32)) for task, way in ways.items()}
        bottom = torch.tensor(self.bottom)
        if not self.wells:
            return lambda mean_Nd, task: (
                bottom + 5 * (mean_Nd @ directions[task]).clamp(max=1.2)
                if task in directions
                else bottom.expand(len(mean_Nd))
            )
        centres = {
            task: torch.from_numpy(np.stack([r.prompt().mean(0) for r in runs if _task_name(r) == task]))
            for task in ways
        }
        return lambda mean_Nd, task: (
            bottom
            + 5 * torch.exp(-(torch.cdist(mean_Nd, centres[task]).min(1).values ** 2) / (2 * 0.05**2))
            + self.whim * torch.sin(FREQUENCY * mean_Nd @ directions[task])
            if task in centres
            else torch.full((len(mean_Nd),), self.bottom)
        )


@dataclass(frozen=True)
class Recited(Skills):
    """Runs that recite texts: vectors hold so many bits of each, about `bits` of a kind, and each token has some."""

    only: tuple[str, ...] = ("capacity",)
    bits: tuple[float, float] = (60.0, 60.0)
    per_token: tuple[float, float] = (4.0, 8.0)
    """Of the two kinds; a text's own lie about that."""
    varies: float = 0.15
    """Standard deviation over texts of the logarithm of what is held."""

    def draw(self, seed: int, name: str = "") -> RunTable:
        """As Skills.draw; shares and losses are set, for the stand-in knows no text."""
        generator, runs = np.random.default_rng([seed, 6]), []
        lm = stand_in(name)
        lm.set_world(self._level_of([], {}), self.flip, {}, seed)
        held = {
            (kind, text): bits * np.exp(self.varies * generator.normal())
            for kind, bits in zip(RECITED, self.bits, strict=True)
            for text in range(TEXTS)
        }
        each_token = {
            (kind, text): bits * np.exp(0.1 * generator.normal())
            for kind, bits in zip(RECITED, self.per_token, strict=True)
            for text in range(TEXTS)
        }
        for info in recited_infos():
            source, length = info["config"]["task"]["source"], info["config"]["task"]["label_length"]
            each = each_token[source["label"], source["row"]]
            right = min(held[source["label"], source["row"]] / (length * each), 1.0)
            prompt_Pd = generator.normal(size=(1, WIDTH)).astype(np.float32)
            run, none = _run(info, prompt_Pd, prompt_Pd), each * np.log(2)
            shares = {"none": 0.0, "initial": 0.0, "final": right, "best": right}
            noise = float(np.exp(0.05 * generator.normal()))
            loss = {which: none * (1 - share) * (noise if share else 1.0) for which, share in shares.items()}
            run.info["results"] = {"split": "validation", "n": 1, "steps": 400, "prompt_length": 1, "loss": loss}
            run.info["results"] |= {name: shares for name in ("accuracy", "tokens_right", "tokens_recited")}
            ends = [
                {"step": step, "split": "validation", "loss": loss["final"] * (2 - step / 400)} for step in (330, 400)
            ]
            run.__dict__["metrics"] = pd.DataFrame([dict.fromkeys(METRICS_COLUMNS, 1.0) | end for end in ends])
            runs.append(run)
        return RunTable(pd.DataFrame([run.row() for run in runs]), runs)


RECITED, TEXTS = ("real", "shuffled"), 6
"""Kinds of text, and texts of each: as many as the stand-in has words for."""


@cache
def recited_infos() -> list[dict[str, Any]]:
    """A run.json without results for each kind, text and length."""
    recite = ("task=recite", "template=recite", "init=normal", "prompt.length=1", "training.epochs=400")
    return [
        _info(*recite, f"task.source.label={kind}", f"task.source.row={text}", f"task.label_length={length}")
        for kind in RECITED
        for text in range(TEXTS)
        for length in (4, 6, 8, 12, 16, 24)
    ]


SKILLS = (
    Skills("all alike"),
    Skills("all alike, many runs", seeds=4),
    Skills("ceiling", level=3.0),
    Skills("floor", level=-6.0),
    Skills("failed trainings", level=-2.0),
    Skills("untrained", level=-2.0, way=0.0, seeds=3),
    Skills("planted", level=None, flip=0.3, seeds=3),
    Skills("wells", level=None, flip=0.3, wells=True, seeds=3),
    Skills("strangers", level=None, flip=0.3, wells=True, bottom=-0.7, whim=0.7, only=("transfer", "describe")),
    Skills("kin", level=None, flip=0.3, kin=3, bottom=-2.0, only=("transfer",)),
    Skills("helping", level=None, flip=0.3, kin=3, shift=4.0, bottom=-1.0, only=("transfer",)),
    Skills("deaf", level=None, flip=0.3, seeds=3, hears=False, only=("mechanism",)),
    # costs nothing that 250 examples would show; the next a little more than 2 % of accuracy
    Skills("pulled for nothing", level=None, flip=0.05, seeds=3, bottom=-1.5, only=("waywardness",)),
    Skills("pulled away", level=None, flip=0.3, seeds=3, pulled=0.92, only=("waywardness",)),
    Recited("same bits"),
    Recited("same tokens", bits=(40.0, 80.0)),
    Recited("same bits and tokens", per_token=(6.0, 6.0)),
    Recited("bits at the margin", bits=(60.0, 75.0)),
)

POINTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of a learning curve of which it matters when it falls."""
GRIDS: dict[str, str] = {
    "bezier": "many examples",
    "classes": "classes",
    "inits": "inits",
    "prompt_length": "length",
    "mechanism": "mechanism",
    "composition": "composition",
    "repeatable": "repeatable",
    "explanation": "explanation",
    "orthogonal": "orthogonal",
    "transfer": "transfer",
    "describe": "transfer",
    "waywardness": "wayward",
}
"""Analysis -> which runs it needs."""
GIVEN_EXAMPLES = {"explanation", "speaking_probes", "dimension"}
"""Analyses whose intervals are of other runs on these questions, words and examples: they are the same in all draws."""
GIVEN_RUNS = {"bezier", "orthogonal"}
"""Analyses whose intervals are of these prompts on other test examples: they are the same in all draws."""
DRAWN_TASKS = {"transfer", "describe"}
"""Analyses whose intervals are of other tasks too: their directions are drawn anew."""
ONE_PAIR = {"bezier"}
"""Of them, those that choose among pairs: there is a single one."""
EXPLANATION = [
    "task=custom", "task.name=explanation", "task.source.kind=bundled", "task.source.bundled=explanations.csv"
]  # fmt: skip
"""As sweeps/explanation.yaml has it."""
WAYWARD = ("cat dog", "bird book")
"""Texts that prompts are pulled to: two of the stand-in's words."""
MANY = ("task.split.test_size=0.9", "task.split.max_test=250")
VALIDATED = ("task.split.max_test=30", "task.split.max_train=24", "task.split.validation=0.2")
PLAIN = ("prompt.length=2", "task.split.max_test=30", "task.split.max_train=24", "template.longer_labels=warn")


def given_seed(name: str, seed: int) -> int:
    """Of what an analysis of this name takes as given, if that is its prompts: the same in all draws."""
    return 0 if name in GIVEN_RUNS else seed


@cache
def stand_in(name: str = "") -> StandIn:
    """One for each analysis, whose words are those of its own runs."""
    return StandIn(WORDS)


@cache
def infos_of(grid: str, inits: int, seeds: int) -> list[dict[str, Any]]:
    """A run.json without results for each run of a grid, from real configs."""
    tasks = {
        "plain": [["task=plus_one"], ["task=plus_two"]],
        "many examples": [[f"task={task}", "task.split.max_test=100"] for task in ("plus_one", "plus_two")],
        "composition": [["task=plus_one"], ["task=plus_two"], ["task=country_capital"]],
        "repeatable": [["task=plus_k"], ["task=plus_one"], ["task=country_capital"]],
        "explanation": [EXPLANATION, ["task=plus_one"]],
        "orthogonal": [["task=plus_one"]],
        "mechanism": [[f"task={task}", *VALIDATED] for task in TASKS[2:]],
        "inits": [["task=plus_one"], ["task=plus_two"]],
        "length": [[f"task={task}", f"prompt.length={n}"] for task in ("plus_one", "plus_two") for n in (1, 4)],
        "classes": [["task=sentiment", "task.split.max_train=24", "task.split.max_test=null"], ["task=plus_one"]],
        "transfer": [[f"task={task}", "task.split.max_test=16", "task.split.max_train=8"] for task in TASKS],
        "wayward": [
            [f"task={task}", *MANY, f"regulariser.text={text}", f"regulariser.gamma={gamma}"]
            for task in ("plus_one", "plus_two")
            for text in WAYWARD
            for gamma in (0, 0.01, 0.03)
        ],
    }[grid]
    if grid == "wayward":
        away = ("regulariser=wayward", "init=text", "prompt.length=2")
        return [_info(*away, *task, f"seed={seed}") for task in tasks for seed in range(seeds)]
    infos = [
        _info(*task, f"init={word}", f"seed={seed}")
        for task in tasks
        for word in (("cat", "vocab") if grid == "inits" else WORDS[:inits])
        for seed in range(seeds)
    ]
    if grid == "orthogonal":
        together = ",".join(map(str, range(100, 100 + max(seeds, 3))))
        apart = ("regulariser=orthogonal", f"regulariser.seeds=[{together}]")
        infos += [
            _info("task=plus_one", f"init={WORDS[0]}", f"seed={k}", *apart) for k in map(int, together.split(","))
        ]
    return infos


@cache
def answers_of(name: str, grid: str, inits: int, seeds: int) -> Answers:
    """Whose answers the labels of a grid's tasks are: 5 -> 7 is plus_two's, and plus_k's with two copies."""
    answers: dict[tuple[bytes, bytes], dict[str, None]] = {}
    for run in (_run(info, np.zeros((1, WIDTH)), np.zeros((1, WIDTH))) for info in infos_of(grid, inits, seeds)):
        task = task_of_run(run)
        for row in task.rows(stand_in(name), task.examples, 0):
            answers.setdefault(content_of(row), {})[task.name] = None
    return {content: tuple(tasks) for content, tasks in answers.items()}


def _info(*overrides: str) -> dict[str, Any]:
    from promptgeo.config.compose import compose
    from promptgeo.config.schema import to_dict
    from promptgeo.data.tasks import load_task
    from promptgeo.tiny import PATH
    from promptgeo.training.cell import cell_of

    config = compose([f"model.name_or_path={PATH}", "outputs=nowhere", "device=cpu", *PLAIN, *overrides])
    cell = cell_of(config)
    task = load_task(cell.config.task, cell.config.template)
    return {
        "id": cell.id,
        "status": "completed",
        "config": to_dict(cell.config),
        "precision": "fp32",
        "lr": 0.01,
        "fingerprints": {"model": StandIn.fingerprint, "data": task.fingerprint},
        "sha256": cell.id,
        **({"coupled_with": [other for other in cell.coupled if other != cell.id]} if cell.coupled else {}),
    }


def _task_name(run: Run) -> str:
    return run.info["config"]["task"]["name"]


def _run(info: dict[str, Any], initial_Pd: np.ndarray, final_Pd: np.ndarray) -> Run:
    """A run in memory: its tensors are set, so that no folder is read."""
    run = Run(Path("nowhere") / info["id"][:12], dict(info))
    run.__dict__["tensors"] = {
        "initial": initial_Pd,
        "final": final_Pd,
        "best": final_Pd,
        "trajectory": final_Pd[None],
        "steps": np.array([100]),
    }
    return run


def _score(runs: list[Run], lm: StandIn, points: Sequence[float]) -> None:
    """The test scores and predictions of one task's runs, without a prompt, with P0 and trained, by the stand-in.

    points: how far along the way from P0 (0) to the trained prompt (1) the learning curve is known.
    """
    task, length = task_of_run(runs[0]), len(runs[0].prompt())
    none = evaluate(lm, np.zeros((1, 0, lm.width), np.float32), task)
    ways = [(run.prompt("initial"), run.prompt("final")) for run in runs]
    scored = evaluate(lm, np.stack([p0 + at * (final - p0) for p0, final in ways for at in points]), task)
    for k, run in enumerate(runs):
        curve = [scored.of(len(points) * k + at) for at in range(len(points))]
        by_prompt = {"none": none, "initial": curve[0], "final": curve[-1]}
        accuracy = {which: float(each.accuracy[0]) for which, each in by_prompt.items()}
        loss = {which: float(each.loss[0]) for which, each in by_prompt.items()}
        run.info["results"] = {"split": "test", "n": len(task.test), "steps": 100, "prompt_length": length}
        run.info["results"] |= {"accuracy": accuracy, "loss": loss}
        run.__dict__["predictions"] = [
            {"prompt": which, "id": example.id, "label": example.label, "correct": bool(correct)} | choice
            for which, each in by_prompt.items()
            for example, correct, choice in zip(task.test, each.correct[0], _choices(task, each), strict=True)
        ]
        if task.labels:
            majority = {"most_frequent": most_frequent_label(task), "majority": majority_accuracy(task, "test")}
            run.info["results"]["labels"] = {"set": task.labels, **majority}
        run.__dict__["metrics"] = pd.DataFrame(
            [
                dict.fromkeys(METRICS_COLUMNS, 1.0)
                | {"step": int(100 * at), "epoch": int(100 * at), "split": "test", "n": len(task.test)}
                | {"accuracy": float(each.accuracy[0]), "loss": float(each.loss[0])}
                for at, each in zip(points, curve, strict=True)
            ]
        )


def _choices(task: Task, scores: Evaluation) -> list[dict[str, str]]:
    if scores.label_choices is None:
        return [{}] * scores.n
    return [{"label_choice": (task.labels or [])[choice]} for choice in scores.label_choices[0]]


_tasks: dict[str, Task] = {}


def task_of_run(run: Run) -> Task:
    """task_of, which reads a run's config anew each time, once for each run of the grids."""
    if run.id not in _tasks:
        _tasks[run.id] = task_of(run)
    return _tasks[run.id]


SCENARIOS = {scenario.name: scenario for scenario in (*GEOMETRY, *SKILLS)}
