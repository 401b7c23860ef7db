"""The schema of a run: every field with its meaning, unit and default; what values are possible; the run's identity.

Hydra merges the files of `conf/` into these dataclasses, so a misspelt key or a wrong type is caught while composing,
before a folder is made or a model loaded. `validate` then checks the values that a type cannot express.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import PurePath
from typing import Any

from omegaconf import MISSING

from promptgeo.errors import UserError

# Enum members are what a user writes in YAML or on the command line.
SourceKind = Enum("SourceKind", "bundled function_vectors hub file")
SplitKind = Enum("SplitKind", "random own all")
InitKind = Enum("InitKind", "word text vocab normal uniform labels file run")
Scoring = Enum("Scoring", "line prefix token")
OptimizerKind = Enum("OptimizerKind", "adamw adam sgd adafactor")
Schedule = Enum("Schedule", "constant linear cosine")
RegulariserKind = Enum("RegulariserKind", "none orthogonal")
Precision = Enum("Precision", "auto fp32 bf16")
Device = Enum("Device", "auto cpu cuda")
EvaluationSplit = Enum("EvaluationSplit", "test validation")
Every = Enum("Every", "epoch end")


@dataclass
class Model:
    """A frozen causal language model."""

    name: str = MISSING  # short name: appears in folders and tables
    name_or_path: str = MISSING  # hub id, local folder, or `tiny` (the embedded model)
    revision: str | None = None  # hub branch, tag or commit
    learning_rate: float = 1e-2  # default of optimizer.lr for this model
    trust_remote_code: bool = False  # run code that a hub repository brings


@dataclass
class Source:
    """Where a task's examples come from."""

    kind: SourceKind = SourceKind.bundled
    path: str | None = None  # own csv, tsv, json, jsonl, parquet; for function_vectors and hub: a local copy
    bundled: str | None = None  # file name in the bundled data
    function_vectors: str | None = None  # file name in the function-vectors repository
    sha256: str | None = None  # expected SHA-256 of that file
    dataset: str | None = None  # hub id
    subset: str | None = None  # configuration of the hub dataset
    revision: str | None = None  # revision of the hub dataset
    input: str = "input"  # column of the inputs
    label: str = "label"  # column of the labels
    repeat: str | None = None  # column that says how many copies of {prompt} an example is asked with


@dataclass
class Split:
    """How examples become train, validation and test."""

    kind: SplitKind = SplitKind.random  # random: train_test_split; own: the source's splits; all: train = test = all examples
    test_size: float = 0.2  # fraction of the examples
    seed: int = 42
    validation: float = 0.0  # fraction of the *training* examples cut off for validation
    max_train: int | None = None  # keep n training examples, drawn by split.seed
    max_test: int | None = None  # keep n test examples, likewise


@dataclass
class Task:
    name: str = MISSING
    description: str = ""
    version: int = 1  # raised when data or scoring change
    source: Source = field(default_factory=Source)
    split: Split = field(default_factory=Split)
    labels: list[str] | None = None  # the label set, for tasks that have one; integer labels index it
    max_input_tokens: int | None = None  # cut longer inputs (never labels) to this many tokens; null: never cut


@dataclass
class Template:
    """How an example is written; {prompt} stands at index 0 unless it occurs in `text`."""

    name: str = MISSING
    text: str = MISSING  # with {input}, and {prompt} anywhere, also repeated
    label: str = " {label}"  # tokenised on its own
    end: str = ""  # terminator after the label; trained too
    scoring: Scoring = Scoring.line  # line: the generated line is the label; prefix: the stripped text starts with it; token: first token
    max_new_tokens: int = 16  # default of evaluation.max_new_tokens


@dataclass
class Init:
    """How P0 is made; see promptgeo.prompts."""

    name: str = MISSING
    kind: InitKind = MISSING
    text: str | None = None  # word, text
    path: str | None = None  # file: .npy or .safetensors; run: a run folder
    which: str = "final"  # run, file: initial, final, best, or a step (run); the tensor's name (file)
    scale: float = 1.0  # normal: times the table's deviation; uniform: half-width


@dataclass
class Prompt:
    length: int | None = 4  # prompt length P in tokens; null: as many as the init gives


@dataclass
class Optimizer:
    name: OptimizerKind = OptimizerKind.adamw
    lr: float = MISSING
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])  # adamw, adam
    eps: float = 1e-8  # adamw, adam
    momentum: float = 0.0  # sgd
    weight_decay: float = 0.0
    clip: float | None = None  # largest L2 norm of a run's own gradient
    schedule: Schedule = Schedule.constant
    warmup_steps: int = 0


@dataclass
class Regulariser:
    """What a run's loss has beside the task's; see promptgeo.coupling."""

    name: RegulariserKind = RegulariserKind.none
    weight: float = 1.0
    seeds: list[int] = field(default_factory=list)  # orthogonal: the runs that are coupled, all else equal; they need one command
    size: int | None = None  # or groups of so many seeds in a row: 0 to size - 1, size to 2 size - 1, ...; 1: as regulariser=none


@dataclass
class EarlyStopping:
    patience: int | None = None  # epochs without a better validation loss; null: never stop early


@dataclass
class Training:
    epochs: int = 10
    max_steps: int | None = None  # stop after this many steps whatever the epochs
    batch_size: int = 8  # examples per step
    early_stopping: EarlyStopping = field(default_factory=EarlyStopping)
    checkpoints: str = "epoch"  # epoch | log | n (every n steps)
    dropout: bool = False  # true: the frozen model's own dropout is on while training


@dataclass
class Evaluation:
    max_new_tokens: int = MISSING
    split: EvaluationSplit = EvaluationSplit.test  # validation leaves the test split untouched
    every: Every = Every.epoch  # epoch: a learning curve; end: P0 and final only


@dataclass
class Seeds:
    """Set one generator by hand; null: derived from (seed, task, init)."""

    init: int | None = None
    order: int | None = None
    dropout: int | None = None


@dataclass
class Packing:
    """How the runs of a grid share the frozen model. Decides how long it takes, never a number (but for the rounding of `compile`)."""

    max_runs: int | None = None  # runs trained at once; null: as many as the device's memory holds
    devices: int = 1  # processes, each with its own device and its share of the runs
    compile: bool = False  # torch.compile the frozen model (CUDA): minutes once, then faster ticks; equal up to rounding


@dataclass
class Wandb:
    """Where logger=wandb sends runs."""

    project: str = "promptgeo"
    entity: str | None = None
    mode: str | None = None  # online, offline or disabled; null: online where there is a key, else offline


@dataclass
class RunConfig:
    name: str = "adhoc"  # results land in outputs/<name>/
    model: Model = MISSING
    task: Task = MISSING
    init: Init = MISSING
    template: Template = MISSING
    optimizer: Optimizer = MISSING
    regulariser: Regulariser = field(default_factory=Regulariser)
    prompt: Prompt = field(default_factory=Prompt)
    training: Training = field(default_factory=Training)
    evaluation: Evaluation = field(default_factory=Evaluation)
    seed: int = 0
    seeds: Seeds = field(default_factory=Seeds)
    precision: Precision = Precision.auto  # of the frozen weights; auto: fp32 on CPU, bf16 on CUDA
    device: Device = Device.auto
    outputs: str = "outputs"  # folder that holds all results
    overwrite: bool = False  # train again what is complete
    preview: bool = False  # say what would be trained, and stop
    packing: Packing = field(default_factory=Packing)
    logger: Any = None  # null (metrics.csv is always written), tensorboard, wandb, or [tensorboard,wandb]
    wandb: Wandb = field(default_factory=Wandb)
    sweep: str | None = None  # the stored grid this run belongs to
    study: dict[str, Any] = field(default_factory=dict)  # what a study says beyond its runs: analyses, published numbers


def _require(ok: bool, key: str, value: Any, wanted: str) -> None:
    if not ok:
        raise UserError(f"{key}={value}: must be {wanted}")


def validate(config: RunConfig) -> None:
    """Raises UserError, naming the key, for a value no run can have."""
    for key, value in flatten(asdict(config)).items():
        if isinstance(value, float):
            _require(math.isfinite(value), key, value, "a finite number")
    for key, value in {"seed": config.seed, **{f"seeds.{k}": v for k, v in asdict(config.seeds).items()}}.items():
        _require(value is None or 0 <= value < 2**63, key, value, "a whole number from 0 to 2^63 - 1")
    for key, value in {
        "prompt.length": config.prompt.length,
        "training.batch_size": config.training.batch_size,
        "training.max_steps": config.training.max_steps,
        "training.early_stopping.patience": config.training.early_stopping.patience,
        "evaluation.max_new_tokens": config.evaluation.max_new_tokens,
        "task.max_input_tokens": config.task.max_input_tokens,
        "task.split.max_train": config.task.split.max_train,
        "task.split.max_test": config.task.split.max_test,
    }.items():
        _require(value is None or 1 <= value <= 10**6, key, value, "a whole number from 1 to 1,000,000")
    _require(0 <= config.training.epochs <= 10**6, "training.epochs", config.training.epochs, "a whole number from 0 to 1,000,000")
    for key, value in {"optimizer.lr": config.optimizer.lr, "init.scale": config.init.scale, "optimizer.eps": config.optimizer.eps}.items():
        _require(0 < value <= 1e30, key, value, "greater than 0, at most 1e30")  # beyond it Adam raises, and takes a pack down
    _require(0 <= config.optimizer.weight_decay <= 1e30, "optimizer.weight_decay", config.optimizer.weight_decay, "at least 0, at most 1e30")
    _require(0 <= config.optimizer.momentum < 1, "optimizer.momentum", config.optimizer.momentum, "from 0 to below 1")
    _require(0 <= config.optimizer.warmup_steps <= 10**12, "optimizer.warmup_steps", config.optimizer.warmup_steps, "at least 0, at most 1e12")
    _require(config.optimizer.clip is None or config.optimizer.clip > 0, "optimizer.clip", config.optimizer.clip, "greater than 0, or null")
    betas = config.optimizer.betas  # Adam divides the learning rate by 1 - beta
    _require(len(betas) == 2 and all(0 <= b <= 1 - 1e-7 for b in betas), "optimizer.betas", betas, "two numbers from 0 to .9999999")
    split = config.task.split
    _require(0 < split.test_size < 1, "task.split.test_size", split.test_size, "a fraction between 0 and 1")
    _require(0 <= split.validation < 1, "task.split.validation", split.validation, "a fraction from 0 to below 1")
    _require(0 <= split.seed < 2**32, "task.split.seed", split.seed, "a whole number from 0 to 2^32 - 1")
    checkpoints = config.training.checkpoints
    _require(bool(re.fullmatch(r"epoch|log|[1-9]\d*", checkpoints)), "training.checkpoints", checkpoints, "epoch, log, or a number of steps")
    name = PurePath(config.name)
    _require(bool(name.parts) and not name.is_absolute() and ".." not in name.parts, "name", config.name, "a folder name below outputs/")
    _require(all(len(os.fsencode(part)) <= 255 for part in name.parts), "name", f"{config.name[:60]}...", "at most 255 bytes long: no file system allows more")
    _require(bool(config.outputs) and not config.outputs.startswith("~"), "outputs", config.outputs, "a folder, written out (a shell expands ~ only where nothing quotes it)")
    for key, value in {"packing.max_runs": config.packing.max_runs, "packing.devices": config.packing.devices}.items():
        _require(value is None or 1 <= value <= 10**5, key, value, "a whole number from 1 to 100,000")
    for logger in loggers(config):
        _require(logger in LOGGERS, "logger", logger, f"null, {' or '.join(LOGGERS)}, or a list of them")
    _require(config.wandb.mode in (None, "online", "offline", "disabled"), "wandb.mode", config.wandb.mode, "online, offline or disabled")
    needs_validation = config.training.early_stopping.patience is not None or config.evaluation.split is EvaluationSplit.validation
    if needs_validation and split.validation == 0 and split.kind is not SplitKind.own:
        key = "evaluation.split=validation" if config.training.early_stopping.patience is None else "training.early_stopping.patience"
        raise UserError(f"{key} needs validation examples: set task.split.validation=0.1 (a fraction of the training examples)")
    _validate_regulariser(config)
    _validate_template(config.template)
    _validate_init(config.init)


LOGGERS = ("tensorboard", "wandb")


def loggers(config: RunConfig) -> list[str]:
    """The loggers that the config asks for."""
    given = config.logger
    return list(dict.fromkeys(given)) if isinstance(given, list) else [] if given is None else [given]


def with_coupled_seeds(config: RunConfig) -> RunConfig:
    """regulariser.size as the seeds that it stands for, so that a run is the same whichever way its group was given."""
    regulariser = config.regulariser
    if regulariser.name is RegulariserKind.none or regulariser.size is None:
        return config
    size = regulariser.size
    _require(size >= 1, "regulariser.size", size, "at least 1")
    _require(not regulariser.seeds, "regulariser.size", size, "null where regulariser.seeds names the seeds")
    first = config.seed // size * size
    return replace(config, regulariser=replace(regulariser, size=None, seeds=list(range(first, first + size))) if size > 1 else Regulariser())


def _validate_regulariser(config: RunConfig) -> None:
    regulariser = config.regulariser
    _require(0 <= regulariser.weight <= 1e30, "regulariser.weight", regulariser.weight, "at least 0")
    if regulariser.name is RegulariserKind.none:
        _require(not regulariser.seeds, "regulariser.seeds", regulariser.seeds, "empty with regulariser=none")
        _require(regulariser.size is None, "regulariser.size", regulariser.size, "null with regulariser=none")
        return
    seeds = regulariser.seeds
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds) or config.seed not in seeds:
        raise UserError(f"regulariser=orthogonal needs the seeds of the runs it couples, this run's ({config.seed}) among them: 'regulariser.seeds=[0,1,2,3]' (or regulariser.size=4) -m seed=0,1,2,3")
    if config.training.early_stopping.patience is not None:
        raise UserError("regulariser=orthogonal: coupled runs end together; leave training.early_stopping.patience=null")


def _validate_template(template: Template) -> None:
    fields = re.findall(r"{(\w*)}", template.text)
    unknown = [f for f in fields if f not in ("input", "prompt")]
    if unknown:
        raise UserError(f"template.text holds {{{unknown[0]}}}: only {{input}} and {{prompt}} may stand there (the label follows the text; see template.label)")
    _require("input" in fields, "template.text", repr(template.text), "a text that holds {input}")
    _require(re.findall(r"{(\w*)}", template.label) == ["label"], "template.label", repr(template.label), "a text that holds {label} once")
    if template.scoring is Scoring.line and not template.end:
        raise UserError("template.scoring=line needs a terminator: set template.end (for instance to a newline) or template.scoring=prefix")


def _validate_init(init: Init) -> None:
    if init.kind in (InitKind.word, InitKind.text) and not init.text:
        raise UserError(f"init={init.kind.name} needs a text: set 'init.text=\"...\"'")
    if init.kind in (InitKind.file, InitKind.run) and not init.path:
        raise UserError(f"init={init.kind.name} needs init.path=<{'a .npy or .safetensors file' if init.kind is InitKind.file else 'a run folder'}>")


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries to one of dotted keys; enums to their names."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value.name if isinstance(value, Enum) else value
    return flat


# Fields that do not decide a run's numbers, or that enter the identity by content instead (paths, device, precision).
# The names of task and init do decide: the seed's three generators derive from them.
_NOT_IDENTITY = re.compile(
    r"name|outputs|overwrite|preview|packing\..*|logger|wandb\..*|sweep|study(\..*)?|device|precision|model\..*|init\.path"
    r"|template\.(name|max_new_tokens)"
    r"|task\.description|task\.source\.(path|sha256|bundled|function_vectors)"
)


def identity(config: RunConfig, precision: str, contents: dict[str, str]) -> str:
    """The run's identity: 64 hex digits of SHA-256 over what decides its numbers.

    Fields equal to their schema default are left out, so a field added later keeps the identity of old runs. `precision`
    is the resolved one (`fp32`, `bf16`); `contents` maps what enters by content (model, data, init) to a fingerprint.
    Numbers count by value: 1, 1.0 and '1' in a YAML file are the same once they have passed the schema.
    """
    return _digest(_identity_fields(config) | {"precision": precision} | {f"content.{k}": v for k, v in contents.items()})


def differences(ours: Sequence[RunConfig], theirs: Sequence[RunConfig]) -> dict[str, tuple[list, list]]:
    """What decides numbers and is not the same in two grids: key -> the values in ours and in theirs, each value once."""

    def values(grid: Sequence[RunConfig]) -> dict[str, list]:
        flat = [flatten(asdict(config)) for config in grid]
        keys = [k for k in flat[0] if k in ("model.name", "template.name") or not _NOT_IDENTITY.fullmatch(k)]
        return {k: list({str(f[k]): f[k] for f in flat}.values()) for k in keys}

    ours_by_key, theirs_by_key = values(ours), values(theirs)
    found = {k: (v, theirs_by_key[k]) for k, v in ours_by_key.items() if set(map(str, v)) != set(map(str, theirs_by_key[k]))}
    return {k: v for k, v in found.items() if k != "init.text" or "init.name" not in found}  # a word init's text is its name


def _identity_fields(config: RunConfig) -> dict[str, Any]:
    defaults = flatten(asdict(RunConfig(model=Model(), task=Task(), init=Init(), template=Template(), optimizer=Optimizer())))
    return {k: v for k, v in flatten(asdict(config)).items() if not _NOT_IDENTITY.fullmatch(k) and v != defaults[k]}


def _digest(fields: dict[str, Any]) -> str:
    def by_value(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [by_value(v) for v in value]
        if isinstance(value, float) and value.is_integer():
            return int(value)
        return value

    text = json.dumps({k: by_value(v) for k, v in fields.items()}, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def derived_seeds(config: RunConfig) -> dict[str, int]:
    """The run's three seeds (init, order, dropout): those set by hand, else derived from (seed, task, init)."""
    by_hand = asdict(config.seeds)
    return {use: by_hand[use] if by_hand[use] is not None else _derive(use, config) for use in ("init", "order", "dropout")}


def _derive(use: str, config: RunConfig) -> int:
    text = "\x1f".join((use, str(config.seed), config.task.name, config.init.name))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def to_dict(config: RunConfig) -> dict[str, Any]:
    """The resolved config as plain data for run.json (enums by name), without what a study says beyond its runs."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value.name if isinstance(value, Enum) else value

    return plain({k: v for k, v in asdict(config).items() if k != "study"})


def slug(text: str) -> str:
    """`text` fit for a folder name."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_") or "_"
