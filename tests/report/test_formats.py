"""The report in other formats: what the page says is said there too, each text as its format writes it."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import test_report
from test_report import Page
from test_runs import header, trained

from promptgeo.analysis.result import Claim, Finding, Outcome, store
from promptgeo.cli import report as cli_report
from promptgeo.config.compose_analyze import available
from promptgeo.report import beside, latex, markdown, page, pdf
from promptgeo.report.contents import Contents
from promptgeo.report.page import style
from promptgeo.report.study import StudyClaim
from promptgeo.runs.folder import write_run

make = test_report.make
"""The fixture."""
BROWSER = pytest.mark.skipif(pdf.printer() is None, reason="neither Chromium nor WeasyPrint is installed")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_says_what_the_page_says_and_every_link_is_a_file(make):
    made = make()
    text = markdown.render(made.material)
    assert re.match(r"# A study\?\n\n3 runs: .*\n\nHolds: “The closer claim”", text)
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        head, rule, *rows = table.splitlines()
        assert {len(cells(row)) for row in rows} == {len(cells(head))} and set(rule) == {"|", "-"}
    assert cells(tables[0].splitlines()[2])[:4] == [
        "The closer claim: Table 1, cat",
        "holds",
        "0.546",
        "0.5 [0.4, 0.6]",
    ]
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links.pop(links.index("#evidence")) and "\n## Evidence\n" in text
    assert len(links) == 9 and all((made.folder / link).is_file() for link in links)


def test_what_would_decide_an_open_claim_and_a_p_without_an_interval_stand_in_the_table_of_claims(make):
    made = make()
    result = test_report.distances("corrected", "prompt")
    result.claims = [Claim("closer", Outcome.undecidable, "Seen.", 0.3, "six runs, or two", "table1.mean")]
    variants = [({"of": "prompt", "convention": "corrected"}, result)]
    info = {"options": {}, "runs": 3, "seconds": 1.0}
    stored = store(made.folder / "analysis" / "open", "open", "k", info, variants)
    material = replace(made.material, stored=[stored], study=replace(made.material.study, analyses={"open": {}}))
    (row,) = re.findall(r"^\| The closer claim.*", markdown.render(material), re.MULTILINE)
    assert cells(row)[1] == "not decidable; it would take six runs, or two"
    assert cells(row)[-2:] == ["0.535, p \\< .0001", "400 pairs"] or cells(row)[-2:] == [
        "0.535, p < .0001",
        "400 pairs",
    ]
    claim, verdict, *_, corrected, _ = [" ".join(c.split()) for c in Page(page.render(material)).rows[1]]
    assert claim == "The closer claim. Table 1, mean it would take six runs, or two"
    assert (verdict, corrected) == ("not decidable", "0.535 p < .0001")
    assert "& 0.535, p $<$ .0001 &" in latex.render(material, {})["claims.tex"]


def test_a_figures_caption_is_its_own_title_in_every_format(make):
    """In words: no file's name, which says little to who sees the figure."""
    made = make()
    caption = "Words: words, and what is seen (as the paper counted)"
    written = latex.render(made.material, {"analysis/words/paper_bars.svg": "words.pdf"})["words.tex"]
    assert f"\\caption{{{caption}.}}" in written
    assert f"![{caption}](" in markdown.render(made.material)
    assert f"<figcaption>{caption} (" in made.html and f'aria-label="{caption}"' in made.html
    assert ": bars" not in made.html


def test_what_markdown_would_read_is_escaped(make):
    text = markdown.render(make(left_out=["a|b *c* `d` [e](f) <g> _h_\nnext"]).material)
    assert r"left out: a\|b \*c\* \`d\` \[e\](f) \<g> \_h\_ next" in text
    assert not re.search(r"(?<!\\)<three>", text) and r"\<three>" in text


def test_latex_prints_every_character_as_it_is():
    assert latex.escaped("50 % of a_b & {c} #1 $x$ ~ ^ \\ <d>") == (
        r"50 \% of a\_b \& \{c\} \#1 \$x\$ \textasciitilde{} \textasciicircum{} \textbackslash{} $<$d$>$"
    )
    assert latex.escaped("-0.5 to .7, P - P0, 3-4, x-1, [-.2]") == "$-$0.5 to .7, P - P0, 3-4, x-1, [$-$.2]"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed")
def test_latex_compiles(make, tmp_path):
    made = make(left_out=["what_has & marks"])
    for name, text in latex.render(made.material, {}).items():
        (tmp_path / name).write_text(text)
    ended = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "report.tex"], cwd=tmp_path, capture_output=True
    )
    assert ended.returncode == 0, ended.stdout.decode(errors="replace")[-2000:]


def test_latex_has_a_file_for_each_analysis_and_for_the_claims(make):
    files = latex.render(make().material, {"analysis/words/paper_bars.svg": "words.pdf"})
    assert sorted(files) == ["claims.tex", "distances.tex", "report.tex", "words.tex"]
    assert (
        r"\input{distances}" in files["report.tex"]
        and r"\includegraphics[width=\linewidth]{figures/words.pdf}" in (files["words.tex"])
    )
    assert "The closer claim & holds & 0.546 & 0.5 [0.4, 0.6] & 0.525 [0.425, 0.625] & 40 pairs" in files["claims.tex"]
    for text in files.values():
        assert text.count("\\begin{") == text.count("\\end{") and "—" not in text


@BROWSER
def test_a_figure_is_printed_at_its_own_size_on_one_page(make):
    figure = Contents(make().material).lead
    printed = pdf.needed_printer("--to pdf")(pdf.figure_page(figure.svg, style()))
    width, height = (float(re.search(rf' {side}="([\d.]+)pt"', figure.svg)[1]) for side in ("width", "height"))
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") == 1
    box = [float(number) for number in re.search(rb"/MediaBox \[([^\]]+)\]", printed)[1].split()]
    assert box[2] == pytest.approx(width, abs=1) and box[3] == pytest.approx(height, abs=1)


def test_without_a_printer_a_pdf_is_refused_and_latex_goes_without_figures(make, tmp_path, monkeypatch, capsys):
    make()
    monkeypatch.setattr(pdf, "BROWSERS", ())
    monkeypatch.setattr(pdf, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        cli_report.main([str(tmp_path), "--to", "pdf"])
    line = "promptgeo: --to pdf: needs Chromium or Chrome on the PATH, or: pip install 'promptgeo[pdf]' (WeasyPrint)\n"
    assert (ended.value.code, capsys.readouterr().err) == (2, line)
    assert not (tmp_path / "report.pdf").exists()
    cli_report.main([str(tmp_path), "--to", "latex"])
    assert "no figures" in capsys.readouterr().err
    assert not list((tmp_path / "latex" / "figures").iterdir()) and (tmp_path / "latex" / "claims.tex").is_file()


def test_a_browser_that_prints_nothing_is_a_line(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text("#!/bin/sh\necho it broke >&2\nexit 3\n")
    browser.chmod(0o755)
    with pytest.raises(pdf.UserError, match=r"browser: printed nothing \(exit status 3: it broke\)"):
        pdf._by_browser(str(browser), "<p>x</p>")


def test_two_sweeps_stand_beside_each_other_by_the_names_of_their_claims_and_numbers(make):
    one, other = make().material, make(closer=False).material
    page = Page(beside.render(one, other, ("small", "large")))
    closer = next(row for row in page.rows if row[0].startswith("The closer claim."))
    assert [" ".join(cell.split()) for cell in closer[1:]] == [
        "holds 0.525 [0.425, 0.625] n = 40 pairs",
        "does not hold 0.525 [0.425, 0.625] n = 40 pairs",
    ]
    assert page.row("Table 1, cat")[1:] == ["0.525 [0.425, 0.625]; n = 40 pairs"] * 2
    assert page.row("setting") == ["setting", "small", "large"]
    assert len(page.ids) == len(set(page.ids)) and set(page.references) <= set(page.ids)


def test_what_only_one_of_two_sweeps_has_is_not_the_others(make):
    whole = make().material
    page = Page(beside.render(whole, make(stored=whole.stored[1:]).material, ("small", "large")))
    closer = next(row for row in page.rows if row[0].startswith("The closer claim."))
    assert closer[2] == "not tested"
    assert not any(row and row[0] == "Table 1, cat" for row in page.rows)


def test_beside_is_written_next_to_the_first_and_needs_a_second_folder(make, tmp_path, capsys):
    make()
    other = tmp_path / "other"
    shutil.copytree(tmp_path / "analysis", other / "analysis")
    write_run(other / "run", header("four"), trained(4))
    first = tmp_path / "first"
    first.mkdir()
    for name in ("run0", "run1", "run2", "analysis"):
        shutil.move(tmp_path / name, first / name)
    cli_report.main([str(first), "--beside", str(other)])
    page = first / "beside_other.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {page}" and "four" in page.read_text()
    for arguments, said in (
        (["--beside", str(first)], "is the same folder; a second sweep is needed"),
        (["--beside", str(other), "--to", "md"], "--to md: two sweeps beside each other are a page"),
        (["--to", "docx"], "invalid choice: 'docx'"),
        (["--beside", str(tmp_path / "nowhere")], "no such folder"),
    ):
        before = sorted(Path(first).iterdir())
        with pytest.raises(SystemExit) as ended:
            cli_report.main([str(first), *arguments])
        err = capsys.readouterr().err
        assert ended.value.code == 2 and said in err and err.count("\n") == 1
        assert sorted(Path(first).iterdir()) == before


class Unfolded(HTMLParser):
    """The words that a reader sees before anything is unfolded."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.words = 0
        self.feed(html[html.index("<body>") : html.index("</body>")] + "</body>")

    def handle_starttag(self, tag, attributes):
        self.open += [] if tag in test_report.VOID else [tag]

    def handle_endtag(self, tag):
        if tag not in test_report.VOID:
            self.open.pop()

    def handle_data(self, data):
        folded = "details" in self.open and "summary" not in self.open
        self.words += 0 if folded or "svg" in self.open else len(data.split())


@pytest.fixture
def long(tmp_path, make):
    """A report of every analysis there is, each with forty findings, and a dozen claims."""
    finding = (
        "The prompts that were trained from one word lie closer to each other than others do, by 0.25 (0.1 to 0.3)."
    )
    stored, names = [], available()
    for k, name in enumerate(names):
        result = test_report.distances("corrected", "prompt")
        result.findings = [Finding(finding * 2, 0.25, 24, "runs", 0.1, 0.3) for _ in range(40)]
        result.claims = [Claim(f"claim{k}", Outcome.holds, finding, quantity="table1.cat")] if k < 12 else []
        folder = tmp_path / "analysis" / name
        stored.append(store(folder, name, "k", {"options": {}, "runs": 3, "seconds": 1.0}, [({}, result)]))
    claims = {
        f"claim{k}": StudyClaim(f"claim{k}", "A prompt token has more words near it than others do.", "p. 4")
        for k in range(12)
    }
    study = replace(test_report.STUDY, analyses={name: {} for name in names}, claims=claims)
    return make(stored=stored, study=study).material


def test_a_long_report_is_short_until_it_is_unfolded(long):
    words = Unfolded(page.render(long)).words
    assert 500 < words <= 2500, words


def test_each_question_says_its_method_in_three_lines(long):
    methods = {section.name: section.method for section in Contents(long).sections}
    assert "Anderson 2001" in methods["init_vs_task"] and methods["init_vs_task"] in markdown.render(long)
    assert all(len(method) <= 348 for method in methods.values())
    assert methods["decoding"] in page.render(long).replace("&#39;", "'")


@BROWSER
def test_a_long_report_is_printed_on_at_most_12_pages(long):
    printed = pdf.needed_printer("--to pdf")(page.render(long))
    assert 2 <= printed.count(b"/Type /Page\n") <= 12
