"""What a person watches while prompts are trained: runs, epoch, loss, accuracy, time left."""

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from promptgeo.planning import Plan


class TrainingProgress:
    """A progress bar over the run-steps of a pack. Shows nothing where standard error is no terminal."""

    def __init__(self, plans: list[Plan]):
        self.plans = plans
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"), TimeRemainingColumn())
        self.bar = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        first = self.plans[0].folder.name if len(self.plans) == 1 else f"{len(self.plans)} runs"
        self.task = self.bar.add_task(first, total=sum(plan.total_steps for plan in self.plans), state="")
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.stop()

    def update(self, state) -> None:
        """After each step of a run (promptgeo.tuning.RunState). The text changes only once an epoch: metrics are read then."""
        steps = 1 if state.status is None else 1 + state.plan.total_steps - state.step  # a run that ends early leaves no steps behind
        if state.step % state.plan.steps_per_epoch and state.status is None:
            self.bar.advance(self.task)
            return
        rows = state.metrics[-3:]
        shown = "  ".join(f"{row['split']} loss {row['loss']:.3f} acc {row['accuracy']:.3f}" for row in rows if row["step"] == state.step)
        total = -(-state.plan.total_steps // state.plan.steps_per_epoch)
        self.bar.update(self.task, advance=steps, state=f"epoch {state.epoch}/{total}  {shown}")
