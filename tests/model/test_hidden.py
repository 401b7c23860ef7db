"""Hidden states and patching, against the untouched model run on one unpadded row at a time.

Shapes: N prompts, P prompt tokens, B rows, Q positions, S layers, D width of the hidden states.
"""

import numpy as np
import pytest
import torch

import families
from promptgeo import FrozenLM, UserError
from promptgeo.data.row import Row
from promptgeo.model import frozen_lm

TEN = ("gpt2", "bloom", "gpt_neox", "opt", "llama", "qwen2", "gemma3_text", "phi", "qwen3", "olmo2")
PROMPT = 2


def embeddings(model, prompts_NPd, row: Row, prompt: int) -> torch.Tensor:
    """[1, T, d]: what a plain model is given of a row and its label's first tokens."""
    ids = np.concatenate([row.ids, row.label[:-1]])
    table = model.get_input_embeddings()
    return torch.stack([prompts_NPd[prompt, -1 - i] if i < 0 else table(torch.tensor([i]))[0] for i in ids.tolist()])[
        None
    ]


def rows_of(count: int) -> tuple[list[Row], list[int]]:
    """Rows of three prompts that share their beginnings, of several lengths, with prompts at the start and inside."""
    generator = np.random.default_rng(0)
    rows, prompt_of = [], []
    for prompt in range(3):
        for k in range(count):
            text = [7, -1, -2, 9] if k % 2 else [-1, -2]
            ids = np.array([*text, *generator.integers(5, 300, 2 + k)])
            rows.append(Row(ids, generator.integers(5, 300, 1 + k % 3)))
            prompt_of.append(prompt)
    return rows, prompt_of


@pytest.fixture(scope="module", params=TEN)
def pair(request, tokenizer):
    plain = families.make_model(request.param)
    lm = FrozenLM(families.make_model(request.param), tokenizer, name=request.param)
    prompts_NPd = torch.randn(3, PROMPT, lm.width, generator=torch.Generator().manual_seed(3)) * lm.embedding_scale
    return lm, plain, prompts_NPd


@torch.no_grad()
def states_of(plain, embeds) -> list[torch.Tensor]:
    """[T, D] of each layer."""
    out = plain(inputs_embeds=embeds, output_hidden_states=True, use_cache=False)
    return [states[0] for states in out.hidden_states]


def in_grids(lm, monkeypatch) -> None:
    monkeypatch.setattr(lm, "_shares_prefixes", False)


@pytest.mark.parametrize("kind", ["tree", "grid"])
def test_hidden_states_are_those_of_a_plain_forward(pair, kind, monkeypatch):
    lm, plain, prompts_NPd = pair
    if kind == "grid":
        in_grids(lm, monkeypatch)
    rows, prompt_of = rows_of(4)
    layers = list(range(lm.layers + 1))
    positions = [[row.ids.tolist().index(-1), -2, -1] for row in rows]
    states_SBQD = lm.hidden(prompts_NPd, rows, prompt_of, layers, positions)
    assert {states_BQD.shape[:2] for states_BQD in states_SBQD} == {(len(rows), 3)}
    for i, row in enumerate(rows):
        plain_STD = states_of(plain, embeddings(plain, prompts_NPd, row, prompt_of[i]))
        for layer in layers:
            wanted = plain_STD[layer][[q % len(row.ids) for q in positions[i]]]
            assert (states_SBQD[layer][i] - wanted).abs().max() < 1e-5 * plain_STD[layer].abs().max(), (i, layer)


@pytest.mark.parametrize("kind", ["tree", "grid"])
@pytest.mark.parametrize("add", [False, True])
def test_patching_is_what_a_hook_on_a_plain_models_block_does(pair, kind, add, monkeypatch):
    lm, plain, prompts_NPd = pair
    if kind == "grid":
        in_grids(lm, monkeypatch)
    rows, prompt_of = rows_of(4)
    layer = lm.layers - 1
    width = lm.hidden(prompts_NPd, rows[:1], [0], [layer], [[0]])[0].shape[-1]
    states_NPD = torch.randn(3, PROMPT, width, generator=torch.Generator().manual_seed(4))
    with lm.patched(layer, states_NPD, add=add):
        patched = list(zip(*logits_of(lm, prompts_NPd, rows, prompt_of), strict=True))
    unpatched = list(zip(*logits_of(lm, prompts_NPd, rows, prompt_of), strict=True))
    (block,) = [m for m in plain.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == lm.layers][:1]
    for i, row in enumerate(rows):
        at = [row.ids.tolist().index(-1 - p) for p in range(PROMPT)]

        def write(_, args, named, at=at, own=states_NPD[prompt_of[i]]):
            states = (args[0] if args else named["hidden_states"]).clone()
            states[0, at] = own + states[0, at] if add else own
            return ((states, *args[1:]), named) if args else (args, named | {"hidden_states": states})

        handle = block[layer].register_forward_pre_hook(write, with_kwargs=True)
        with torch.no_grad():
            out = plain(inputs_embeds=embeddings(plain, prompts_NPd, row, prompt_of[i]), use_cache=False).logits[0]
        handle.remove()
        wanted_mV = out[len(row.ids) - 1 :]
        logits_mV = dict(patched)[i]
        assert (logits_mV - wanted_mV).abs().max() < 1e-5 * wanted_mV.abs().max().clamp(min=1)
        assert (logits_mV - dict(unpatched)[i]).abs().max() > 1e-3


FIRST_LINEAR = {
    "gpt2": "mlp.c_fc",
    "bloom": "mlp.dense_h_to_4h",
    "gpt_neox": "mlp.dense_h_to_4h",
    "opt": "fc1",
    "phi": "mlp.fc1",
}
"""By name, where it is not mlp.gate_proj: what the activation reads in each family."""


@pytest.mark.parametrize("kind", ["tree", "grid"])
def test_active_neurons_are_those_whose_pre_activation_is_positive(pair, kind, monkeypatch):
    lm, plain, prompts_NPd = pair
    if kind == "grid":
        in_grids(lm, monkeypatch)
    rows, prompt_of = rows_of(4)
    active = lm.active_neurons(prompts_NPd, rows, prompt_of)
    (blocks,) = [m for m in plain.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == lm.layers][:1]
    own: list[torch.Tensor] = []
    linears = [block.get_submodule(FIRST_LINEAR.get(lm.name, "mlp.gate_proj")) for block in blocks]
    handles = [linear.register_forward_hook(lambda _, __, out: own.append(out)) for linear in linears]
    wanted = []
    for i, row in enumerate(rows):
        own.clear()
        states_of(plain, embeddings(plain, prompts_NPd, row, prompt_of[i]))
        length = len(row.ids) + len(row.label) - 1
        wanted.append(torch.cat([out.reshape(length, -1)[len(row.ids) - 1] for out in own]))
    for handle in handles:
        handle.remove()
    wanted_BK = torch.stack(wanted)
    assert active.shape == wanted_BK.shape and active.dtype == torch.bool
    clear_BK = wanted_BK.abs() > 1e-5 * wanted_BK.abs().max()  # of what is 0 up to rounding the sign is chance
    assert clear_BK.float().mean() > 0.99 and (active == (wanted_BK > 0))[clear_BK].all()
    assert 0.05 < active.float().mean() < 0.95


def test_blocks_without_one_activation_are_refused(pair):
    lm, _, prompts_NPd = pair
    rows, prompt_of = rows_of(1)
    lm._blocks.blocks[0].more = torch.nn.ReLU()
    try:
        with pytest.raises(UserError, match="no single module as activation"):
            lm.active_neurons(prompts_NPd, rows, prompt_of)
    finally:
        del lm._blocks.blocks[0].more


def logits_of(lm, prompts_NPd, rows, prompt_of):
    places, found = [], []
    for batch in lm.batches(rows, prompt_of, PROMPT):
        logits_MV = lm.label_logits(prompts_NPd, batch).detach()
        for i in batch.rows:
            places.append(i)
            found.append(logits_MV[batch.row_M == i])
    return places, found


def test_what_is_written_under_a_patch_goes_on_from_it(pair):
    """Greedy writing from the cache of a patched forward equals running the patched model anew for every token."""
    lm, _, prompts_NPd = pair
    rows, prompt_of = rows_of(3)
    width = lm.hidden(prompts_NPd, rows[:1], [0], [1], [[0]])[0].shape[-1]
    states_NPD = 3 * torch.randn(3, PROMPT, width, generator=torch.Generator().manual_seed(5))
    with lm.patched(1, states_NPD):
        written = lm.write(prompts_NPd, rows, prompt_of, 4)
        anew = [[] for _ in rows]
        for _ in range(4):
            grown = [frozen_lm._extended(row, tokens) for row, tokens in zip(rows, anew, strict=True)]
            for i, logits_mV in zip(*logits_of(lm, prompts_NPd, grown, prompt_of), strict=True):
                anew[i].append(int(logits_mV[0].argmax()))
    ends = lm.end_tokens
    for ours, theirs in zip(written, anew, strict=True):
        stop = next((k + 1 for k, token in enumerate(theirs) if token in ends), len(theirs))
        assert ours == theirs[:stop]
    assert written != lm.write(prompts_NPd, rows, prompt_of, 4)


def test_layers_and_positions_that_there_are_not_are_named(pair):
    lm, _, prompts_NPd = pair
    rows, prompt_of = rows_of(1)
    with pytest.raises(UserError, match=rf"layer {lm.layers + 1}: the model has layers 0 to {lm.layers} here"):
        lm.hidden(prompts_NPd, rows, prompt_of, [lm.layers + 1], [[0]] * 3)
    for outside in (len(rows[0].ids), -len(rows[0].ids) - 1):
        with pytest.raises(UserError, match="tokens before its label"):
            lm.hidden(prompts_NPd, rows, prompt_of, [0], [[outside]] * 3)
    with pytest.raises(UserError, match="layer"), lm.patched(lm.layers, prompts_NPd):
        pass


def test_a_model_whose_blocks_are_not_plain_ones_is_refused(tokenizer, tmp_path):
    families.make_model("gemma3n_text").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = FrozenLM.load(str(tmp_path))
    rows, prompt_of = rows_of(1)
    with pytest.raises(UserError, match="hidden states cannot be read"):
        lm.hidden(torch.randn(3, PROMPT, lm.width), rows, prompt_of, [1], [[-1]] * 3)
