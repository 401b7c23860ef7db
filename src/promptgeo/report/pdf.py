"""How does a page become a PDF? An installed Chromium prints it, or WeasyPrint where there is none."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from promptgeo.errors import UserError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
LONGEST = 120
"""Seconds that a browser may take for a page."""
OPTIONS = (
    "--headless",
    "--no-sandbox",  # as root, in a container, Chromium starts in no other way; the page is ours and loads nothing
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-pdf-header-footer",
)
_TAG = re.compile(r"<svg[^>]*>")
_SIDES = tuple(re.compile(rf'\s{side}="([\d.]+)pt"') for side in ("width", "height"))

Printer = Callable[[str], bytes]
"""HTML text -> PDF."""


def printer() -> Printer | None:
    """What prints here; None: nothing does."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is not None:
        return lambda html: _by_browser(browser, html)
    return _by_weasyprint if find_spec("weasyprint") else None


def needed_printer(option: str) -> Printer:
    """Raises UserError where nothing prints."""
    found = printer()
    if found is None:
        raise UserError(
            f"{option}: needs Chromium or Chrome on the PATH, or: pip install 'promptgeo[pdf]' (WeasyPrint)"
        )
    return found


def figure_page(svg: str, style: str) -> str:
    """A page of the figure's size that holds nothing else. svg: as inline_svg gives it; style: what its colours are.

    Raises ValueError where the figure does not say its size.
    """
    tag = _TAG.match(svg)
    sides = [side.search(tag[0]) if tag else None for side in _SIDES]
    width, height = (side[1] if side else None for side in sides)
    if width is None or height is None:
        raise ValueError("it does not say its size in points")
    own = f"@page {{ size: {width}pt {height}pt; margin: 0 }} body {{ margin: 0 }} svg {{ display: block }}"
    return f'<!DOCTYPE html><meta charset="utf-8"><style>{style} {own}</style><figure>{svg}</figure>'


def _by_browser(browser: str, html: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="promptgeo-") as folder:
        page, target = Path(folder) / "page.html", Path(folder) / "page.pdf"
        page.write_text(html, encoding="utf-8")
        own = (f"--user-data-dir={folder}/profile", f"--print-to-pdf={target}", page.as_uri())
        try:
            ended = subprocess.run([browser, *OPTIONS, *own], capture_output=True, timeout=LONGEST, check=False)
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{browser}: does not end (it had {LONGEST} s for one page)") from error
        if ended.returncode != 0 or not target.is_file():
            last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
            raise UserError(f"{browser}: printed nothing (exit status {ended.returncode}: {last[0]})")
        return target.read_bytes()


def _by_weasyprint(html: str) -> bytes:
    import weasyprint

    return weasyprint.HTML(string=html).write_pdf()
