"""The report: a page made of stored results, a study's file and run folders; another result makes another page."""

import re
import shutil
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from types import SimpleNamespace

import pandas as pd
import pytest
from test_convexity import PUBLISHED
from test_runs import header, trained

from promptgeo import UserError
from promptgeo.analysis.deciding import Premise, decided
from promptgeo.analysis.figures import panels, svg
from promptgeo.analysis.geometry.verdict import verdict
from promptgeo.analysis.result import Claim, Finding, Outcome, Result, Stored, store
from promptgeo.cli import report as cli_report
from promptgeo.report.answer import answer
from promptgeo.report.claims import verdicts
from promptgeo.report.contents import Material
from promptgeo.report.inline import inline_svg
from promptgeo.report.page import render
from promptgeo.report.runs import run_lines, training_length
from promptgeo.report.section import Figure
from promptgeo.report.study import Published, Study, StudyClaim, load_study, study_of
from promptgeo.report.text import in_words, spelt
from promptgeo.runs.folder import Run, write_run

VOID = {"meta", "br", "wbr", "hr", "img", "link", "input"}
STUDY = Study(
    "s",
    "A study?",
    "Somebody",
    {"distances": {}, "words": {}},
    {
        p.quantity: p
        for p in (
            Published("table1.cat", "Table 1", 0.546),
            Published("table1.mean", "Table 1", 0.558, implied=0.583),
            Published("random", "a chart", 0.91, read_off=True),
        )
    },
    {
        name: StudyClaim(name, f"The {name} claim.", "text", "Their own numbers say no.")
        for name in ("closer", "pearson", "unasked")
    },
)


class Page(HTMLParser):
    """Checks that elements close in order; gathers ids, references, links, the text of each section and table row."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.ids, self.references, self.links, self.tags = [], [], [], [], []
        self.sections: dict[str, str] = {}
        self.rows: list[list[str]] = []
        self.feed(html)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += re.findall(r"url\(#([^)]+)\)", " ".join(filter(None, attributes.values())))
        for key in ("href", "xlink:href", "src"):
            if key in attributes:
                self.links.append(attributes[key])
        if tag == "section":
            self.sections[attributes["id"]] = ""
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append((tag, attributes.get("id")))

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1][0] == tag, f"</{tag}> closes {self.open[-1:]}"
            self.open.pop()

    def handle_data(self, data):
        for tag, name in self.open:
            if tag == "section":
                self.sections[name] += data
        if any(tag in ("td", "th") for tag, _ in self.open):
            self.rows[-1][-1] += data

    def row(self, quantity: str) -> list[str]:
        return next([" ".join(cell.split()) for cell in row] for row in self.rows if row and row[0] == quantity)


@cache
def figure(label: str) -> str:
    with panels(1, 2) as (drawn, axes):
        for axis in axes.flat:
            axis.plot([0, 1, 2], [0, 1, 0], marker="o")
            axis.set(title=label, xlabel="x", ylabel="y")
        return svg(drawn, f"{label}, and what is seen")


def distances(convention: str, of: str, closer: bool = True) -> Result:
    result = Result()
    shift = 0.0 if convention == "paper" else 0.025
    result.number("table1.cat", 0.5 + shift, 40, "pairs", 0.4 + shift, 0.6 + shift)
    result.number("table1.mean", 0.51 + shift, 400, "pairs", p=0.00001)
    for k in range(40):
        result.number(f"extra.{k}", k / 100, 4, "pairs")
    result.findings.append(
        Finding(f"{of} tokens lie {'closer' if closer else 'no closer'} ({convention}).", 0.2, 40, "pairs", 0.1, 0.3)
    )
    if of == "prompt":
        outcome = Outcome.holds if closer or convention == "paper" else Outcome.fails
        said = f"seen {convention} <at .5>."
        result.claims.append(Claim("closer", outcome, said, p=0.01, quantity="table1.cat"))
    result.tables["means"] = pd.DataFrame({"task": ["a<b"] * 20, "distance": [0.123456] * 20})
    result.figures["bars"] = figure(f"{of} {convention}")
    return result


@pytest.fixture
def make(tmp_path):
    """A report of three runs and two analyses; what differs from the usual is named."""
    for k, task in enumerate(("one", "two", "<three>")):
        write_run(tmp_path / f"run{k}", header(task), trained(k))
    runs = [Run.load(tmp_path / f"run{k}") for k in range(3)]

    def make(closer: bool = True, **changes) -> SimpleNamespace:
        variants = [
            {"of": of, "convention": convention} for of in ("prompt", "delta") for convention in ("paper", "corrected")
        ]
        info = {"options": {"seed": 0}, "runs": 3, "seconds": 1.0}
        first = store(
            tmp_path / "analysis" / "distances",
            "distances",
            "k",
            info,
            [(v, distances(closer=closer, **v)) for v in variants],
        )
        words = Result(
            omissions=["no P0, so no words"],
            claims=[Claim("pearson", Outcome.holds, "as they counted.")],
            figures={"bars": figure("words")},
        )
        words.number("random", 0.9, 7, "tokens", 0.8, 1.0)
        words.findings.append(Finding("Words are words (n = 7 tokens, p = .01).", 0.9, 7, "tokens", p=0.01))
        second = store(tmp_path / "analysis" / "words", "words", "k", info, [({"convention": "paper"}, words)])
        usual = {
            "study": STUDY,
            "runs": runs,
            "stored": [first, second],
            "refused": {"projection": "needs at least 5 prompts"},
        }
        material = Material(**(usual | changes))
        html = render(material)
        return SimpleNamespace(html=html, page=Page(html), folder=tmp_path, material=material)

    return make


def test_paper_ours_and_corrected_stand_beside_each_other(make):
    page = make().page
    assert page.row("Table 1, cat") == [
        "Table 1, cat",
        "Table 1",
        "0.546",
        "0.5 [0.4, 0.6]; n = 40 pairs",
        "0.525 [0.425, 0.625]; n = 40 pairs",
    ]
    assert page.row("Table 1, mean")[2] == "0.558 corrected, by the published data: 0.583"
    assert page.row("Table 1, mean")[4] == "0.535 p < .0001; n = 400 pairs"
    assert page.row("extra 3")[1] == "no published number"
    assert page.row("random")[2:] == ["≈ 0.91 read off a figure", "0.9 [0.8, 1]; n = 7 tokens", "not given"]


def test_a_number_that_no_analysis_gave_is_listed(make):
    assert "Table 1, cat" not in make().page.sections["unanswered"]
    assert "Table 1, cat" in make(stored=()).page.sections["unanswered"]


def test_another_result_makes_another_page(make):
    kept, fallen = (make(closer=closer).page.sections for closer in (True, False))
    assert "prompt tokens lie closer (corrected)." in kept["distances"] and "no closer" not in kept["distances"]
    assert "prompt tokens lie no closer (corrected)." in fallen["distances"]
    assert "(paper)" not in kept["distances"]
    held, failed = (" ".join(sections["evidence"].split()) for sections in (kept, fallen))
    assert "“The closer claim.” (text): holds." in held and "does not hold" not in held
    assert "“The closer claim.” (text): does not hold." in failed and "Seen corrected <at .5>." in failed
    for name in ("pearson", "unasked"):  # only as the paper counted, and not at all
        assert f"“The {name} claim.” (text): not tested." in failed


def test_the_first_screen_has_question_answer_and_claims(make):
    def said(**changes) -> tuple[str, list[list[str]]]:
        html = make(**changes).html
        head = html[html.index("<header") : html.index("</header>")]
        rows = [[" ".join(cell.split()) for cell in row] for row in Page(html).rows]
        return " ".join(re.sub(r"<[^>]+>", " ", head).split()), rows

    head, rows = said(study=replace(STUDY, question="Do they lie near?"))
    assert re.match(r"A study\? Do they lie near\? 3 runs: 3 tasks x .*? Holds: “The closer claim”\. ", head)
    ours = ["0.5 [0.4, 0.6]", "0.525 [0.425, 0.625]", "40 pairs"]
    assert rows[1] == ["The closer claim. Table 1, cat", "holds", "0.546", *ours]
    assert len(rows[0]) == 6 and rows[2][0] != "The pearson claim.", "what was not tested is no row"
    _, rows = said(study=replace(STUDY, published={}))
    assert rows[1][:3] == ["The closer claim. Table 1, cat", "holds", "in words"], "the study says it, without a number"
    head, rows = said(study=replace(STUDY, claims={}), stored=[])
    assert "No analysis has a finding on these runs." in head and not rows[0][0].startswith("claim")


def test_a_study_without_claims_is_answered_by_its_findings(make):
    told = [{"analysis": name, "sentence": f"{name} {k}."} for name in "abcd" for k in range(2)]
    assert answer([], told) == ["a 0.", "b 0.", "c 0."]


def test_the_answer_names_three_claims_of_a_kind_and_counts_the_rest(tmp_path):
    claims = [Claim(name, Outcome.holds, "seen.", p=0.001) for name in "abcde"]
    claims += [Claim("f", Outcome.fails, "not seen.")]
    told = verdicts(Study("s", "?", "S", {"words": {}}, confirmatory=["d"]), [stored_claims(tmp_path, claims)])
    assert answer(told, []) == ["Holds: “d”; “a”; “b”; and 2 more.", "Does not hold: “f”."]


def test_the_answer_says_what_most_of_the_undecided_claims_need(tmp_path):
    def said(*needs):
        claims = [Claim(name, Outcome.undecidable, "seen.", needs=n) for name, n in zip("abc", needs, strict=False)]
        (sentence,) = answer(verdicts(Study("s", "?", "S", {"words": {}}), [stored_claims(tmp_path, claims)]), [])
        return sentence.removeprefix("Not decidable by these runs: ")

    learned = ("prompts that learned cb, rte; more runs", "prompts that learned cb, rte", "more runs")
    assert said(*learned) == "“a”; “b”; “c”. 2 of the 3 need prompts that learned cb, rte."
    assert said(*learned[:2]) == "“a”; “b”. All need prompts that learned cb, rte."
    assert said("more runs") == "“a”. It needs more runs."
    assert said("prompts that learned cb", "prompts that learned cb2", "prompts that learned rte") == "“a”; “b”; “c”."


def test_the_lead_figure_is_the_studys_own_or_the_first_one(make):
    first = re.search(r'<figure class="lead">.*?</figure>', make().html, re.S)[0]
    assert "prompt corrected, and what is seen (trained prompts, corrected)" in first, "the figure's own title"
    chosen = re.search(r'<figure class="lead">.*?</figure>', make(study=replace(STUDY, lead="words/bars")).html, re.S)[
        0
    ]
    assert "Words: words, and what is seen" in chosen


def test_prompts_and_deltas_are_told_apart(make):
    text = make().page.sections["distances"]
    prompts, deltas = text.index("Trained prompts"), text.index("What training added")
    assert prompts < text.index("prompt tokens lie") < deltas < text.index("delta tokens lie")
    assert "[0.1, 0.3]; n = 40 pairs" in text, "a sentence without n gets its interval and n"


def test_the_page_is_whole_and_alone(make):
    made = make()
    page = made.page
    assert len(page.ids) == len(set(page.ids)), "ids collide"
    assert page.tags.count("svg") == 6 and set(page.references) <= set(page.ids)
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.ids, f"{link} leads nowhere"
        else:
            assert (made.folder / link).is_file(), f"{link} is no file beside the page"
    addresses = set(re.findall(r"https?://[^\"'\s<]+", made.html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert made.html.count("<style>") == 1 and "a&lt;b" in made.html and "<three>" not in made.html
    assert made.html == make().html, "the same material, the same bytes"


def test_long_lists_say_where_the_rest_is(make):
    text = " ".join(make().page.sections["distances"].split())
    assert "25 more, and all by the names that they have in code, in analysis/distances/numbers.csv" in text
    assert "The first 6 of 20 rows; all in analysis/distances/prompt_corrected_means.csv" in text
    assert "analysis/distances/delta_paper_means.csv" in text


def test_what_is_left_out_is_named(make):
    page = make(left_out=["run9: failed"]).page
    assert "run9: failed" in page.sections["omissions"]
    assert (
        "projection: needs at least 5 prompts" in page.sections["omissions"]
        and "words: no P0, so no words" in page.sections["omissions"]
    )


def test_runs_that_differ_from_the_studys_are_no_replication(make):
    assert "Not a replication" not in make().html
    html = make(differences={"model.name": (["tiny"], ["gpt2-xl"])}).html
    assert (
        "Not a replication" in html and "<code>model.name</code>: tiny <small>(the sweep file: gpt2-xl)</small>" in html
    )
    assert html.index("Not a replication") < html.index('id="claims"')


def test_figures_keep_to_themselves():
    whole = inline_svg(figure("x"), "f1", 'a "b"')
    ids, used = set(re.findall(r'\bid="([^"]+)"', whole)), set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', whole))
    assert ids and all(i.startswith("f1-") for i in ids)
    assert used and {a or b for a, b in used} <= ids
    assert "<style" not in whole and "<metadata" not in whole and "stroke-linejoin: round" in whole[: whole.index(">")]
    assert 'role="img" aria-label="a &quot;b&quot;"' in whole[: whole.index(">")]


def test_every_name_is_a_text_on_the_page(tmp_path):
    """Whatever a task, init, model, group, number, table, column, option or file is called."""
    odd = "<img src=x onerror=y>\"'>&\x1b"
    named = header(odd, odd)
    config = named["config"]
    config["model"]["name"] = config["optimizer"]["name"] = config["optimizer"]["schedule"] = odd
    config["template"] |= {"name": odd, "text": odd}
    config["task"]["source"] = {"kind": odd}
    named |= {"versions": {odd: odd}, "precision": odd, "device": odd, "examples": {"train": odd, "test": odd}}
    write_run(tmp_path / "run", named, trained())
    result = Result(omissions=[odd], claims=[Claim(odd, Outcome.undecidable, odd, needs=odd)])
    result.number(odd, 1.0, 1, odd, 0.0, 2.0)
    result.findings.append(Finding(odd, 1.0, 1, odd, 0.0, 2.0))
    result.tables[odd.replace("/", "")] = pd.DataFrame({odd: [odd]})
    result.figures[odd.replace("/", "")] = figure("x")
    info = {"options": {odd: odd}, "runs": 1, "seconds": 1.0}
    stored = store(tmp_path / "analysis" / "a", "a", "k", info, [({"group": odd, "of": "prompt"}, result)])
    published = {odd: Published(odd, odd, 1.0), f"{odd}2": Published(f"{odd}2", odd, 1.0)}
    study = Study("s", odd, odd, {"a": {}}, published, {odd: StudyClaim(odd, odd, odd, odd)})
    material = Material(
        study, [Run.load(tmp_path / "run")], [stored], {odd: odd}, [odd], {odd: ([odd], [odd])}, odd, [{"runs": odd}]
    )
    material.training[0]["seconds"] = 1.0
    html = render(material)
    assert html.count("&lt;img src=x onerror=y&gt;") > 40
    assert "img" not in Page(html).tags and "\x1b" not in html
    assert "&#34;&#39;&gt;&amp;" in html


def test_a_study_that_cannot_be_understood_is_said():
    def section(**study):
        return {"title": "t", "source": "x", "analyses": {"curves": None}} | study

    study = Study.of(
        "s",
        section(
            published={
                "t": {"place": "T", "values": {"a": {"b": 1}}, "implied": {"c": 2}},
                "all": {"place": "T", "values": 3},
            }
        ),
    )
    assert {q: (p.value, p.implied) for q, p in study.published.items()} == {
        "t.a.b": (1, None),
        "t.c": (None, 2),
        "all": (3, None),
    }
    for wrong, key in (
        ({"titel": 1}, "study.titel"),
        ({"title": ""}, "study.title: is missing"),
        ({"claims": {"c": {"word": 1}}}, "claims.c.word"),
    ):
        with pytest.raises(UserError, match=key):
            Study.of("s", section(**wrong))


def test_a_claim_that_no_analysis_declares_is_named_with_the_nearest_ones():
    STUDY.check_claims(["closer", "pearson", "unasked", "another"])
    with pytest.raises(UserError) as error:
        STUDY.check_claims(["closest", "pearson", "unasked", "another"])
    said = "sweeps/s.yaml: study.claims.closer: no analysis of this study declares such a claim; "
    assert str(error.value) == f"{said}nearest: closest"
    with pytest.raises(UserError, match=r"one of far, wide$"):
        STUDY.check_claims(["wide", "far"])
    with pytest.raises(UserError, match=r"they declare none$"):
        STUDY.check_claims([])


def test_study_1s_published_table_is_told_as_its_numbers_are(tmp_path):
    """The table as a fixture, through the verdict and the study's own file, to the page."""
    study, result = load_study("convexity"), Result()
    vertices, mixtures = ({task: pair[k] for task, pair in PUBLISHED.items()} for k in (0, 1))
    counted = verdict(vertices, mixtures, 0.05)
    result.claims.append(Claim("convex", Outcome.holds if counted.holds else Outcome.fails, counted.sentence))
    for kind, accuracies in (("vertices", vertices), ("mixtures", mixtures)):
        for task, accuracy in accuracies.items():
            for which, value in (
                ("min", min(accuracy)),
                ("max", max(accuracy)),
                ("mean", sum(accuracy) / len(accuracy)),
            ):
                result.number(f"{kind}.{task}.P1.{which}", value, len(accuracy), "trainings")
    write_run(tmp_path / "run", header("imdb"), trained(0))
    stored = store(
        tmp_path / "analysis" / "convexity",
        "convexity",
        "k",
        {"options": {}, "runs": 11, "seconds": 1.0},
        [({}, result)],
    )
    page = Page(render(Material(study=study, runs=[Run.load(tmp_path / "run")], stored=[stored])))
    said = " ".join(page.sections["evidence"].split())
    assert study.claims["convex"].words in said
    assert (
        "Within a stated 5-point margin of the worst vertex, identity and plus_one support the claim "
        "that solutions are convex while imdb and plus_two contradict it" in said
    )
    assert "; without the margin identity fails too." in said
    # The study's file holds the same table: what it says beside ours is what the fixture says.
    assert "None: each published number has ours beside it" in page.sections["unanswered"]
    for published in study.published.values():
        row = page.row(in_words(published.quantity))
        value = published.value if published.value is not None else published.implied
        assert float(row[-1].split()[0]) == pytest.approx(value, abs=1e-4), published.quantity
    own = study.claims["convex"].published
    assert (
        own.startswith("Within 5 points of the worst training, identity and plus_one support it, plus_two")
        and "Without that margin identity fails too" in own
    )


def test_a_task_that_stands_for_the_studys_has_its_published_numbers_beside_it(make):
    study = replace(STUDY, stands_for={"dog": "cat"})
    result = Result()
    result.number("table1.dog", 0.5, 40, "pairs", 0.4, 0.6)
    report = make(
        study=study,
        stored=[
            store(
                make().folder / "analysis" / "words",
                "words",
                "k",
                {"options": {}, "runs": 3, "seconds": 1.0},
                [({}, result)],
            )
        ],
    )
    assert report.page.row("Table 1, dog (for Table 1, cat)")[2:4] == ["0.546", "0.5 [0.4, 0.6]; n = 40 pairs"]
    assert (
        "Table 1, cat" not in report.page.sections["unanswered"]
        and "Table 1, mean" in report.page.sections["unanswered"]
    )


def test_steps_that_replace_the_epochs_are_told():
    def trained(epochs, steps):
        return {"training": {"epochs": epochs, "max_steps": steps}}

    assert training_length([trained(20, None)] * 3) == "20 epochs"
    assert training_length([trained(20, 200), trained(20, 200)]) == "200 steps"
    assert training_length([trained(20, None), trained(20, 200)]) == "20 epochs, 200 steps"
    assert training_length([{}]) == "—"


def claims_page(tmp_path, claims: list[Claim], confirmatory: list[str], group: dict | None = None) -> Page:
    """A page whose one analysis made these claims."""
    study = Study("s", "A study?", "Somebody", {"words": {}}, confirmatory=confirmatory)
    write_run(tmp_path / "run", header("one"), trained(0))
    stored = stored_claims(tmp_path, claims, group)
    return Page(render(Material(study=study, runs=[Run.load(tmp_path / "run")], stored=[stored])))


def stored_claims(tmp_path, claims: list[Claim], group: dict | None = None) -> Stored:
    info = {"options": {}, "runs": 1, "seconds": 1.0}
    return store(tmp_path / "words", "words", "k", info, [(group or {}, Result(claims=claims))])


def test_confirmatory_claims_are_adjusted_for_each_other_and_the_rest_is_exploratory(tmp_path):
    claims = [Claim(name, Outcome.holds, f"seen {name}.", p=p) for name, p in (("a", 0.01), ("b", 0.04), ("c", 0.04))]
    said = " ".join(claims_page(tmp_path, claims, ["a", "b", "c"]).sections["evidence"].split())
    assert "“a”: holds. Confirmatory, adjusted p = 0.03." in said and "“b”: not decidable." in said
    # Of three: .01 x 3, .04 x 2, and never less than the one before.
    assert said.count("adjusted p = 0.08. It would take more runs: with 3 claims tested, p = 0.08 (Holm).") == 2
    said = " ".join(claims_page(tmp_path, claims, ["b"]).sections["evidence"].split())
    assert "“a”: holds. Exploratory." in said and "“b”: holds. Confirmatory, adjusted p = 0.04." in said


def test_the_small_p_of_a_claim_that_does_not_hold_helps_no_other(tmp_path):
    """Two-sided, it is that of the opposite: by Holm of .001 and .03 the second would hold."""
    claims = [Claim("a", Outcome.fails, "far from it.", p=0.001), Claim("b", Outcome.holds, "seen.", p=0.03)]
    said = " ".join(claims_page(tmp_path, claims, ["a", "b"]).sections["evidence"].split())
    assert "“a”: does not hold. Confirmatory; that it does not hold is not adjusted." in said
    assert "“b”: not decidable. Confirmatory, adjusted p = 0.06. It would take more runs" in said


def test_a_claim_whose_premise_is_not_met_shows_no_p_and_helps_no_other(tmp_path):
    unmet = decided("a", (1.0, 2.0), "far above.", p=0.001, premises=[Premise(False, "nothing was learned", "prompts")])
    claims = [unmet, Claim("b", Outcome.holds, "seen.", p=0.03)]
    said = " ".join(claims_page(tmp_path, claims, ["a", "b"]).sections["evidence"].split())
    assert "“a”: not decidable. Confirmatory, without a p that counts." in said
    assert "“b”: not decidable. Confirmatory, adjusted p = 0.06. It would take more runs" in said


def test_what_one_claim_would_take_is_not_enough_for_several(tmp_path):
    claims = [Claim("a", Outcome.undecidable, "maybe.", p=0.1, needs="6 inits")]
    claims += [Claim("b", Outcome.holds, "seen.", p=0.01)]
    said = " ".join(claims_page(tmp_path, claims, ["a", "b"]).sections["evidence"].split())
    assert "It would take 6 inits (its p is adjusted for 2 claims)." in said


def test_a_published_number_of_one_length_stands_beside_ours_which_does_not_name_it():
    published = {"vertices.plus_one.P1.min": Published("vertices.plus_one.P1.min", "", 0.7)}
    study = Study("s", "?", "S", {}, published=published)
    assert study.published_for("vertices.plus_one.min") is None
    assert replace(study, length=1).published_for("vertices.plus_one.min").value == 0.7
    assert replace(study, length=4).published_for("vertices.plus_one.min") is None


def test_what_is_not_decidable_says_what_would_decide_it(tmp_path):
    claims = [Claim("a", Outcome.undecidable, "it may be.", needs="6 runs"), Claim("b", Outcome.fails, "it is not.")]
    said = " ".join(claims_page(tmp_path, claims, []).sections["evidence"].split())
    assert "“a”: not decidable. Exploratory. It would take 6 runs." in said and "“b”: does not hold." in said
    with pytest.raises(ValueError, match="claim a: is not decidable, but what it needs is ''"):
        Claim("a", Outcome.undecidable, "it may be.")


# Of any folder.


def test_any_folder_of_analysed_runs_has_a_page(make, capsys):
    """That of its results, without published numbers: these runs are of no study."""
    folder = make().folder
    shutil.rmtree(folder / "words", ignore_errors=True)
    cli_report.main([str(folder)])
    assert capsys.readouterr().out == f"report: {folder}/report.html\n"
    page = Page((folder / "report.html").read_text(encoding="utf-8"))
    assert page.row("Table 1, cat") == [
        "Table 1, cat",
        *["0.5 [0.4, 0.6]; n = 40 pairs", "0.525 [0.425, 0.625]; n = 40 pairs"],
    ]
    assert "“closer”: holds. Exploratory." in " ".join(page.sections["evidence"].split())
    assert "Not a replication" not in (folder / "report.html").read_text(encoding="utf-8")


def test_claims_of_no_study_are_told_in_the_words_of_the_study_that_makes_them():
    study = study_of("mine", ["convexity", None], ["convex", "own"])
    assert (
        list(study.claims) == ["convex"]
        and study.claims["convex"].words == load_study("convexity").claims["convex"].words
    )
    assert not study.claims["convex"].published and not study.published
    assert study_of("mine", ["convexity", "convexity"], []) == load_study("convexity")


def test_a_folder_without_runs_or_results_is_refused_in_a_line(tmp_path, capsys):
    for name, said in {"absent": "absent", "": "no completed runs lie there"}.items():
        with pytest.raises(SystemExit, match="2"):
            cli_report.main([str(tmp_path / name)])
        assert said in capsys.readouterr().err
    write_run(tmp_path / "run", header("one"), trained(0))
    with pytest.raises(SystemExit, match="2"):
        cli_report.main([str(tmp_path)])
    assert "no analysis of these runs lies there; first: python -m promptgeo.analyze" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_what_was_run_says_what_else_runs_differ_in():
    def run(seed: int, patience: int | None, length: int = 4, lr: float | None = None) -> SimpleNamespace:
        config = {
            "seed": seed,
            "prompt": {"length": length},
            "task": {"name": "t"},
            "init": {"name": "i"},
            "training": {"patience": patience},
        } | {"template": {"name": "bare"}}
        return SimpleNamespace(info={"config": config, "results": {}}, lr=lr)

    def line(*runs: SimpleNamespace) -> str:
        return run_lines(runs)[1]

    assert line(run(0, None), run(1, None)) == "2 runs: 1 task x 1 init x 2 seeds"
    assert line(*(run(seed, p) for seed in (0, 1) for p in (None, 5))) == (
        "4 runs: 1 task x 1 init x 2 seeds, which differ in training.patience too"
    )
    of_each = [run(seed, None, length, lr) for seed in (0, 1) for length in (1, 5, 20) for lr in (0.1, 0.3)]
    assert line(*of_each) == "12 runs: 1 task x 1 init x 2 seeds x 3 lengths x 2 learning rates"
    # Each seed has a length of its own: that is no axis of the grid.
    assert line(run(0, None, 1), run(1, None, 5)) == "2 runs: 1 task x 1 init x 2 seeds"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (True, "true"), ("", ""), (" a", "' a'"), ("a\nb", "'a\\nb'"), (0.5, "0.5")]
)
def test_a_settings_value_is_told_as_it_is_written(value, text):
    assert spelt(value) == text


@pytest.mark.parametrize(("size", "wide"), [("500 200", True), ("440 200", False), ("200 500", False)])
def test_a_figure_much_wider_than_high_has_the_whole_width(size, wide):
    assert Figure(f'<svg viewBox="0 0 {size}"/>', "", "", "").wide is wide


def test_a_page_that_cannot_be_written_is_a_line_and_status_1(make, monkeypatch, capsys):
    folder = make().folder
    shutil.rmtree(folder / "words", ignore_errors=True)
    (folder / "report.html").mkdir()
    with pytest.raises(SystemExit, match="1"):
        cli_report.main([str(folder)])
    assert capsys.readouterr().err.count("\n") == 1
