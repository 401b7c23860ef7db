"""What would a config's interpolations come to? Counted before any is resolved: ten lines can stand for gigabytes."""

import re

from omegaconf import DictConfig, OmegaConf

from promptgeo.config.schema import flatten
from promptgeo.errors import UserError

MOST = 10**6
"""Characters."""
_INSIDE = re.compile(r"\$\{([^${}]*)")
_NAME = re.compile(r"[\w.-]+")


def require_bounded(config: DictConfig) -> None:
    """Raises UserError, which names the key, where interpolations of interpolations come to more than MOST characters.

    Whatever an interpolation names, by a relative name too, is counted whole: the sizes are upper bounds. What leads
    back to itself counts once; OmegaConf refuses it.
    """
    tree = OmegaConf.to_container(config, resolve=False)
    written = {key: str(value) for key, value in flatten(tree).items()}
    if not any("${" in text for text in written.values()):
        return
    named: dict[str, list[str]] = {}
    for key in written:
        parts = key.split(".")
        for n in range(len(parts)):
            named.setdefault(".".join(parts[: n + 1]), []).append(key)
            named.setdefault(".".join(parts[n:]), []).append(key)
    sizes: dict[str, int] = {}

    def of_name(name: str) -> int:
        while name and name not in named:  # an item of a list is counted as the list
            name = name.rpartition(".")[0]
        if name and f"${name}" not in sizes:
            sizes[f"${name}"] = 0
            sizes[f"${name}"] = sum(map(of_key, named[name]))
        return sizes.get(f"${name}", 0)

    def of_key(key: str) -> int:
        if key not in sizes:
            text, sizes[key] = written[key], 0
            names = [name.strip(".") for inside in _INSIDE.findall(text) for name in _NAME.findall(inside)]
            sizes[key] = len(text) + sum(map(of_name, names))
        return sizes[key]

    for key in written:
        if of_key(key) > MOST:
            raise UserError(f"{key}: its interpolations come to more than {MOST:,} characters")
