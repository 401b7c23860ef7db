"""The pages of docs/results/ say what the CSVs beside them say, and no measured number on them is typed."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NAMES = re.compile(
    r"Gemma 3 270M|Q4_K_M|fp32|bf16|gamma = \.01|less\s+than 2 %|below 2 %|95 %|F1|GPT-2|et al\. 2022|P0"
)
"""Names, and settings that the sentence is about: no measured numbers."""


@pytest.fixture(scope="module")
def pages():
    spec = importlib.util.spec_from_file_location("pages", RESULTS / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_is_what_its_csvs_make(pages):
    made = pages.pages()
    assert [folder.name for folder in made] == ["wayward"]
    for folder in made:
        assert (folder / "README.md").read_text(encoding="utf-8") == pages.rendered(folder)


def test_no_measured_number_is_typed(pages):
    for folder in pages.pages():
        text = (folder / "page.md.j2").read_text(encoding="utf-8")
        prose = re.sub(r"{{.*?}}|{%.*?%}|```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
        typed = [line for line in NAMES.sub("", prose).splitlines() if re.search(r"\d", line)]
        assert typed in ([], ["| none | 0 |  |  () | |"])


@pytest.fixture
def copied(pages, tmp_path):
    return shutil.copytree(RESULTS / "wayward", tmp_path / "wayward")


def test_another_number_is_another_page(pages, copied):
    numbers = copied / "numbers.csv"
    before = numbers.read_text(encoding="utf-8")
    numbers.write_text(before.replace("f1.own.g0.01,1,", "f1.own.g0.01,0.25,"), encoding="utf-8")
    page = pages.rendered(copied)
    assert page != (copied / "README.md").read_text(encoding="utf-8") and "| 0.01 | .250 |" in page


def test_a_number_that_is_not_there_or_not_clear_is_named(pages, copied):
    (copied / "page.md.j2").write_text('{{ number("f1.nothing").value }}', encoding="utf-8")
    with pytest.raises(LookupError, match=r"wayward/numbers.csv: 0 rows have quantity f1.nothing"):
        pages.rendered(copied)
    numbers = copied / "numbers.csv"
    lines = numbers.read_text(encoding="utf-8").splitlines()
    twice = next(line for line in lines if ",f1.own.g0," in line)
    numbers.write_text("\n".join([*lines, twice]), encoding="utf-8")
    (copied / "page.md.j2").write_text('{{ number("f1.own.g0").value }}', encoding="utf-8")
    with pytest.raises(LookupError, match=r"2 rows have quantity f1.own.g0"):
        pages.rendered(copied)


def test_numbers_read_as_on_a_page(pages):
    assert [pages.share(0.5218), pages.share(1.0), pages.share(-0.25), pages.share(0.3, 1)] == [
        ".522",
        "1.000",
        "-.250",
        ".3",
    ]
    assert [pages.percent(0.271), pages.percent(-0.001), pages.points(0.17)] == ["27 %", "0 %", "+17.0 points"]
    assert pages.between({"low": -0.001, "high": 0.039}, 100, 0) == "0 to 4"
