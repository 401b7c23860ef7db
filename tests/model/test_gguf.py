"""A GGUF file, quantised or not, is the model that its numbers say."""

import json

import numpy as np
import pytest
import torch
import transformers

import reference
from promptgeo import FrozenLM

gguf = pytest.importorskip("gguf", reason="needs the package gguf, a dev dependency")
quants = pytest.importorskip("gguf.quants")
KINDS = {"F32": gguf.GGMLQuantizationType.F32, "Q8_0": gguf.GGMLQuantizationType.Q8_0}


def write(path, model, tokenizer, kind) -> None:
    """The model and its tokenizer as llama.cpp would write them; the model keeps what the file's numbers say."""
    config, vocabulary = model.config, sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if i in tokenizer.all_special_ids else 1 for _, i in vocabulary])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        module, _, what = name.rpartition(".")
        values = tensor.numpy().astype(np.float32)
        if values.ndim == 2:
            packed = quants.quantize(values, kind)
            tensor.copy_(torch.from_numpy(quants.dequantize(packed, kind)))
            writer.add_tensor(f"{names.get_name(module)}.{what}", packed, raw_dtype=kind)
        else:
            writer.add_tensor(f"{names.get_name(module)}.{what}", values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", ["the file", "its folder"])
def test_a_gguf_file_is_the_model_that_its_numbers_say(tokenizer, tmp_path, kind, named):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.Qwen2Config(vocab_size=len(tokenizer), num_key_value_heads=2, **sizes)
    config.max_position_embeddings = 128
    model = transformers.Qwen2ForCausalLM(config).eval()
    write(tmp_path / "small.gguf", model, tokenizer, KINDS[kind])
    lm = FrozenLM.load(str(tmp_path / "small.gguf" if named == "the file" else tmp_path), device="cpu")
    assert lm.encode(" Input cat") == tokenizer(" Input cat", add_special_tokens=False)["input_ids"]
    prompt = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(1)) * 0.02
    rows = reference.random_rows(4, 2, 500, seed=2)
    for batch in lm.batches(rows, [0] * len(rows), 2):
        with torch.no_grad():
            logits_MV = lm.label_logits(prompt, batch)
        for i in batch.rows:
            row = rows[i]
            ids = np.concatenate([row.ids, row.label])
            with torch.no_grad():
                expected = model(inputs_embeds=reference.embeddings(model, prompt[0], ids)[None]).logits[0]
            ours = logits_MV[(batch.row_M == i) & (batch.targets_M != -100)]
            torch.testing.assert_close(ours, expected[len(row.ids) - 1 : -1], rtol=1e-4, atol=1e-5)
