"""The house stands as docs/structure.md draws it: imports go down, and nothing after a run folder knows of training.

All imports are read from the source: those inside functions and under TYPE_CHECKING too.
"""

import ast
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "promptgeo"
DOORS = tuple(f"promptgeo.{door}" for door in ("train", "analyze", "reproduce", "report.__main__", "__main__"))
FILES = sorted(path for folder in ("src", "tests", "benchmarks", "docs") for path in (ROOT / folder).rglob("*.py"))
YAMLS = sorted(path for folder in ("conf", "sweeps") for path in (ROOT / folder).rglob("*.yaml"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "README.md"])


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(module: str) -> frozenset[str]:
    """The modules of promptgeo that a module names in an import, or in import_module("...")."""
    names = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                names.add(inside if inside in MODULES else str(node.module))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return frozenset(name for name in names if name in MODULES and name != module)


def wings() -> list[str]:
    """From the bottom up, as docs/structure.md has them."""
    text = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^    (errors < .+)$", text, re.MULTILINE)
    return line.split(" < ")


def wing(module: str) -> str:
    return module.split(".")[1] if module != "promptgeo" else ""


def reachable(module: str) -> set[str]:
    seen, todo = set(), [module]
    while todo:
        for name in imports(todo.pop()) - seen:
            seen.add(name)
            todo.append(name)
    return seen


def test_every_module_belongs_to_a_wing_that_the_structure_names():
    assert {wing(m) for m in MODULES if m not in ("promptgeo", *DOORS)} == set(wings())


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ("promptgeo", *DOORS)])
def test_a_wing_imports_only_what_lies_below_it(module):
    floor = {name: k for k, name in enumerate(wings())}
    climbs = [
        name
        for name in imports(module)
        if name in ("promptgeo", *DOORS) or (wing(name) != wing(module) and floor[wing(name)] >= floor[wing(module)])
    ]
    assert not climbs, f"{module} imports {climbs}, which lie above it"


def test_no_modules_import_each_other_in_a_circle():
    list(TopologicalSorter({module: imports(module) for module in MODULES}).static_order())  # raises CycleError


def test_what_comes_after_a_run_folder_knows_nothing_of_training():
    for module in MODULES:
        if wing(module) in ("analysis", "report") and module not in DOORS:
            climbs = [name for name in reachable(module) if wing(name) in ("training", "cli")]
            assert not climbs, f"{module} reaches {climbs}"


def test_no_question_imports_another():
    questions = [module for module in MODULES if module.startswith("promptgeo.analysis.questions.")]
    assert len(questions) >= 21
    for module in questions:
        assert not imports(module) & set(questions), module


def test_nobody_imports_the_doors():
    for module in MODULES:
        assert not imports(module) & set(DOORS), module
    for door in DOORS:
        assert len(MODULES[door].read_text(encoding="utf-8").splitlines()) <= 8


def test_a_user_reads_no_line_over_120_characters():
    wide = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in (*FILES, *YAMLS, *(ROOT / "notebooks").glob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120
    ]
    assert not wide


def test_long_functions_say_why():
    """A function of more than 60 lines has a comment `# Long because ...` right under its docstring."""
    for module, path in MODULES.items():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
                body = "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])
                assert "# Long because" in body, f"{module}.{node.name}: {node.end_lineno - node.lineno + 1} lines"


def test_no_two_test_files_share_a_name():
    """pytest imports them all by their bare names and collects nothing from the second."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py")]
    assert sorted(names) == sorted(set(names))


def test_the_formatter_is_left_out_at_most_five_times():
    skips = [
        line
        for path in FILES
        if path != Path(__file__)
        for line in path.read_text(encoding="utf-8").splitlines()
        if "# fmt:" in line
    ]
    assert len(skips) <= 5


def test_the_structure_names_every_file():
    text = (ROOT / "docs" / "structure.md").read_text(encoding="utf-8")
    for module, path in MODULES.items():
        assert path.name == "__init__.py" or f"`{path.name}`" in text, module


def test_texts_name_only_modules_and_functions_that_exist():
    """CHANGELOG.md alone names modules of before."""
    for path in (*FILES, *YAMLS, *PAGES):
        if path.name in ("CHANGELOG.md", "test_architecture.py"):
            continue
        for name in set(re.findall(r"\bpromptgeo(?:\.[a-z_]\w*)+", path.read_text(encoding="utf-8"))):
            module, _, last = name.rpartition(".")
            named = name in MODULES or (module in MODULES and last in MODULES[module].read_text(encoding="utf-8"))
            assert named or name == "promptgeo.__file__", f"{path.relative_to(ROOT)}: {name}"
