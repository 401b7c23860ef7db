"""Is promptgeo right on every family of causal language models in transformers? Random tiny models against plain ones.

    python benchmarks/families.py [--out benchmarks/results/families.json] [--only llama,gemma3n_text]

For each entry of transformers' list of causal language models: a random model of its own config class in tiny sizes
(fp32), saved and loaded as a user's folder is, then compared with the untouched model, one unpadded row at a time:
logits of rows of several lengths in one batch (largest difference over the logits' spread, at most 1e-4), greedy output
of each row (equal), the prompt's gradient (relative, at most 1e-3). Each family ends as one of
    equal      within all three
    refused    promptgeo gives one line that says why
    wrong      promptgeo gives numbers that are not the plain model's: to be mended
    no model   this script cannot build a tiny one that runs in time; nothing is known

With --only and an --out that exists, these families' lines are replaced.
"""

import argparse
import json
import logging
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np

from peft_recipe import environment

import torch  # isort: skip
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from promptgeo.errors import UserError
from promptgeo.model.batching import IGNORE
from promptgeo.model.frozen_lm import FrozenLM

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from conftest import make_tokenizer, sharpen

VOCABULARY = 640
MOST = 1e7
"""Parameters of a tiny model, at most."""
SECONDS = 60
"""For a family, at most."""
PROMPT = 3
NEW_TOKENS = 5
LOGITS, GRADIENT = 1e-4, 1e-3
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "d_model": 32,
    "n_embd": 32,
    "num_hidden_layers": 2,
    "n_layer": 2,
    "n_layers": 2,
    "num_layers": 2,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "num_attention_heads": 4,
    "n_head": 4,
    "n_heads": 4,
    "num_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "ffn_dim": 64,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 128,
    "n_positions": 128,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "is_decoder": True,
    "sliding_window": 64,
}
"""Given where the family's config has a field of that name."""
SPECIAL = ("pad_token_id", "bos_token_id", "eos_token_id")
NARROW = {"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "kv_lora_rank": 16, "q_lora_rank": 16}
NARROW |= {"num_key_value_heads": 4}
LATENT = NARROW | {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "head_dim": 8}
EXTRA: dict[str, dict] = {
    "deepseek_v2": LATENT,
    "deepseek_v3": LATENT,
    "glm4_moe": {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "falcon_h1": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_ssm": 64,
        "mamba_d_state": 16,
        "mamba_chunk_size": 16,
    },
    "granitemoehybrid": {
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 16,
        "layer_types": ["mamba", "attention"],
    },
    "glm4_moe_lite": LATENT,
    "dots1": {"n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "n_shared_experts": 1},
    "minicpm3": NARROW,
    "youtu": NARROW,
    "gemma3_text": {"sliding_window": 8},
    "gemma2": {"sliding_window": 8},
    "mistral": {"sliding_window": 8},
    "gemma3n_text": {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "num_kv_shared_layers": 0,
        "laurel_rank": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "activation_sparsity_pattern": [0.0, 0.0],
        "intermediate_size": [64, 64],
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCABULARY,
        "num_kv_shared_layers": 0,
        "layer_types": ["sliding_attention", "full_attention"],
        "global_head_dim": 8,
    },
    "bamba": {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_expand": 2, "mamba_d_state": 16, "attn_layer_indices": [1]},
    "axk1": {**LATENT},
    "axk2": {**LATENT},
    "mamba": {"state_size": 8, "time_step_rank": 4, "expand": 2},
    "falcon_mamba": {"state_size": 8, "time_step_rank": 4, "expand": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "state_size": 16, "n_groups": 1, "chunk_size": 16},
    "opt": {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
    "mpt": {"max_seq_len": 128},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "phi3": {"original_max_position_embeddings": 128},
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "olmo_hybrid": {"layer_types": ["linear_attention", "full_attention"]},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 8},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "num_hidden_layers": 3},
}


def make_model(family: str) -> torch.nn.Module:
    """Random weights, of which every position counts."""
    kind = CONFIG_MAPPING[family]
    defaults = kind()
    text = defaults.get_text_config()
    extra = EXTRA.get(family, {})
    known = {*text.to_dict(), *getattr(type(text), "attribute_map", {}), *SPECIAL}
    config = type(text)(**{k: v for k, v in SMALL.items() if k in known} | extra)
    with torch.device("meta"):
        if sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters()) > MOST:
            raise ValueError("the tiny sizes do not reach all of its config")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    sharpen(model)
    with torch.no_grad():
        for parameter in model.parameters():  # scales that start at 0 would switch off what a trained model has
            if parameter.is_floating_point() and not parameter.any():
                parameter.normal_(0, 0.3)
        model.eval()(input_ids=torch.arange(6)[None] + 300, use_cache=False)  # else the sizes do not fit together
    return model.eval()


def logits_and_gradient(lm: FrozenLM, prompt_Pd: torch.Tensor, rows: list) -> tuple[list[torch.Tensor], torch.Tensor]:
    """promptgeo's: all rows in one call. [m, V] of each row, and the gradient of their summed losses."""
    prompts = prompt_Pd[None].clone().requires_grad_()
    logits, loss = {}, 0.0
    for batch in lm.batches(rows, [0] * len(rows), len(prompt_Pd)):
        said = lm.label_logits(prompts, batch)
        loss = loss + torch.nn.functional.cross_entropy(said, batch.targets_M, reduction="sum", ignore_index=IGNORE)
        for i in batch.rows:
            logits[i] = said[(batch.row_M == i) & (batch.targets_M != IGNORE)].detach()
    loss.backward()
    return [logits[i] for i in range(len(rows))], prompts.grad[0]


class Plain:
    """The untouched model on single rows: by embeddings, or, where by_ids, by ids whose embeddings are replaced."""

    def __init__(self, model, by_ids: bool):
        self.model, self.by_ids = model, by_ids

    def logits(self, prompt_Pd, ids) -> torch.Tensor:
        ids = np.asarray(ids)
        if (ids >= 0).all():  # no prompt: what the family computes of plain text
            return self.model(input_ids=torch.from_numpy(ids)[None], use_cache=False).logits[0]
        embeds = reference.embeddings(self.model, prompt_Pd, ids)[None]
        if not self.by_ids:
            return self.model(inputs_embeds=embeds, use_cache=False).logits[0]
        handle = self.model.get_input_embeddings().register_forward_hook(lambda *_: embeds)
        try:
            return self.model(input_ids=torch.from_numpy(ids.clip(0))[None], use_cache=False).logits[0]
        finally:
            handle.remove()

    def label_logits(self, prompt_Pd, row) -> torch.Tensor:
        return self.logits(prompt_Pd, np.concatenate([row.ids, row.label]))[len(row.ids) - 1 : -1]

    @torch.no_grad()
    def written(self, prompt_Pd, row, ends: set[int]) -> list[int]:
        ids, tokens = row.ids.tolist(), []
        while len(tokens) < NEW_TOKENS and not (tokens and tokens[-1] in ends):
            tokens.append(int(self.logits(prompt_Pd, ids + tokens)[-1].argmax()))
        return tokens


def compare(folder: str) -> dict:
    """The family's line. Raises UserError where promptgeo refuses it."""
    lm = FrozenLM.load(folder, device="cpu", precision="fp32")
    plain = Plain(reference.original(folder), lm._by_ids)
    embed = lm.vocabulary()
    generator = torch.Generator().manual_seed(1)
    prompt = embed[100:103] + 0.5 * embed.std() * torch.randn(PROMPT, lm.width, generator=generator)
    rows = [r for r in reference.random_rows(9, PROMPT, 600, seed=2) if r.length < 60]
    rows = [reference.row(np.where(r.ids >= 0, r.ids.clip(3), r.ids), r.label.clip(3)) for r in rows]
    bare = [reference.row(r.ids[r.ids >= 0], r.label) for r in rows]
    errors = []
    for these, p in ((rows, prompt), (bare, prompt)):
        leaf = p.clone().requires_grad_()
        expected = [plain.label_logits(leaf, r) for r in these]
        if these is bare:
            with torch.no_grad():
                got = [torch.empty(0)] * len(these)
                for batch in lm.batches(these, [0] * len(these), 0):
                    said = lm.label_logits(p[None, :0], batch)
                    for i in batch.rows:
                        got[i] = said[(batch.row_M == i) & (batch.targets_M != IGNORE)]
        else:
            got, gradient = logits_and_gradient(lm, p, these)
            pairs = zip(expected, these, strict=True)
            losses = (
                torch.nn.functional.cross_entropy(x, torch.from_numpy(r.label), reduction="sum") for x, r in pairs
            )
            sum(losses).backward()
            off = float((gradient - leaf.grad).norm() / leaf.grad.norm())
        expected = [logits.detach() for logits in expected]
        spread = torch.cat(expected).std()
        errors.append(max(float((a - b).abs().max() / spread) for a, b in zip(got, expected, strict=True)))
    # A tie is broken by rounding: greedy output is that of the plain model's own first places.
    greedy = lm.write(prompt[None], rows, [0] * len(rows), NEW_TOKENS)
    same = sum(a == plain.written(prompt, r, lm.end_tokens) for a, r in zip(greedy, rows, strict=True))
    right = max(errors) <= LOGITS and off <= GRADIENT and same == len(rows)
    return {
        "verdict": "equal" if right else "wrong",
        "logits": max(errors),
        "gradient": off,
        "greedy": f"{same} of {len(rows)}",
        "prefixes": "shared" if lm._shares_prefixes else "padded grid",
        "needs_token_ids": lm._by_ids,
    }


def examine(family: str, tokenizer) -> dict:
    signal.signal(signal.SIGALRM, _out_of_time)
    with tempfile.TemporaryDirectory() as folder:
        signal.alarm(SECONDS)
        try:
            model = make_model(family)
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except Exception as error:  # any config class may want anything
            return {"verdict": "no model", "why": f"{type(error).__name__}: {str(error).splitlines()[:1]}"[:200]}
        try:
            return compare(folder)
        except UserError as error:
            return {"verdict": "refused", "why": str(error).replace(folder, "FOLDER")}
        except TimeoutError as error:
            return {"verdict": "no model", "why": str(error)}
        except Exception as error:
            return {"verdict": "wrong", "why": f"{type(error).__name__}: {str(error)[:200]}"}
        finally:
            signal.alarm(0)


def _out_of_time(*_) -> None:
    raise TimeoutError(f"longer than {SECONDS} seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", help="families, with commas between")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    families = arguments.only.split(",") if arguments.only else sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    tokenizer, results = make_tokenizer(), {}
    for family in families:
        begun = time.perf_counter()
        results[family] = examine(family, tokenizer)
        line = results[family]
        numbers = " ".join(f"{k}={v:.1e}" if isinstance(v, float) else f"{k}={v}" for k, v in line.items())
        print(f"{family:28s} {numbers} ({time.perf_counter() - begun:.1f} s)", file=sys.stderr, flush=True)
    if arguments.only and arguments.out and arguments.out.exists():
        before = json.loads(arguments.out.read_text(encoding="utf-8"))["families"]
        results = dict(sorted((before | results).items()))
    counts: dict[str, int] = {}
    for line in results.values():
        counts[line["verdict"]] = counts.get(line["verdict"], 0) + 1
    report = {"counts": counts, "tolerances": {"logits": LOGITS, "gradient": GRADIENT}, "families": results}
    report |= environment("cpu")
    text = json.dumps(report, indent=1)
    print(counts, file=sys.stderr)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
