"""A text keeps its spelling, wherever it is written; what was plain stays as it is."""

from pathlib import Path

import pytest
import yaml
from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry

from promptgeo import UserError
from promptgeo.api import _config
from promptgeo.config.compose import compose, compose_grid
from promptgeo.config.compose_analyze import compose_analyze
from promptgeo.config.schema import flatten, texts, to_dict
from promptgeo.config.spelling import FileConfigSource, spelt

LOOK_LIKE_OTHERS = [
    "yes",
    "no",
    "on",
    "True",
    "false",
    "1e3",
    "1234567e8",
    "1.50",
    "1_000",
    "-0",
    "nan",
    "12:30",
    "0x1F",
]
KEYS = sorted(
    texts() - {"sweep", "task.labels", "task.source.classes", "task.source.class_files", "grid.zip"}
)  # sweep= is a group's option


def test_the_texts_of_the_schema_are_found_by_their_types():
    assert {"name", "init.text", "model.revision", "task.labels", "template.end", "training.checkpoints"} <= texts()
    assert not {"seed", "study", "logger", "optimizer.lr", "overwrite", "init.kind", "optimizer.betas"} & texts()


@pytest.mark.parametrize("text", LOOK_LIKE_OTHERS)
def test_every_text_of_a_command_line_keeps_its_spelling(text):
    flat = flatten(to_dict(compose([*(f"{key}={text}" for key in KEYS), f"task.labels=[{text},b,'{text}']"])))
    assert {key: flat[key] for key in KEYS} == dict.fromkeys(KEYS, text)
    assert flat["task.labels"] == [text, "b", text]
    assert compose([f"task.source={{input: {text}}}"]).task.source.input == text


@pytest.mark.parametrize("text", LOOK_LIKE_OTHERS)
def test_every_text_of_a_file_keeps_its_spelling(tmp_path, text):
    tree: dict = {}
    for key in (*KEYS, "sweep"):
        *path, last = key.split(".")
        node = tree
        for name in path:
            node = node.setdefault(name, {})
        node[last] = "PLACE"
    written = yaml.safe_dump(tree).replace("PLACE", text)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(f"# @package _global_\n{written}")
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text(
        f"# mine\nname: {text}\nlabels: [no, {text}, null_, 'yes']\nsplit: {{seed: 7}}\nsource:\n  input: {text} # a\n"
    )
    here = f"hydra.searchpath=[file://{tmp_path}]"
    flat = flatten(to_dict(compose(["sweep=mine", here])))
    assert {key: flat[key] for key in KEYS} == dict.fromkeys(KEYS, text)
    task = compose(["task=mine", here]).task
    assert (task.name, task.labels, task.source.input) == (text, ["no", text, "null_", "yes"], text)
    assert task.split.seed == 7


@pytest.mark.long
def test_a_grid_keeps_the_spelling_of_each_value_wherever_it_is_listed(tmp_path):
    grid = compose_grid(["init=word", "init.text=yes,1e3,true,a", "seed=1"], multirun=True)
    assert [config.init.text for config in grid] == ["yes", "1e3", "true", "a"]
    grid = compose_grid(["task.labels=[yes,1e3],[no,x]"], multirun=True)
    assert [config.task.labels for config in grid] == [["yes", "1e3"], ["no", "x"]]
    (tmp_path / "sweep").mkdir()
    params = (
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      init.text: 1e3\n      name: on\n      seed: 1,2\n"
    )
    (tmp_path / "sweep" / "mine.yaml").write_text(f"# @package _global_\n{params}")
    grid = compose_grid(["init=word", "sweep=mine", f"hydra.searchpath=[file://{tmp_path}]"])
    assert [(config.init.text, config.name, config.seed) for config in grid] == [("1e3", "on", 1), ("1e3", "on", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "init.text=cat",
        "init.text=null",
        "init.text='a, b'",
        r"init.text=a\,b",
        "init.text=${name}",
        "init.text=a,b",
        "init.which=12",
        "training.checkpoints=range(1,4)",
        "training.checkpoints=sort(10,9)",
        "task.labels=[a,null]",
        "seed=1e3",
        "overwrite=yes",
        "optimizer.betas=[0.9,1e-3]",
        r"init.text=a\nb",
        "template.text='{input}'",
        "template.end=",
    ],
)
def test_nothing_else_of_a_line_is_changed(line):
    assert spelt(line) == line


@pytest.mark.parametrize(
    ("written", "end"),
    [
        (r"\n", "\n"),
        (r"\t", "\t"),
        (r"a\n\tb", "a\n\tb"),
        (r'"\n"', "\n"),
        (r"'; \n'", "; \n"),
        (r'"\\n"', r"\n"),
        (r'"\\"', "\\"),
        (r'"\\\\"', "\\"),
        (r"\\n", r"\n"),
        (r'"\q\""', r'\q"'),
        (r"\,", ","),
        ('"\n"', "\n"),
    ],
)
def test_a_templates_newline_and_tab_can_be_written_on_a_command_line_and_a_backslash_too(written, end):
    assert compose([f"template.end={written}"]).template.end == end
    if "\n" not in written and not written.startswith(r"\,"):
        assert [c.template.end for c in compose_grid([f"template.end={written},x"], multirun=True)] == [end, "x"]


def test_an_input_of_several_columns_is_written_as_a_template_is():
    written = compose(["task=custom", r'task.source.input="Title: {title}\nBody: {body}"'])
    assert written.task.source.input == "Title: {title}\nBody: {body}"


def test_a_template_is_written_as_shells_leave_it():
    template = compose([r'template.text="Q: {input}\nA:"', r'template.label="\t{label}"']).template
    assert (template.text, template.label) == ("Q: {input}\nA:", "\t{label}")


@pytest.mark.parametrize("text", ["a\\n", "\\\\n", "\\", "a\\", "\n", 'q"\\"', "\\t{input}"])
def test_a_templates_text_of_pythons_arrives_as_it_is(text):
    assert _config((), {"template.end": text}).template.end == text


@pytest.mark.parametrize(("key", "value"), [("init.text", 1e3), ("name", True), ("task.labels", [True, False])])
def test_python_is_told_that_a_text_is_wanted(key, value):
    with pytest.raises(UserError, match=rf"^{key}=.*: must be a text, written in quotes$"):
        _config((), {key: value})
    assert _config((), {"training.checkpoints": 5}).training.checkpoints == "5"


def test_a_broken_file_of_ones_own_is_still_one_line(tmp_path):
    (tmp_path / "task").mkdir()
    Path(tmp_path / "task" / "mine.yaml").write_text("")
    with pytest.raises(UserError):
        compose(["task=mine", f"hydra.searchpath=[file://{tmp_path}]"])


def test_an_analysiss_texts_keep_their_spelling_too():
    config = compose_analyze(["runs=1e3", "out=yes", "model=1234567e8", "of=delta", "overwrite=true", "allow=[1e3]"])
    assert (config.runs, config.out, config.model, config.overwrite) == ("1e3", "yes", "1234567e8", True)
    assert config.allow == ["1e3"] and compose_analyze(["runs=[1e3,a]", "out=null"]).runs == ["1e3", "a"]


OWN_FILES = {
    "merged": ("task:\n  <<: {labels: [no, yes]}\n", ["no", "yes"]),
    "merged_list": ("task:\n  <<: [{labels: [no, 1e3]}]\n  max_input_tokens: 9\n", ["no", "1e3"]),
    "interpolated": (
        "study: {l: [no, yes]}\ntask: {labels: '${study.l}'}\n",
        "task.labels=[False, True]: must be a text",
    ),
    "itself": ("task: &x {labels: [*x]}\n", "itself.yaml: holds itself"),
    "digits": (f"seed: {'7' * 5000}\n", "digits.yaml: holds a number of 5,000 characters; line 2"),
    "section": ("task: plus_one\n", "task: is a section of keys, not 'plus_one'"),
    "again": ("defaults: [/task: plus_two]\n", "in a file of your own write '- override /task: <option>'"),
    "slash": ("defaults: [override task: plus_two]\n", "needs the slash before task"),
}


@pytest.mark.parametrize("name", OWN_FILES)
def test_a_file_of_the_users_own_is_read_as_written_or_named_in_a_line(tmp_path, name):
    text, expected = OWN_FILES[name]
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{text}")
    line = [f"hydra.searchpath=[file://{tmp_path}]", f"+experiment={name}"]
    if isinstance(expected, list):
        assert compose(line).task.labels == expected
        return
    with pytest.raises(UserError) as error:
        compose(line)
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "latin.yaml").write_bytes(b"# @package _global_\nname: caf\xe9\n")
    with pytest.raises(UserError, match=r"latin.yaml: is no text in UTF-8; save it as UTF-8$"):
        compose([f"hydra.searchpath=[file://{tmp_path}]", "+experiment=latin"])


@pytest.mark.parametrize("key", ["seed", "init.text", "optimizer.lr", "task.labels"])
def test_thousands_of_digits_are_named(key):
    value = "7" * 5000 if key != "task.labels" else f"[a,{'7' * 5000}]"
    with pytest.raises(UserError, match=rf"^{key}: a number of thousands of digits is given"):
        compose([f"{key}={value}"])


@pytest.mark.parametrize("line", ["init=file init.path", "init=run init.path", "model.name_or_path"])
def test_a_home_that_nobody_has_is_named(line):
    from promptgeo.training.cell import cell_of

    first, _, key = line.rpartition(" ")
    with pytest.raises(UserError, match=rf"^{key}=~nobody_x/x: is no place that a file can be at"):
        cell_of(compose([*([first] if first else []), f'{key}="~nobody_x/x"']))


def test_hydra_started_anew_beside_promptgeos_reader_of_files_keeps_it():
    """As a launcher does in each of its processes."""
    compose([])
    registry = SourcesRegistry.instance()
    registry.register(file_config_source.FileConfigSource)
    assert registry.resolve("file") is FileConfigSource
