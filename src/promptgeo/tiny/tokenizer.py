"""The tokenizer of `tiny`: a byte-level BPE of 4,096 tokens, learned from the words of its corpus.

Learning curves are compared across inits, so every init word is one token, however often it is repeated ("catcatcatcat"
is four tokens), and so is every number of the number tasks (an input or label of one token keeps `bare` possible).
"""

from collections.abc import Mapping

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

INIT_WORDS = ("cat", "dog", "bird", "book", "house", "chair", "table", "pen", "paper", "water")
NUMBERS = tuple(str(n) for n in range(503))
END = "<|endoftext|>"
SIZE = 4096


def train_tokenizer(counts: Mapping[str, int], n_positions: int) -> PreTrainedTokenizerFast:
    """The BPE learned from `counts` (text -> how often it is read), after the init words and the numbers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    # BPE merges the most frequent pair first, so frequency is what makes a word one token. The init words come before
    # everything else, lest a merge across two of them ("tc" of "catcat") come first, and the longer before the shorter
    # (the "ird" of "chairdog").
    certain = [form for word in INIT_WORDS for form in (word, " " + word) * (1000 * len(word))]
    certain += [form for number in NUMBERS for form in (number, " " + number)] * 100
    tokenizer.train_from_iterator([*certain, *(text for text, n in counts.items() for _ in range(n))], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END,
        eos_token=END,
        model_max_length=n_positions,
        clean_up_tokenization_spaces=False,
    )
    check_tokenizer(fast)
    return fast


def check_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    """Raise ValueError unless the promises in this file's docstring hold."""
    for word in (*INIT_WORDS, *NUMBERS):
        for form in (word, " " + word):
            if len(tokenizer.encode(form)) != 1:
                raise ValueError(
                    f"{form!r} is {len(tokenizer.encode(form))} tokens, not one: {tokenizer.tokenize(form)}"
                )
    for first in INIT_WORDS:
        for second in INIT_WORDS:
            for text, n in ((first + second, 2), (f"{first} {second}", 2), (first + second * 3, 4)):
                if len(tokenizer.encode(text)) != n:
                    raise ValueError(
                        f"{text!r} is {len(tokenizer.encode(text))} tokens, not {n}: {tokenizer.tokenize(text)}"
                    )
    if len(tokenizer) > SIZE:
        raise ValueError(f"the vocabulary has {len(tokenizer)} tokens, more than {SIZE}")
