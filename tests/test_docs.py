"""What the documentation says can be followed: links lead somewhere, commands run, every key has a meaning."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

import keys
from promptgeo.config.schema import keys as all_keys

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "benchmarks/README.md",
        ROOT / "src/promptgeo/tiny/CARD.md",
    ]
)
FOLLOWED = [*sorted((ROOT / "docs" / "howto").glob("*.md")), ROOT / "docs" / "tutorial.md"]
"""Pages whose ```bash blocks are one script: it is given in a fresh clone."""
LEAVES = {
    "task": ("howto_task/tiny-next_number-cat-*/run.json", ""),
    "init": ("howto_init/tiny-country_capital-middle-*/run.json", ""),
    "model": ("howto_named/my_model-*/run.json", ""),
    "analysis": ("howto_analysis/analysis/length/result.json", "Prompt tokens are"),
    "study": ("my_study/report.html", "report: outputs/my_study/report.html"),
    "metric": ("howto_metric/*/metrics.csv", "tokens_recited,worst_loss"),
    "logger": ("howto_logger/*.log", "step 2, test: loss"),
    "tutorial": ("adhoc/analysis/curves/result.json", "The trained prompts solve"),
}
"""Of each of them: a file that it leaves in outputs/, and what its commands say."""
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", BLOCK.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """Relative ones, to a file or a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = unquote(target).partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_there_is_a_howto_for_each_thing_that_people_add():
    assert {page.stem for page in FOLLOWED} == set(LEAVES)


def test_every_key_has_a_meaning():
    """On the page that the site makes of the schema."""
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.*?) \| ", keys.keys_page(), re.MULTILINE))
    assert list(sorted(rows)) == sorted(all_keys())
    defaults = dict(re.findall(r"^\| `([\w.]+)` .* \| (\S*) \|$", keys.keys_page(), re.MULTILINE))
    wanted = {"seed": "`0`", "overwrite": "`false`", "optimizer.clip": "`null`", "prompt.length": "`4`"}
    assert {key: defaults[key] for key in wanted} == wanted
    assert not [key for key, meaning in rows.items() if len(meaning) < 8]
    assert rows["optimizer.clip"] == "largest L2 norm of a run's own gradient"
    assert keys.PLACE in (ROOT / "docs" / "keys.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "file"), [("citation-file-format", "CITATION.cff"), ("github-workflows", ".github/workflows/test.yml")]
)
def test_files_for_others_are_as_these_read_them(kind, file):
    """By the schemas that check-jsonschema brings with it."""
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", str(ROOT / file)]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout


def test_workflows_test_each_python_that_the_package_allows():
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    low, high = map(int, re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', pyproject).groups())
    workflow = (ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8")
    assert re.findall(r'"3\.(\d+)"', re.search(r"python: \[(.*)\]", workflow)[1]) == [str(k) for k in range(low, high)]
    assert "make lint" in workflow and "make test" in workflow and "twine check" in workflow


@pytest.fixture
def clone(tmp_path) -> Path:
    """What of the project its package needs, as in a fresh clone."""
    folder = tmp_path / "clone"
    for part in ("src", "conf", "sweeps"):
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def give(script: str, folder: Path) -> str:
    """A script's standard output; what it says where it fails is the test's."""
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HF_HUB_OFFLINE": "1",
    }
    command = ["bash", "-euo", "pipefail", "-c", script]
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    return said.stdout


@pytest.mark.long
@pytest.mark.parametrize("page", FOLLOWED, ids=lambda p: p.stem)
def test_a_page_can_be_followed_word_for_word(page, clone):
    scripts = blocks(page, "bash")
    assert scripts
    said = give("\n".join(scripts), clone)
    if python := blocks(page, "python"):
        (clone / "page.py").write_text("\n".join(python), encoding="utf-8")
        give("python page.py", clone)
    file, text = LEAVES[page.stem]
    assert list(clone.glob(f"outputs/{file}"))
    assert text in said


@pytest.mark.long
def test_readmes_python_runs(clone):
    """After a cut-down `make demo`, whose runs it reads; and so does what docs/analyses.md has of hidden states."""
    give("promptgeo-train sweep=quickstart training.max_steps=2 task.split.max_test=10 -m > table.txt", clone)
    (states,) = (code for code in blocks(ROOT / "docs" / "analyses.md", "python") if "lm.hidden" in code)
    code = [*blocks(ROOT / "README.md", "python"), states]
    (clone / "readme.py").write_text("\n".join(code), encoding="utf-8")
    give("python readme.py", clone)


class _Loads(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self):
        super().__init__()
        self.loads, self.leads, self.ids = [], [], set()

    def handle_starttag(self, tag, attributes):
        named = dict(attributes)
        self.ids.add(named.get("id"))
        if tag in ("script", "img", "source", "iframe") and named.get("src"):
            self.loads.append(named["src"])
        if tag == "link" and named.get("rel") in ("stylesheet", "preload", "icon", "prefetch"):
            self.loads.append(named["href"])
        if tag == "a" and named.get("href"):
            self.leads.append(named["href"])


def seen(page: Path) -> _Loads:
    parser = _Loads()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@pytest.mark.long
def test_the_site_is_made_without_a_network_and_loads_nothing_from_outside(tmp_path):
    """Of what git has: -W makes a warning an error. Every link within it leads to a page and a place on it."""
    site = tmp_path / "site"
    alone = (
        ["unshare", "-rn"]
        if shutil.which("unshare") and not subprocess.run(["unshare", "-rn", "true"]).returncode
        else []
    )
    command = [*alone, sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs"]
    command += ["-d", str(tmp_path / "doctrees"), ".", str(site)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    pages = {page.resolve(): seen(page) for page in site.rglob("*.html")}
    assert len(pages) > 25
    for page, found in pages.items():
        assert not [url for url in found.loads if re.match(r"(https?:)?//", url)], page
        for target in found.leads:
            path, _, anchor = unquote(target).partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), f"{page}: {target}"
            assert not anchor or there not in pages or anchor in pages[there].ids, f"{page}: {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\'\"]?(https?:)?//|@import", style.read_text(encoding="utf-8")), style
    text = (site / "docs" / "keys.html").read_text(encoding="utf-8")
    assert [key for key in all_keys() if key not in text] == []
