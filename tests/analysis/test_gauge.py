"""gauge: what a model ignores of a prompt token is found on the loaded model; distances leave it out.

Shapes: K vectors, d width.
"""

import gc
import weakref

import numpy as np
import pytest
import torch
import transformers as tf

from conftest import make_config, sharpen
from promptgeo.analysis.geometry.gauge import Gauge, Reactions, gauge_of, measured, quotient
from promptgeo.model.frozen_lm import FrozenLM

NEITHER, SHIFT, BOTH = Gauge(False, False), Gauge(True, False), Gauge(True, True)
GAUGES = {
    "gpt2": SHIFT,
    "gpt_neox": SHIFT,
    "opt": NEITHER,  # embeddings projected, LayerNorms after the blocks
    "opt-125m": SHIFT,  # neither
    "bloom": BOTH,
    "llama": NEITHER,
    "gemma3": NEITHER,
}
SMALL_OPT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64}


def config_of(family: str, vocab: int):
    if family == "opt-125m":
        return tf.OPTConfig(vocab_size=vocab, word_embed_proj_dim=32, max_position_embeddings=64, **SMALL_OPT)
    return make_config(family, vocab)


def random_model(family: str, tokenizer, dtype=torch.float32, **changes) -> FrozenLM:
    """Every weight and bias random, those of the norms too."""
    config = config_of(family, len(tokenizer))
    for key, value in changes.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(config)
    sharpen(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.normal_(0.0 if name.endswith("bias") or family == "gemma3" else 1.0, 0.3)
    return FrozenLM(model.to(dtype), tokenizer)


@pytest.mark.parametrize("family", GAUGES)
def test_the_gauge_of_each_family_is_found(family, tokenizer):
    reactions = measured(random_model(family, tokenizer))
    assert reactions.gauge == GAUGES[family]
    # No close call: what is ignored does nothing but rounding (or epsilon), what is seen a tenth of a random change.
    for name in ("shift", "scale"):
        share = getattr(reactions, name) / getattr(reactions, f"{name}_random")
        assert share < 2e-3 if getattr(reactions.gauge, name) else share > 0.1, (name, reactions)


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_the_gauge_is_found_in_bf16_whose_rounding_is_ten_thousand_times_larger(family, tokenizer):
    reactions = measured(random_model(family, tokenizer, torch.bfloat16))
    assert reactions.gauge == GAUGES[family]
    assert reactions.rounding > 1e-3


def test_a_layer_norm_whose_epsilon_dominates_sees_scale_and_no_shift(tokenizer):
    assert measured(random_model("bloom", tokenizer, layer_norm_epsilon=1.0)).gauge == SHIFT


def test_a_model_that_hardly_reads_its_prompt_says_nothing(tokenizer):
    reactions = Reactions(shift=1e-7, shift_random=3e-7, scale=1e-7, scale_random=3e-7, rounding=1e-7)
    assert reactions.gauge is None
    assert Reactions(1e-7, 3e-7, 1e-7, 3e-7, rounding=1e-9).gauge == NEITHER


def test_a_model_is_asked_once_and_not_kept_alive(tokenizer, monkeypatch):
    lm = random_model("gpt2", tokenizer)
    assert gauge_of(lm) == SHIFT
    monkeypatch.setattr(FrozenLM, "label_logits", None)  # to ask again would fail
    assert gauge_of(lm) == SHIFT
    gone = weakref.ref(lm)
    del lm
    gc.collect()
    assert gone() is None


def least_distance(a_d: np.ndarray, b_d: np.ndarray, shifts) -> float:
    return min(float(np.linalg.norm(a_d - b_d - shift)) for shift in shifts)


def test_distances_of_representatives_are_those_of_the_quotient():
    generator = np.random.default_rng(0)
    a_Kd, b_Kd = generator.normal(2.0, 1.0, size=(2, 5, 12)).astype(np.float32)
    factors_K1, shifts_K1 = generator.uniform(0.5, 3, (5, 1)), generator.normal(size=(5, 1)) * 4
    same = {NEITHER: a_Kd, SHIFT: a_Kd + shifts_K1, BOTH: factors_K1 * a_Kd + shifts_K1}
    same[Gauge(shift=False, scale=True)] = factors_K1 * a_Kd
    for gauge, moved_Kd in same.items():
        np.testing.assert_allclose(quotient(moved_Kd, gauge), quotient(a_Kd, gauge), atol=1e-6)
    np.testing.assert_array_equal(quotient(a_Kd, NEITHER), a_Kd)
    shifted = np.linalg.norm(quotient(a_Kd, SHIFT) - quotient(b_Kd, SHIFT), axis=1)
    for distance, a_d, b_d in zip(shifted, a_Kd, b_Kd, strict=True):
        assert distance == pytest.approx(least_distance(a_d, b_d, np.linspace(-3, 3, 6001)), abs=1e-5)
    cosines = [np.corrcoef(a_d, b_d)[0, 1] for a_d, b_d in zip(a_Kd, b_Kd, strict=True)]
    both = np.linalg.norm(quotient(a_Kd, BOTH) - quotient(b_Kd, BOTH), axis=1)
    np.testing.assert_allclose(both, np.sqrt(2 - 2 * np.array(cosines)), atol=1e-6)
    assert not quotient(np.full((2, 3, 4), 7.0), BOTH).any()  # no direction is left of a constant
