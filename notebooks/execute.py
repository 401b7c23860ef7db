"""Executes the notebooks: each .py (jupytext, percent format) becomes the .ipynb beside it, with outputs.

python notebooks/execute.py [NAME ...]

The .py is what people edit; the .ipynb is made of it. What a machine or a clock decides is left out: progress (standard
error), times, the Python that ran it. So the second execution on one machine writes the same bytes.
"""

import os
import re
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
CELL_SECONDS = 600
ANSI = re.compile(r"\x1b\[[0-9;]*m")
"""Colours: the kernel makes commands believe in a terminal."""


def sources() -> list[Path]:
    """The notebooks' .py files, in their order."""
    return sorted(HERE.glob("[0-9]*.py"))


def executed(source: Path) -> NotebookNode:
    """The notebook of a .py, executed in a folder that is gone afterwards.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    notebook = jupytext.read(source)
    with tempfile.TemporaryDirectory() as folder:
        # Notebooks make folders of their own in TMPDIR; their shell cells find the commands of this environment.
        found = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        with patch.dict(os.environ, {"TMPDIR": folder, "PATH": found, "HF_HUB_OFFLINE": "1"}):
            client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", record_timing=False)
            client.execute(cwd=folder)
    return cleaned(notebook)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """Without what differs from one execution to the next, or from one machine to the next."""
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # jupytext draws them
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = _in_one(cell.outputs)
    return notebook


def _in_one(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Without standard error, and what a command wrote in one piece: where it is cut is a matter of time."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type != "stream":
            kept.append(output)
        elif output.name == "stdout":
            output.text = ANSI.sub("", output.text)
            if kept and kept[-1].output_type == "stream":
                kept[-1].text += output.text
            else:
                kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = ANSI.sub("", output.text)  # also those that were cut in two
    return kept


def text_of(notebook: NotebookNode) -> str:
    """The .ipynb file's text."""
    return nbformat.writes(notebook) + "\n"


def main(names: list[str]) -> None:
    for source in sources():
        if not names or source.stem in names:
            source.with_suffix(".ipynb").write_text(text_of(executed(source)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
