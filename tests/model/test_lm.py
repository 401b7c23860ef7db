"""FrozenLM on seven architectures, against the untouched model run on one unpadded row at a time."""

import hashlib
import inspect

import numpy as np
import pytest
import torch
from torch import nn

import reference
from conftest import FAMILIES, make_config
from promptgeo import FrozenLM, UserError
from promptgeo.data.row import Row
from promptgeo.model import batching
from promptgeo.model.batching import GEMM_ROWS, collate
from promptgeo.model.interface import LM
from promptgeo.training.engine import train_pack

PROMPT = 3
SMALL = (
    "training.batch_size=4",
    "task.split.max_train=8",
    "task.split.max_test=3",
    "optimizer.lr=0.05",
    "evaluation.max_new_tokens=4",
    "template.longer_labels=warn",
)


@pytest.fixture(params=FAMILIES)
def folder(request, model_folders):
    return model_folders[request.param]


@pytest.fixture
def pair(folder):
    """A family's FrozenLM and its original."""
    return FrozenLM.load(str(folder), device="cpu"), reference.original(folder)


def random_prompts(lm, count: int, length: int = PROMPT) -> torch.Tensor:
    """Prompts of the size of the family's own embeddings."""
    scale = lm.vocabulary().std()
    return torch.randn(count, length, lm.width, generator=torch.Generator().manual_seed(1)) * scale


def logits_by_row(lm, prompts, rows, prompt_of) -> list[torch.Tensor]:
    logits = [None] * len(rows)
    for batch in lm.batches(rows, prompt_of, prompts.shape[1]):
        logits_MV = lm.label_logits(prompts, batch)
        for i in batch.rows:
            logits[i] = logits_MV[batch.row_M == i]
    return logits


def weights_sha(model) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def test_label_logits_equal_the_original_model_on_one_unpadded_row(pair):
    lm, model = pair
    rows = reference.random_rows(17, PROMPT, len(lm.tokenizer), seed=0)
    prompt_of = sorted(i % 3 for i in range(17))
    prompts = random_prompts(lm, 3)
    with torch.no_grad():
        logits = logits_by_row(lm, prompts, rows, prompt_of)
        for i, row in enumerate(rows):
            expected = reference.label_logits(model, prompts[prompt_of[i]], row)
            assert logits[i].shape == expected.shape
            torch.testing.assert_close(logits[i], expected, rtol=0, atol=2e-5)


def test_a_row_is_bitwise_independent_of_neighbours_padding_and_order(lm):
    """Holds bitwise for these widths on a CPU: see test_cpu_linear.py for where it ends."""
    rows = reference.random_rows(21, PROMPT, len(lm.tokenizer), seed=1)
    prompts = random_prompts(lm, 1)
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    with torch.no_grad():
        together = logits_by_row(lm, prompts, rows, [0] * len(rows))
        shuffled = logits_by_row(lm, prompts, [rows[i] for i in order], [0] * len(rows))
        for place, i in enumerate(order):
            alone = logits_by_row(lm, prompts, [rows[i]], [0])[0]
            assert torch.equal(alone, together[i]), f"row {i} alone"
            assert torch.equal(alone, shuffled[place]), f"row {i} in another order"


def test_what_stands_in_a_grids_padding_does_not_matter(lm):
    rows = reference.random_rows(6, PROMPT, len(lm.tokenizer), seed=2)
    prompts = random_prompts(lm, 1)
    for batch in collate(rows, [0] * 6, PROMPT):
        with torch.no_grad():
            before = lm.label_logits(prompts, batch)
            for b, i in enumerate(batch.rows):
                batch.ids[b, rows[i].length :] = 7
            assert torch.equal(lm.label_logits(prompts, batch)[batch.row_M < 6], before[batch.row_M < 6])


def test_what_stands_in_a_trees_padding_does_not_matter(pair):
    lm, _ = pair
    rows = reference.random_rows(6, PROMPT, len(lm.tokenizer), seed=2)
    prompts = random_prompts(lm, 1)
    (batch,) = collate(rows, [0] * 6, PROMPT, share_up_to=1000)
    with torch.no_grad():
        before = lm.label_logits(prompts, batch)
        places = torch.cat([p.flatten() for p in batch.paths])
        padding = places[batch.path_at] != torch.arange(batch.ids.shape[1])
        assert padding.sum() == batch.ids.shape[1] - len(set(places.tolist()))
        batch.ids[0, padding] = 7
        lengths = {
            p.shape[1]: [rows[i].length for i in batch.rows if -(-rows[i].length // 16) * 16 == p.shape[1]]
            for p in batch.paths
        }
        for paths_BT in batch.paths:
            for path, length in zip(paths_BT, lengths[paths_BT.shape[1]], strict=True):
                path[length:] = 5
        assert torch.equal(lm.label_logits(prompts, batch)[batch.row_M < 6], before[batch.row_M < 6])


def test_a_tree_holds_every_shared_position_once():
    """4 rows of one prompt and 2 of another; distinct (prompt, prefix) counted by hand."""
    rows = [reference.row([-1, -2, 10, 11, x], [20, 21]) for x in (12, 12, 13)] + [
        reference.row([-1, -2, 10, 14], [20])
    ]
    rows += [reference.row([-1, -2, 10, 11, 12], [20, 21])] * 2
    prompt_of = [0, 0, 0, 0, 1, 1]
    prefixes = {(p, *r.ids[: k + 1]) for p, r in zip(prompt_of, rows, strict=True) for k in range(len(r.ids))}
    prefixes |= {(p, *r.ids, r.label[0]) for p, r in zip(prompt_of, rows, strict=True) if len(r.label) > 1}
    (batch,) = collate(rows, prompt_of, 2, share_up_to=1000)
    places = torch.cat([p.flatten() for p in batch.paths])
    real = places[batch.path_at] == torch.arange(batch.ids.shape[1])
    assert int(real.sum()) == len(prefixes) == 15
    assert batch.ids.shape[1] == 16
    assert len(batch.prompt_at) == 4 and sorted(batch.prompt_from.tolist()) == [0, 1, 2, 3]


def test_a_trees_products_meet_few_numbers_of_rows_and_little_padding():
    sizes = set()
    for count in range(1, 4000, 7):
        (batch,) = collate([Row(np.arange(count), np.array([1]))], [0], 0, max_tokens=10**6, share_up_to=10**6)
        rows = batch.ids.numel()
        assert rows % GEMM_ROWS == 0 and 0 <= rows - count < max(GEMM_ROWS, count / 16)
        sizes.add(rows)
    assert len(sizes) == 32 + 16 * 4  # without rounding up further some 500: each costs code of its own


def test_every_family_shares_prefixes(model_folders):
    shares = {
        family: FrozenLM.load(str(folder), device="cpu")._shares_prefixes for family, folder in model_folders.items()
    }
    assert shares == dict.fromkeys(FAMILIES, True)


def test_frozenlm_offers_everything_that_the_interface_promises(gpt2):
    promised = {name: member for of in LM.__mro__ for name, member in vars(of).items() if not name.startswith("_")}
    assert {"label_logits", "write", "encode", "max_positions"} < set(promised)
    for name, member in promised.items():
        assert hasattr(gpt2, name), name
        if isinstance(member, property):
            assert not callable(getattr(gpt2, name)), name
        else:
            wanted, offered = (inspect.signature(f).parameters for f in (member, getattr(FrozenLM, name)))
            assert [(p.name, p.kind, p.default is p.empty) for p in wanted.values()] == [
                (p.name, p.kind, p.default is p.empty) for p in offered.values()
            ], name


def test_what_a_model_says_of_itself(model_folders, tokenizer):
    lm = FrozenLM.load(str(model_folders["opt"]), device="cpu", precision="bf16")
    assert (lm.layers, lm.width, lm.max_positions) == (2, 16, 64)
    assert lm.parameters == sum(p.numel() for p in lm.model.parameters()) and lm.weight_bytes == 2 * lm.parameters
    assert lm.bytes_per_position == 34 * 32 * 2 * 2  # numbers a layer, width inside, layers, bytes
    assert lm.bytes_per_label == len(tokenizer) * (12 + 2)
    assert lm.vocabulary_size == len(lm.vocabulary()) == len(tokenizer)


def test_a_special_token_is_written_out_but_is_no_text(gpt2):
    (end,) = gpt2.special_ids
    assert gpt2.token_text(end) == "<|endoftext|>" and gpt2.decode([end]) == "" and gpt2.end_tokens == {end}
    assert gpt2.token_text(np.int64(gpt2.encode("cat")[0])) == "cat"


def test_dropout_is_off_again_whatever_happens_within(gpt2):
    with pytest.raises(RuntimeError), gpt2.dropout():
        assert gpt2.model.training
        raise RuntimeError
    assert not any(module.training for module in gpt2.model.modules())


def test_training_changes_no_weight_and_leaves_no_gradient(folder, tmp_path):
    plan = reference.make_plan(folder, tmp_path, "task=plus_two", "training.max_steps=3", *SMALL)
    before = weights_sha(plan.lm.model)
    reference.trained(plan)
    assert weights_sha(plan.lm.model) == before == weights_sha(reference.original(folder))
    assert all(p.grad is None and not p.requires_grad for p in plan.lm.model.parameters())
    assert not any(module.training for module in plan.lm.model.modules())


@pytest.mark.parametrize("dropout", [False, True])
def test_dropout_is_on_only_during_the_steps_of_a_run_that_asks_for_it(model_folders, tmp_path, dropout):
    plan = reference.make_plan(
        model_folders["gpt2"], tmp_path, "task=plus_two", "training.max_steps=2", f"training.dropout={dropout}", *SMALL
    )
    seen = []
    hook = plan.lm.model.register_forward_pre_hook(
        lambda module, args: seen.append((torch.is_grad_enabled(), module.training))
    )
    try:
        reference.trained(plan)
    finally:
        hook.remove()
    assert {training for steps, training in seen if steps} == {dropout}
    assert {training for steps, training in seen if not steps} == {False}


def test_a_step_that_fails_leaves_the_model_in_eval_mode(model_folders, tmp_path):
    plan = reference.make_plan(model_folders["gpt2"], tmp_path, "task=plus_two", "training.dropout=true", *SMALL)

    def fail(module, args):
        if torch.is_grad_enabled():
            raise RuntimeError("out of memory")

    hook = plan.lm.model.register_forward_pre_hook(fail)
    try:
        assert train_pack([plan]) == {plan.id: "RuntimeError: out of memory"}
    finally:
        hook.remove()
    assert not any(module.training for module in plan.lm.model.modules())


def test_the_prompt_is_as_wide_as_the_embedding_modules_output(model_folders):
    widths = {family: FrozenLM.load(str(folder), device="cpu").width for family, folder in model_folders.items()}
    assert widths == dict.fromkeys(FAMILIES, 32) | {"opt": 16}


def test_tokens_given_as_a_prompt_act_as_the_same_tokens_given_as_text(pair):
    """The embedding is not the weight: Gemma scales it, OPT projects it, BLOOM normalises it."""
    lm, model = pair
    tokens, text, label = [5, 9, 77], [12, 13, 14], [20, 21]
    prompt = lm.vocabulary()[tokens]
    as_prompt = logits_by_row(lm, prompt[None], [reference.row([-1, -2, -3, *text], label)], [0])[0]
    with torch.no_grad():
        as_text = model(input_ids=torch.tensor([tokens + text + label])).logits[0, 5:-1]
    torch.testing.assert_close(as_prompt, as_text, rtol=0, atol=2e-5)


def test_gemmas_embeddings_are_scaled_by_the_root_of_the_width(model_folders):
    lm = FrozenLM.load(str(model_folders["gemma3"]), device="cpu")
    weight = lm.model.get_input_embeddings().weight.detach()
    torch.testing.assert_close(lm.vocabulary(), weight[: len(lm.tokenizer)] * 32**0.5, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("family", "fused"), [("gpt2", True), ("bloom", True), ("gpt_neox", False), ("gemma3", True)])
def test_only_the_tanh_gelu_is_fused(model_folders, family, fused):
    lm = FrozenLM.load(str(model_folders[family]), device="cpu")
    activations = [m for _, m in lm.model.named_modules(remove_duplicate=False) if isinstance(m, nn.GELU)]
    assert [m.approximate for m in activations] == ["tanh"] * (2 if fused else 0)


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_the_fused_gelu_equals_the_original_and_keeps_its_gradient(model_folders, family):
    kinds = ("NewGELUActivation", "BloomGelu")
    spelt_out = next(m for m in reference.original(model_folders[family]).modules() if type(m).__name__ in kinds)
    lm = FrozenLM.load(str(model_folders[family]), device="cpu")
    fused = next(m for m in lm.model.modules() if isinstance(m, nn.GELU))
    x, y = (torch.linspace(-9, 9, 4001).requires_grad_() for _ in range(2))
    a, b = spelt_out(x), fused(y)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    a.sum().backward()
    b.sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=0, atol=2e-6)


def test_bf16_weights_with_fp32_prompt_loss_and_optimiser_state(model_folders, tmp_path, monkeypatch):
    import promptgeo.training.tuning as tuning

    modules, losses = [], []
    step = tuning.PromptTuning.training_step
    monkeypatch.setattr(
        tuning.PromptTuning, "training_step", lambda self, *a: (modules.append(self), step(self, *a))[1]
    )
    real = tuning.label_losses
    monkeypatch.setattr(
        tuning, "label_losses", lambda logits, *a, **k: (losses.append(logits.dtype), real(logits, *a, **k))[1]
    )
    # A step far below bf16's resolution at 1: stored in bf16, the prompt would not move.
    overrides = ("init=uniform", "precision=bf16", "training.max_steps=4", *SMALL, "optimizer.lr=1e-6")
    plan = reference.make_plan(model_folders["gpt2"], tmp_path, "task=plus_two", *overrides)
    states = []
    finish = tuning.PromptTuning._finish
    monkeypatch.setattr(
        tuning.PromptTuning,
        "_finish",
        lambda self, s: (states.extend(self.optimizers().optimizer.state.values()), finish(self, s))[1],
    )
    run = reference.trained(plan)
    assert {p.dtype for p in plan.lm.model.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in modules[0].prompts} == {torch.float32}
    assert {t.dtype for state in states for t in state.values()} == {torch.float32} and len(states) == 1
    assert losses and set(losses) == {torch.float32}
    moved = np.abs(run.prompt("final") - run.prompt("initial"))
    assert 0 < moved.max() < 1e-5 and (moved > 0).mean() > 0.9


def test_precision_is_pinned_whatever_the_checkpoint_was_saved_in(model_folders, tmp_path, tokenizer):
    reference.original(model_folders["gpt2"]).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert {p.dtype for p in FrozenLM.load(str(tmp_path), device="cpu").model.parameters()} == {torch.float32}
    assert FrozenLM.load(str(tmp_path), device="cpu", precision="bf16").dtype == torch.bfloat16


def test_the_head_sees_label_positions_only(lm):
    rows = reference.random_rows(9, PROMPT, len(lm.tokenizer), seed=3)
    seen = []
    hook = lm.model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: seen.append(args[0].shape[:-1].numel())
    )
    try:
        logits_by_row(lm, random_prompts(lm, 1), rows, [0] * 9)
    finally:
        hook.remove()
    labels = [sum(len(rows[i].label) for i in batch.rows) for batch in lm.batches(rows, [0] * 9, PROMPT)]
    assert sum(labels) == sum(len(row.label) for row in rows) < sum(row.length for row in rows) / 4
    assert seen == [-(-count // GEMM_ROWS) * GEMM_ROWS for count in labels]


def test_gradients_equal_those_of_a_naive_loss_over_full_logits(pair):
    lm, model = pair
    rows = reference.random_rows(7, PROMPT, len(lm.tokenizer), seed=4)
    prompt_of = [0, 0, 0, 1, 1, 1, 1]
    ours, naive = (random_prompts(lm, 2).requires_grad_() for _ in range(2))
    for batch in lm.batches(rows, prompt_of, PROMPT):
        logits_MV = lm.label_logits(ours, batch)
        nn.functional.cross_entropy(
            logits_MV, batch.targets_M, reduction="sum", ignore_index=batching.IGNORE
        ).backward()
    for row, n in zip(rows, prompt_of, strict=True):
        # Hugging Face's own loss: labels shifted inside, a mean over the label's tokens.
        inputs = reference.embeddings(model, naive[n], np.concatenate([row.ids, row.label]))
        labels = torch.tensor([[-100] * len(row.ids) + row.label.tolist()])
        (model(inputs_embeds=inputs[None], labels=labels).loss * len(row.label)).backward()
    torch.testing.assert_close(ours.grad, naive.grad, rtol=1e-4, atol=1e-4 * naive.grad.abs().max().item())


def test_gradients_equal_finite_differences(model_folders):
    lm = FrozenLM(
        reference.original(model_folders["gpt2"]).double(), FrozenLM.load(str(model_folders["gpt2"])).tokenizer
    )
    batch = next(lm.batches([reference.row([-1, -2, 5, 6, 7], [8, 9])], [0], 2))
    logits = lm.model.get_output_embeddings()
    kept = []
    hook = logits.register_forward_hook(lambda module, args, output: kept.append(output[0]))  # before the cast to fp32

    def loss(prompt):
        kept.clear()
        lm.label_logits(prompt, batch)
        return nn.functional.cross_entropy(kept[0], batch.targets_M, reduction="sum", ignore_index=batching.IGNORE)

    try:
        prompt = random_prompts(lm, 1, 2).double().requires_grad_()
        loss(prompt).backward()
        direction = torch.randn(prompt.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(prompt + 1e-5 * direction) - loss(prompt - 1e-5 * direction)) / 2e-5
        assert float((prompt.grad * direction).sum()) == pytest.approx(float(slope), rel=1e-6)
    finally:
        hook.remove()


def test_greedy_equals_generate_with_and_without_a_cache(pair):
    """Twelve rows of which the longest outgrow a padded length while they are written."""
    lm, model = pair
    rows = reference.random_rows(12, PROMPT, len(lm.tokenizer), seed=5)
    prompts = random_prompts(lm, 2)
    prompt_of = [0] * 5 + [1] * 7
    continuations = lm.write(prompts, rows, prompt_of, 9)
    assert any(row.length <= 16 < row.length + 8 for row in rows)
    for use_cache in (True, False):
        assert continuations == [
            reference.written(model, prompts[n], row, 9, use_cache) for row, n in zip(rows, prompt_of, strict=True)
        ]


def test_greedy_writes_the_same_where_prefixes_are_not_shared(pair, monkeypatch):
    lm, _ = pair
    rows = reference.random_rows(12, PROMPT, len(lm.tokenizer), seed=5)
    prompts = random_prompts(lm, 2)
    trees = lm.write(prompts, rows, [0] * 5 + [1] * 7, 6)
    monkeypatch.setattr(lm, "_shares_prefixes", False)
    assert lm.write(prompts, rows, [0] * 5 + [1] * 7, 6) == trees


@pytest.mark.long
@pytest.mark.parametrize("family", ["gpt2", "bloom", "llama"])
def test_a_compiled_model_says_the_same_for_whatever_shapes_come(model_folders, family):
    """Dynamo's own backend: what the graph holds, without minutes of code generation."""
    lm = FrozenLM(reference.original(model_folders[family]), FrozenLM.load(str(model_folders[family])).tokenizer)
    prompts = random_prompts(lm, 3)
    packs = [reference.random_rows(n, PROMPT, len(lm.tokenizer), seed=n) for n in (6, 9, 12, 15, 21)]
    places = [[i * 3 // len(rows) for i in range(len(rows))] for rows in packs]
    with torch.no_grad():
        before = [logits_by_row(lm, prompts, rows, at) for rows, at in zip(packs, places, strict=True)]
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        lm.compile(backend="eager")
        for rows, at, expected in zip(packs, places, before, strict=True):
            for compiled, logits in zip(logits_by_row(lm, prompts, rows, at), expected, strict=True):
                torch.testing.assert_close(compiled, logits, rtol=0, atol=1e-5)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert 1 <= torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 4  # none for a layer of its own


def test_a_token_more_costs_one_position_of_each_row(pair, monkeypatch):
    lm, _ = pair
    if lm._tree.longest < 16:
        pytest.skip("rows that outgrow the model's window run whole for every token")
    rows = [reference.row([-1, -2, -3, 5, 6, 7, k], [1]) for k in range(8, 17)]
    positions = []
    label_logits = lm.label_logits

    def counting(prompts, batch, *memory):
        positions.append(batch.ids.numel())
        return label_logits(prompts, batch, *memory)

    monkeypatch.setattr(lm, "label_logits", counting)
    monkeypatch.setattr(type(lm), "end_tokens", set())
    lm.write(random_prompts(lm, 1), rows, [0] * 9, 4)
    assert positions == [16, 16, 16, 16]  # 6 shared and 9 of their own; then 9: all padded to a multiple of 8


def test_generation_does_not_ignore_the_prompt(lm):
    rows = [reference.row([-1, -2, -3, i], [1]) for i in range(2, 8)]
    prompts = random_prompts(lm, 2)
    assert lm.write(prompts, rows, [0] * 6, 4) != lm.write(prompts, rows, [1] * 6, 4)


def test_greedy_stops_at_an_end_token_which_it_keeps(model_folders, tokenizer):
    model = reference.original(model_folders["gpt2"])
    model.lm_head = nn.Linear(32, len(tokenizer), bias=True)  # untied, and made to end at once
    nn.init.zeros_(model.lm_head.weight)
    model.lm_head.bias.data = torch.arange(len(tokenizer), 0, -1.0)
    lm = FrozenLM(model, tokenizer)
    assert tokenizer.eos_token_id == 0
    assert lm.write(torch.zeros(1, 0, 32), [reference.row([3, 4], [5])], [0], 5) == [[0]]
    model.lm_head.bias.data[7] = 10_000.0
    assert lm.write(torch.zeros(1, 0, 32), [reference.row([3, 4], [5])], [0], 5) == [[7] * 5]


def save_random(tmp_path, tokenizer, model) -> str:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_a_model_that_looks_ahead_is_rejected(tmp_path, tokenizer):
    import transformers as tf

    small = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    folder = save_random(tmp_path, tokenizer, tf.BertForMaskedLM(tf.BertConfig(**small)))
    with pytest.raises(UserError, match="depends on later tokens"):
        FrozenLM.load(folder, device="cpu")


def test_an_encoder_decoder_is_rejected(tmp_path, tokenizer):
    import transformers as tf

    config = tf.T5Config(vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)
    with pytest.raises(UserError, match="encoder-decoder"):
        FrozenLM.load(save_random(tmp_path, tokenizer, tf.T5ForConditionalGeneration(config)), device="cpu")


def test_a_model_without_a_causal_head_is_rejected(tmp_path, tokenizer):
    import transformers as tf

    config = tf.DistilBertConfig(vocab_size=len(tokenizer), dim=32, hidden_dim=64, n_layers=1, n_heads=4)
    with pytest.raises(UserError, match="no causal language-model head"):
        FrozenLM.load(save_random(tmp_path, tokenizer, tf.DistilBertModel(config)), device="cpu")


def test_a_checkpoint_saved_without_its_head_is_rejected(tmp_path, tokenizer):
    import transformers as tf

    config = make_config("llama", len(tokenizer))
    config.tie_word_embeddings = False
    with pytest.raises(UserError, match="no causal language-model head was saved"):
        FrozenLM.load(save_random(tmp_path, tokenizer, tf.LlamaModel(config)), device="cpu")


def test_a_tokenizer_without_a_pad_token_trains_and_is_scored(model_folders, tmp_path):
    plan = reference.make_plan(model_folders["llama"], tmp_path, "task=plus_two", "training.max_steps=2", *SMALL)
    assert plan.lm.tokenizer.pad_token is None
    run = reference.trained(plan)
    assert run.status == "completed" and np.isfinite(run.info["results"]["loss"]["final"])


def test_batches_are_cut_between_prompts_so_that_no_run_is_cut_where_it_is_not_cut_alone():
    rows = [reference.row([-1, 4, 5], [6])] * 24
    prompt_of = [0] * 10 + [1] * 10 + [2] * 4
    cut = [batch.rows for batch in collate(rows, prompt_of, 1, max_tokens=8 * 12)]
    assert cut == [list(range(10)), list(range(10, 20)), list(range(20, 24))]
    # A prompt longer than a batch is cut as it is alone; the next may share its last part.
    cut = [batch.rows for batch in collate(rows, prompt_of, 1, max_tokens=8 * 7)]
    assert cut == [list(range(7)), list(range(7, 10)), list(range(10, 17)), list(range(17, 24))]
    assert [len(batch.rows) for batch in collate(rows, prompt_of, 1, separate_prompts=True)] == [10, 10, 4]
