"""What is a cell of a grid? One run's config with its identity, made once after composing, and nowhere else."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from promptgeo.config import schema
from promptgeo.config.identity import identity
from promptgeo.config.paths import EMBEDDED_MODEL, require_file, slug, stamps, user_path
from promptgeo.config.schema import Bos, InitKind, LabelTokens, RunConfig, Template
from promptgeo.config.validate import needs_validation, require_validation, validate
from promptgeo.config.varying import named, varying
from promptgeo.config.waiting import said_when_slow
from promptgeo.errors import UserError

if TYPE_CHECKING:
    from promptgeo.data.tasks import Task


@dataclass(frozen=True)
class Cell:
    """One run of a grid: what it is, which run it is, and where it lies."""

    config: RunConfig
    id: str
    """The run's identity, 64 hex digits; model, data and init files enter by content."""
    precision: str
    """Of the frozen weights: fp32 or bf16 (no longer auto)."""
    device: str
    """cpu or cuda (no longer auto)."""
    coupled: tuple[str, ...] = ()
    """Ids of the runs that it is trained for one another with, itself among them, in the order of regulariser.seeds;
    empty for any other run."""
    title: str = ""
    """What loggers call its run: the keys in which the runs of its command differ; empty: as its folder."""
    rivals: "Rivals | None" = None
    """grid.halving: the runs of its command among which learning rates are chosen, itself among them."""

    @property
    def folder(self) -> Path:
        """<outputs>/<name>/<model>-<task>-<init>-s<seed>-<first 8 digits of the id>"""
        config = self.config
        names = map(slug, (config.model.name, config.task.name, config.init.name))
        return Path(config.outputs) / config.name / "-".join([*names, f"s{config.seed}", self.id[:8]])

    @property
    def model_key(self) -> tuple[str, ...]:
        """What runs have in common that share a loaded model."""
        model = self.config.model
        return model.name_or_path, model.revision or "", self.precision, self.device


@dataclass(frozen=True)
class Rivals:
    """Runs of one command that differ in nothing but learning rate and seed: of these rates some are stopped early."""

    name: str
    """In hex digits: the same for all of them."""
    cells: tuple[Cell, ...]

    @property
    def rates(self) -> list[tuple[float, float]]:
        """The learning rates that are compared."""
        return sorted({rate_of(cell) for cell in self.cells})


def rate_of(cell: Cell) -> tuple[float, float]:
    """A run's learning rate as it was given: (absolute, in units of the embeddings), 0 for the one that was not."""
    optimizer = cell.config.optimizer
    return optimizer.lr or 0.0, optimizer.lr_in_embedding_units or 0.0


def _with_rivals(cells: Sequence[Cell]) -> list[Cell]:
    """The cells, those with grid.halving with what they are compared with. Raises UserError for too few rates."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_but_rate_and_seed(cell.config), []).append(cell)
    rivals = {key: Rivals(key, tuple({cell.id: cell for cell in group}.values())) for key, group in groups.items()}
    for each in rivals.values():
        factor, config = each.cells[0].config.grid.halving or 0, each.cells[0].config
        if len(each.rates) < factor:
            raise UserError(
                f"grid.halving={factor}: needs {factor} learning rates or more in one command, and "
                f"{config.task.name} with init {config.init.name} has {len(each.rates)}: "
                "-m optimizer.lr_in_embedding_units=0.1,0.3,1 (or interval(0.01,10)), or grid.halving=null"
            )
    return [replace(cell, rivals=rivals[_but_rate_and_seed(cell.config)]) for cell in cells]


def _but_rate_and_seed(config: RunConfig) -> str:
    optimizer = replace(config.optimizer, lr=None, lr_in_embedding_units=None)
    same = replace(config, optimizer=optimizer, seed=0, seeds=schema.Seeds(), study={})
    return hashlib.sha256(repr(same).encode("utf-8", "surrogatepass")).hexdigest()


def cells_of(configs: Sequence[RunConfig]) -> list[Cell]:
    """The cell of each config, in order. Raises UserError for a value, a model or data that no run can have.

    All configs are validated before the first model or data set is read. A config that was met before in this process,
    whose files were not edited since, has the cell that it had: Hydra composes each job of a grid several times. (A
    model is taken to stay as it is while the process lasts, as FrozenLM.load takes it.)
    """
    stamped = cache(lambda path: repr(stamps(path)))
    keys = [
        _key(config, *map(stamped, (config.task.source.path, config.init.path, config.training.continue_from)))
        for config in configs
    ]
    new = {key: config for key, config in zip(keys, configs, strict=True) if key not in _cells}
    for config in new.values():
        validate(config)
    common: dict[str, _Common] = {}
    for key, config in new.items():
        _cells[key] = _make(config, common)
    cells = [_cells[key] for key in keys]
    return _with_rivals(cells) if configs and configs[0].grid.halving is not None else cells


def _key(config: RunConfig, *read_at: str) -> bytes:
    return hashlib.sha256(repr((config, read_at)).encode("utf-8", "surrogatepass")).digest()


def titled(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of a command, each with its title. Where no run is followed by a logger, as they are: it takes time."""
    if not any(schema.loggers(cell.config) for cell in cells):
        return list(cells)
    grid = [schema.flat(cell.config) for cell in cells]
    keys = varying(grid)
    return [replace(cell, title=named(config, keys)) for cell, config in zip(cells, grid, strict=True)]


def require_one_folder_each(cells: Sequence[Cell]) -> None:
    """Raises UserError where one run would lie in two folders: one model under two names."""
    folders: dict[str, Cell] = {}
    for cell in cells:
        other = folders.setdefault(cell.id, cell)
        if other.folder != cell.folder:
            raise UserError(
                f"model.name={other.config.model.name},{cell.config.model.name}: both have the same content, so their "
                "runs are the same; leave one of them out"
            )


def cell_of(config: RunConfig) -> Cell:
    """The config's cell; see cells_of."""
    return cells_of([config])[0]


_cells: dict[bytes, Cell] = {}


@dataclass(frozen=True)
class _Common:
    """What many runs of a grid have in common: it is read and decided once for all of them."""

    task: schema.Task
    template: Template
    contents: dict[str, str]
    """Fingerprints of what enters the identity by content; see _contents."""
    precision: str
    device: str


def _make(config: RunConfig, common: dict[str, _Common]) -> Cell:
    """common: of the runs before, by what it depends on; this run's is added."""
    stops = (needs_validation(config),)
    init = (config.init.kind, config.init.path) if config.init.path else None
    key = repr((config.model, config.task, config.template, init, *stops, config.device, config.precision))
    if key not in common:
        common[key] = _common(config)
    shared = common[key]
    config = replace(config, task=shared.task, template=shared.template)
    contents = shared.contents
    if config.training.continue_from is not None:
        from promptgeo.training.continuing import content_of_parent

        contents = contents | {"parent": content_of_parent(config, contents["model"])}
    # Coupled runs differ in their seed alone: nothing is read again for them.
    seeds = config.regulariser.seeds
    ids = {seed: identity(replace(config, seed=seed), shared.precision, contents) for seed in (config.seed, *seeds)}
    return Cell(config, ids[config.seed], shared.precision, shared.device, tuple(ids[seed] for seed in seeds))


def _common(config: RunConfig) -> _Common:
    with said_when_slow("loading torch"):
        from promptgeo.data import sources
        from promptgeo.data.tasks import load_task
        from promptgeo.model.chat import with_turns_written_out
        from promptgeo.model.loading import resolve_device, resolve_precision

    if config.template.chat:
        config = replace(config, template=with_turns_written_out(config.template, config.model))
        validate(config)
    with said_when_slow(f"reading the data of task {config.task.name}"):
        config = replace(config, task=sources.resolved(config.task))
        require_validation(config)
        task = load_task(config.task, config.template)
    with said_when_slow(f"reading what identifies the model {config.model.name_or_path}"):
        config = replace(config, template=_template(config, task))
        contents = _contents(config, task)
    wanted = config.device.name
    # cuda need not be here: a cluster's job may train the run, and a complete run needs none.
    device = wanted if wanted != "auto" else resolve_device(wanted)
    return _Common(config.task, config.template, contents, resolve_precision(config.precision.name, device), device)


def _template(config: RunConfig, task: "Task") -> Template:
    """The template with what is `auto` of it decided by the model's tokenizer, and by the prompt that it starts from.

    Raises UserError where either cannot be read.
    """
    from promptgeo.data import label_tokens
    from promptgeo.data.bos import with_resolved_bos
    from promptgeo.model.loading import local_folder
    from promptgeo.model.tokenizer import tokenizer_of
    from promptgeo.training.inits import stood_before_bos

    model, template = config.model, config.template
    if local_folder(model.name_or_path) == EMBEDDED_MODEL and template.bos in (Bos.auto, Bos.never):
        # Its tokenizer puts nothing and marks no beginnings; to load it takes longer than to find a grid complete.
        return replace(template, bos=Bos.never, label_tokens=LabelTokens.alone)
    tokens = tokenizer_of(model.name_or_path, model.revision, model.trust_remote_code)
    labels = {*(e.label for e in task.examples), *(task.labels or [])}
    resolved = with_resolved_bos(template, tokens)
    if template.bos is Bos.auto and resolved.bos is Bos.always and stood_before_bos(config.init):
        resolved = replace(resolved, bos=Bos.after_prompt)  # what was trained there goes on there
    return replace(resolved, label_tokens=label_tokens.resolved(tokens, template, labels))


def _contents(config: RunConfig, task: "Task") -> dict[str, str]:
    """Fingerprints of what enters the identity by content."""
    from promptgeo.data.label_tokens import cuts_a_character
    from promptgeo.model.loading import model_fingerprint
    from promptgeo.model.tokenizer import tokenizer_of
    from promptgeo.runs.tensor_files import LARGEST
    from promptgeo.training.inits import source_run

    model, limit = config.model, config.task.max_input_tokens
    where = model.name_or_path, model.revision, model.trust_remote_code
    contents = {"model": model_fingerprint(*where), "data": task.fingerprint}
    if limit is not None and any(cuts_a_character(tokenizer_of(*where), e.input, limit) for e in task.examples):
        contents["cut"] = "at whole characters"  # the first version left a part of one there
    if config.init.kind is InitKind.file and config.init.path:
        path = user_path(config.init.path, "init.path")
        require_file(path, f"init.path={config.init.path}", LARGEST)
        try:
            with path.open("rb") as stream:
                contents["init"] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"init.path={config.init.path}: cannot be read: {error.strerror}") from error
    elif config.init.kind is InitKind.run and config.init.path:
        contents["init"] = source_run(config.init.path).info["files"]["prompts.safetensors"]
    return contents
