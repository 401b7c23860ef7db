"""Small tokenizers that do to a text what those of known models do; trained on the bundled data."""

import csv
from importlib.resources import files

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>"]


def _texts() -> list[str]:
    texts = []
    for name in ("country_capital", "present_past", "plus_two"):
        with (files("promptgeo.data") / "bundled" / f"{name}.csv").open(encoding="utf-8", newline="") as stream:
            texts += [
                text for row in csv.DictReader(stream) for text in (f"Input: {row['input']}", f"Label: {row['label']}")
            ]
    return texts


def make(like: str) -> PreTrainedTokenizerFast:
    """like: llama2 ("▁" before every text), mistral (before one that begins without a space), prefix_space (a space
    before every text), lower (lower-cases), spaces (newlines become spaces), or nfc (composes characters)."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=False, fuse_unk=True))
    byte_level = like in ("prefix_space", "lower", "spaces", "nfc")
    if byte_level:
        bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=like == "prefix_space")
        bpe.decoder = decoders.ByteLevel()
        normalizer = {
            "lower": normalizers.Lowercase(),
            "spaces": normalizers.Replace("\n", " "),
            "nfc": normalizers.NFC(),
        }
        if like in normalizer:
            bpe.normalizer = normalizer[like]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        # No token is learned across a space or a sign, as SentencePiece learns them.
        words = pre_tokenizers.Metaspace(prepend_scheme="always")
        bpe.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.Split(":", "isolated")])
        # Whatever a template or a label may hold is in the alphabet.
        alphabet = sorted({*"\n:=)▁", *(chr(code) for code in range(33, 127))})
        strip = [decoders.Strip(content=" ", left=1)]
        bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), *strip])
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, max_token_length=12
    )
    bpe.train_from_iterator(_texts(), trainer)
    if like == "llama2":
        bpe.pre_tokenizer = None
        bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif like == "mistral":
        bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
