"""Hidden states and patching, against the untouched model run on one unpadded row at a time.

Shapes: N prompts, P prompt tokens, B rows, Q positions, S layers, D width of the hidden states.
"""

import re
from contextlib import contextmanager

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


@pytest.fixture(scope="module")
def asked(tokenizer):
    """A model, and arguments of `hidden` that go together: 3 prompts of 2 tokens, 6 rows."""
    lm = FrozenLM(families.make_model("llama"), tokenizer, name="llama")
    rows, prompt_of = rows_of(2)
    prompts_NPd = torch.randn(3, PROMPT, lm.width, generator=torch.Generator().manual_seed(3)) * lm.embedding_scale
    return lm, {
        "prompts_NPd": prompts_NPd,
        "rows": rows,
        "prompt_of": prompt_of,
        "layers": [0, 1],
        "positions": [[0, -1]] * len(rows),
    }


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


@contextmanager
def written(plain, lm, layer: int, states_PD, row: Row, add: bool = False):
    """Within, a hook on a plain model's block changes what it reads at a row's prompt tokens."""
    at = [row.ids.tolist().index(-1 - p) for p in range(PROMPT)]

    def write(_, args, named):
        states = (args[0] if args else named["hidden_states"]).clone()
        states[0, at] = states_PD + states[0, at] if add else states_PD
        return ((states, *args[1:]), named) if args else (args, named | {"hidden_states": states})

    (blocks,) = [m for m in plain.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == lm.layers][:1]
    handle = blocks[layer].register_forward_pre_hook(write, with_kwargs=True)
    yield
    handle.remove()


@torch.no_grad()
def plain_logits(plain, prompts_NPd, row: Row, prompt: int) -> torch.Tensor:
    """[m, V] at a row's label."""
    out = plain(inputs_embeds=embeddings(plain, prompts_NPd, row, prompt), use_cache=False).logits[0]
    return out[len(row.ids) - 1 :]


def random_states(lm, prompts_NPd, seed: int) -> torch.Tensor:
    """[N, P, D]"""
    width = lm.hidden(prompts_NPd, [], [], [1], [])[0].shape[-1]
    return torch.randn(3, PROMPT, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["tree", "grid"])
@pytest.mark.parametrize("add", [False, True])
def test_patching_is_what_a_hook_on_a_plain_models_block_does(pair, kind, add, monkeypatch):
    lm, plain, prompts_NPd = pair
    if kind == "grid":
        in_grids(lm, monkeypatch)
    rows, prompt_of = rows_of(4)
    layer = lm.layers - 1
    states_NPD = random_states(lm, prompts_NPd, 4)
    with lm.patched(layer, states_NPD, add=add):
        patched = logits_by_row(lm, prompts_NPd, rows, prompt_of)
    unpatched = logits_by_row(lm, prompts_NPd, rows, prompt_of)
    for i, row in enumerate(rows):
        with written(plain, lm, layer, states_NPD[prompt_of[i]], row, add):
            wanted_mV = plain_logits(plain, prompts_NPd, row, prompt_of[i])
        assert (patched[i] - wanted_mV).abs().max() < 1e-5 * wanted_mV.abs().max().clamp(min=1)
        assert (patched[i] - unpatched[i]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["tree", "grid"])
@pytest.mark.parametrize("layers", [(0, 1), (1, 0), (1, 1)], ids=str)
def test_patches_within_one_another_all_act_until_their_own_end(pair, kind, layers, monkeypatch):
    """As hooks on a plain model's blocks, the outer one first."""
    lm, plain, prompts_NPd = pair
    if kind == "grid":
        in_grids(lm, monkeypatch)
    rows, prompt_of = rows_of(2)
    outer_NPD, inner_NPD = (random_states(lm, prompts_NPd, seed) for seed in (4, 5))
    before = logits_by_row(lm, prompts_NPd, rows, prompt_of)
    with lm.patched(layers[0], outer_NPD):
        with lm.patched(layers[1], inner_NPD, add=True):
            both = logits_by_row(lm, prompts_NPd, rows, prompt_of)
        outer = logits_by_row(lm, prompts_NPd, rows, prompt_of)
    after = logits_by_row(lm, prompts_NPd, rows, prompt_of)
    for i, row in enumerate(rows):
        own = prompt_of[i]
        with written(plain, lm, layers[0], outer_NPD[own], row):
            outer_mV = plain_logits(plain, prompts_NPd, row, own)
            with written(plain, lm, layers[1], inner_NPD[own], row, add=True):
                both_mV = plain_logits(plain, prompts_NPd, row, own)
        for ours, wanted_mV in ((both, both_mV), (outer, outer_mV)):
            assert (ours[i] - wanted_mV).abs().max() < 1e-5 * wanted_mV.abs().max().clamp(min=1)
        assert (after[i] == before[i]).all()


@pytest.mark.parametrize("kind", ["tree", "grid"])
@pytest.mark.parametrize("add", [False, True])
def test_hidden_states_within_a_patch_are_those_of_the_patched_model(pair, kind, add, monkeypatch):
    """At the patched layer what is written; before it what a plain model has, behind it what a hooked one has."""
    lm, plain, prompts_NPd = pair
    if kind == "grid":
        in_grids(lm, monkeypatch)
    rows, prompt_of = rows_of(2)
    states_NPD = random_states(lm, prompts_NPd, 4)
    layers = list(range(lm.layers + 1))
    positions = [[*(row.ids.tolist().index(-1 - p) for p in range(PROMPT)), -1] for row in rows]
    with lm.patched(1, states_NPD, add=add):
        states_SBQD = lm.hidden(prompts_NPd, rows, prompt_of, layers, positions)
    for i, row in enumerate(rows):
        embeds, own_PD = embeddings(plain, prompts_NPd, row, prompt_of[i]), states_NPD[prompt_of[i]]
        plain_STD = states_of(plain, embeds)
        with written(plain, lm, 1, own_PD, row, add):
            hooked_STD = states_of(plain, embeds)
        for layer in layers:
            wanted_QD = (plain_STD if layer < 2 else hooked_STD)[layer][[q % len(row.ids) for q in positions[i]]]
            if layer == 1:
                wanted_QD = torch.cat([own_PD + add * wanted_QD[:PROMPT], wanted_QD[PROMPT:]])
            assert (states_SBQD[layer][i] - wanted_QD).abs().max() < 1e-5 * wanted_QD.abs().max().clamp(min=1), layer


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


def logits_by_row(lm, prompts_NPd, rows, prompt_of) -> dict[int, torch.Tensor]:
    """row -> [m, V] at its label."""
    found = {}
    for batch in lm.batches(rows, prompt_of, PROMPT):
        logits_MV = lm.label_logits(prompts_NPd, batch).detach()
        found |= {i: logits_MV[batch.row_M == i] for i in batch.rows}
    return found


def test_what_is_written_under_a_patch_goes_on_from_it(pair):
    """Greedy writing from the cache of a patched forward equals running the patched model anew for every token."""
    lm, _, prompts_NPd = pair
    rows, prompt_of = rows_of(3)
    states_NPD = 3 * random_states(lm, prompts_NPd, 5)
    with lm.patched(1, states_NPD):
        written = lm.write(prompts_NPd, rows, prompt_of, 4)
        anew = [[] for _ in rows]
        for _ in range(4):
            grown = [frozen_lm._extended(row, tokens) for row, tokens in zip(rows, anew, strict=True)]
            for i, logits_mV in logits_by_row(lm, prompts_NPd, grown, prompt_of).items():
                anew[i].append(int(logits_mV[0].argmax()))
    ends = lm.end_tokens
    for ours, theirs in zip(written, anew, strict=True):
        stop = next((k + 1 for k, token in enumerate(theirs) if token in ends), len(theirs))
        assert ours == theirs[:stop]
    assert written != lm.write(prompts_NPd, rows, prompt_of, 4)


NO_HIDDEN_ARGUMENTS = {
    "prompts of another width": ({"prompts_NPd": torch.zeros(3, PROMPT, 5)}, "prompts_NPd: width 5, "),
    "one prompt": ({"prompts_NPd": torch.zeros(PROMPT, 32)}, r"prompts_NPd: .* is needed, not \[2, 32\]"),
    "words": ({"prompts_NPd": [["no", "prompt"]]}, "prompts_NPd: a tensor"),
    "token lists": ({"rows": [[1, 2]]}, r"rows: \[1, 2\] is no Row"),
    "shorter prompts": ({"prompts_NPd": torch.zeros(3, 1, 32)}, "rows: token -2: prompts have 1 tokens"),
    "no token": ({"rows": [Row(np.array([10**6]), np.array([1]))]}, "rows: token 1000000: "),
    "no prompt": ({"prompt_of": [0, 0, 1, 1, 2, 9]}, "prompt_of: 9 of row 5: there are 3 prompts"),
    "prompt -1": ({"prompt_of": [-1, 0, 1, 1, 2, 2]}, "prompt_of: -1 of row 0: "),
    "few prompt_of": ({"prompt_of": [0, 0]}, "prompt_of: given for 2 rows, there are 6"),
    "many prompt_of": ({"prompt_of": [0] * 7}, "prompt_of: given for 7 rows, there are 6"),
    "half a prompt": ({"prompt_of": [0.5] * 6}, "prompt_of: whole numbers are needed"),
    "ragged": ({"positions": [[0]] * 5 + [[0, 1]]}, "positions: whole numbers, as many of each row, are needed"),
    "flat": ({"positions": [0] * 6}, "positions: whole numbers, as many of each row, are needed"),
    "few positions": ({"positions": [[0]] * 5}, "positions: given for 5 rows, there are 6"),
    "many positions": ({"positions": [[0]] * 7}, "positions: given for 7 rows, there are 6"),
    "no positions": ({"positions": []}, "positions: given for 0 rows, there are 6"),
    "far": ({"positions": [[0]] * 5 + [[99]]}, "positions: 99: row 5 has 7 tokens before its label"),
    "far back": ({"positions": [[-99]] * 6}, "positions: -99: row 0 has 4 tokens before its label"),
    "a word as layer": ({"layers": ["a"]}, r"layers: whole numbers are needed, not \['a'\]"),
    "half a layer": ({"layers": [1.5]}, "layers: whole numbers are needed"),
    "one layer": ({"layers": 1}, "layers: whole numbers are needed, not 1"),
    "no layer": ({"layers": [0, 99]}, "layer 99: the model has layers 0 to 2 here"),
    "no rows": ({"rows": [], "prompt_of": [], "positions": [], "layers": [99]}, "layer 99: "),
    "positions of no rows": ({"rows": [], "prompt_of": []}, "positions: given for 6 rows, there are 0"),
}


@pytest.mark.parametrize(("changed", "said"), NO_HIDDEN_ARGUMENTS.values(), ids=NO_HIDDEN_ARGUMENTS.keys())
def test_arguments_that_do_not_go_together_are_named(asked, changed, said):
    lm, arguments = asked
    with pytest.raises(UserError, match=f"^{said}"):
        lm.hidden(**arguments | changed)
    one = {"rows": arguments["rows"][:1], "prompt_of": [0], "positions": [[0]]}
    assert len(lm.hidden(**arguments | one)) == 2  # no hook is left


def test_a_position_is_the_texts_own_from_its_beginning_to_its_end(asked):
    lm, arguments = asked
    lengths = [len(row.ids) for row in arguments["rows"]]
    ends = [lm.hidden(**arguments | {"positions": [[q(n)] for n in lengths]}) for q in (lambda n: -n, lambda n: n - 1)]
    wanted = lm.hidden(**arguments)
    for layer in (0, 1):
        assert (torch.cat([end[layer] for end in ends], dim=1) == wanted[layer]).all()
    for beyond in (lambda n: -n - 1, lambda n: n):
        with pytest.raises(UserError, match="tokens before its label"):
            lm.hidden(**arguments | {"positions": [[beyond(n)] for n in lengths]})


def test_arrays_are_read_as_lists_and_tensors_are(asked):
    lm, arguments = asked
    arrays = {name: value if name == "rows" else np.asarray(value) for name, value in arguments.items()}
    for ours, wanted in zip(lm.hidden(**arrays), lm.hidden(**arguments), strict=True):
        assert (ours == wanted).all()


def test_no_rows_have_no_states_of_each_layers_width(pair):
    lm, _, prompts_NPd = pair
    layers = list(range(lm.layers + 1))
    rows, prompt_of = rows_of(1)
    widths = [each.shape[-1] for each in lm.hidden(prompts_NPd, rows, prompt_of, layers, [[0]] * 3)]
    assert [each.shape for each in lm.hidden(prompts_NPd, [], [], layers, [])] == [(0, 0, D) for D in widths]
    neurons = lm.active_neurons(prompts_NPd, rows, prompt_of).shape[1]
    assert lm.active_neurons(prompts_NPd, [], []).shape == (0, neurons)


@pytest.mark.parametrize("kind", ["tree", "grid"])
@pytest.mark.parametrize("shape", [(3, 4, 32), (3, 1, 32), (2, 2, 32), (4, 2, 32), (3, 2, 5)], ids=str)
def test_a_patch_of_other_prompts_is_refused(asked, kind, shape, monkeypatch):
    lm, arguments = asked
    if kind == "grid":
        in_grids(lm, monkeypatch)
    said = re.escape(f"states_NPD: {list(shape)} does not fit the prompts given and the width of the layer: [3, 2, 32]")
    with lm.patched(1, torch.zeros(shape)):
        with pytest.raises(UserError, match=said):
            lm.hidden(**arguments)
        with pytest.raises(UserError, match=said):
            lm.write(arguments["prompts_NPd"], arguments["rows"], arguments["prompt_of"], 2)
    assert len(lm.hidden(**arguments)) == 2


def test_a_patch_is_a_tensor_or_an_array_of_numbers(asked):
    lm, arguments = asked
    states_NPD = torch.randn(3, PROMPT, 32, generator=torch.Generator().manual_seed(6))
    read = []
    for given in (states_NPD, states_NPD.numpy(), states_NPD.double().numpy()):
        with lm.patched(1, given):
            read.append(lm.hidden(**arguments | {"layers": [2]})[0])
    assert (read[0] == read[1]).all() and (read[0] == read[2]).all()
    assert (read[0] != lm.hidden(**arguments | {"layers": [2]})[0]).any()
    for layer, states, said in (
        (1, states_NPD[0], r"states_NPD: .* is needed, not \[2, 32\]"),
        (1, [["no", "states"]], "states_NPD: a tensor"),
        (2, states_NPD, "layer 2: the model has layers 0 to 1 here"),
        (-1, states_NPD, "layer -1: "),
        ("a", states_NPD, "layer: a whole number is needed, not a"),
    ):
        with pytest.raises(UserError, match=f"^{said}"), lm.patched(layer, states):
            pass


def test_a_model_whose_blocks_are_not_plain_ones_is_refused(tokenizer, tmp_path):
    families.make_model("gemma3n_text").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = FrozenLM.load(str(tmp_path))
    rows, prompt_of = rows_of(1)
    with pytest.raises(UserError, match="hidden states cannot be read"):
        lm.hidden(torch.randn(3, PROMPT, lm.width), rows, prompt_of, [1], [[-1]] * 3)
