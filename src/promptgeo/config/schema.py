"""The schema of a run: every field with its meaning, unit and default.

Hydra merges the files of `conf/` into these dataclasses, so a misspelt key or a wrong type is caught while composing,
before a folder is made or a model loaded. What values a type cannot exclude: validate.py. Which fields decide a run's
numbers: identity.py.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, cast, get_args, get_type_hints

from omegaconf import MISSING

UNWRITTEN = 10**9
"""OmegaConf takes a member's number for the member: from here on nobody writes one (template.bos=3 is an error)."""
# Enum members are what a user writes in YAML or on the command line.
SourceKind = Enum("SourceKind", "bundled function_vectors hub file", start=UNWRITTEN)
SplitKind = Enum("SplitKind", "auto random own all", start=UNWRITTEN)
InitKind = Enum("InitKind", "word text vocab normal uniform labels file run", start=UNWRITTEN)
Unit = Enum("Unit", "absolute embedding", start=UNWRITTEN)
LongerLabels = Enum("LongerLabels", "refuse warn", start=UNWRITTEN)
LabelTokens = Enum("LabelTokens", "auto alone anchored", start=UNWRITTEN)
Scoring = Enum("Scoring", "line prefix token recite", start=UNWRITTEN)
Bos = Enum("Bos", "auto always never after_prompt", start=UNWRITTEN)
OptimizerKind = Enum("OptimizerKind", "adamw adam sgd adafactor", start=UNWRITTEN)
Schedule = Enum("Schedule", "constant linear cosine", start=UNWRITTEN)
RegulariserKind = Enum("RegulariserKind", "none orthogonal wayward", start=UNWRITTEN)
Precision = Enum("Precision", "auto fp32 bf16", start=UNWRITTEN)
Device = Enum("Device", "auto cpu cuda", start=UNWRITTEN)
EvaluationSplit = Enum("EvaluationSplit", "test validation", start=UNWRITTEN)
Logger = Enum("Logger", "tensorboard wandb", start=UNWRITTEN)
Sampler = Enum("Sampler", "halton random", start=UNWRITTEN)


MEANING = "meaning"


def key(default: Any, meaning: str) -> Any:
    """A field with its default and what it means, which --help prints."""
    return field(default=default, metadata={MEANING: meaning})


def key_of(factory: Callable[[], Any], meaning: str) -> Any:
    """The same, of a default that is made anew."""
    return field(default_factory=factory, metadata={MEANING: meaning})


@dataclass
class Model:
    """A frozen causal language model."""

    name: str = key(MISSING, "short name: appears in folders and tables")
    name_or_path: str = key(MISSING, "hub id, local folder, or `tiny` (the embedded model)")
    revision: str | None = key(None, "hub branch, tag or commit")
    learning_rate: float | None = key(None, "default of optimizer.lr for this model, where one was measured")
    trust_remote_code: bool = key(False, "run code that a hub repository brings")


FIELD = re.compile(r"{([^{}\s]+)}")
"""A column in a text of several."""


@dataclass
class Source:
    """Where a task's examples come from."""

    kind: SourceKind = key(SourceKind.bundled, "where the examples lie")
    path: str | None = key(None, "own csv, tsv, json, jsonl, parquet; for function_vectors and hub: a local copy")
    folder: str | None = key(None, "of a benchmark's tasks, a folder each (CB/, RTE/, ...): read instead of the hub")
    subfolder: str | None = key(None, "the task's own in it")
    bundled: str | None = key(None, "file in the bundled data, or a folder of train, validation and test files")
    function_vectors: str | None = key(None, "file name in the function-vectors repository")
    sha256: str | None = key(None, "expected SHA-256 of that file")
    class_files: list[str] | None = key(
        None,
        "a text file of each class, a line an example, in the order of task.labels: in the folder task.source.path",
    )
    dataset: str | None = key(None, "hub id of the dataset")
    subset: str | None = key(None, "configuration of the hub dataset")
    revision: str | None = key(None, "revision of the hub dataset")
    input: str = key(
        "input",
        "column of the inputs, or a text of several: 'Premise: {premise} Hypothesis: {hypothesis}'; '': no input",
    )
    cut: str | None = key(None, "of such a text the column that task.max_input_tokens cuts; null: the text's end")
    label: str = key("label", "column of the labels")
    classes: list[str] | None = key(
        None, "what the column calls its classes, by name or number, in the order of task.labels"
    )
    repeat: str | None = key(None, "column that says how many copies of {prompt} stand in an example")
    row: int | None = key(None, "this row alone, counted from 0 (needs task.split.kind=all); null: all rows")

    @property
    def columns(self) -> list[str]:
        """The columns that an input is made of, in order: `input` itself, where it holds no {column}; none of ''."""
        return FIELD.findall(self.input) or [self.input] * bool(self.input)


@dataclass
class Split:
    """How examples become train, validation and test."""

    kind: SplitKind = key(
        SplitKind.auto,
        "random: train_test_split; own: the source's splits; all: train = test = all examples; "
        "auto: own where the source has a train and a test split, else random",
    )
    train: str | None = key(None, "own: the source's split that is trained on, several as train+dev; null: train")
    test: str | None = key(None, "own: likewise; null: test")
    test_size: float = key(0.2, "fraction of the examples")
    seed: int = key(42, "of the split's own draws, whatever the run's seed")
    validation: Any = key(
        0.0,
        "fraction of the *training* examples cut off for validation, or (own) the name of the source's split for it",
    )
    max_train: int | None = key(None, "keep n training examples, drawn by split.seed")
    stratify: bool = key(
        False, "max_train, and a fraction for validation, keep each label equally often where they can"
    )
    stop_on_test: bool = key(False, "validation is the test split: as study 2 stopped, a selection on the test set")
    max_test: int | None = key(None, "keep n test examples, likewise")

    def __post_init__(self) -> None:
        with suppress(TypeError, ValueError):  # "0.1" in a YAML file is the number; other texts are names
            self.validation = float(self.validation)


@dataclass
class Task:
    """A task: its data, how they are split, and its label set."""

    name: str = key(MISSING, "short name: appears in folders and tables; the run's seeds derive from it")
    description: str = key("", "in words; reports show it")
    version: int = key(1, "raised when data or scoring change")
    source: Source = field(default_factory=Source)
    split: Split = field(default_factory=Split)
    labels: list[str] | None = key(None, "the label set, for tasks that have one; integer labels index it")
    accepted: list[list[str]] | None = key(None, "further spellings of each label that are scored as correct")
    content_free: str | None = key(
        None,
        "for instance N/A: labels are chosen by how much likelier they are than after this input (Zhao et al. 2021)",
    )
    refused: str | None = key(None, "why this task cannot be trained; null: it can")
    text: str | None = key(
        None,
        "a sentence that says what to do: init=task_text starts from it, analysis=mechanism takes it as instruction",
    )
    max_input_tokens: int | None = key(None, "cut longer inputs (never labels) to this many tokens; null: never cut")
    label_length: int | None = key(
        None, "the first so many tokens of each label; a shorter label is refused; null: whole labels"
    )


@dataclass
class Template:
    """How an example is written; {prompt} stands at index 0 unless it occurs in `text`."""

    name: str = key(MISSING, "short name: appears in tables")
    text: str = key(MISSING, "with {input}, and {prompt} anywhere, also repeated")
    label: str = key(" {label}", "tokenised on its own")
    end: str = key("", "terminator after the label; trained too")
    scoring: Scoring = key(
        Scoring.line,
        "line: the generated line is the label; prefix: it starts with the label; token: its first token is the label; "
        "recite: its first tokens are the label's, all of them",
    )
    max_new_tokens: int = key(16, "default of evaluation.max_new_tokens")
    bos: Bos = key(
        Bos.auto,
        "what the tokenizer puts before a text: auto, always: at index 0, before the prompt (always: an error where "
        "it puts nothing); never; after_prompt: prompt, then BOS, as PEFT trains. run.json holds what auto came to: "
        "after_prompt where init=run starts from a prompt that was trained so",
    )
    chat: bool = key(
        False,
        "text and label are turns of the tokenizer's chat template; a run's own config has them written out, and false",
    )
    label_tokens: LabelTokens = key(
        LabelTokens.auto,
        "anchored: behind a fixed text, so that a tokenizer which puts a mark before every text puts none inside; "
        "alone: as the first version did; auto: anchored where that gives other tokens",
    )
    longer_labels: LongerLabels = key(
        LongerLabels.refuse,
        "labels of more than evaluation.max_new_tokens tokens are never correct: refused, or only counted (study 3)",
    )


@dataclass
class Init:
    """How P0 is made; see promptgeo.training.inits."""

    name: str = key(MISSING, "short name: appears in folders and tables; the run's seeds derive from it")
    kind: InitKind = key(MISSING, "how P0 is made")
    text: str | None = key(
        None, "word, text; vocab, normal, uniform with prompt.length=null: they are as long as it is"
    )
    path: str | None = key(None, "file: .npy, .npz, .safetensors or torch.save's; run: a run folder")
    which: str = key("final", "run, file: initial, final, best, or a step (run); the tensor's name (file)")
    scale: float = key(1.0, "normal: times the table's deviation; uniform: half-width, in `unit`")
    unit: Unit = key(Unit.absolute, "uniform: of scale; embedding: the standard deviation of the model's embeddings")


@dataclass
class Prompt:
    """The soft prompt."""

    length: int | None = key(4, "prompt length P in tokens; null: as many as the init gives")


DEFAULT_RATE = 0.3
"""optimizer.lr_in_embedding_units of a model whose rate was not measured: see benchmarks/README.md, real_model.py."""


@dataclass
class Optimizer:
    """How the prompt is trained."""

    name: OptimizerKind = key(OptimizerKind.adamw, "the optimiser")
    lr: float | None = key(
        None,
        "learning rate; without it and lr_in_embedding_units: model.learning_rate, else 0.3 in units of its embeddings",
    )
    lr_in_embedding_units: float | None = key(None, "times the standard deviation of the model's embeddings")
    betas: list[float] = key_of(lambda: [0.9, 0.999], "of adamw and adam")
    eps: float = key(1e-8, "of adamw and adam")
    momentum: float = key(0.0, "of sgd: share of the last step that goes on")
    weight_decay: float = key(0.0, "as the optimiser has it")
    clip: float | None = key(None, "largest L2 norm of a run's own gradient")
    schedule: Schedule = key(Schedule.constant, "of the learning rate, after the warm-up")
    warmup_steps: int = key(0, "steps in which the learning rate rises from 0")


@dataclass
class Regulariser:
    """What is added to the task's loss; see promptgeo.training.coupling and promptgeo.training.wayward."""

    name: RegulariserKind = key(RegulariserKind.none, "what is added to the loss")
    weight: float = key(1.0, "orthogonal: times what pushes the coupled runs apart")
    seeds: list[int] = key_of(
        list, "orthogonal: the coupled runs, which differ in their seed alone and must be in one command"
    )
    size: int | None = key(None, "or groups of this many seeds: 0 to size - 1, size to 2 size - 1, ...; 1: not coupled")
    gamma: float = key(
        0.0,
        "wayward: times the mean squared distance of tokens from the text's embeddings, in variances of the embeddings",
    )
    text: str | None = key(
        None, "wayward: what each token is held to, as many tokens as the prompt; null: the task's own"
    )


@dataclass
class EarlyStopping:
    """When training stops before its last epoch."""

    patience: int | None = key(None, "epochs without a better validation loss; null: never stop early")
    accuracy: float | None = key(None, "accuracy on validation that is enough; null: never stop for it")


@dataclass
class Training:
    """How long and on what a run trains."""

    epochs: int = key(10, "passes through the training examples")
    max_steps: int | None = key(None, "stop after this many steps whatever the epochs")
    batch_size: int = key(8, "examples per step")
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    checkpoints: str = key("epoch", "epoch | log | n (every n steps)")
    dropout: bool = key(False, "true: the frozen model's own dropout is on while training")
    keep_state: bool = key(False, "leave the optimiser's state and the place in the data, for training.continue_from")
    continue_from: str | None = key(
        None, "a run's folder: its final prompt is trained on, by its optimiser's state where that was kept"
    )


@dataclass
class Evaluation:
    """What prompts are scored on, and when."""

    max_new_tokens: int = key(MISSING, "tokens that the model may write for an example, at most")
    split: EvaluationSplit = key(EvaluationSplit.test, "validation leaves the test split untouched")
    every: str = key("epoch", "epoch: a learning curve; end: P0 and final only; n: every n epochs, validation too")

    @property
    def validation_epochs(self) -> int:
        """Epochs from one score on validation to the next."""
        return int(self.every) if self.every.isdecimal() else 1

    @property
    def scores_curve(self) -> bool:
        """Whether the scored split is scored while training, as often as validation."""
        return self.every != "end"


@dataclass
class Seeds:
    """Set one generator by hand; null: derived from (seed, task, init)."""

    init: int | None = key(None, "of P0; null: derived from seed, task.name and init.name")
    order: int | None = key(None, "of the examples, likewise")
    dropout: int | None = key(None, "of the model's dropout, likewise")


@dataclass
class Packing:
    """How the runs of a grid share the frozen model. It decides how long training takes, not its numbers.

    The exception is `compile`, which rounds differently.
    """

    max_runs: int | None = key(None, "runs trained at once; null: as many as the device's memory holds")
    devices: int = key(1, "processes, each with its own device and its share of the runs")
    compile: bool = key(
        False,
        "torch.compile the frozen model (CUDA only): takes minutes once, then ticks are faster; equal up to rounding",
    )


@dataclass
class Grid:
    """Which runs a grid has, and which of them are trained to their end. No run depends on it: see config/grid.py."""

    zip: list[str] = key_of(list, "keys that are walked together, not crossed: [init,seed]")
    draws: int = key(
        9, "learning rates that optimizer.lr=interval(0.001,0.1) stands for; also of lr_in_embedding_units"
    )
    sampler: Sampler = key(Sampler.halton, "of these, log-uniform: halton: spread evenly; random: independent")
    seed: int = key(0, "of the sampler")
    halving: int | None = key(
        None,
        "successive halving: at each rung one learning rate in this many goes on, by validation loss, the others are "
        "stopped. 9 rates and halving=3: rungs at T/9, T/3 and T of T steps. null: all are trained to their end",
    )


@dataclass
class Wandb:
    """Where logger=wandb sends runs."""

    project: str = key("promptgeo", "where runs are sent")
    entity: str | None = key(None, "whose project it is; null: the key's own")
    mode: str | None = key(None, "online, offline or disabled; null: online where there is a key, else offline")


@dataclass
class RunConfig:
    """One run: everything that a command line decides."""

    name: str = key("adhoc", "results land in outputs/<name>/")
    model: Model = MISSING
    task: Task = MISSING
    init: Init = MISSING
    template: Template = MISSING
    optimizer: Optimizer = MISSING
    regulariser: Regulariser = field(default_factory=Regulariser)
    prompt: Prompt = field(default_factory=Prompt)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = key(0, "init, order and dropout are derived from it")
    seeds: Seeds = field(default_factory=Seeds)
    precision: Precision = key(Precision.auto, "of the frozen weights; auto: fp32 on CPU, bf16 on CUDA")
    device: Device = key(Device.auto, "where the model runs; auto: cuda where there is one")
    outputs: str = key("outputs", "folder that holds all results")
    overwrite: bool = key(False, "train again what is complete")
    preview: bool = key(False, "say what would be trained, and stop")
    grid: Grid = field(default_factory=Grid)
    packing: Packing = field(default_factory=Packing)
    logger: Any = key(None, "null (metrics.csv is always written), tensorboard, wandb, or a list of them")
    wandb: Wandb = field(default_factory=Wandb)
    sweep: str | None = key(None, "the stored grid this run belongs to")
    study: dict[str, Any] = key_of(dict, "what a study is besides its runs: analyses, published numbers")


def loggers(config: RunConfig) -> list[str]:
    """The loggers that the config names, each once."""
    chosen = config.logger
    chosen = chosen if isinstance(chosen, list) else [] if chosen is None else [chosen]
    return [logger for k, logger in enumerate(chosen) if logger not in chosen[:k]]


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one of dotted keys; enums to their names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value.name if isinstance(value, Enum) else value
    return flat


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of a config, or a section of one, by its dotted key: flatten(asdict(config)), without a copy."""
    values: dict[str, Any] = {}
    for key, value in (config if isinstance(config, dict) else vars(config)).items():
        if isinstance(value, dict) or is_dataclass(value):
            values |= flat(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value.name if isinstance(value, Enum) else value
    return values


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The resolved config as plain data for run.json (enums by name), without what a study or a grid says beyond it.

    A run is the same, byte for byte, whichever grid it was trained in.
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value.name if isinstance(value, Enum) else value

    return plain({k: v for k, v in asdict(config).items() if k not in ("study", "grid")})


@lru_cache
def keys() -> list[str]:
    """Every key of the schema, with its sections: training.epochs."""

    def walk(cls: type, prefix: str) -> Iterator[str]:
        hints = get_type_hints(cls)
        for f in fields(cls):
            if is_dataclass(hints[f.name]):
                yield from walk(hints[f.name], f"{prefix}{f.name}.")
            else:
                yield f"{prefix}{f.name}"

    return list(walk(RunConfig, ""))


@lru_cache
def meanings() -> dict[str, str]:
    """Of each key that a user sets what it means, and the words that it takes where it takes no others."""

    def walk(cls: type, prefix: str) -> Iterator[tuple[str, str]]:
        hints = get_type_hints(cls)
        for f in fields(cls):
            hint = hints[f.name]
            if is_dataclass(hint):
                yield from walk(cast(type, hint), f"{prefix}{f.name}.")
            elif f"{prefix}{f.name}" not in ("sweep", "study"):  # a group, and what a stored grid says of itself
                words = ", ".join(hint.__members__) if isinstance(hint, type) and issubclass(hint, Enum) else ""
                yield f"{prefix}{f.name}", f.metadata[MEANING] + (f" ({words})" if words else "")

    return dict(walk(RunConfig, ""))


@lru_cache
def texts(config: type | None = None) -> frozenset[str]:
    """The keys of a run's config, or of another dataclass, that hold a text, or a list of texts."""

    def walk(cls: type, prefix: str) -> Iterator[str]:
        for name, hint in get_type_hints(cls).items():
            if is_dataclass(hint):
                yield from walk(cast(type, hint), f"{prefix}{name}.")
            elif {str, list[str]} & set(get_args(hint) if isinstance(hint, UnionType) else [hint]):
                yield f"{prefix}{name}"

    return frozenset(walk(config or RunConfig, ""))


@lru_cache
def sections() -> set[str]:
    """training, training.early_stopping, ..."""
    return {key[:at] for key in keys() for at, character in enumerate(key) if character == "."}
