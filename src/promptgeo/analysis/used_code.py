"""Which code does an analysis run? The sources of its module and of all that it imports, read without running them."""

import ast
import importlib.util
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path


def used_code(*modules: str, also: Callable[[str], bool] = lambda module: False) -> dict[str, str]:
    """Module name -> source text, of these modules and of every module that they import, directly or not.

    Imports are followed within promptgeo, within the modules' own top-level packages and to modules that `also` says,
    wherever they stand: in a function or under TYPE_CHECKING too. A page (.html) beside a module that has its name
    belongs to it. A module brings the packages that it lies in, which Python imports with it; promptgeo's own
    `__init__` only where it is named, because it forwards to all of promptgeo. Imports by a computed name are not seen.
    """
    followed = {"promptgeo", *(module.partition(".")[0] for module in modules)}
    sources: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        path = source_file(name)
        if name in sources or path is None:
            continue
        text = path.read_text(encoding="utf-8")
        sources[name] = "".join([text, *(own.read_text(encoding="utf-8") for own in _beside(path))])
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        imported = [module for module in _imported(text, package) if module not in sources]
        todo += [module for module in imported if module.partition(".")[0] in followed or also(module)]
        todo += [outer for outer in _packages(name) if outer != "promptgeo"]
    return sources


def _beside(path: Path) -> list[Path]:
    """The page that a module fills, where one of its name lies beside it: atlas_page.html."""
    own = path.with_suffix(".html")
    return [own] if own.is_file() else []


def _imported(text: str, package: str) -> Iterator[str]:
    """The modules that a source text imports; `package`: where its relative imports begin."""
    for module, name in _import_statements(text, package):
        if name is None:
            yield module
        else:  # from module import name: another module, or something in this one
            inner = f"{module}.{name}"
            yield inner if source_file(inner) else module


@lru_cache(maxsize=1024)  # the analyses of a command share most of what they import
def _import_statements(text: str, package: str) -> tuple[tuple[str, str | None], ...]:
    """(module, name) of every import in a source text; name None where the module itself is imported."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a file that Python never gets to run
        return ()
    imports: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                imports.append((alias.name, None))
                if alias.asname is None:  # `import a.b` gives the name `a`, and with it all that a's __init__ holds
                    imports += [(outer, None) for outer in _packages(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            start = package.rsplit(".", node.level - 1)[0] if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            imports += [(module, alias.name) for alias in node.names]
    return tuple(imports)


def _packages(module: str) -> list[str]:
    """a.b.c -> a.b, a"""
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def source_file(module: str) -> Path | None:
    """A module's source file; None where it has none. Python's own finders look up its top-level package only."""
    top, *inner = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # ValueError: __main__ has no spec
        return None
    if spec is None:
        return None
    if not inner:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder, *inner)
        for file in (place / "__init__.py", place.with_suffix(".py")):
            if file.is_file():
                return file
    return None
