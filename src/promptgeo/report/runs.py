"""What was run? The facts of the runs: what they have in common and what they vary."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from promptgeo.config.schema import flatten
from promptgeo.config.terminal import counted
from promptgeo.report.text import number_text
from promptgeo.runs.folder import Run


def facts(runs: Sequence[Run]) -> dict[str, str]:
    """Name -> the values of all runs, each once."""
    infos = [run.info for run in runs]
    configs = [info["config"] for info in infos]

    def each(*path: str, of: Sequence[dict[str, Any]] = configs) -> str:
        values = [_at(tree, path) for tree in of]
        if all(isinstance(value, int | float) for value in values):
            values = sorted(values)
        return _listed(number_text(v) if isinstance(v, float) else v for v in values if v is not None) or "—"

    rates = _listed(map(number_text, sorted(run.lr for run in runs if run.lr is not None))) or "—"
    lengths = each("results", "prompt_length", of=infos)
    libraries = dict.fromkeys(name for info in infos for name in info.get("versions", {}))
    learned = [config for config in configs if _at(config, ("task", "split", "kind")) == "all"]
    by_heart = f"{len(learned)} of {len(runs)} runs are scored on the examples that they were trained on "
    by_heart += "(task.split.kind=all): their scores say what was learned by heart, and nothing of other examples"
    on_test = [c for c in configs if c not in learned and _at(c, ("task", "split", "stop_on_test"))]
    selected = f"{len(on_test)} of {len(runs)} runs chose their best prompt, and when to stop, on the test rows "
    selected += "(task.split.stop_on_test): their best accuracies are selected on the test set, and too high"
    return {
        "Runs": str(len(runs)),
        "Model": f"{each('model', 'name')} ({each('precision', of=infos)}, {each('device', of=infos)})",
        "Model's SHA-256": _listed(_sha256(info, "model") for info in infos),
        "Inits": each("init", "name"),
        "Tasks": each("task", "name"),
        "Seeds": each("seed"),
        "Prompt length": lengths + (" token" if lengths == "1" else " tokens"),
        "Template": f"{each('template', 'name')}: " + _listed(repr(c["template"].get("text", "")) for c in configs),
        "Optimiser": (
            f"{each('optimizer', 'name')}, learning rate {rates}, "
            f"{each('optimizer', 'schedule')} schedule, weight decay {each('optimizer', 'weight_decay')}"
        ),
        "Training": (
            f"{training_length(configs)}, batch size {each('training', 'batch_size')}, "
            f"dropout {'on' if 'True' in each('training', 'dropout') else 'off'}"
        ),
        **({"Selection on the test set": selected} if on_test else {}),
        **({"Nothing held out": by_heart} if learned else {}),
        "Versions": ", ".join(f"{name} {each('versions', name, of=infos)}" for name in libraries),
    }


def run_lines(runs: Sequence[Run]) -> list[str]:
    """What was run, in a few lines: all of it is in facts."""
    told = facts(runs)
    names = {"Tasks": "task", "Inits": "init", "Seeds": "seed"}
    counts = {word: len(told[key].split(", ")) for key, word in names.items() if told[key] != "—"}
    configs = [run.info["config"] for run in runs]
    others = {
        "length": len({str(each.get("prompt", {}).get("length")) for each in configs}),
        "learning rate": len({run.lr for run in runs}),
    }
    for word, n in others.items():
        if 1 < n <= len(runs) / math.prod(counts.values()):
            counts[word] = n
    axes = " x ".join(counted(n, word) for word, n in counts.items())
    varied = _varied(configs) if math.prod(counts.values()) != len(runs) else ""
    return [
        f"{told['Model']}, frozen; prompts of {told['Prompt length']}",
        f"{told['Runs']} runs: {axes}{varied}",
        f"Tasks: {told['Tasks']}",
        f"Inits: {told['Inits']}",
        f"{told['Training']}; {told['Optimiser']}",
        *([told["Selection on the test set"]] if "Selection on the test set" in told else []),
    ]


def _varied(configs: Sequence[dict[str, Any]]) -> str:
    """Which other settings differ between runs; empty where none does."""
    flat = [flatten(config) for config in configs]
    own = ("task.", "init.", "seed", "prompt.length", "template.")
    keys = [key for key in flat[0] if not key.startswith(own) and len({str(each.get(key)) for each in flat}) > 1]
    return f", which differ in {', '.join(keys)} too" if keys else ""


def tasks(runs: Sequence[Run]) -> list[dict[str, str]]:
    """One row per task: its data, how many examples and steps, and a fingerprint."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        by_task.setdefault(run.info["config"]["task"]["name"], []).append(run.info)
    return [
        {
            "task": name,
            "data": _listed((info["config"]["task"].get("source") or {}).get("kind", "—") for info in infos),
            "train": _listed(info.get("examples", {}).get("train", "—") for info in infos),
            "test": _listed(info.get("examples", {}).get("test", "—") for info in infos),
            "steps": _listed(info["results"]["steps"] for info in infos),
            "sha256": _listed(_sha256(info, "data") for info in infos),
        }
        for name, infos in by_task.items()
    ]


def training_length(configs: Iterable[dict[str, Any]]) -> str:
    """How long the runs trained: max_steps, where it is given, decides instead of the epochs."""
    sections = [config.get("training", {}) for config in configs]
    return (
        _listed(
            f"{t['max_steps']} steps" if t.get("max_steps") else f"{t['epochs']} epochs"
            for t in sections
            if "epochs" in t
        )
        or "—"
    )


def _at(tree: Any, path: Sequence[str]) -> Any:
    """The value below these keys; None where one of them is missing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def _listed(values: Iterable[Any]) -> str:
    """Each value once, in order."""
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _sha256(info: dict[str, Any], what: str) -> str:
    """The beginning of a fingerprint, enough to identify it."""
    return str(info.get("fingerprints", {}).get(what) or "—").removeprefix("sha256:")[:16]
