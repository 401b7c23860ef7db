"""Pretrain the embedded model: python -m promptgeo.tiny.pretrain

The bundled weights had 2,600 steps before the corpus had the toy grammar, and then 2,400 more that began with those
(--start): a quarter of an hour on two cores with bf16, two hours without. The same seed gives the same weights on the
same machine, whether it was interrupted or not: the same command goes on from a file beside the folder that it writes.
"""

import argparse
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

# Before torch starts its threads: on a shared machine, spinning while they wait costs more than it saves.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("KMP_BLOCKTIME", "0")

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from promptgeo.tiny import PATH
from promptgeo.tiny.corpus import Corpus, pack
from promptgeo.tiny.muon import Muon
from promptgeo.tiny.tokenizer import train_tokenizer

N_POSITIONS = 128
ROW = 64
"""Tokens per row of most batches: about two documents, so that every second one begins where a prompt will stand."""
BATCH = 4096
"""Tokens per step, whatever the length of its rows."""
LONG_EVERY = 8
"""Every so many steps the rows are N_POSITIONS long: the later positions need to be learned too."""
SAVE_EVERY = 100
"""Steps from one file to go on from to the next."""
OTHERS = 0.1
"""Share of the other tokens that are predicted too: most are inputs drawn at random, with nothing to learn."""


def new_model(n_vocab: int, end: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=n_vocab,
        n_positions=N_POSITIONS,
        n_embd=256,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=end,
        eos_token_id=end,
        # The fused kernel of the same function as GPT-2's own "gelu_new", whose name is what is saved.
        activation_function="gelu_pytorch_tanh",
        attn_implementation="eager",  # faster than SDPA's CPU kernel at this size
    )
    return GPT2LMHeadModel(config)


def batches(
    corpus: Corpus, tokenizer: PreTrainedTokenizerFast, steps: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Per step: token ids and which to predict, both [rows, length]."""
    end, documents = tokenizer.eos_token_id, corpus.documents(lambda text: tokenizer.encode(text), len(tokenizer))
    for step in range(steps):
        length = N_POSITIONS if step % LONG_EVERY == LONG_EVERY - 1 else ROW
        ids, scored = pack(documents, corpus.rng, BATCH // length, length, end, OTHERS)
        yield torch.from_numpy(ids), torch.from_numpy(scored)


def product_dtype() -> torch.dtype:
    """bf16, but not where it is emulated, ten times slower than fp32."""
    return torch.bfloat16 if torch.backends.cpu.get_cpu_capability().startswith("AVX512") else torch.float32


def loss_of(model: GPT2LMHeadModel, ids: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats of the scored tokens; the head runs for those alone."""
    with torch.autocast("cpu", torch.bfloat16, enabled=product_dtype() is torch.bfloat16):
        hidden = model.transformer(ids, use_cache=False).last_hidden_state[:, :-1]
        logits = model.lm_head(hidden[scored[:, 1:]])
    return torch.nn.functional.cross_entropy(logits.float(), ids[:, 1:][scored[:, 1:]])


def pretrain(out: Path, seed: int, steps: int, lr: float, start: Path | None = None) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(2)  # a sum's order, and so the weights, depend on the number of threads
    corpus = Corpus(np.random.default_rng(seed))
    tokenizer = train_tokenizer(corpus.word_counts(), N_POSITIONS)
    model = new_model(len(tokenizer), tokenizer.eos_token_id)
    if start is not None:
        begin_from(model, tokenizer, start)
    print(
        f"{model.num_parameters():,} parameters, {len(tokenizer):,} tokens, {steps} steps of {BATCH} tokens", flush=True
    )
    unfinished = out.with_name(f"{out.name}.seed{seed}_steps{steps}_lr{lr:g}.pt")
    fit(model, batches(corpus, tokenizer, steps), steps, lr, unfinished)
    save(model, tokenizer, out)
    unfinished.unlink(missing_ok=True)
    print(f"{out}: {sum(file.stat().st_size for file in out.iterdir()) / 1e6:.1f} MB")


def begin_from(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, start: Path) -> None:
    """The weights of the model in the folder `start`, of one shape but for its vocabulary.

    A token that both vocabularies have keeps its embedding; a new one begins as it is.
    """
    earlier = GPT2LMHeadModel.from_pretrained(start, dtype=torch.float32).state_dict()
    known, tokens = AutoTokenizer.from_pretrained(start).get_vocab(), tokenizer.get_vocab()
    places = [(at, known[token]) for token, at in tokens.items() if token in known]
    own = model.state_dict()
    for name, value in earlier.items():
        if own[name].shape == value.shape and "wte" not in name and "lm_head" not in name:
            own[name].copy_(value)
    here, there = map(list, zip(*places, strict=True))
    own["transformer.wte.weight"][here] = earlier["transformer.wte.weight"][there]
    print(f"begins with {start}: {len(places):,} of {len(tokens):,} tokens are known", flush=True)


def fit(
    model: GPT2LMHeadModel,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    lr: float,
    unfinished: Path,
) -> None:
    """Train to the last step, from the one that the file `unfinished` holds: the weights are the same bytes either way.

    `batches` begins at the first step: those already trained on are drawn again and passed over.
    """
    # Muon for the matrices inside the blocks learns these thousands of single facts in two thirds of AdamW's steps.
    matrices = [p for p in model.transformer.h.parameters() if p.ndim == 2]
    inside = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in inside]
    optimizers = [
        Muon(matrices, lr=2 * lr, weight_decay=0.05, dtype=product_dtype()),
        torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    warmup = max(1, steps // 25)

    def scale(step: int) -> float:
        """Of the peak learning rate: a linear rise, then a linear decay to a fiftieth."""
        return min((step + 1) / warmup, 0.02 + 0.98 * (steps - step) / max(1, steps - warmup))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, scale) for optimizer in optimizers]
    parts = [model, *optimizers, *schedules]
    done = 0
    if unfinished.exists():
        done, states = torch.load(unfinished)
        for part, state in zip(parts, states, strict=True):
            part.load_state_dict(state)
        print(f"goes on after step {done} ({unfinished})", flush=True)
    start, recent = time.monotonic(), []
    for step, (ids, scored) in islice(enumerate(batches, 1), done, None):
        loss = loss_of(model, ids, scored)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        recent.append(loss.item())
        if step % SAVE_EVERY == 0 or step == steps:
            spent = time.monotonic() - start
            left = spent / (step - done) * (steps - step)
            print(
                f"step {step}/{steps}  loss {np.mean(recent):.3f}  {spent / 60:.1f} min, {left / 60:.1f} left",
                flush=True,
            )
            recent = []
            written = unfinished.with_suffix(".tmp")
            written.unlink(missing_ok=True)  # a link is not written through
            torch.save((step, [part.state_dict() for part in parts]), written)
            os.replace(written, unfinished)


def save(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Weights in fp16, half the size; computing in fp16 is slow on a CPU, so the config names float32."""
    model.half()
    model.config.activation_function = "gelu_new"
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)  # it would only repeat the config
    model.config.dtype = torch.float32
    model.config.save_pretrained(out)
    tokenizer.save_pretrained(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PATH, help="the Hugging Face folder to write (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of the corpus (%(default)s)")
    parser.add_argument("--steps", type=int, default=2400, help=f"of {BATCH} tokens each (%(default)s)")
    parser.add_argument(
        "--lr", type=float, default=2e-3, help="peak learning rate of AdamW; Muon's is twice that (%(default)s)"
    )
    parser.add_argument("--start", type=Path, help="a folder of earlier weights to begin from (at random)")
    pretrain(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
