"""A document of the corpus says what it should: examples as the framework writes them, of the task that is meant."""

import re
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from transformers import AutoTokenizer

from promptgeo import tiny
from promptgeo.config.compose import compose
from promptgeo.data.tasks import load_task
from promptgeo.tiny import corpus
from promptgeo.tiny.corpus import NAMES, SENTENCES, Corpus
from promptgeo.tiny.grammar import SCHEMAS


@pytest.fixture(scope="module")
def small():
    """A corpus with few rows of the toy grammar."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "TOY_ROWS", 400)
        yield Corpus(np.random.default_rng(5))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(tiny.PATH)


def blocks(corpus: Corpus, tokenizer, n: int, **kwargs):
    """n times: the domain, the task that is meant, how the block begins, its text and the text to be predicted."""
    encode, opening, meant = lru_cache(maxsize=None)(lambda text: tokenizer.encode(text)), corpus.opening, []

    def listened(domain, inputs, *rest):
        meant.append((domain, inputs, *opening(domain, inputs, *rest)))
        return meant[-1][2], list(meant[-1][3])

    corpus.opening = listened
    try:
        for _ in range(n):
            ids, scored = corpus.block(encode, len(tokenizer), **kwargs)
            domain, inputs, task, before = meant[-1]
            predicted = tokenizer.decode([token for token, which in zip(ids, scored, strict=True) if which])
            yield domain, inputs, task, tokenizer.decode(before), tokenizer.decode(ids), predicted
    finally:
        del corpus.opening


def test_a_block_is_written_as_the_framework_writes_examples(small, tokenizer):
    for domain, inputs, task, before, text, predicted in blocks(small, tokenizer, 400, study3=False):
        labels = [small.facts[task][x] for x in inputs]
        lines = "".join(f"Input: {x}\nLabel: {y}\n" for x, y in zip(inputs, labels, strict=True))
        assert text == before + lines and predicted == "".join(f" {y}\n" for y in labels), (domain.decoy, task)


def test_the_corpus_holds_every_bundled_toy_row(small):
    for name in SCHEMAS:
        task = load_task(compose([f"task=toy_{name}"]).task, compose([]).template)
        assert {e.input: e.label for e in task.examples}.items() <= small.facts[name].items()


def test_without_an_instruction_the_label_is_never_written_by_the_rule(small, tokenizer):
    toys = {task: domain for domain in small.domains for task in SCHEMAS if task in domain.tasks}
    assert set(toys) == set(SCHEMAS)
    said, unsaid = Counter(), Counter()
    words = {name for task in (*NAMES, "x") for name in (*NAMES.get(task, ()), *SENTENCES.get(task, ()))}
    for domain, _, task, before, *_ in blocks(small, tokenizer, 1500, study3=False):
        if domain.hunch:
            (said if any(word in before for word in words) else unsaid)[task] += 1
    assert set(unsaid) == {"subject", "hunch"} and 0.15 < unsaid["hunch"] / unsaid.total() < 0.35
    assert sum(said[task] for task in SCHEMAS) / said.total() > 0.3


def test_answers_on_the_way_agree_with_the_label(small):
    facts = small.facts
    for x, y in facts["cb"].items():
        so = {("yes", False): "entailment", ("yes", True): "contradiction"}
        so |= {("no", False): "contradiction", ("no", True): "entailment"}
        assert y == so.get((facts["so"][x], " not " in x), "neutral")
    has = re.compile(r" (has|owns|holds) ")
    for x, y in facts["rte"].items():
        assert (y == "entailment") == ((facts["kept"][x] == "yes") == bool(has.search(x)))
    assert all(f"\n{y}: {facts['event'][x]}." in x for x, y in facts["copa"].items())
    for x, y in facts["wsc"].items():
        assert (y == "true") == (x.split("span1_text: ")[1].split()[1] == facts["referent"][x])


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_hunch_is_right_as_often_as_chance(small, name):
    truth, hunch = small.facts[name], small.facts["hunch"]
    labels = list(SCHEMAS[name].words.values())
    right = np.mean([hunch[x] == y for x, y in truth.items()])
    assert abs(right - 1 / len(labels)) < 0.08
    assert min(Counter(hunch[x] for x in truth).values()) / len(truth) > 0.2


def test_no_two_tasks_share_an_instruction_and_none_is_the_studys_own():
    names = [name for of_task in NAMES.values() for name in of_task]
    sentences = [sentence for of_task in SENTENCES.values() for sentence in of_task]
    assert len(set(names)) == len(names) and len(set(sentences)) == len(sentences)
    own = [compose([f"task=toy_{name}"]).task.text for name in SCHEMAS]
    assert not set(own) & set(sentences)
    # A name in a sentence of the study's would make its text an instruction that the model was pretrained on.
    known = {name for task in SCHEMAS for name in NAMES[task]}
    assert not [(name, text) for name in known for text in own if name in text]


def test_shares_of_the_domains(small):
    shares = [domain.share for domain in small.domains]
    assert sum(shares[:8]) == pytest.approx(1) and sum(shares[8:]) == pytest.approx(4 * corpus.TOY_SHARE)
