"""Random models of seven architectures and a small tokenizer, made from configs: real loading code, no hub."""

import csv
import os
from pathlib import Path

# Before torch, whose threads otherwise spin while they wait: busy machines slow down 4 to 58 times.
import promptgeo  # noqa: F401

# isort: split
import pytest
import torch

torch.set_num_threads(2)
os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test reaches for a network
os.environ["PROMPTGEO_CACHE"] = ""  # each test asks its models anew
SHARED = Path(__file__).parents[2] / "shared" / "data"
LONG = ("training", "tiny", "cli")
"""Wings whose tests train whole sweeps, in processes of their own: a third of the tests, two thirds of the time."""
FAMILIES = ("gpt2", "bloom", "gpt_neox", "opt", "llama", "qwen2", "gemma3")


def pytest_collection_modifyitems(items: list) -> None:
    """Longest first, so that no worker is left alone with them at the end."""
    items.sort(key=lambda item: 0 if item.path.parent.name in LONG else 1)  # stable: else as they are listed


@pytest.fixture(autouse=True, scope="session")
def texts_of_figures():
    """Of every figure that any test draws: no text lies on another, and it keeps what all promise."""
    from figure_promises import broken
    from figure_texts import overlapping
    from promptgeo.analysis import figures

    as_written = figures._take_texts_as_written

    def looked_at(figure) -> None:
        as_written(figure)
        assert overlapping(figure) == []
        assert broken(figure) == []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "_take_texts_as_written", looked_at)
        yield


def needs_shared(name: str) -> Path:
    """A folder of published data, or a skip that says why."""
    if not (SHARED / name).exists():
        pytest.skip(f"needs the published data files in ../shared/data/{name}, which the project does not commit")
    return SHARED / name


def make_tokenizer():
    """A byte-level BPE of 600 tokens from the bundled data; no pad token."""
    from importlib.resources import files

    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    text = []
    for name in ("country_capital", "present_past", "plus_two"):
        with (files("promptgeo.data") / "bundled" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            text += [f" {row['input']} {row['label']}" for row in csv.DictReader(stream)]
    bpe = ByteLevelBPETokenizer()
    words = ["cat", "dog", "bird", "book", "house", "chair", "table", "pen", "paper", "water", "Input", "Label"]
    bpe.train_from_iterator(text + words * 200, vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


def tokenizer_that_writes(*pieces: str):
    """One whose encoding of a text is these pieces, $A the text itself; two more tokens are special."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<bos>", "<lang>"]})
    special = [(t, tokenizer.convert_tokens_to_ids(t)) for t in ("<bos>", "<lang>", "<|endoftext|>")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=" ".join(pieces), special_tokens=special)
    return tokenizer


def make_config(family: str, vocab: int):
    import transformers as tf

    small = {"vocab_size": vocab, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    rotary = small | ends | {"intermediate_size": 64, "max_position_embeddings": 64}
    # Embeddings narrower than the model, as in opt-350m: the soft prompt has the embeddings' width.
    opt = small | ends | {"ffn_dim": 64, "max_position_embeddings": 64, "pad_token_id": 1}
    opt |= {"word_embed_proj_dim": 16, "do_layer_norm_before": False}
    # A window shorter than the rows: some layers must not see the prompt any more.
    gemma3 = rotary | {"num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    gemma3 |= {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
    return {
        "gpt2": lambda: tf.GPT2Config(vocab_size=vocab, n_embd=32, n_layer=2, n_head=4, n_positions=64, **ends),
        "bloom": lambda: tf.BloomConfig(vocab_size=vocab, hidden_size=32, n_layer=2, n_head=4, **ends),
        "gpt_neox": lambda: tf.GPTNeoXConfig(**rotary),
        "opt": lambda: tf.OPTConfig(**opt),
        "llama": lambda: tf.LlamaConfig(**rotary),
        "qwen2": lambda: tf.Qwen2Config(**rotary, num_key_value_heads=2),
        "gemma3": lambda: tf.Gemma3TextConfig(**gemma3),
    }[family]()


def sharpen(model) -> None:
    """Fresh weights (deviation 0.02) hardly attend to anything at this width: larger ones make every position count."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(8)


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory, tokenizer) -> dict[str, Path]:
    """family -> a local folder as a hub repository has it."""
    from transformers import AutoModelForCausalLM

    folders = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp("models") / family
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(make_config(family, len(tokenizer)))
        sharpen(model)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders[family] = folder
    return folders


@pytest.fixture(params=FAMILIES)
def lm(request, model_folders):
    """A FrozenLM of each family in turn."""
    from promptgeo import FrozenLM

    return FrozenLM.load(str(model_folders[request.param]), device="cpu")


@pytest.fixture
def gpt2(model_folders):
    from promptgeo import FrozenLM

    return FrozenLM.load(str(model_folders["gpt2"]), device="cpu")


@pytest.fixture(scope="session")
def with_bos(model_folders, tmp_path_factory):
    """The small Llama, whose tokenizer now puts a BOS."""
    import shutil

    import reference

    folder = tmp_path_factory.mktemp("bos") / "llama"
    shutil.copytree(model_folders["llama"], folder)
    tokenizer = tokenizer_that_writes("<bos>", "$A")
    model = reference.original(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
