"""Every notebook runs from top to bottom, and the .ipynb beside each .py is made of it."""

import json
import re

import jupytext
import nbformat
import pytest

import execute

NOTEBOOKS = execute.sources()
LARGEST = 200_000
"""Bytes of a notebook's pictures."""


def kinds(notebook) -> list[list[list[str]]]:
    """Of each code cell: the kinds of its outputs."""
    return [
        [sorted(output.get("data", {"text": ""})) for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def pictures(notebook) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [
        content
        for output in outputs
        for kind, content in output.get("data", {}).items()
        if kind in ("image/png", "image/svg+xml")
    ]


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_ipynb_is_made_of_its_py(source):
    """Same cells, in order; executed from top to bottom, without an error, a path of a machine or large pictures."""
    made = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(made)
    read = jupytext.read(source)
    assert [(c.cell_type, c.source) for c in made.cells] == [(c.cell_type, c.source) for c in read.cells], (
        f"run make notebooks: {source.name} was changed"
    )
    counts = [cell.execution_count for cell in made.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert pictures(made) and sum(map(len, pictures(made))) < LARGEST
    assert not any(output.output_type == "error" for cell in made.cells for output in cell.get("outputs", []))
    text = json.dumps([[o for o in c.get("outputs", [])] for c in made.cells])
    text = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not re.search(r"/(tmp|home|root|Users|work|usr|var)/|site-packages|stderr", text)


@pytest.mark.long
@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(source):
    """It shows what the .ipynb shows, up to a processor's bits; a second time on one machine it shows the very same."""
    executed = execute.executed(source)
    committed = nbformat.read(source.with_suffix(".ipynb"), as_version=4)
    assert kinds(executed) == kinds(committed)
    if source == NOTEBOOKS[0]:
        assert execute.text_of(execute.executed(source)) == execute.text_of(executed)
