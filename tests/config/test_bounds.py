"""A few lines that stand for gigabytes, or for no end: one line that says so, at once, and nothing of it is made."""

import time
from itertools import pairwise

import pytest

from promptgeo import UserError
from promptgeo.analysis.target import analysis_of
from promptgeo.cli import analyze, reproduce, runs, train
from promptgeo.config import yaml_file
from promptgeo.config.compose import compose, compose_grid
from promptgeo.config.compose_analyze import analysis_file, compose_analyze
from promptgeo.config.grid import MOST_RUNS
from promptgeo.config.yaml_file import DEEPEST, read_yaml
from promptgeo.training.cell import cell_of

SECONDS = 20
"""More than any of these takes on a busy machine, and less than what is not bounded."""


def doubled(first: str, again: str, levels: int) -> str:
    """A line of YAML that stands for 9 ** levels of the first."""
    lines = [
        f"  a0: &a0 {first}",
        *(f"  a{k}: &a{k} {again.format(', '.join([f'*a{k - 1}'] * 9))}" for k in range(1, levels)),
    ]
    return "study:\n" + "\n".join(lines) + "\n"


def nested(levels: int, opening: str = "[", closing: str = "]", inside: str = "") -> str:
    return opening * levels + inside + closing * levels


FILES = {
    "utf16": ("study: {}\n".encode("utf-16"), "is no text in UTF-8"),
    "utf16_le": ("study: {}\n".encode("utf-16-le"), "special characters are not allowed"),
    "utf32": ("study: {}\n".encode("utf-32"), "is no text in UTF-8"),
    "latin": ("study: {a: é}\n".encode("latin-1"), "is no text in UTF-8"),
    "binary": (bytes(range(256)), "is no text in UTF-8"),
    "large": (f"study: {{a: {'x' * 500_000}}}\n", "is larger than 500,000 bytes"),
    "many": ("study:\n" + "".join(f"  k{k}: 1\n" for k in range(20_000)), "stands for more than 20,000 values"),
    "laughs": (doubled("[1, 1]", "[{}]", 9), "stands for more than 20,000 values (an alias counts as all it names)"),
    "merges": (doubled("{x: 1}", "{{<<: [{}]}}", 14), "stands for more than 20,000 values"),
    "itself": ("study: &a {b: *a}\n", "holds itself (a YAML alias within what it names)"),
    "merged_itself": ("study: &a\n  <<: *a\n", "holds itself (a YAML alias within what it names)"),
    "deep": (f"study: {{a: {nested(30)}}}\n", "nested over 30 levels deep"),
    "very_deep": (f"study: {nested(100_000)}\n", "nested over 30 levels deep"),
    "open": (f"study: {'[' * 100_000}\n", "nested over 30 levels deep"),
    "deep_block": ("".join(f"{' ' * k}study:\n" for k in range(400)), "nested over 30 levels deep"),
    "deep_by_aliases": (
        doubled("1", "[*a{}]", 1) + "".join(f"  b{k}: &b{k} [[[[*{f'b{k - 1}' if k else 'a0'}]]]]\n" for k in range(9)),
        "nested over 30 levels deep",
    ),
    "digits": (f"study: {{a: 0x{'f' * 5000}}}\n", "holds a number of 5,002 characters"),
    "sexagesimal": (f"study: {{a: 1{':1' * 50_000}}}\n", "holds a number of 100,001 characters"),
    "tag": ("study: {a: !!int x}\n", "a value does not fit the tag (!!...) before it"),
    "no_mapping": ("[study]\n", "holds no keys (key: value)"),
    "a_word": ("study\n", "holds no keys (key: value)"),
    "code": ("study: !!python/object/apply:os.getcwd []\n", "could not determine a constructor for the tag"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_a_file_stands_for_is_bounded_in_every_command_that_reads_one(tmp_path, monkeypatch, name):
    content, said = FILES[name]
    content = content if isinstance(content, bytes) else content.encode()
    for group in ("experiment", "analysis", "sweep"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_bytes(content)
    monkeypatch.setattr("promptgeo.config.compose_analyze.conf_dir", lambda: str(tmp_path))
    monkeypatch.setattr("promptgeo.report.study.conf_dir", lambda: str(tmp_path))
    start = time.perf_counter()
    for read in (
        lambda: compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine"]),
        lambda: analysis_file("mine"),
        lambda: reproduce.load_study("mine"),
    ):
        with pytest.raises(UserError) as error:
            read()
        assert said in str(error.value) and "mine.yaml" in str(error.value) and "\n" not in str(error.value)
    assert time.perf_counter() - start < SECONDS


def test_an_analysis_of_ones_own_is_read_as_every_other_file(tmp_path):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "mine.yaml").write_text(doubled("[1, 1]", "[{}]", 9))
    with pytest.raises(UserError, match=r"mine\.yaml: stands for more than 20,000 values"):
        compose_analyze(["runs=runs", "analysis=[mine]"], tmp_path)


def test_what_is_within_the_bounds_is_read(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(f"a: &a {{b: 1}}\nc:\n  <<: *a\n  d: *a\ne: {nested(DEEPEST - 1)}\n", encoding="utf-8-sig")
    read = read_yaml(file)
    assert (read.c.b, read.c.d.b) == (1, 1) and len(read.e) == 1
    file.write_text("# nothing\n")
    assert read_yaml(file) == {}
    # a list and its 19,997 values, its key, and the whole
    file.write_text(f"a: [{', '.join(['1'] * (yaml_file.MOST - 3))}]\n")
    assert len(read_yaml(file).a) == yaml_file.MOST - 3


def test_a_mark_before_the_text_hides_no_header(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 3\n", encoding="utf-8-sig")
    assert compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine"]).seed == 3


DEFAULTS = {
    "itself": {"a": ["a"]},
    "each_other": {"a": ["b"], "b": ["c"], "c": ["a"]},
    "twice_each": {f"a{k}" if k else "a": [f"a{k + 1}@x", f"a{k + 1}@y"] for k in range(25)} | {"a25": []},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_that_do_not_end_are_named(tmp_path, name):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "analysis").mkdir()
    for file, defaults in DEFAULTS[name].items():
        for group in ("experiment", "analysis"):
            (tmp_path / group / f"{file}.yaml").write_text(f"defaults: [{', '.join(defaults)}]\n")
    start = time.perf_counter()
    with pytest.raises(UserError, match=r"^experiment/\w+\.yaml: the defaults of config files lead to this one again"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=a"])
    with pytest.raises(UserError, match=r"^analysis/\w+\.yaml: the defaults of config files lead to this one again"):
        compose_analyze(["runs=runs", "analysis=[a]"], tmp_path)
    assert time.perf_counter() - start < SECONDS


@pytest.mark.parametrize("defaults", ["{a: b}", "[1]", "[[a]]", "[{a: b, c: d}]", "a"])
def test_defaults_that_are_no_list_of_files_are_one_line(tmp_path, defaults):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"defaults: {defaults}\n")
    with pytest.raises(UserError, match=r"^the config cannot be read: .*[dD]efault"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=mine"])


def test_an_error_of_our_own_while_composing_is_none_of_the_users(monkeypatch):
    def broken(config):
        raise ValueError("a fault of promptgeo's")

    monkeypatch.setattr("promptgeo.config.compose.require_bounded", broken)
    with pytest.raises(ValueError, match="a fault of promptgeo's"):
        compose([])


def test_interpolations_of_interpolations_are_bounded(tmp_path):
    chain = [
        "name",
        "outputs",
        "task.description",
        "task.content_free",
        "template.text",
        "template.label",
        "wandb.project",
    ]
    line = [f'{key}="{"".join(["${" + other + "}"] * 12)}"' for key, other in pairwise(chain)]
    with pytest.raises(UserError, match=r"^[\w.]+: its interpolations come to more than 1,000,000 characters$"):
        compose(line)
    (tmp_path / "analysis").mkdir()
    each = [", ".join([f"'${{.a{k - 1}}}'"] * 12) for k in range(1, 9)]
    lists = "".join(f"a{k}: [{line}]\n" for k, line in enumerate(each, start=1))
    (tmp_path / "analysis" / "mine.yaml").write_text("a0: [1]\n" + lists)
    with pytest.raises(UserError, match="its interpolations come to more than 1,000,000 characters"):
        compose_analyze(["runs=runs", "analysis=[mine]"], tmp_path)
    assert compose(["name=${outputs}-${task.name}", "outputs=a"]).name == "a-country_capital"


GRIDS = {
    "seed=range(0,1000000000)": "stands for more than 100,000 runs",
    "seed=range(0,1,0.000000001)": "stands for more than 100,000 runs",
    "seed=shuffle(range(0,1000000000))": "stands for more than 100,000 runs",
    "seed=range(0,inf)": "stands for more than 100,000 runs",
    "task=range(0,1000000000)": "stands for more than 100,000 runs",
    "seed=range(0,1000) training.epochs=range(1,1000)": "the grid of seed, training.epochs: stands for more than",
    "seed=range(0,3,0)": "range(first,end,by) needs finite numbers",
    "seed=range(0,nan)": "range(first,end,by) needs finite numbers",
    "seed=range(nan,1)": "range(first,end,by) needs finite numbers",
    "seed=range(0,-5)": "stands for no value",
    "seed=glob(*)": "stands for no value",
}


@pytest.mark.parametrize("line", GRIDS)
def test_a_grid_is_counted_before_it_is_listed(line):
    start = time.perf_counter()
    with pytest.raises(UserError) as error:
        compose_grid(line.split(), multirun=True)
    assert GRIDS[line] in str(error.value)
    assert time.perf_counter() - start < SECONDS


def test_a_grid_of_a_sweeps_file_is_counted_too(tmp_path):
    (tmp_path / "sweep").mkdir()
    grid = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: range(0,1000000000)\n"
    (tmp_path / "sweep" / "mine.yaml").write_text(f"# @package _global_\n{grid}")
    with pytest.raises(UserError, match="stands for more than 100,000 runs"):
        compose_grid(["sweep=mine", f"hydra.searchpath=[file://{tmp_path}]"])


IMPOSSIBLE = {
    "logger=[[]]": r"^logger=\[\]: must be null, tensorboard or wandb",
    "logger=[{}]": r"^logger=\{\}: must be null, tensorboard or wandb",
    "logger=[null]": r"^logger=None: must be null, tensorboard or wandb",
    "optimizer.betas=[[1],2]": r"^optimizer.betas=\[\[1\], 2.0\]: must be a plain list",
    "optimizer.betas=[nan,inf]": r"^optimizer.betas=\[nan, inf\]: must be a finite number",
    "task.version=99999999999999999999": "^task.version=9+: must be a number of at most 64 bits",
    "task.split.seed=-99999999999999999999": "^task.split.seed=-9+: must be ",
    "regulariser.seeds=[0,99999999999999999999]": r"^regulariser.seeds=\[0, 9+\]: must be a number of at most 64 bits",
    "training.checkpoints=99999999999999999999": "^training.checkpoints=9+: must be epoch, log, or a number of steps",
    "regulariser=orthogonal regulariser.size=1000000000": "^regulariser.size=1000000000: must be from 1 to 100,000",
    "regulariser=orthogonal regulariser.size=99999999999999999999999": "^regulariser.size=9+: must be from 1 to 100",
}


@pytest.mark.parametrize("line", IMPOSSIBLE)
def test_what_no_run_can_have_is_named_before_anything_is_loaded(line):
    with pytest.raises(UserError, match=IMPOSSIBLE[line]):
        cell_of(compose(line.split()))


DEEP = ["logger", "task.labels", "study.a", "hydra.verbose"]


@pytest.mark.parametrize("key", DEEP)
@pytest.mark.parametrize("levels", [DEEPEST + 1, 400, 5_000])
def test_a_value_that_is_nested_deeply_is_named(key, levels):
    with pytest.raises(UserError, match=rf"^{key}: lists and sections are nested over 30 levels deep$"):
        compose([f"{'+' if key == 'study.a' else ''}{key}={nested(levels)}".removeprefix("+")])
    with pytest.raises(UserError, match=r"^analysis.curves.a: lists and sections are nested over 30 levels deep$"):
        compose_analyze(["runs=runs", "analysis=[curves]", f"analysis.curves.a={nested(levels, '{a: ', '}', '1')}"])


ANALYZE = {
    "device=tpu": "^device=tpu: must be one of auto, cpu, cuda$",
    "device=[cpu]": "^device",
    "device=null": "^device",
    "precision=fp8": "^precision=fp8: must be one of auto, fp32, bf16$",
    "out=a\0b": "^out: its value holds bytes that are no text in UTF-8$",
    "out=a\udc80": "^out: its value holds bytes that are no text in UTF-8$",
    f"analysis.curves.seed={'9' * 5000}": "^analysis.curves.seed: a number of thousands of digits",
}


@pytest.mark.parametrize("line", ANALYZE, ids=lambda line: ascii(line[:24]))
def test_a_word_of_the_analyses_is_checked_before_runs_are_looked_for(line):
    with pytest.raises(UserError, match=ANALYZE[line]):
        compose_analyze(["runs=nowhere", "analysis=[curves]", line])


OPTIONS = {
    "init_vs_task.permutations": [10**9, 10**6 + 1, 1e9, float("nan")],
    "token_operations.max_runs": [10**9, 2.5, "some", True],
    "curves.seed": [2**63, -1],
    "neighbours.epsilon": [float("inf"), float("nan"), 10**400],
    "bezier.lr": [float("inf"), "fast"],
    "neighbours.epsilons": [[float("nan")], [[0.5]], ["x"], [True]],
    "mean_distances.metrics": [[1], [["l2"]]],
    "transfer.init": [3, ["cat"]],
    "stochasticity.difficulty": [{"cb": float("nan")}],
}


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, values in OPTIONS.items() for value in values]
)
def test_an_option_of_an_analysis_is_of_its_kind_and_no_absurd_count(option, value):
    name, _, key = option.partition(".")
    with pytest.raises(UserError, match=rf"^analysis\.{option}=.*: must be "):
        analysis_of(name, analysis_file(name) | {key: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [("curves.seed", 2**63 - 1), ("curves.draws", 10**6), ("token_operations.max_runs", None), ("bezier.lr", 1)],
)
def test_an_option_within_its_bounds_is_taken(option, value):
    name, _, key = option.partition(".")
    assert analysis_of(name, analysis_file(name) | {key: value}).options[key] == value


COMMANDS = [
    (train.main, ["name=kept", "seed=range(0,1000000000)", "-m"]),
    (train.main, ["name=kept", "logger=[[]]"]),
    (train.main, [f"name={'[' * 30_000}"]),
    (analyze.main, ["runs=nowhere", "analysis=[curves]", "device=tpu"]),
    (analyze.main, ["runs=nowhere", f"analysis={nested(400)}"]),
    (reproduce.main, ["init_vs_task", "model=tiny", "seed=range(0,1000000000)"]),
    (reproduce.main, ["init_vs_task", f"name={nested(400)}"]),
    (runs.main, ["x" * 5000]),
]


@pytest.mark.parametrize(("command", "line"), COMMANDS)
def test_a_command_ends_with_one_short_line_and_status_2_and_writes_nothing(
    command, line, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with pytest.raises(SystemExit) as stop:
        command(line)
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.count("\n") == 1 and err.startswith("promptgeo: ") and len(err) < 1300
    assert not list(tmp_path.iterdir())


def test_a_run_of_a_large_grid_is_within_the_bound():
    assert MOST_RUNS >= 20_000
