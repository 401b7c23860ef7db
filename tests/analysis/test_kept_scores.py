"""An analysis that scores prompts for hours and is stopped goes on where it was, and comes to the same results."""

from dataclasses import fields, replace

import numpy as np
import pytest

import promptgeo as pg
from promptgeo.analysis import kept_scores, scoring
from promptgeo.analysis.scoring import EvaluationSet
from promptgeo.evaluation import evaluate as evaluation

OPTIONS = {"mixtures": 40, "controls": 4, "pairs": 1, "steps": 4, "resolution": 0, "max_examples": 6, "draws": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("kept")
    small = {"training.max_steps": 2, "task.split.max_train": 8, "task.split.max_test": 6, "init": "vocab"}
    for task in ("plus_one", "plus_two"):
        for seed in (0, 1):
            pg.train(model="tiny", task=task, seed=seed, name="runs", outputs=str(folder), **small)
    return str(folder / "runs")


@pytest.fixture(autouse=True)
def all_scores_took_long(monkeypatch):
    monkeypatch.setattr(kept_scores, "SECONDS", 0)


class Scored:
    """Evaluates, and notes how many prompts each block had; of a block after `stop` of them it is interrupted."""

    def __init__(self):
        self.blocks: list[int] = []
        self.stop: int | None = None

    def __call__(self, lm, prompts_NPd, *rest, **options):
        if len(self.blocks) == self.stop:
            raise KeyboardInterrupt
        self.blocks.append(len(prompts_NPd))
        return evaluation.evaluate(lm, prompts_NPd, *rest, **options)


@pytest.fixture
def scored(monkeypatch) -> Scored:
    counting = Scored()
    monkeypatch.setattr(scoring, "evaluate", counting)
    return counting


def ask(runs, out, **choices):
    options = {f"analysis.convexity.{name}": value for name, value in OPTIONS.items()} | choices
    return pg.analyze(runs=runs, analysis=["convexity"], out=str(out), **options)[0]


def contents(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.suffix in (".csv", ".svg")}


def stopped(scored, after: int, runs, out) -> None:
    scored.stop = after
    with pytest.raises(KeyboardInterrupt):
        ask(runs, out)
    scored.stop = None


def test_what_was_scored_before_a_stop_is_not_scored_again(scored, runs, tmp_path):
    whole = ask(runs, tmp_path / "whole")
    blocks = list(scored.blocks)
    assert len(blocks) > 6 and max(blocks) == scoring.BLOCK and whole.stored is not None
    assert not (tmp_path / "whole/.convexity.scored").exists()  # what is stored needs it no longer
    scored.blocks.clear()
    stopped(scored, 4, runs, tmp_path / "twice")
    stopped(scored, 6, runs, tmp_path / "twice")  # counted on: two more
    ask(runs, tmp_path / "twice")
    assert scored.blocks == blocks  # each once, in three commands
    assert contents(tmp_path / "twice") == contents(tmp_path / "whole") != {}
    assert not list((tmp_path / "twice").glob(".*"))


def test_damaged_scores_are_scored_again(scored, runs, tmp_path, caplog):
    ask(runs, tmp_path / "whole")
    stopped(scored, len(scored.blocks) + 4, runs, tmp_path / "cut")
    one, two, three, four = sorted((tmp_path / "cut/.convexity.scored").rglob("*.npz"))
    content = bytearray(one.read_bytes())
    content[len(content) // 2] ^= 1
    one.write_bytes(content)
    two.write_bytes(two.read_bytes()[:100])
    three.unlink()
    three.symlink_to(four)
    blocks = scored.blocks[:-4]
    scored.blocks.clear()
    ask(runs, tmp_path / "cut")
    assert scored.blocks == blocks[:3] + blocks[4:]  # the fourth was whole
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert caplog.text.count("is damaged and is scored again") == 2


def test_other_options_and_overwrite_score_anew(scored, runs, tmp_path):
    stopped(scored, 3, runs, tmp_path)
    scored.blocks.clear()
    ask(runs, tmp_path, overwrite=True)
    whole = len(scored.blocks)
    stopped(scored, whole + 3, runs, tmp_path / "b")
    scored.blocks.clear()
    ask(runs, tmp_path / "b", **{"analysis.convexity.draws": 21})
    assert len(scored.blocks) == whole
    assert not list((tmp_path / "b").glob(".*"))


@pytest.mark.parametrize("there", ["a file", "a link", "nothing"])
def test_a_place_that_takes_no_scores_stops_no_analysis(there, scored, runs, tmp_path, monkeypatch, caplog):
    def full(path, content):
        raise OSError(28, "No space left on device")

    place, elsewhere = tmp_path / "out/.convexity.scored", tmp_path / "elsewhere"
    place.parent.mkdir()
    elsewhere.mkdir()
    if there == "a file":
        place.write_text("mine")
    elif there == "a link":
        place.symlink_to(elsewhere)
    else:
        monkeypatch.setattr(kept_scores, "write_atomically", full)
    assert ask(runs, tmp_path / "out").stored is not None
    assert caplog.text.count("scores cannot be kept") == (there != "a link")  # once, not for every block
    assert not list(elsewhere.iterdir())


def test_scores_of_other_prompts_or_examples_are_not_taken_for_these(scored, gpt2, tmp_path):
    """Should an analysis ask in another order than before it was stopped."""
    task = pg.task("plus_one", "task.split.max_test=4")
    one, other = (EvaluationSet(replace(task, test=task.test[part]), 4, 4) for part in (slice(2), slice(2, 4)))
    prompt_1Pd = np.zeros((1, 2, gpt2.width), np.float32)
    asked = [(one, prompt_1Pd), (other, prompt_1Pd), (one, prompt_1Pd + 1), (one, prompt_1Pd)]
    for count, (examples, prompts_1Pd) in enumerate([*asked, asked[0]]):
        with kept_scores.keeping(tmp_path / "analysis", "key") as before:
            examples.evaluate(gpt2, prompts_1Pd)
        assert len(scored.blocks) == before + (count < 3) == min(count + 1, 3)


def test_joined_parts_are_the_whole(gpt2):
    task = pg.task("sentiment", "task.split.max_test=5")
    prompts_NPd = np.random.default_rng(0).normal(size=(5, 2, gpt2.width)).astype(np.float32)
    whole = evaluation.evaluate(gpt2, prompts_NPd, task, outputs=True)
    parts = [evaluation.evaluate(gpt2, prompts_NPd[part], task, outputs=True) for part in (slice(2), slice(2, 5))]
    made = evaluation.joined(parts)
    for each in fields(whole):
        value = getattr(whole, each.name)
        same = getattr(made, each.name)
        assert (same is None) == (value is None)
        assert value is None or np.array_equal(same, value), each.name
