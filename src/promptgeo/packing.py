"""Train planned runs: the one training path, from plans to run folders."""

import logging
import warnings
from collections.abc import Iterable

from promptgeo.errors import UserError
from promptgeo.planning import Plan
from promptgeo.runs import DamagedRun, Run, write_run

log = logging.getLogger(__name__)


def train(plan: Plan) -> Run:
    """Train one run to a finished folder. A run that is complete already is read, not trained, unless overwrite=true."""
    if not plan.config.overwrite and (finished := completed_run(plan)) is not None:
        log.info("%s is complete already: skipped (overwrite=true trains it again)", plan.folder)
        return finished
    train_pack([plan])
    return Run.load(plan.folder)


def completed_run(plan: Plan) -> Run | None:
    """The run's folder, if it is complete and undamaged and holds this very run."""
    if not (plan.folder / "run.json").exists():
        return None
    try:
        run = Run.load(plan.folder)
    except DamagedRun as error:
        raise UserError(f"{error}; nothing was overwritten: overwrite=true trains this run again") from error
    return run if run.id == plan.id and run.status == "completed" else None


def train_pack(plans: list[Plan], slots: int | None = None) -> None:
    """Train runs that share a frozen model and a prompt length, in at most `slots` slots; writes each folder as its run ends."""
    import lightning as L

    from promptgeo.progress import TrainingProgress
    from promptgeo.tuning import PromptTuning

    with TrainingProgress(plans) as progress, warnings.catch_warnings():
        # The loader is a counter and the metrics are ours: what Lightning would advise here does not apply.
        warnings.filterwarnings("ignore", module="lightning")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        module = PromptTuning(plans, slots, on_done=lambda plan, trained: write_run(plan.folder, plan.header(), trained), on_step=progress.update)
        trainer = L.Trainer(
            accelerator="gpu" if plans[0].lm.device.type == "cuda" else "cpu",
            devices=1,
            precision="32-true",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module)


def table_of_results(runs: Iterable[Run]):
    """task x init: accuracy with no prompt, with P0 and after training, mean over seeds, as a rich table."""
    import pandas as pd
    from rich.table import Table

    frame = pd.DataFrame([run.row() | {"split": run.info["results"]["split"]} for run in runs])
    table = Table(title=f"{' / '.join(sorted(frame['split'].unique()))} accuracy, mean over seeds (standard deviation)", padding=(0, 0))
    for column in ("task", "init"):
        table.add_column(column, no_wrap=True)
    for column in ("seeds", "examples", "no prompt", "P0", "trained"):
        table.add_column(column, justify="right")
    for (task, init), group in frame.groupby(["task", "init"], sort=False):
        trained = group["accuracy_final"].dropna()
        spread = f" ({trained.std():.3f})" if len(trained) > 1 else ""
        shown = f"{trained.mean():.3f}{spread}" if len(trained) else ", ".join(sorted(group["status"].unique()))
        table.add_row(
            task, init, str(len(group)), str(group["n"].iloc[0]), f"{group['accuracy_none'].mean():.3f}",
            f"{group['accuracy_initial'].mean():.3f}", shown,
        )  # fmt: skip
    return table
