"""How is a W&B run opened, filled and closed, so that W&B is told nothing of the machine?

Runs of the training and analyses are W&B runs alike. W&B's own tables go through a copy in the home folder; here they
are files of the run that they belong to, as its charts and pages are.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from promptgeo.config.schema import Wandb

log = logging.getLogger(__name__)
ROWS = 10_000
"""Of a table, at most: W&B shows no more of a run's own."""


def opened(settings: Wandb, folder: Path, **said: Any) -> Any:
    """A W&B run of its own, whose files lie below folder/wandb/. said: what else wandb.init is told: id, name, ..."""
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    _begin_here(os.getcwd())
    mode = _mode(settings, folder)
    run = wandb.init(
        project=settings.project,
        entity=settings.entity,
        dir=str(folder),
        mode=mode,
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=wandb.Settings(
            console="off",
            silent=True,
            x_disable_stats=True,
            disable_git=True,
            disable_code=True,
            save_code=False,
            **unsent(),
        ),
        **said,
    )
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


def _begin_here(here: str) -> None:
    """W&B's process of its own writes the files, and sees paths from where it was started: elsewhere it is ended.

    Paths stay relative: they are written down, and whole ones would name the home folder.
    """
    import wandb

    if _STARTED and _STARTED[0] != here:
        wandb.teardown()
    _STARTED[:] = [here]


_STARTED: list[str] = []
"""The folder in which W&B's process was started."""


def closed(run: Any, exit_code: int) -> None:
    """Ends the run; its files are whole from here on."""
    run.finish(exit_code=exit_code)
    core_log = Path(run.settings.log_dir, "debug-core.log")
    if core_log.is_symlink():  # to a place in the home folder
        core_log.unlink()


def table(run: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table to be logged under this key. Of more than ROWS rows the first, which is said."""
    import wandb

    if len(rows) > ROWS:
        _warn_once(f"logger=wandb: {key}: W&B has the first {ROWS:,} of a run's {len(rows):,} rows")
    made = wandb.Table(columns=list(columns), data=[list(row) for row in rows[:ROWS]], allow_mixed_types=True)
    # Now: an unbound table would become an artifact, of which W&B keeps a copy in the home folder.
    made.bind_to_run(run, key, 0)
    return made


def confusion_chart(run: Any, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """W&B's own chart of a confusion matrix, to be logged under this key. rows: true label, chosen label, how many."""
    import wandb

    names = ("Actual", "Predicted", "nPredictions")
    return wandb.plot_table(
        "wandb/confusion_matrix/v1",
        table(run, f"{key}_table", columns, rows),
        fields=dict(zip(names, columns, strict=True)),
        string_fields={"title": "the likeliest label, by the true one"},
    )


def flat_numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """The headline results of run.json as a summary has them: accuracy_final, ...; no section, no list."""
    flat: dict[str, Any] = {}
    for name, value in results.items():
        if name == "labels":
            flat |= {key: value[key] for key in ("most_frequent", "majority") if key in value}
        elif isinstance(value, dict):
            flat |= {f"{name}_{which}": number for which, number in value.items()}
        else:
            flat[name] = value
    return flat


def unsent() -> dict[str, Any]:
    """W&B's settings under which it is not told of host, interpreter and command line.

    Those that the environment has (WANDB_X_DISABLE_META=false, ...) are left to it.
    """
    settings = {"x_disable_meta": True, "x_disable_machine_info": True, "host": ""}
    return {name: value for name, value in settings.items() if f"WANDB_{name.upper()}" not in os.environ}


def _mode(settings: Wandb, folder: Path) -> str:
    """wandb.mode, or WANDB_MODE, or online where there is a key; offline where there is none, with a warning."""
    if mode := settings.mode or os.environ.get("WANDB_MODE"):
        return mode
    if has_key():
        return "online"
    _warn_once(
        f"logger=wandb: no API key here, so runs are logged offline below {folder}/wandb "
        "(`wandb sync` sends them; `wandb login` stores a key)"
    )
    return "offline"


def has_key() -> bool:
    """Whether W&B can be reached as somebody: by WANDB_API_KEY, or after `wandb login`."""
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth

    _begin_here(os.getcwd())  # asking starts it
    settings = wandb.setup().settings
    return bool(settings.api_key or read_netrc_auth(host=settings.base_url))


@cache
def _warn_once(message: str) -> None:
    log.warning(message)
