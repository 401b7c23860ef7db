"""Small grids that use most of promptgeo, and every analysis of them, by the commands alone.

Imported by same_bytes.py; not run by itself. Nothing of promptgeo is imported, so the code may be any commit's:
`Side.compute` trains and analyses with one worktree. Few steps, examples and draws: what is computed must not change,
what it says does not matter.
"""

import csv
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True)
class Command:
    """python -m promptgeo.<module> <arguments>"""

    module: str
    name: str
    arguments: tuple[str, ...]
    stop: signal.Signals | None = None
    """Sent once a first state is saved; then the same command goes on."""


def train(name: str, arguments: str, stop: signal.Signals | None = None) -> Command:
    return Command("train", name, (f"name={name}", "outputs=outputs", *arguments.split()), stop)


# What is trained

SHORT = "training.batch_size=4 evaluation.every=end evaluation.max_new_tokens=8 task.split.max_test=12"
BARE = "template=bare init=vocab prompt.length=1 training.batch_size=4 evaluation.every=end"
BLOOM = "model.name=bloom model.name_or_path=../shared/bloom prompt.length=2"
ADAM = "optimizer=adam optimizer.schedule=cosine optimizer.warmup_steps=10 optimizer.clip=1"
TASKS = "task=plus_one,plus_two,country_capital,landmark_country,lowercase_first_letter,present_past"
VALIDATED = "task.split.validation=0.2 training.early_stopping.patience=2 task.split.max_train=40"
OWN = "task=custom task.source.path=../shared/parity.csv task.labels=[even,odd]"

TRAININGS = (
    # Six tasks are the fewest for which `sequences` has a p; after six steps most accuracies lie between 0 and 1.
    train(
        "study",
        f"{TASKS} init=cat,vocab prompt.length=3 {SHORT} training.max_steps=6 training.checkpoints=2 -m seed=0,1",
    ),
    # These two train several times as long as the two seconds after which a first state is saved.
    train(
        "stopped",
        f"task=plus_two,sentiment {ADAM} training.epochs=12 task.split.max_train=64 task.split.max_test=8 -m seed=0",
        stop=signal.SIGTERM,
    ),
    train(
        "dropout",
        f"{BLOOM} {SHORT} task=present_past init=normal training.dropout=true training.checkpoints=log "
        "training.epochs=1000 training.max_steps=700",
        stop=signal.SIGKILL,
    ),
    # Size 1 is not coupled: the control.
    train(
        "coupled",
        f"{BARE} task=plus_one regulariser=orthogonal regulariser.size=1,2 training.max_steps=20 "
        "task.split.max_test=12 -m seed=0,1,2,3",
    ),
    train("repeat", f"{BARE} task=plus_k,plus_one,plus_two training.max_steps=30 task.split.max_test=12 -m seed=0,1"),
    train("explanation", f"sweep=explanation {SHORT} init=cat,vocab training.max_steps=20 -m seed=0,1"),
    train(
        "recite",
        "sweep=capacity task.source.label=real,random_words task.label_length=2,4 prompt.length=1 training.epochs=20 "
        "-m task.source.row=0,1",
    ),
    train(
        "bloom",
        f"{BLOOM} task=capitalize_first_letter,sentiment init=cat,normal template=study3 optimizer=study3 {VALIDATED} "
        "optimizer.lr=0.1 training.epochs=12 task.split.max_test=12 packing.max_runs=3 -m seed=0,1",
    ),
    train(
        "basic",
        f"hydra/launcher=basic {SHORT} task=identity init=uniform,normal optimizer=adafactor precision=bf16 "
        "training.max_steps=4 -m seed=0",
    ),
    # The second learning rate diverges.
    train(
        "custom",
        f"{OWN} {SHORT} init=file init.path=../shared/prompt.npy optimizer=sgd training.max_steps=4 "
        "-m optimizer.lr=0.3,1e30",
    ),
)


def from_run(folder: Path) -> Command:
    """A run that starts from the prompt of a finished one."""
    source = min((folder / "outputs" / "custom").glob("*/run.json")).parent.relative_to(folder)
    return train("from_run", f"task=plus_one init=run init.path={source} {SHORT} training.max_steps=4 seed=3")


def make_shared(folder: Path) -> None:
    """What both sides read: a small BLOOM with a tokenizer, a prompt, and examples of a task of one's own."""
    import numpy as np
    import torch
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    text = "cat dog Input: Label: positive negative film"
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator([text, *text.split()] * 50, 500, special_tokens=["<end>"], show_progress=False)
    ends = {"bos_token": "<end>", "eos_token": "<end>"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **ends)
    shape = {"hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    config = transformers.BloomConfig(vocab_size=len(tokenizer), hidden_dropout=0.1, attention_dropout=0.1, **shape)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)  # fresh weights (deviation 0.02) hardly attend to anything at this width
    # A little training, so that not every accuracy is zero: after "Label: " comes one of two words.
    parts = [(f"Input: {n:03}\nLabel: ", ("positive", "negative")[n % 2]) for n in range(64)]
    tokens_BT = torch.tensor([[i for part in line for i in tokenizer(part)["input_ids"]] for line in parts])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model(tokens_BT, labels=tokens_BT).loss.backward()
        optimizer.step()
    model.save_pretrained(folder / "bloom")
    tokenizer.save_pretrained(folder / "bloom")
    prompt_Pd = np.random.default_rng(0).normal(0, 0.1, (2, 256))  # 256: the embedded model's width
    np.save(folder / "prompt.npy", prompt_Pd.astype(np.float32))
    rows = [f"{n},{('even', 'odd')[n % 2]}" for n in range(1, 61)]
    (folder / "parity.csv").write_text("\n".join(["input,label", *rows]) + "\n")


# The analyses

OPTIONS = {
    "atlas": "permutations=99 perplexity=5",
    "bezier": "steps=4 points=5 chosen_on=8 batch_size=4 max_examples=6 draws=50 least=0.0001",
    "capacity": "texts=2",
    "composition": "max_examples=4 max_pairs=2 draws=50",
    "convexity": "mixtures=9 pairs=2 steps=5 controls=3 resolution=3 max_examples=6 draws=50",
    "curves": "draws=50",
    "decoding": "permutations=50",
    "describe": "layers=2 max_new_tokens=4 chosen_on=3 max_examples=4 permutations=50",
    "dimension": "radii_of=2 directions=2 dimensions=[1,16] subspaces=2 steps=6 batch_size=4 max_examples=6 nulls=50 "
    "draws=50",
    "explanation": "random=3 others=4 words=2 permutations=50 draws=50",
    "prompt_length": "draws=50",
    "in_context": "shots=2 sets=2 max_examples=4",
    "mechanism": "shots=2 sets=2 examples=6 validation=6 max_examples=4 layers=2 scales=[1,2] least=0.01",
    "init_vs_task": "permutations=200 redraws=50",
    "mean_distances": "sample=50 draws=100",
    "mean_prompts": "",
    "neighbour_words": "top=5",
    "neighbours": "sample=20 permutations=39",
    "orthogonal": "mixtures=6 max_examples=6 draws=50",
    "over_training": "permutations=20 draws=20",
    "projection": "seeds=2 perplexity=5",
    "repeatable": "max_examples=6 draws=50",
    "sequences": "permutations=200",
    "similarity": "sample=50 permutations=50 draws=50",
    "speaking_probes": "say=2 permutations=50 draws=50",
    "token_operations": "max_orders=2 max_subsets=2 max_runs=2 max_examples=6 draws=50",
    "transplant": "max_examples=4 max_pairs=4 max_compositions=4",
}

# name: (runs and which of them, analyses). Those that run the model have fewer runs.
QUESTIONS = {
    "study": (
        ("runs=outputs/study",),
        "curves mean_distances sequences neighbours neighbour_words init_vs_task over_training decoding projection "
        "similarity mean_prompts atlas",
    ),
    "scored": (
        ("runs=outputs/study", "where=task in ['plus_one', 'country_capital']"),
        "transplant convexity bezier token_operations speaking_probes dimension in_context mechanism describe",
    ),
    "composed": (("runs=outputs/study", "where=seed == 0"), "composition"),
    "coupled": (("runs=outputs/coupled",), "orthogonal dimension similarity convexity bezier"),
    "repeat": (("runs=outputs/repeat",), "repeatable curves"),
    "explanation": (("runs=[outputs/explanation,outputs/custom,outputs/stopped]",), "explanation"),
    "recite": (("runs=outputs/recite",), "capacity"),
    "bloom": (
        ("runs=outputs/bloom",),
        "curves convexity token_operations speaking_probes neighbours transplant mean_prompts decoding",
    ),
}


def analyse(name: str, available: Sequence[str]) -> Command:
    given, analyses = QUESTIONS[name]
    chosen = [each for each in analyses.split() if each in available]
    options = [f"analysis.{each}.{option}" for each in chosen for option in OPTIONS[each].split()]
    return Command("analyze", name, (*given, f"out=analysis/{name}", f"analysis=[{','.join(chosen)}]", *options))


# One side


class Failed(Exception):
    """Nothing can be compared."""


def threads() -> str:
    """Of each command: they decide bits."""
    return os.environ.get("OMP_NUM_THREADS", "1")


@dataclass
class Side:
    """One commit at work in a folder: outputs/, analysis/ and logs/."""

    name: str
    code: Path
    """Its worktree."""
    folder: Path
    jobs: int
    """Commands at once."""
    started: list[subprocess.Popen] = field(default_factory=list)
    failed: bool = False
    done: int = 0

    def compute(self) -> None:
        """Train, then analyse. Raises Failed, with the end of its log, for a command that does not end as it should."""
        clock, used = time.monotonic(), _processor_seconds()
        self._check_imports()
        available = sorted(path.stem for path in (self.code / "conf" / "analysis").glob("*.yaml"))
        listed = {each for _, analyses in QUESTIONS.values() for each in analyses.split()}
        if missing := set(available) - listed:
            raise Failed(f"QUESTIONS in small_grids.py lacks {', '.join(sorted(missing))}: add it there")
        self._run_all(TRAININGS)
        self._run_all([*(analyse(name, available) for name in QUESTIONS), from_run(self.folder)])
        self._check_numbers()
        seconds, used = time.monotonic() - clock, _processor_seconds() - used
        print(f"{self.name}: computed in {seconds:.0f} s ({used:.0f} s of processor time)", flush=True)

    def _check_imports(self) -> None:
        """Raises Failed unless the worktree is what Python imports: an editable install stands on its path too."""
        look = "import pkgutil, promptgeo, hydra_plugins as h\nprint(promptgeo.__file__)"
        look += "\nfor module in pkgutil.iter_modules(h.__path__): print(module.module_finder.path)"
        line = [sys.executable, "-c", look]
        outcome = subprocess.run(line, cwd=self.folder, env=self._environment(), capture_output=True, text=True)
        if outcome.returncode:
            raise Failed(f"promptgeo cannot be imported:\n{outcome.stderr}")
        for path in outcome.stdout.splitlines():
            if not Path(path).resolve().is_relative_to(self.code.resolve()):
                raise Failed(f"{path} would be imported, which is not the commit's")

    def _check_numbers(self) -> None:
        for path in sorted((self.folder / "analysis").glob("*/*/result.json")):
            with (path.parent / "numbers.csv").open(newline="") as stream:
                if not any(row["value"] for row in csv.DictReader(stream)):
                    raise Failed(f"{path.parent}: no number: it proves nothing")

    def _run_all(self, commands: Iterable[Command]) -> None:
        with ThreadPoolExecutor(self.jobs) as pool:
            futures = [pool.submit(self._run, command) for command in commands]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self.failed = True
                pool.shutdown(wait=False, cancel_futures=True)
                for process in self.started:
                    process.kill()
                raise

    def _run(self, command: Command) -> None:
        start = time.monotonic()
        log = self.folder / "logs" / f"{command.module}-{command.name}.txt"
        with log.open("wb") as stream:
            if command.stop is not None:
                self._stop(command, stream)
            status = self._start(command, stream).wait()
        if status:
            end = log.read_text(errors="replace")[-3000:]
            raise Failed(f"{command.module} {command.name} ended with status {status}:\n{end}")
        self.done += 1
        stopped = f", stopped by {command.stop.name} and continued" if command.stop else ""
        place = f"{self.done}/{len(TRAININGS) + len(QUESTIONS) + 1}"
        seconds = time.monotonic() - start
        print(f"{self.name}: {place} {command.module} {command.name}, {seconds:.0f} s{stopped}", flush=True)

    def _stop(self, command: Command, log: BinaryIO) -> None:
        """Start the command, and stop it when a run's state is saved and no run is finished."""
        assert command.stop is not None
        runs = self.folder / "outputs" / command.name
        process = self._start(command, log)
        while process.poll() is None and not any(runs.glob("*/state/*.safetensors")):
            time.sleep(0.05)
        process.send_signal(command.stop)
        status = process.wait()
        if status not in (128 + command.stop, -command.stop) or any(runs.glob("*/run.json")):
            raise Failed(f"{command.name} was not stopped midway (status {status}): {runs}")

    def _start(self, command: Command, log: BinaryIO) -> subprocess.Popen:
        if self.failed:
            raise Failed("another command failed")
        line = [sys.executable, "-m", f"promptgeo.{command.module}", *command.arguments]
        log.write(f"$ {' '.join(line)}\n".encode())
        log.flush()
        process = subprocess.Popen(line, cwd=self.folder, env=self._environment(), stdout=log, stderr=log)
        self.started.append(process)
        return process

    def _environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.code / "src"), "OMP_NUM_THREADS": threads()}
        return os.environ | own | {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
