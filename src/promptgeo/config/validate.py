"""What values are possible? Checks what the schema's types cannot express, before anything is loaded."""

import json
import math
import os
import re
from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from promptgeo.config.schema import (
    EvaluationSplit,
    Grid,
    Init,
    InitKind,
    Logger,
    Optimizer,
    RegulariserKind,
    RunConfig,
    Scoring,
    Split,
    SplitKind,
    Task,
    Template,
    Unit,
    Wandb,
    flat,
    loggers,
)
from promptgeo.errors import UserError

LARGEST = 1e30
"""Of what multiplies a number of the prompt: beyond it fp32 overflows, and Adam raises, which takes a pack down."""


def require(ok: bool, key: str, value: Any, wanted: str) -> None:
    """Raises UserError, which names the key and the value that is wanted, unless `ok`."""
    if not ok:
        raise UserError(f"{key}={value}: must be {wanted}")


def validate(config: RunConfig) -> None:
    """Raises UserError, naming the key, for a value no run can have."""
    for key, value in flat(config).items():
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, float):
                require(math.isfinite(each), key, value, "a finite number")
            elif isinstance(each, int):
                require(abs(each) < 2**63, key, value, "a number of at most 64 bits")
            elif isinstance(value, list) and not key.startswith("study.") and key not in ("logger", "task.accepted"):
                require(isinstance(each, str), key, value, "a plain list")
        if isinstance(value, str | list):
            _validate_text(key, value)
    _validate_whole_numbers(config)
    require(0 < config.init.scale <= LARGEST, "init.scale", config.init.scale, "greater than 0, at most 1e30")
    _validate_optimizer(config.optimizer)
    _validate_split(config.task.split)
    _validate_labels(config.task.labels)
    _validate_fields(config.task)
    checkpoints = config.training.checkpoints
    wanted = "epoch, log, or a number of steps"
    require(bool(re.fullmatch(r"epoch|log|[1-9]\d{0,8}", checkpoints)), "training.checkpoints", checkpoints, wanted)
    every, wanted = config.evaluation.every, "epoch, end, or a number of epochs"
    require(bool(re.fullmatch(r"epoch|end|[1-9]\d{0,5}", every)), "evaluation.every", every, wanted)
    _validate_folders(config)
    names = tuple(Logger.__members__)
    for logger in loggers(config):
        require(logger in names, "logger", logger, f"null, {' or '.join(names)}, or a list of them")
    require_wandb(config.wandb)
    require_validation(config)
    _validate_regulariser(config)
    _validate_template(config.template)
    _validate_init(config.init)
    validate_grid(config.grid)
    _validate_halving(config)


def validate_grid(grid: Grid) -> None:
    """Raises UserError for settings that no grid can have."""
    require(1 <= grid.draws <= 10**4, "grid.draws", grid.draws, "a whole number from 1 to 10,000")
    require(0 <= grid.seed < 2**32, "grid.seed", grid.seed, "a whole number from 0 to 2^32 - 1")
    halving, wanted = grid.halving, "a whole number from 2 to 100 (one rate in so many goes on), or null"
    require(halving is None or 2 <= halving <= 100, "grid.halving", halving, wanted)


def _validate_halving(config: RunConfig) -> None:
    """Runs that wait for others at a rung, and are stopped by what the validation examples say there."""
    if config.grid.halving is None:
        return
    key = f"grid.halving={config.grid.halving}"
    if config.training.dropout:
        raise UserError(
            f"{key}: runs with training.dropout=true train alone, and cannot wait for others; leave one out"
        )
    if config.regulariser.name is RegulariserKind.orthogonal:
        raise UserError(f"{key}: regulariser=orthogonal couples runs, which end together; leave one of the two out")
    for name, value in vars(config.training.early_stopping).items():
        if value is not None:
            raise UserError(f"{key} and training.early_stopping.{name}: both stop runs; set one of them to null")
    if config.task.split.stop_on_test:
        raise UserError(f"{key}: test rows never decide between rates; set task.split.stop_on_test=false")


def require_wandb(settings: Wandb) -> None:
    """Raises UserError for a mode that W&B does not have."""
    modes = (None, "online", "offline", "disabled")
    require(settings.mode in modes, "wandb.mode", settings.mode, "online, offline or disabled")


def _validate_text(key: str, value: str | list[Any]) -> None:
    """YAML can write half a character, which neither a file nor a tokenizer takes."""
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])[1:-1]
        raise UserError(f"{key}: holds half a character (a lone surrogate, {half}); take it out") from error


def _validate_whole_numbers(config: RunConfig) -> None:
    seeds = {"seed": config.seed} | {f"seeds.{use}": seed for use, seed in asdict(config.seeds).items()}
    for key, value in seeds.items():
        # torch's generators take 64 bits with a sign.
        require(value is None or 0 <= value < 2**63, key, value, "a whole number from 0 to 2^63 - 1")
    for key, value in {
        "prompt.length": config.prompt.length,
        "training.batch_size": config.training.batch_size,
        "training.max_steps": config.training.max_steps,
        "training.early_stopping.patience": config.training.early_stopping.patience,
        "task.label_length": config.task.label_length,
        "evaluation.max_new_tokens": config.evaluation.max_new_tokens,
        "task.max_input_tokens": config.task.max_input_tokens,
        "task.split.max_train": config.task.split.max_train,
        "task.split.max_test": config.task.split.max_test,
    }.items():
        require(value is None or 1 <= value <= 10**6, key, value, "a whole number from 1 to 1,000,000")
    enough = config.training.early_stopping.accuracy
    require(enough is None or 0 < enough <= 1, "training.early_stopping.accuracy", enough, "above 0, at most 1")
    epochs = config.training.epochs
    require(0 <= epochs <= 10**6, "training.epochs", epochs, "a whole number from 0 to 1,000,000")
    for key, value in {"packing.max_runs": config.packing.max_runs, "packing.devices": config.packing.devices}.items():
        require(value is None or 1 <= value <= 10**5, key, value, "a whole number from 1 to 100,000")


def _validate_optimizer(optimizer: Optimizer) -> None:
    rates = {"optimizer.lr": optimizer.lr, "optimizer.lr_in_embedding_units": optimizer.lr_in_embedding_units}
    for key, rate in rates.items():
        require(rate is None or 0 < rate <= LARGEST, key, rate, "greater than 0, at most 1e30")
    if None not in rates.values():
        raise UserError(
            f"optimizer.lr={optimizer.lr} and optimizer.lr_in_embedding_units={optimizer.lr_in_embedding_units}: "
            "both are given (here, or one by a file such as optimizer=study3); set one of them to null"
        )
    require(0 < optimizer.eps <= LARGEST, "optimizer.eps", optimizer.eps, "greater than 0, at most 1e30")
    decay, momentum = optimizer.weight_decay, optimizer.momentum
    require(0 <= decay <= LARGEST, "optimizer.weight_decay", decay, "at least 0, at most 1e30")
    require(0 <= momentum < 1, "optimizer.momentum", momentum, "from 0 to below 1")
    warmup = optimizer.warmup_steps
    require(0 <= warmup <= 10**12, "optimizer.warmup_steps", warmup, "at least 0, at most 1e12")
    require(optimizer.clip is None or optimizer.clip > 0, "optimizer.clip", optimizer.clip, "greater than 0, or null")
    betas = optimizer.betas
    # Adam divides the learning rate by 1 - beta^step.
    possible = len(betas) == 2 and all(0 <= beta <= 1 - 1e-7 for beta in betas)
    require(possible, "optimizer.betas", betas, "two numbers from 0 to .9999999")


def _validate_split(split: Split) -> None:
    require(0 < split.test_size < 1, "task.split.test_size", split.test_size, "a fraction between 0 and 1")
    validation = split.validation
    possible = (
        bool(validation) if isinstance(validation, str) else isinstance(validation, float) and 0 <= validation < 1
    )
    wanted = "a fraction from 0 to below 1, or the name of a split of the source"
    require(possible, "task.split.validation", validation, wanted)
    require(0 <= split.seed < 2**32, "task.split.seed", split.seed, "a whole number from 0 to 2^32 - 1")
    for key in ("train", "validation", "test"):
        name = getattr(split, key)
        if isinstance(name, str) and split.kind in (SplitKind.random, SplitKind.all):
            raise UserError(
                f"task.split.{key}={name} names a split of the source, which task.split.kind={split.kind.name} "
                "does not keep; set task.split.kind=own"
            )
    cuts_validation = isinstance(validation, float) and validation > 0
    if split.stratify and split.max_train is None and not cuts_validation:
        raise UserError(
            "task.split.stratify=true needs task.split.max_train=<training examples> or "
            "task.split.validation=<fraction>"
        )
    if split.stop_on_test and validation not in (0.0, 0):
        raise UserError(
            f"task.split.stop_on_test=true and task.split.validation={validation}: both say what training stops on; "
            "set task.split.validation=0"
        )


def _validate_labels(labels: list[Any] | None) -> None:
    wanted = "a list of different words, spaces around them aside"
    words = [label.strip() if isinstance(label, str) else "" for label in labels or []]
    require(all(words) and len(set(words)) == len(words), "task.labels", labels, wanted)


def _validate_fields(task: Task) -> None:
    """What a task's columns and spellings must be."""
    if task.refused is not None:
        raise UserError(f"task={task.name}: {task.refused}")
    source, count = task.source, len(task.labels or [])
    if source.cut is not None:
        named = source.columns
        require(
            source.cut in named, "task.source.cut", source.cut, f"a column of task.source.input ({', '.join(named)})"
        )
    if source.row is not None:
        require(0 <= source.row <= 10**9, "task.source.row", source.row, "a whole number from 0 to 1,000,000,000")
        if task.split.kind is not SplitKind.all:
            raise UserError(
                f"task.source.row={source.row}: one example cannot be split into train and test; "
                "set task.split.kind=all (it is trained on and scored)"
            )
    if source.classes is not None:
        require(count == len(source.classes), "task.source.classes", source.classes, f"as many as task.labels, {count}")
        different = len({name.casefold() for name in source.classes}) == count
        require(different, "task.source.classes", source.classes, "different names, small and capital letters aside")
    if task.content_free is not None and (not task.content_free.strip() or task.labels is None):
        raise UserError("task.content_free needs a text (N/A, say) and a label set, task.labels")
    if task.accepted is not None:
        wanted = f"a list of spellings for each of the {count} labels"
        require(count == len(task.accepted), "task.accepted", task.accepted, wanted)
        _validate_spellings(task.labels or [], task.accepted)


def _validate_spellings(labels: list[str], accepted: list[list[str]]) -> None:
    """A further spelling is a text, and no other label's."""
    of_label: dict[str, str] = {label.strip(): label for label in labels}
    for label, spellings in zip(labels, accepted, strict=True):
        for spelling in spellings:
            blank = not isinstance(spelling, str) or not spelling.strip()
            require(not blank, "task.accepted", accepted, "texts that are not blank")
            other = of_label.setdefault(spelling.strip(), label)
            if other != label:
                raise UserError(f"task.accepted: {spelling!r} is accepted for {label!r}, and is {other!r} too")


def _validate_folders(config: RunConfig) -> None:
    name = PurePath(config.name)
    below = bool(name.parts) and not name.is_absolute() and ".." not in name.parts
    require(below, "name", config.name, "a folder name below outputs/")
    for key in ("name", "outputs"):
        require("\0" not in getattr(config, key), key, ascii(getattr(config, key)), "without a null character")
    short = all(len(os.fsencode(part)) <= 255 for part in name.parts)
    require(short, "name", f"{config.name[:60]}...", "at most 255 bytes long: no file system allows more")
    wanted = "a folder, written out (a shell expands ~ only where nothing quotes it)"
    require(bool(config.outputs) and not config.outputs.startswith("~"), "outputs", config.outputs, wanted)


def require_validation(config: RunConfig) -> None:
    """Raises UserError where validation examples are needed and none can be there."""
    needs = needs_validation(config)
    split = config.task.split
    if needs is None or split.stop_on_test:
        return
    if split.validation == 0 and split.kind in (SplitKind.random, SplitKind.all):
        raise UserError(
            f"{needs} needs validation examples: set task.split.validation=0.1 (a fraction of the training examples)"
        )


def needs_validation(config: RunConfig) -> str | None:
    """The key that validation examples decide something for; None where there is none."""
    for name, value in vars(config.training.early_stopping).items():
        if value is not None:
            return f"training.early_stopping.{name}"
    if config.grid.halving is not None:
        return f"grid.halving={config.grid.halving}"
    return "evaluation.split=validation" if config.evaluation.split is EvaluationSplit.validation else None


def _validate_regulariser(config: RunConfig) -> None:
    regulariser = config.regulariser
    require(0 <= regulariser.weight <= LARGEST, "regulariser.weight", regulariser.weight, "at least 0, at most 1e30")
    require(0 <= regulariser.gamma <= LARGEST, "regulariser.gamma", regulariser.gamma, "at least 0, at most 1e30")
    name = regulariser.name
    if name is not RegulariserKind.wayward:
        require(regulariser.gamma == 0, "regulariser.gamma", regulariser.gamma, f"0 with regulariser={name.name}")
        require(regulariser.text is None, "regulariser.text", regulariser.text, f"null with regulariser={name.name}")
    elif not (regulariser.text or "").strip():
        raise UserError("regulariser=wayward needs a text: this task has none; set 'regulariser.text=\"...\"'")
    if name is not RegulariserKind.orthogonal:
        require(not regulariser.seeds, "regulariser.seeds", regulariser.seeds, f"empty with regulariser={name.name}")
        require(regulariser.size is None, "regulariser.size", regulariser.size, f"null with regulariser={name.name}")
        return
    seeds = regulariser.seeds
    if len(set(seeds)) < 2 or len(set(seeds)) < len(seeds) or config.seed not in seeds:
        raise UserError(
            f"regulariser=orthogonal needs the seeds of the runs it couples, this run's ({config.seed}) among them: "
            "'regulariser.seeds=[0,1,2,3]' (or regulariser.size=4) -m seed=0,1,2,3"
        )
    for stopped_by, value in vars(config.training.early_stopping).items():
        if value is not None:
            raise UserError(
                f"regulariser=orthogonal: coupled runs end together; leave training.early_stopping.{stopped_by}=null"
            )
    if config.training.continue_from is not None:
        raise UserError(
            "regulariser=orthogonal: coupled runs cannot be gone on from; leave training.continue_from=null"
        )


def _validate_template(template: Template) -> None:
    fields = re.findall(r"{(\w*)}", template.text)
    unknown = [f for f in fields if f not in ("input", "prompt")]
    if unknown:
        raise UserError(
            f"template.text holds {{{unknown[0]}}}: only {{input}} and {{prompt}} may stand there "
            "(the label follows the text; see template.label)"
        )
    require("input" in fields, "template.text", repr(template.text), "a text that holds {input}")
    has_label = re.findall(r"{(\w*)}", template.label) == ["label"]
    require(has_label, "template.label", repr(template.label), "a text that holds {label} once")
    if template.scoring is Scoring.line and not template.end and not template.chat:
        raise UserError(
            "template.scoring=line needs a terminator: set template.end (for instance to a newline) "
            "or template.scoring=prefix"
        )


def _validate_init(init: Init) -> None:
    if init.name in ("task_text", "task_vocab") and not init.text:
        other = init.name.removeprefix("task_")
        raise UserError(
            f"init={init.name}: this task has no text of its own; set 'task.text=\"...\"' or take init={other}"
        )
    if init.kind in (InitKind.word, InitKind.text) and not init.text:
        raise UserError(f"init={init.kind.name} needs a text: set 'init.text=\"...\"'")
    if init.unit is not Unit.absolute and init.kind is not InitKind.uniform:
        raise UserError(f"init.unit={init.unit.name}: only init=uniform has a unit; leave it out")
    if init.kind in (InitKind.file, InitKind.run) and not init.path:
        source = "a .npy, .npz, .safetensors or .pt file" if init.kind is InitKind.file else "a run folder"
        raise UserError(f"init={init.kind.name} needs init.path=<{source}>")
