"""Config files that would hang, fill the memory or recurse: one line each, at once."""

from pathlib import Path

import pytest

from promptgeo.config.bounded import MOST_LEVELS, check_yaml
from promptgeo.config.compose import compose
from promptgeo.config.compose_analyze import compose_analyze
from promptgeo.config.paths import conf_dir
from promptgeo.config.validate import validate
from promptgeo.errors import UserError


def laughs(levels: int, repeats: int = 10) -> str:
    """Each level is `repeats` times the one before: repeats to the power of levels values."""
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * repeats)}]" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


def merges(levels: int) -> str:
    lines = ["m0: &m0 {k0: 1}"]
    lines += [f"m{k}: &m{k} {{<<: [*m{k - 1}, *m{k - 1}], k{k}: 1}}" for k in range(1, levels)]
    return "\n".join(lines) + "\n"


REFUSED = {
    "deep list": (f"name: {'[' * 3000}{']' * 3000}", f"is nested more than {MOST_LEVELS} levels deep"),
    "deep sections": (
        "".join(f"{'  ' * k}a:\n" for k in range(2000)),
        f"is nested more than {MOST_LEVELS} levels deep",
    ),
    "laughs": (laughs(9), "is more than 50,000 values, aliases replaced by what they name"),
    "merges": (merges(16), "is more than 50,000 values, aliases replaced by what they name"),
    "itself": ("name: mine\nsource: &s {kind: *s}\n", "holds itself (a YAML alias within what it names)"),
    "large": (f"description: {'x' * 5_000_000}\n", "is larger than 4 MiB"),
    "digits": (f"version: {'9' * 10_000}\n", "holds a number of thousands of digits"),
}
ENCODED = ("utf-16", "utf-32", "latin-1")


@pytest.fixture
def mine(tmp_path):
    """Makes task=mine of these bytes; the command line that asks for it."""

    def make(content: bytes) -> list[str]:
        (tmp_path / "task").mkdir(exist_ok=True)
        (tmp_path / "task" / "mine.yaml").write_bytes(content)
        return [f"hydra.searchpath=[file://{tmp_path}]", "task=mine"]

    return make


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_would_not_end_is_one_line(mine, name):
    text, said = REFUSED[name]
    with pytest.raises(UserError) as refused:
        compose(mine(text.encode()))
    assert f"task/mine.yaml: {said}" in str(refused.value)


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_file_in_another_encoding_is_one_line(mine, encoding):
    with pytest.raises(UserError, match=r"task/mine\.yaml: is no text in UTF-8"):
        compose(mine("name: é\n".encode(encoding)))


@pytest.mark.parametrize("defaults", ["[mine]", "[/task@_here_: mine]"])
def test_a_config_that_defaults_to_itself_is_one_line(mine, defaults):
    with pytest.raises(UserError, match="a config names itself in its 'defaults:'"):
        compose(mine(f"defaults: {defaults}\nname: mine\n".encode()))


def test_a_value_that_is_nested_too_deeply_on_a_command_line_is_one_line():
    with pytest.raises(UserError, match="nested too deeply"):
        compose([f"task.few={'[' * 2000}{']' * 2000}"])


def test_aliases_that_stand_for_little_are_read(mine):
    read = compose(mine(b"name: &n mine\ndescription: *n\nlabels: [a, b]\nsource: {kind: bundled}\n"))
    assert read.task.description == "mine"
    for path in Path(conf_dir()).rglob("*.yaml"):
        check_yaml(path)


def test_an_analysis_file_of_ones_own_is_read_within_the_same_bounds(tmp_path):
    (tmp_path / "analysis").mkdir()
    (tmp_path / "analysis" / "own.yaml").write_text(laughs(9))
    with pytest.raises(UserError, match=r"analysis/own\.yaml: is more than 50,000 values"):
        compose_analyze(["runs=x", "analysis=[own]"], tmp_path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("device=tpu", "device=tpu: must be auto, cpu, cuda"),
        ("precision=int8", "precision=int8: must be auto, fp32, bf16"),
    ],
)
def test_where_an_analysis_runs_is_checked_before_a_model_is_loaded(override, said):
    with pytest.raises(UserError, match=f"^{said}$"):
        compose_analyze(["runs=x", "analysis=[curves]", override])


@pytest.mark.parametrize("logger", ["[[]]", "[wandb,[a]]", "{a:1}"])
def test_a_logger_that_is_no_name_is_one_line(logger):
    with pytest.raises(UserError, match=r"^logger=.*: must be null, tensorboard or wandb, or a list of them$"):
        validate(compose([f"logger={logger}"]))
