"""What experiments on a model found is found again, and only where nothing differs that it depends on."""

import json
import os

import pytest
import torch

import reference
from promptgeo import FrozenLM
from promptgeo.model import frozen_lm
from promptgeo.model.loading import model_fingerprint
from promptgeo.model.remembered import Remembered


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PROMPTGEO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def load(model_folders, tokenizer):
    def load(fingerprint: str | None = None) -> FrozenLM:
        folder = model_folders["gemma3"]
        model = reference.original(folder)
        return FrozenLM(model, tokenizer, name="x", fingerprint=fingerprint or model_fingerprint(str(folder)))

    return load


@pytest.fixture
def counted(monkeypatch) -> list[str]:
    """The experiments that are made, in their order."""
    made: list[str] = []

    def counting(owner, name):
        asked = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *args, **options: made.append(name) or asked(*args, **options))

    for name in ("Reference", "rows_are_independent"):
        counting(frozen_lm, name)
    counting(FrozenLM, "_measured_scale")
    return made


ALL = ["Reference", "rows_are_independent", "_measured_scale"]


def answers(lm: FrozenLM) -> tuple:
    return lm._by_ids, lm._shares_prefixes, lm.mixes_prompts, lm.embedding_scale


def test_a_second_load_makes_no_experiment_and_says_the_same(load, cache, counted):
    first = answers(load())
    assert counted == ALL and len(list(cache.iterdir())) == 1
    assert answers(load()) == first and counted == ALL


@pytest.mark.parametrize("what", ["content", "precision", "threads", "settings"])
def test_whatever_differs_is_asked_anew(what, load, cache, counted, monkeypatch):
    answers(load())
    if what == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    if what == "settings":
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    if what == "precision":
        monkeypatch.setattr(reference, "original", lambda folder, own=reference.original: own(folder).to(torch.float64))
    answers(load("sha256:other" if what == "content" else None))
    assert counted == 2 * ALL and len(list(cache.iterdir())) == 2


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"by_ids": 1, "shares_prefixes": null}', "\ud800".encode(errors="surrogatepass")]
)
def test_a_damaged_file_counts_as_none(text, load, cache, counted):
    first = answers(load())
    (place,) = cache.iterdir()
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert answers(load()) == first and counted == 2 * ALL
    assert set(json.loads(place.read_text())) == {"by_ids", "shares_prefixes", "mixes_prompts", "embedding_scale"}


def test_where_nothing_can_be_written_the_model_is_asked_each_time(load, tmp_path, counted, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROMPTGEO_CACHE", str(tmp_path / "file"))
    assert answers(load()) == answers(load()) and counted == 2 * ALL


@pytest.mark.parametrize("fingerprint", ["", "org/model@main", "org/model@v1"])
def test_content_that_may_change_is_not_remembered(fingerprint, load, cache):
    Remembered(load().model, fingerprint).keep(mixes_prompts=True)
    assert Remembered(load().model, fingerprint).get("mixes_prompts", bool) is None


def test_neither_is_a_model_of_other_code_or_another_products(load, cache):
    model = load().model

    class Own(type(model)):
        """A repository's own code may change beside the weights."""

    Remembered(model, "sha256:0").keep(mixes_prompts=True)
    assert Remembered(model, "sha256:0").get("mixes_prompts", bool)
    model.__class__ = Own
    assert Remembered(model, "sha256:0").get("mixes_prompts", bool) is None
    model.__class__ = Own.__base__
    model.config.quantization_config = {"quant_method": "fp8"}
    assert Remembered(model, "sha256:0").get("mixes_prompts", bool) is None


def test_tests_ask_each_model_anew():
    assert os.environ["PROMPTGEO_CACHE"] == ""


def test_a_disk_that_is_full_keeps_no_half_of_a_file(load, cache, monkeypatch):
    def full(path, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    load()
    assert list(cache.iterdir()) == []
