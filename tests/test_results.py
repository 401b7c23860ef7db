"""The pages of docs/results say what the CSVs beside them say, and no number on them is typed by hand."""

import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qsl

import pandas as pd
import pytest
from jinja2 import UndefinedError, nodes

import make
import pages

TEMPLATES = sorted(pages.HERE.glob("*/page.md.j2"))
NAMES = [
    "Gemma 3 270M",
    "GPT-2",
    "Q4_K_M",
    "bf16",
    "fp32",
    "Study 2",
    "study 1",
    "et al. 2018",
    "et al. 2022",
    "et al. 2021",
    "et al. 2024",
    "et al. 2025",
    "T5",
    "GPT-3",
    "P0",
    "F1",
    "95 %",
    "1 less",
]
"""What a template may write with a digit: names, a convention (95 % intervals) and a formula (1 less the accuracy)."""
SMALL = {0, 1, 2, 3, 100}
"""Number literals that expressions need: digits after the point, comparisons with 0, percent."""


def digits(text: str) -> list[str]:
    """What of a text holds a digit, beside NAMES."""
    known = "|".join(rf"(?<!\w){re.escape(name)}(?!\d)" for name in NAMES)
    return re.findall(r"\S*\d\S*", re.sub(known, "", text))


def prose(template: str) -> str:
    """A template without expressions, blocks, comments, fences and code spans."""
    text = re.sub(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", "", template, flags=re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


@pytest.fixture
def copy(tmp_path):
    """A copy of the results, to be spoiled."""
    return shutil.copytree(pages.HERE, tmp_path / "results")


def change(path: Path, where: str, becomes: str) -> None:
    """Write another value, "column=value", into the first row of a CSV that is "column=value&column=value"."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = dict(parse_qsl(where))
    ((column, value),) = parse_qsl(becomes)
    row = next(row for row in rows if row.items() >= wanted.items())
    assert row[column] != value
    row[column] = value
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_every_page_is_what_its_csvs_give():
    made = pages.pages()
    assert set(made) == set(pages.HERE.rglob("README.md"))
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.parent.name}: run python docs/results/pages.py"


@pytest.mark.parametrize("template", [*TEMPLATES, pages.HERE / "index.md.j2"], ids=lambda path: path.parent.name)
def test_no_number_of_a_page_is_typed_by_hand(template):
    text = template.read_text(encoding="utf-8")
    assert not digits(prose(text))
    tree = pages.environment(template.parent).parse(text)
    for output in tree.find_all(nodes.Output):
        assert not [node.value for node in output.nodes if isinstance(node, nodes.Const)]
    for value in (const.value for const in tree.find_all(nodes.Const)):
        quantity = re.fullmatch(r"[a-z_][\w.]*", str(value))  # such as above_p0.cb: a row's name, not its value
        assert value in SMALL if isinstance(value, int | float) else quantity or not digits(str(value)), value


def test_a_typed_number_would_be_found():
    assert digits(prose("solves .522 {{ x }} of P0's 56 rows\n```\nseed=0\n```\nas `lr=1`")) == [".522", "56"]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.parent.name)
def test_notes_are_used_and_those_of_a_command_stand_in_it(template):
    text = template.read_text(encoding="utf-8")
    page = (template.parent / "README.md").read_text(encoding="utf-8")
    commands = " ".join(re.findall(r"^```\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))
    with (template.parent / "notes.csv").open(encoding="utf-8") as file:
        for note in csv.DictReader(file):
            assert re.search(rf"""note\(['"]{note["name"]}['"]\)""", text)
            assert note["source"]
            if setting := re.fullmatch(r"command: (.+)", note["source"]):
                assert setting[1] in commands


@pytest.mark.parametrize(
    ("file", "where", "becomes", "says"),
    [
        ("superglue/classes_numbers", "quantity=label_accuracy.cb", "value=0.511", "| .511 (.390 to .643) |"),
        ("superglue/classes_numbers", "quantity=above_p0.wsc", "high=0.0999", "+.012 (-.047 to +.100) |"),
        ("superglue/classes_confusion", "task=wsc&init=task_text&prompt=final", "n=460", "| wsc | 104 | .752 |"),
        ("superglue/runs", "task=cb", "label_accuracy_none=0.9", "| cb | 56 | .500 | .191 |"),
        ("superglue/inits_numbers", "quantity=difference.time", "value=-0.115", "are .12 of the steps faster"),
        ("superglue/semantics_numbers", "convention=corrected&quantity=difference.hits.cosine", "p=0.01", "(p = .01)"),
        ("superglue/stochasticity_numbers", "quantity=component.order", "value=7.5", "of one P0 by 8 (1,073 to"),
        ("superglue/transfer_numbers", "quantity=improves.share.exact", "low=0.005", "27 % (1 to 56 %) of the 30"),
        ("superglue/transfer_corrected_transfers", "source=wsc&target=wic", "gain_over_none=0", "5 of these 7"),
        ("superglue/rotten_tomatoes_runs", "seed=3", "label_accuracy=0.1", "Seeds: .563, .697, .710, .100."),
        ("superglue/notes", "name=max_input_tokens", "value=256", "Inputs are cut to 256"),
        ("mechanism/numbers", "quantity=recovery.prompt", "low=0.55", "74 % (55 to 83 %)"),
        ("mechanism/ways", "task=present_past&way=prompt", "layer=10", "| .850 | 88 % | 10 |"),
        ("mechanism/injected", "task=landmark_country&way=prompt&vector=own", "injected=0.1", "| .508 | .367 |"),
        ("mechanism/cosines", "layer=17", "same=0.1", "(.21 within tasks"),
        ("wayward/numbers", "quantity=f1.own.g0.01", "value=0.25", "| 0.01 | .250 |"),
        ("wayward/tiny_numbers", "quantity=drop.write_it_with_a.g0.01", "low=-0.5", ".2 % (-50 to 4 %)"),
        ("wayward/waywardness", "run=11", "nearest=cat", "5 of 6 runs have just"),
    ],
)
def test_another_value_in_a_csv_is_another_page(copy, file, where, becomes, says):
    path = copy / f"{file}.csv"
    before = str(pages.page(path.parent))
    change(path, where, becomes)
    assert says not in before
    assert says in str(pages.page(path.parent))


def test_words_that_the_numbers_no_longer_say_are_an_error(copy):
    change(copy / "superglue" / "classes_numbers.csv", "quantity=label_accuracy.rte", "low=0.8")
    with pytest.raises(pages.PageError, match="the numbers no longer say 'none'"):
        pages.page(copy / "superglue")


def test_a_quantity_that_is_not_one_row_is_an_error_that_names_it():
    folder = pages.Folder(pages.HERE / "superglue")
    with pytest.raises(pages.PageError, match=r"superglue/classes_numbers\.csv: 0 rows, .* 'label_accuracy\.cbb'"):
        folder.numbers("classes")("label_accuracy.cbb")
    with pytest.raises(pages.PageError, match=r"superglue/semantics_numbers\.csv: 2 rows, .* 'hits\.cosine'"):
        folder.numbers("semantics")("hits.cosine")
    assert folder.numbers("semantics")("hits.cosine", convention="paper").n == 24
    with pytest.raises(pages.PageError, match=r"superglue/notes\.csv: 0 rows, .* 'size'"):
        folder.note("size")
    with pytest.raises(pages.PageError, match=r"superglue/runs\.csv: no rows where \{'task': 'cbb'\}"):
        folder.rows("runs", task="cbb")


def test_an_unknown_name_or_column_of_a_template_is_an_error(copy):
    for expression in ("{{ acuracy }}", "{{ rows('runs').acuracy.mean() }}", "{{ numbers('inits')('x').mean }}"):
        (copy / "superglue" / "page.md.j2").write_text(expression, encoding="utf-8")
        with pytest.raises((UndefinedError, pages.PageError), match=r"acuracy|'x'"):
            pages.page(copy / "superglue")


def test_numbers_are_written_as_the_pages_have_them():
    row = pages.Number(value=0.5325, low=-0.0747, high=0.5, p=0.35, n=8, unit="runs")
    write = pages.FILTERS
    assert [write["share"](row), write["share"](1.0), write["share"](-0.029, 2)] == [".533", "1.000", "-.03"]
    assert [write["signed"](0.0396), write["signed"](-0.0004)] == ["+.040", ".000"]
    assert [write["percent"](0.125), write["percent"](0.00063, 1), write["percent"](0)] == ["13 %", ".1 %", "0 %"]
    assert [write["points"](0.1675), write["points"](-0.00917, 1), write["points"](0.17, signed=False)] == [
        "+17",
        "-.9",
        "17",
    ]
    assert [write["whole"](1201.18), write["word"](5), write["word"](0)] == ["1,201", "five", "no"]
    assert [write["interval"](row), write["span"](row, "percent")] == ["(-.075 to .500)", "-7 to 50 %"]
    assert write["span"](-row, "signed", 2) == "-.50 to +.07"
    with pytest.raises(pages.PageError, match="leaves empty"):
        write["share"](float("nan"))
    with pytest.raises(pages.PageError, match="has no word"):
        write["word"](3.5)


@pytest.mark.parametrize("page", [template.parent.name for template in TEMPLATES])
def test_a_pages_grid_names_every_file_beside_it_and_the_page_its_commands(page):
    grid, beside = pages.grid_of(page), {path.name for path in (pages.HERE / page).iterdir()}
    made = {*grid["files"], *grid.get("runs", {})}
    assert beside == made | {"README.md", "page.md.j2", "grid.yaml", "notes.csv"}
    _, fence, _ = (pages.HERE / page / "README.md").read_text(encoding="utf-8").split("\n```\n")
    shown = [shlex.split(line) for line in fence.replace("\\\n", "").splitlines()][:-1]
    run = make.commands(page, tiny=False, model="MODEL", data="DATA", outputs="outputs")
    assert shown == [["python", "-m", *(word for word in command if word != "outputs=outputs")] for command in run]


@pytest.mark.long
@pytest.mark.parametrize("page", [path.parent.name for path in TEMPLATES if "tiny" in pages.grid_of(path.parent.name)])
def test_a_pages_commands_make_all_that_it_reads(page, tmp_path):
    """Cut down, on the embedded model: files of the same columns, but for a number's values."""
    make.make(page, tmp_path / page, True, model=make.TINY, data="", outputs=tmp_path / "outputs")
    for path in (tmp_path / page).iterdir():
        if path.suffix == ".csv":
            first, ours = (
                pd.read_csv(file, nrows=0).columns.tolist() for file in (path, pages.HERE / page / path.name)
            )
            assert first == ours, path.name
    grid = pages.grid_of(page)
    assert {path.name for path in (tmp_path / page).iterdir()} == {*grid["files"], *grid.get("runs", {})}


def test_what_cannot_be_made_is_one_line_and_nothing_is_run(tmp_path):
    for arguments, says in (
        (["nowhere", "--model", "m"], "nowhere: no page of"),
        (["wayward"], "--model FOLDER is needed"),
        (["--tiny"], "--tiny needs --into"),
    ):
        script = [sys.executable, pages.HERE / "make.py", *arguments]
        done = subprocess.run(script, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 2 and says in done.stderr.splitlines()[-1]
    assert not list(tmp_path.iterdir())
