"""Each init's numbers, from its definition; token counts are checked and said, never tiled or cut."""

import logging
import math
import os

import numpy as np
import pytest
import safetensors.numpy
import torch

from conftest import FAMILIES
from promptgeo import FrozenLM, UserError
from promptgeo.config.schema import Init, InitKind, Prompt, Template, Unit
from promptgeo.data.tasks import Task
from promptgeo.runs.folder import Trained, write_run
from promptgeo.training import inits
from promptgeo.training.inits import initial_prompt

TEMPLATE = Template(name="input_label", text="Input: {input}\nLabel:", end="\n")
TASK = Task("t", [], [], [], TEMPLATE)
REVIEWS = Task("reviews", [], [], [], TEMPLATE, labels=["cat", "paper book"])
RANDOM = ("vocab", "normal", "uniform")


def make(lm, kind: str, length: int | None = 4, seed: int = 0, task: Task = TASK, **fields) -> torch.Tensor:
    return initial_prompt(Init(name=kind, kind=InitKind[kind], **fields), Prompt(length), lm, task, seed)


def said(lm, kind: str, length: int | None = 4, **fields) -> str:
    with pytest.raises(UserError) as error:
        make(lm, kind, length, **fields)
    assert "\n" not in str(error.value)
    return str(error.value)


def table(lm) -> torch.Tensor:
    """Every token's embedding, one at a time, as the model's own embedding module gives it."""
    with torch.no_grad():
        return torch.stack([lm.model.get_input_embeddings()(torch.tensor(i)) for i in range(len(lm.tokenizer))]).float()


@pytest.fixture(params=["gpt2", "opt", "gemma3"])
def unlike(request, model_folders):
    """Models whose embeddings are the weight, are narrower than the model, are scaled (trap 6)."""
    return FrozenLM.load(str(model_folders[request.param]), device="cpu")


def test_a_word_stands_at_every_token(unlike):
    (cat,) = unlike.encode("cat")
    p0 = make(unlike, "word", 4, text="cat")
    assert p0.shape == (4, unlike.width) and p0.dtype == torch.float32
    for row in p0:
        torch.testing.assert_close(row, table(unlike)[cat], rtol=0, atol=0)


def test_a_word_of_several_tokens_is_repeated_whole_or_refused(gpt2, caplog):
    ids = gpt2.encode("catdog")
    assert len(ids) == 2
    with caplog.at_level(logging.INFO):
        p0 = make(gpt2, "word", 6, text="catdog")
    assert torch.equal(p0, table(gpt2)[ids * 3])
    assert caplog.messages == ["init: 'catdog' is 2 tokens, 3 times"]
    for length in (1, 3, 5):
        assert said(gpt2, "word", length, text="catdog") == (
            "init.text='catdog' is 2 tokens for this model, which does not go into "
            f"prompt.length={length}; set prompt.length=2"
        )


def test_a_text_is_its_tokens_and_its_count_is_said(gpt2, caplog):
    ids = gpt2.encode("cat dog bird")
    with caplog.at_level(logging.INFO):
        assert torch.equal(make(gpt2, "text", None, text="cat dog bird"), table(gpt2)[ids])
    assert caplog.messages == [f"init: 'cat dog bird' is {len(ids)} tokens"]
    assert torch.equal(make(gpt2, "text", len(ids), text="cat dog bird"), table(gpt2)[ids])
    for length in (1, len(ids) - 1, len(ids) + 1, 2 * len(ids)):  # trap 2: neither cut nor tiled
        assert said(gpt2, "text", length, text="cat dog bird") == (
            f"init.text='cat dog bird' is {len(ids)} tokens, but prompt.length={length}; set prompt.length={len(ids)}"
        )


def test_no_special_token_is_added_to_a_text(model_folders, tokenizer, tmp_path):
    """Trap 2: this tokenizer puts a token before and one after whatever it encodes."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    adds = AutoTokenizer.from_pretrained(model_folders["gpt2"])
    adds.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    lm = FrozenLM.load(str(model_folders["gpt2"]), device="cpu")
    with_ends = FrozenLM(lm.model, adds)
    (cat,) = tokenizer.encode("cat")
    assert adds("cat")["input_ids"] == [0, cat, 0]
    assert torch.equal(make(with_ends, "word", 2, text="cat"), table(lm)[[cat, cat]])
    assert torch.equal(make(with_ends, "text", None, text="cat"), table(lm)[[cat]])


def test_vocab_draws_different_ordinary_tokens(unlike):
    size = len(unlike.tokenizer)
    everything = make(unlike, "vocab", size - 1)
    rows = {tuple(row.tolist()) for row in everything}
    assert rows == {
        tuple(row.tolist()) for row in table(unlike)[1:]
    }  # without replacement, and never token 0, <|endoftext|>
    assert (
        said(unlike, "vocab", size)
        == f"prompt.length: {size} tokens cannot be drawn from a vocabulary of {size - 1}; set a smaller prompt.length"
    )


def test_vocab_never_draws_a_special_token_without_a_role(model_folders):
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folders["gpt2"])
    lm = FrozenLM.load(str(model_folders["gpt2"]), device="cpu")
    reserved = tokenizer.convert_ids_to_tokens(599)
    tokenizer.backend_tokenizer.add_special_tokens([AddedToken(reserved, special=True)])
    assert 599 not in tokenizer.all_special_ids
    rows = {tuple(row.tolist()) for row in make(FrozenLM(lm.model, tokenizer), "vocab", 598)}
    assert rows == {tuple(row.tolist()) for row in table(lm)[1:599]}


def test_normal_has_the_tables_mean_and_the_scale_of_its_covariance(unlike):
    vectors = table(unlike).numpy().astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(np.cov(vectors.T))
    n = 4000
    for scale in (1.0, 0.5):
        drawn = make(unlike, "normal", n, scale=scale).numpy().astype(np.float64)
        expected = scale * math.sqrt(eigenvalues.mean())
        assert abs((drawn - vectors.mean(0)).std() / expected - 1) < 0.02
        assert np.abs(drawn.mean(0) - vectors.mean(0)).max() < 5 * expected / math.sqrt(n)
        drawn_eigenvalues = np.linalg.eigvalsh(np.cov(drawn.T))
        assert drawn_eigenvalues[-1] / drawn_eigenvalues[0] < 1.6  # isotropic


def test_the_table_is_read_once_for_all_normal_prompts(unlike, monkeypatch):
    """Its covariance is seconds of a large vocabulary, for every run of a grid."""
    vars(unlike).pop("embedding_normal", None)
    reads = []
    monkeypatch.setattr(unlike, "vocabulary", lambda: reads.append(1) or type(unlike).vocabulary(unlike))
    assert not torch.equal(make(unlike, "normal", 2, seed=0), make(unlike, "normal", 2, seed=1)) and len(reads) == 1


def test_uniform_fills_its_interval_and_no_more(unlike):
    for scale in (0.5, 2.0):
        drawn = make(unlike, "uniform", 4000, scale=scale)
        assert -scale <= drawn.min() < -0.999 * scale and 0.999 * scale < drawn.max() <= scale
        assert abs(drawn.mean()) < 0.02 * scale and abs(drawn.std() / (scale / math.sqrt(3)) - 1) < 0.02


def test_the_unit_of_embeddings_is_the_deviation_of_all_their_entries(unlike):
    deviation = float(table(unlike).double().std(correction=0))
    assert unlike.embedding_scale == pytest.approx(deviation, rel=1e-6)
    absolute, in_units = (
        make(unlike, "uniform", 40, scale=2.0),
        make(unlike, "uniform", 40, scale=2.0, unit=Unit.embedding),
    )
    torch.testing.assert_close(in_units, absolute * deviation, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_init_is_its_seeds_alone_and_seed_0_counts(gpt2, kind):
    """Trap 3, trap 4: another seed gives another prompt, the global generator changes nothing."""
    torch.manual_seed(1)
    first = [make(gpt2, kind, seed=seed) for seed in range(5)]
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = [make(gpt2, kind, seed=seed) for seed in range(5)]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({tuple(p0.flatten().tolist()) for p0 in first}) == 5


def test_labels_are_each_labels_mean_then_drawn_tokens(gpt2, caplog):
    means = torch.stack([table(gpt2)[gpt2.encode(" cat")].mean(0), table(gpt2)[gpt2.encode(" paper book")].mean(0)])
    assert len(gpt2.encode(" paper book")) > 1
    torch.testing.assert_close(make(gpt2, "labels", None, task=REVIEWS), means, rtol=0, atol=1e-7)
    inits._log_once.cache_clear()  # of what another test may have logged
    with caplog.at_level(logging.INFO):
        p0 = make(gpt2, "labels", 4, task=REVIEWS)
    assert caplog.messages == ["init: 2 labels, then 2 tokens drawn from the vocabulary"]
    torch.testing.assert_close(p0[:2], means, rtol=0, atol=1e-7)
    assert {tuple(row.tolist()) for row in p0[2:]} <= {tuple(row.tolist()) for row in table(gpt2)[1:]}
    assert not torch.equal(make(gpt2, "labels", 4, task=REVIEWS, seed=1)[2:], p0[2:])
    assert (
        said(gpt2, "labels", 1, task=REVIEWS) == "init=labels: 2 labels do not fit prompt.length=1; set prompt.length=2"
    )
    assert said(gpt2, "labels") == "init=labels: task t has no label set (task.labels)"


def test_a_file_is_taken_as_it_is(gpt2, tmp_path):
    rng = np.random.default_rng(0)
    array, other = rng.normal(size=(3, 32)).astype(np.float32), rng.normal(size=(5, 32)).astype(np.float32)
    np.save(tmp_path / "p.npy", array)
    np.save(tmp_path / "double.npy", array.astype(np.float64))
    safetensors.numpy.save_file({"prompt_embeddings": array}, tmp_path / "one.safetensors")
    safetensors.numpy.save_file({"final": array, "best": other}, tmp_path / "two.safetensors")
    np.savez(tmp_path / "one.npz", array)
    torch.save(torch.nn.Parameter(torch.from_numpy(array)), tmp_path / "no_ending")
    torch.save({"state": {"final": torch.from_numpy(array), "best": torch.zeros(3)}}, tmp_path / "two.ckpt")
    files = ("p.npy", "double.npy", "one.safetensors", "two.safetensors", "one.npz", "no_ending", "two.ckpt")
    for name in files:
        p0 = make(gpt2, "file", None, path=str(tmp_path / name))
        assert p0.dtype == torch.float32 and np.array_equal(p0.numpy(), array)
    assert np.array_equal(make(gpt2, "file", 5, path=str(tmp_path / "two.safetensors"), which="best").numpy(), other)
    two = tmp_path / "two.safetensors"
    assert (
        said(gpt2, "file", None, path=str(two), which="x")
        == f"init.path={two}: has no tensor 'x'; set init.which to one of best [5, 32], final [3, 32]"
    )
    assert (
        said(gpt2, "file", 4, path=str(tmp_path / "p.npy"))
        == f"init.path={tmp_path / 'p.npy'} is 3 tokens, but prompt.length=4; set prompt.length=3"
    )


def test_a_file_that_is_no_prompt_is_named(gpt2, tmp_path):
    np.save(tmp_path / "narrow.npy", np.zeros((3, 31)))
    np.save(tmp_path / "flat.npy", np.zeros(32))
    np.save(tmp_path / "nan.npy", np.full((3, 32), np.nan))
    np.save(tmp_path / "empty.npy", np.zeros((0, 32)))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "whole.npy", np.ones((3, 32), int))
    np.save(tmp_path / "complex.npy", np.ones((3, 32), complex))
    (tmp_path / "a_folder").mkdir()
    os.mkfifo(tmp_path / "a_pipe.npy")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    for name in ("cut.npy", "cut.safetensors", "p.pt"):
        (tmp_path / name).write_bytes(b"\x93NUM")

    def of(name: str) -> str:
        return said(gpt2, "file", None, path=str(tmp_path / name)).replace(f"init.path={tmp_path}/{name}", "PATH")

    assert of("narrow.npy") == "PATH: has shape [3, 31]; [P, 32] is needed for this model"
    assert of("flat.npy") == "PATH: has shape [32]; [P, 32] is needed for this model"
    assert of("nan.npy") == "PATH: final is not finite at [0, 0]; a prompt is made of finite numbers"
    assert of("empty.npy").startswith("PATH is 0 tokens")
    for name, kind in {
        "cut.npy": ".npy array",
        "pickled.npy": ".npy array",
        "cut.safetensors": ".safetensors file",
        "p.pt": "torch.save file",
    }.items():
        assert of(name).startswith(f"PATH: is not a readable {kind}: ")
    for name, kind in {"words.npy": "str32", "whole.npy": "int64", "complex.npy": "complex128"}.items():
        assert of(name) == f"PATH: final holds {kind}; a prompt is made of floating-point numbers"
    assert of("absent.npy") == "PATH: no such file" and of("a_folder") == "PATH: is a folder, not a file"
    assert of("a_pipe.npy") == "PATH: is a pipe or a device, not a file"


def finished(folder, arrays: dict[str, np.ndarray], model: str) -> str:
    trained = Trained(
        "completed",
        **arrays,
        trajectory=np.stack([arrays["initial"], arrays["best"]]),
        steps=np.array([5, 10]),
        metrics=[],
        predictions=[],
        results={"prompt_length": 3, "steps": 10, "n": 1, "accuracy": {}},
    )
    config = {section: {"name": "elsewhere"} for section in ("model", "task", "init", "template")}
    config |= {"optimizer": {"lr": 0.1}, "seed": 0}
    write_run(folder, {"id": "x", "config": config, "fingerprints": {"model": model}}, trained)
    return str(folder)


def test_a_run_is_the_prompt_that_it_trained(gpt2, tmp_path, caplog):
    """Soft-prompt transfer (SPoT): from the source's prompt alone; task and template are the target's own (trap 9)."""
    rng = np.random.default_rng(0)
    arrays = {which: rng.normal(size=(3, 32)).astype(np.float32) for which in ("initial", "final", "best")}
    path = finished(tmp_path / "run", arrays, gpt2.fingerprint)
    for which, expected in {
        "final": "final",
        "best": "best",
        "initial": "initial",
        "0": "initial",
        "5": "initial",
        "10": "best",
    }.items():
        assert np.array_equal(make(gpt2, "run", None, path=path, which=which).numpy(), arrays[expected])
    assert not caplog.messages
    other = finished(tmp_path / "other", arrays, "sha256:another")
    assert np.array_equal(make(gpt2, "run", None, path=other).numpy(), arrays["final"])
    assert caplog.messages == [
        f"init.path={other}: that prompt was trained on another model (elsewhere): its directions mean nothing here"
    ]
    assert (
        said(gpt2, "run", None, path=path, which="7")
        == f"init.which=7: {path}: has no checkpoint of step 7 (it has 5, 10)"
    )
    assert said(gpt2, "run", None, path=path, which="last").startswith(
        "init.which=last: which=last: one of initial, final, best or a step"
    )
    assert said(gpt2, "run", 4, path=path) == f"init.path={path} is 3 tokens, but prompt.length=4; set prompt.length=3"
    assert (
        said(gpt2, "run", None, path=str(tmp_path))
        == f"init.path={tmp_path}: {tmp_path}: no finished run lies here (no run.json); "
        f"2 below it: name one of them, such as {other}"
    )
    (tmp_path / "run" / "prompts.safetensors").write_bytes(b"")
    assert "prompts.safetensors: its SHA-256 is not the one in run.json" in said(gpt2, "run", None, path=path)


@pytest.mark.parametrize("kind", ["word", *RANDOM])
def test_an_init_that_has_no_length_of_its_own_asks_for_one(gpt2, kind):
    text = {"text": "cat"} if kind == "word" else {}
    assert said(gpt2, kind, None, **text).startswith("prompt.length=null: init=")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_init_fits_every_family(model_folders, family):
    lm = FrozenLM.load(str(model_folders[family]), device="cpu")
    for kind in ("word", "labels", *RANDOM):
        p0 = make(lm, kind, 4, task=REVIEWS, text="cat")
        assert p0.shape == (4, lm.width) and p0.dtype == torch.float32 and p0.device.type == "cpu"
        assert p0.is_contiguous() and not p0.requires_grad


@pytest.mark.parametrize("kind", RANDOM)
def test_a_random_init_without_a_length_is_as_long_as_its_text(gpt2, kind):
    tokens = len(gpt2.encode("cat dog bird"))
    assert torch.equal(make(gpt2, kind, None, text="cat dog bird"), make(gpt2, kind, tokens))
    assert make(gpt2, kind, None, text="cat dog bird").shape == (tokens, gpt2.width)
