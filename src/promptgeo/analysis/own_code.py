"""Where does the code of a user's own analysis lie? In the folder of --config-dir: beside its YAML, or in that folder.

The folder is named by whoever gives the command, so its modules need no allow=[...]; those that they import from
elsewhere do.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from promptgeo.analysis.used_code import source_file


@dataclass(frozen=True)
class OwnCode:
    """The folder of --config-dir; without one (None) no code is the user's own in this sense."""

    folder: Path | None = None
    """Absolute."""

    @classmethod
    def of(cls, config_dir: str | Path | None) -> "OwnCode":
        return cls(None if config_dir is None else Path(os.path.abspath(Path(config_dir).expanduser())))

    @property
    def places(self) -> list[Path]:
        """Where its top-level modules lie: beside the YAMLs first."""
        return [] if self.folder is None else [self.folder / "analysis", self.folder]

    def has(self, module: str) -> bool:
        """Whether a module would be imported from there. Nothing is run to find out."""
        return source_file(module) in self._files(module)

    def hidden(self, module: str) -> Path | None:
        """A file that has the module's name, where another module of that name is imported instead."""
        files = [file for file in self._files(module) if file.is_file()]
        return files[0] if files and not self.has(module) else None

    def _files(self, module: str) -> list[Path]:
        """Where a module of this name would lie. Packages deeper in the folder, as in a .venv, are not of it."""
        inner = Path(*module.split("."))
        return [place / file for place in self.places for file in (inner / "__init__.py", inner.with_suffix(".py"))]

    @contextmanager
    def importable(self) -> Iterator[None]:
        """Within, its modules can be imported, from wherever the command is given. They hide no other module.

        What was imported of it is forgotten then: the next command of a notebook reads edited files, or another folder.
        """
        places = [str(place) for place in self.places if str(place) not in sys.path]
        before = set(sys.modules)
        sys.path += places
        importlib.invalidate_caches()
        try:
            yield
        finally:
            mine = [name for name in set(sys.modules) - before if self._lies_here(name)]
            for name in mine:
                del sys.modules[name]
            for place in places:
                sys.path.remove(place)

    def _lies_here(self, module: str) -> bool:
        file, folders = getattr(sys.modules[module], "__file__", None), getattr(sys.modules[module], "__path__", ())
        if file is None:  # a folder without __init__.py
            return any(place.joinpath(*module.split(".")) in map(Path, folders) for place in self.places)
        return Path(file) in self._files(module)
