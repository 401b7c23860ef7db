"""What does a command do with input that is wrong, odd or hostile? One line and the documented status, in ten seconds.

fixed() are the inputs that broke it once, each for a kind; generated() are others of these kinds. Nothing outside the
folder for outputs may change, nothing finished there may be lost, and no text may reach a terminal as an instruction.
"""

import json
import os
import random
import resource
import shutil
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from breaking.command import LONGEST, Broken, Main, Tried, changes, contents, lost, results, run

RUN = ("task=present_past", "init=cat", "task.split.max_train=16", "task.split.max_test=4", "training.max_steps=2")
RUN = (*RUN, "outputs=out", "name=x")
PREVIEW = "preview=true"
ANALYSIS = ("runs=out/imported", "analysis=[distances]")
IMPORT = ("import", "prompts.npy", "--table", "table.csv")
MEMORY = 12 * 2**30
"""Bytes of address space that a command may have."""


@dataclass(frozen=True)
class Input:
    """A command with something odd in it or around it."""

    what: str
    main: Main
    line: tuple[str, ...]
    statuses: tuple[int, ...] = (2,)
    prepare: Callable[[Path], object] = lambda folder: None
    """Puts files into the command's folder."""
    before: Callable[[], object] = lambda: None
    """Is called in the command's process."""
    limit: float = LONGEST
    """Seconds."""


def try_inputs(work: Path, inputs: Sequence[Input]) -> Iterator[Tried]:
    ready, place = work / "ready", work / "here"
    _make(ready)
    for each in inputs:
        if place.exists():
            shutil.rmtree(place)
        shutil.copytree(ready, place, symlinks=True)
        each.prepare(place)
        before, beside = results(place / "out"), _beside(place)
        ended = run(each.main, each.line, place, each.limit, lambda each=each: (_bounded(), each.before()))
        problems = ended.problems(each.statuses)
        if "\x1b" in ended.output:
            problems.append("an escape code is sent")
        problems += changes(beside, _beside(place))
        problems += lost(
            place / "out", {name: value for name, value in before.items() if "odd" not in Path(name).parts}
        )
        yield Tried("inputs", f"{each.what}: {' '.join(each.line)[:200]!r}", problems, ended.seconds, ended.output)
    shutil.rmtree(work)


def _bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _beside(place: Path) -> dict[str, str]:
    return {path: digest for path, digest in contents(place).items() if not Path(path).is_relative_to(place / "out")}


def _make(folder: Path) -> None:
    """A run, imports, and files of the user's own: what lies there before each input."""
    from promptgeo.cli import runs, train

    (folder / "mydata" / "curves").mkdir(parents=True)
    (folder / "mydata" / "curves" / "mine.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (folder / "mydata" / "curves" / "mine.svg").write_text("<svg/>\n", encoding="utf-8")
    (folder / "mydata" / "task.csv").write_text("input,label\n" + "a,b\nc,d\n" * 9, encoding="utf-8")
    np.save(folder / "prompts.npy", np.random.default_rng(0).normal(size=(4, 2, 8)).astype(np.float32))
    rows = "".join(f"t{k % 2},i{k // 2},{k}\n" for k in range(4))
    (folder / "table.csv").write_text(f"task,init,seed\n{rows}", encoding="utf-8")
    for main, line in ((train.main, RUN), (runs.main, (*IMPORT, "--out", "out/imported"))):
        if (ended := run(main, line, folder)).status != 0:
            raise Broken(f"{' '.join(line)}: ends with status {ended.status}:\n{ended.output}")


def _trained(folder: Path) -> Path:
    return next(folder.glob("out/x/tiny-*"))


def _text(path: str, text: str | bytes) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))

    return prepare


def _odd_run(change: Callable[[Path], object]) -> Callable[[Path], None]:
    """A copy of a run as out/odd, with its run.json changed."""

    def prepare(folder: Path) -> None:
        shutil.copytree(_trained(folder), folder / "out" / "odd")
        change(folder / "out" / "odd" / "run.json")

    return prepare


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replaced(path: Path) -> None:
        path.unlink()
        make(path)

    return replaced


def _set(field: str, value: object) -> Callable[[Path], None]:
    """Write a field of run.json, with the digest that the file then ought to have."""

    def change(path: Path) -> None:
        from promptgeo.runs.folder import own_digest

        info = json.loads(path.read_text(encoding="utf-8"))
        at, *keys = field.split("/")
        inside = info
        for key in keys:
            inside, at = inside[at], key
        if value is ...:
            inside.pop(at, None)
        else:
            inside[at] = value
        info["sha256"] = own_digest(info)
        path.write_text(json.dumps(info), encoding="utf-8")

    return change


def _linked(path: str, target: str) -> Callable[[Path], None]:
    """A link in the trained run's folder, which is to be trained again."""

    def prepare(folder: Path) -> None:
        (_trained(folder) / "run.json").unlink()
        (_trained(folder) / path).symlink_to(folder / target)

    return prepare


def _in_place_of_run(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        run_folder = _trained(folder)
        shutil.rmtree(run_folder)
        make(run_folder)

    return prepare


CODE = (
    "task.__class__.__init__.__globals__['os'].system('touch mydata/hit') == 0",
    "__import__('os').system('touch mydata/hit') == 0",
    "@pd.read_pickle('x') == 1",
    "seed.map(print) == 1",
    "task.str.contains('a')",
    "(" * 2000 + "seed" + ")" * 2000 + " == 0",
    "seed == " + "9" * 5000,
    "`task` == 'a' and `no such` == 1",
    "seed ==",
)
ODD_RUNS: dict[str, Callable[[Path], object]] = {
    "a list": lambda path: path.write_text("[]"),
    "nothing": lambda path: path.write_bytes(b""),
    "deep lists": lambda path: path.write_text("[" * 100_000 + "]" * 100_000),
    "UTF-16": lambda path: path.write_bytes("{}".encode("utf-16")),
    "not a number": lambda path: path.write_text('{"id": NaN'),
    "a pipe": _instead(os.mkfifo),
    "a link to /dev/zero": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": _instead(lambda path: path.symlink_to(path)),
    "a folder": _instead(Path.mkdir),
    "a later format": _set("format", 99),
    "no config": _set("config", ...),
    "a task that is a list": _set("config/task", [1]),
    "a seed of many digits": _set("config/seed", 2**200),
    "a name with escape codes": _set("config/task/name", "\x1b[31m[/red]\u202e"),
    "results that are a text": _set("results", "good"),
    "files elsewhere": _set("files", {"../../mydata/task.csv": "0"}),
}
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + k)}: &{chr(98 + k)} [{','.join([f'*{chr(97 + k)}'] * 9)}]\n" for k in range(9)
)
HEAD = "# @package _global_\n"
EXPERIMENTS: dict[str, str | bytes] = {
    "UTF-16": f"{HEAD}seed: 1\n".encode("utf-16"),
    "deeply nested": HEAD + "task: " + "[" * 3000 + "]" * 3000 + "\n",
    "deep sections": HEAD + "task: " + "{a: " * 500 + "1" + "}" * 500 + "\n",
    "anchors that explode": HEAD + LAUGHS + "task: {labels: *i}\n",
    "its own default": HEAD + "defaults:\n  - /experiment: mine\nseed: 1\n",
    "a tab": HEAD + "seed:\t1\n\tname: x\n",
    "bytes that are no text": b"# @package _global_\nname: \xff\xfe\n",
    "a tag": HEAD + "name: !!python/object/apply:os.system ['touch mydata/hit']\n",
    "two documents": HEAD + "seed: 1\n---\nseed: 2\n",
    "a list": HEAD + "- a\n- b\n",
}
OVERRIDES = (
    "task.source.repeat=1e9",
    "task.source.repeat=1000000000000",
    "logger=[[]]",
    "device=tpu",
    "device=cuda:99",
    "seed=1e400",
    "seed=" + "9" * 5000,
    "optimizer.lr=nan",
    "prompt.length=1000000000",
    "training.max_steps=99999999999999999999",
    "training.batch_size=-1",
    "name=" + "a" * 300,
    "name=..",
    "name=a/../../mydata",
    "name='[/red]'",
    "outputs='out/a[b]'",
    "outputs=out/" + "/".join(["b" * 200] * 25),
    "outputs=mydata/task.csv",
    "outputs=/dev/null",
    "outputs=/proc/self",
    "task.source.path=/dev/zero",
    "task.source.path=/",
    "model.name_or_path=/dev/null",
    "init.text=",
    "template.text='{input'",
    "=",
    "a=b=c",
    "~task",
    "+task.zzz=1",
    "task=[",
    "${outputs}=1",
    "name=${name}",
    "name=${oc.env:HOME}",
)


def fixed() -> list[Input]:
    """What broke promptgeo once, and its neighbours."""
    from promptgeo.cli import analyze, runs, train

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (40, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    def to_full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)

    either = (0, 2)
    grid = (*RUN[:-1], "name=many", "init=cat,dog,bird,book", "seed=range(15)", "training.max_steps=1", "-m")
    return [
        Input("60 runs and 40 open files", train.main, grid, (0,), before=limited, limit=200.0),
        Input("a user's folder", analyze.main, (*ANALYSIS[:1], "analysis=[curves]", "out=mydata")),
        Input("a user's folder", runs.main, (*IMPORT, "--out", "mydata")),
        Input("other runs' folder", runs.main, (*IMPORT, "--out", "out/x")),
        *(Input(f"run.json: {what}", runs.main, ("out",), (0, 1), _odd_run(make)) for what, make in ODD_RUNS.items()),
        *(Input("code in a query", analyze.main, (*ANALYSIS, f'where="{code}"')) for code in CODE),
        *(Input("an override", train.main, (*RUN, PREVIEW, override), either) for override in OVERRIDES),
        Input(
            "a link at a temporary name", train.main, RUN, (0,), _linked(".prompts.safetensors.tmp", "mydata/task.csv")
        ),
        Input("a state that is a link", train.main, RUN, (2,), _linked("state", "mydata")),
        Input(
            "a run that is a link",
            train.main,
            RUN,
            (2,),
            _in_place_of_run(lambda path: path.symlink_to("../../mydata")),
        ),
        Input("a run that is a file", train.main, RUN, (2,), _in_place_of_run(lambda path: path.write_text("mine"))),
        Input("a run in a pipe", train.main, RUN, (2,), _in_place_of_run(os.mkfifo)),
        Input(
            "outputs that are a broken link",
            train.main,
            (*RUN, "outputs=link"),
            (2,),
            lambda f: (f / "link").symlink_to("no"),
        ),
        Input("outputs in a loop", train.main, (*RUN, "outputs=link"), (2,), lambda f: (f / "link").symlink_to("link")),
        Input("results in a file", analyze.main, (*ANALYSIS, "out=mydata/task.csv")),
        Input("results below a file", analyze.main, (*ANALYSIS, "out=mydata/task.csv/x")),
        Input("results in a device", analyze.main, (*ANALYSIS, "out=/dev/null")),
        Input("results of a long name", analyze.main, (*ANALYSIS, "out=" + "a" * 300), (1, 2)),
        Input("an import into a file", runs.main, (*IMPORT, "--out", "mydata/task.csv")),
        Input("an import below a file", runs.main, (*IMPORT, "--out", "mydata/task.csv/x")),
        Input("a full standard output", runs.main, ("out",), (1,), before=to_full),
        Input("a full standard output", train.main, ("--help",), (1,), before=to_full),
        Input("a device that does not exist", analyze.main, (*ANALYSIS, "device=tpu"), (1, 2)),
        *(
            Input(
                f"a file: {what}",
                train.main,
                (*RUN, PREVIEW, "--config-dir", "mine", "+experiment=mine"),
                either,
                _text("mine/experiment/mine.yaml", text),
            )
            for what, text in EXPERIMENTS.items()
        ),
        *(
            Input("steps", runs.main, (*IMPORT, "--out", "out/new", "--steps", steps), either)
            for steps in ("1:99999999999999999999", "-1:1", ":", "1,2,3", "0:0", "a")
        ),
        *(
            Input(
                f"prompts: {what}",
                runs.main,
                ("import", "odd.npy", "--table", "table.csv", "--out", "out/new"),
                (2,),
                make,
            )
            for what, make in _odd_prompts().items()
        ),
        *(
            Input(
                f"a table: {what}",
                runs.main,
                ("import", "prompts.npy", "--table", "odd.csv", "--out", "out/new"),
                either,
                _text("odd.csv", text),
            )
            for what, text in _odd_tables().items()
        ),
    ]


def _odd_prompts() -> dict[str, Callable[[Path], None]]:
    def saved(array: np.ndarray) -> Callable[[Path], None]:
        return lambda folder: np.save(folder / "odd.npy", array, allow_pickle=True)

    return {
        "complex": saved(np.ones((4, 2, 8), np.complex64)),
        "objects": saved(np.array([print], dtype=object)),
        "texts": saved(np.array(["a", "b", "c", "d"])),
        "not finite": saved(np.full((4, 2, 8), np.nan)),
        "empty": saved(np.ones((4, 0, 8))),
        "one number": saved(np.array(1.0)),
        "a header alone": _text(
            "odd.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (4, 99999999999, 8)}"
        ),
        "nothing": _text("odd.npy", b""),
        "a pipe": lambda folder: os.mkfifo(folder / "odd.npy"),
        "a device": lambda folder: (folder / "odd.npy").symlink_to("/dev/zero"),
    }


def _odd_tables() -> dict[str, str | bytes]:
    head = "task,init,seed\n"
    return {
        "nothing": "",
        "UTF-16": f"{head}a,b,1\n".encode("utf-16"),
        "NUL": f"{head}a\0,b,1\n",
        "long cells": head + "a" * 200_000 + ",b,1\n",
        "escape codes": head + "".join(f"\x1b[31m[/red],i{k},{k}\n" for k in range(4)),
        "formulas": head + "".join(f"=cmd|' /C calc'!A0,i{k},{k}\n" for k in range(4)),
        "paths": head + "".join(f"../../mydata,i{k},{k}\n" for k in range(4)),
        "columns twice": "task,task,init\na,b,c\n" * 4,
        "seeds of many digits": head + "".join(f"a,i{k},{'9' * 5000}\n" for k in range(4)),
        "a quote that is open": head + '"a,b,1\nc,d,2\n',
    }


_VALUES = (
    "null true -1 0 1 2 1e9 1e400 nan inf 99999999999999999999 0.5 [] [1] [a,b] [[]] {} {a:1} '' ' . .. / /dev/null "
    "a/b ${seed} ${zzz} $ \\ * ? ~ [/red] '\x1b[31m' '\u202e' '\udcff' '\x00' tiny cat auto all random {input} "
    "out/x mydata mydata/task.csv 1:2 range(3) choice(1,2) glob(*)"
)
VALUES = _VALUES.split(" ")
_PIECES = (
    "task init seed == != < > <= in not and or ( ) [ ] , . : ; 'a' 't0' \"i0\" 0 1 -1 1.5 ` @ __class__ lambda if else "
    "None True is print() ** % // | & ~ = += # \\ \n"
)
PIECES = _PIECES.split(" ")
_FIELDS = (
    "id status format files results config lr seeds fingerprints versions config/task config/task/name "
    "config/init/name config/model config/optimizer config/optimizer/lr config/seed results/accuracy results/steps "
    "results/n results/prompt_length files/metrics.csv error examples"
)
FIELDS = _FIELDS.split(" ")
"""Of run.json."""


def generated(count: int, chance: random.Random) -> list[Input]:
    """Inputs of the same kinds as the fixed ones, drawn by chance."""
    makers = (_override, _query, _run_json, _import, _file)
    return [makers[k % len(makers)](chance) for k in range(count)]


def _override(chance: random.Random) -> Input:
    from promptgeo.cli import train
    from promptgeo.config.schema import keys

    given = tuple(f"{chance.choice(list(keys()))}={_value(chance)}" for _ in range(chance.randint(1, 3)))
    more = ("-m",) if chance.random() < 0.2 else ()
    return Input("overrides", train.main, (*RUN, *given, PREVIEW, *more), (0, 2))


def _value(chance: random.Random) -> str:
    if chance.random() < 0.8:
        return chance.choice(VALUES)
    return "".join(chance.choices(string.printable, k=chance.randint(1, 12)))


def _query(chance: random.Random) -> Input:
    from promptgeo.cli import analyze

    soup = " ".join(chance.choices(PIECES, k=chance.randint(1, 9))).replace('"', "'")
    line = [f'where="{soup}"']
    if chance.random() < 0.5:
        key = chance.choice(
            ("runs", "analysis", "of", "convention", "model", "precision", "allow", "analysis.distances.of")
        )
        line.append(f"{key}={_value(chance)}")
    return Input("a query", analyze.main, (*ANALYSIS, *line), (0, 1, 2))


def _run_json(chance: random.Random) -> Input:
    from promptgeo.cli import runs

    values = (
        None,
        True,
        -1,
        2**63,
        2**200,
        1.5,
        float("nan"),
        "",
        "\x1b[2J",
        "\ud800",
        "x" * 10_000,
        [],
        [[]],
        {},
        {"a": {}},
        ...,
    )
    return Input("run.json", runs.main, ("out",), (0, 1), _odd_run(_set(chance.choice(FIELDS), chance.choice(values))))


def _import(chance: random.Random) -> Input:
    from promptgeo.cli import runs

    columns = chance.sample(
        ["task", "init", "seed", "model", "template", "accuracy", "n", "file", "steps", "\x1b", ""], 4
    )
    if chance.random() < 0.7:
        columns = list(dict.fromkeys(["task", "init", *columns]))
    cells = [
        "a",
        "",
        "0",
        "-1",
        "0.5",
        "1e400",
        "nan",
        "cat",
        "../x",
        "prompts.npy",
        "[/red]",
        "\x1b[31m",
        '"',
        "9" * 30,
        "1:1",
    ]
    rows = [",".join(chance.choice(cells) for _ in columns) for _ in range(chance.choice((0, 1, 4, 4, 4)))]
    table = "\n".join([",".join(columns), *rows]) + "\n"
    steps = ("--steps", _value(chance)) if chance.random() < 0.3 else ()
    line = ("import", "prompts.npy", "--table", "odd.csv", "--out", "out/new", *steps)
    return Input("a table", runs.main, line, (0, 2), _text("odd.csv", table))


def _file(chance: random.Random) -> Input:
    from promptgeo.cli import train
    from promptgeo.config.schema import keys

    lines = []
    for key in chance.choices(list(keys()), k=chance.randint(1, 4)):
        *sections, last = key.split(".")
        lines += [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
        lines.append(f"{'  ' * len(sections)}{last}: {_value(chance)}")
    text = ("" if chance.random() < 0.1 else HEAD) + "\n".join(lines) + "\n"
    line = (*RUN, PREVIEW, "--config-dir", "mine", "+experiment=mine")
    return Input("a file", train.main, line, (0, 2), _text("mine/experiment/mine.yaml", text))
