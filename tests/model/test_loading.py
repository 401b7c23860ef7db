"""Whatever keeps a model from being loaded is one line: the folder, the cause, the way out."""

import json
import shutil
import subprocess
import sys

import pytest

import reference
from promptgeo import FrozenLM, UserError


@pytest.fixture
def folder(model_folders, tmp_path):
    """A copy of a small saved model, to be damaged."""
    return shutil.copytree(model_folders["llama"], tmp_path / "model")


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def cut_in_the_header(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:20])


def empty(folder):
    (folder / "model.safetensors").write_bytes(b"")


def pointer(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def tokenizer_pointer(folder):
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def other_shapes(folder):
    change(folder, hidden_size=64)


def other_depth(folder):
    change(folder, num_hidden_layers=3)


def bitsandbytes(folder):
    change(folder, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})


def gptq(folder):
    change(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def awq(folder):
    change(folder, quantization_config={"quant_method": "awq", "bits": 4})


def unknown_family(folder):
    change(folder, model_type="nobodys")


def remote_code(folder):
    change(folder, model_type="nobodys", auto_map={"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"})
    (folder / "code.py").write_text("raise SystemExit('ran')")


def broken_config(folder):
    (folder / "config.json").write_text('{"model_type": "llama",')


def listed_config(folder):
    (folder / "config.json").write_text("[]")


def wrong_types(folder):
    change(folder, num_hidden_layers="two")


def broken_tokenizer(folder):
    file = folder / "tokenizer.json"
    file.write_text(file.read_text()[:3000])


def other_tokenizer(folder):
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "Nobody's"}}))


def gguf_alone(folder):
    for file in folder.iterdir():
        file.unlink()
    (folder / "model.gguf").write_bytes(b"GGUF")


def two_ggufs(folder):
    gguf_alone(folder)
    (folder / "other.gguf").write_bytes(b"GGUF")


def change(folder, **settings):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "cut or damaged"),
        (cut_in_the_header, "cut or damaged"),
        (empty, "cut or damaged"),
        (pointer, "git-LFS pointer"),
        (tokenizer_pointer, "git-LFS pointer"),
        (no_weights, "no model can be read"),
        (other_shapes, "other shapes"),
        (other_depth, "lacks"),
        (bitsandbytes, "bitsandbytes"),
        (gptq, "package|gptq"),
        (awq, "package|awq"),
        (unknown_family, "nobodys"),
        (remote_code, "model.trust_remote_code=true"),
        (broken_config, "config.json"),
        (listed_config, "no model can be read"),
        (wrong_types, "num_hidden_layers"),
        (broken_tokenizer, "tokenizer cannot be loaded"),
        (other_tokenizer, "tokenizer cannot be loaded"),
        (gguf_alone, "gguf"),
        (two_ggufs, "name one"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_damaged_folder_is_one_line(folder, damage, says):
    damage(folder)
    with pytest.raises(UserError, match=says) as raised:
        FrozenLM.load(str(folder), device="cpu")
    line = str(raised.value)
    assert line.startswith(f"model.name_or_path={folder}") and "\n" not in line and len(line) < 500, line


@pytest.mark.long
def test_a_folder_that_cannot_be_read_says_so_on_the_command_line(folder, tmp_path, capfd):
    cut(folder)
    command = ["model=tiny", f"model.name_or_path={folder}", "model.name=x", f"outputs={tmp_path / 'out'}"]
    done = subprocess.run([sys.executable, "-m", "promptgeo.train", *command], capture_output=True, text=True)
    assert done.returncode == 2 and "cut or damaged" in done.stderr and not (tmp_path / "out").exists()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["input", "label"])
def test_a_token_without_an_embedding_is_found_while_planning(model_folders, tokenizer, tmp_path, place):
    """On a GPU such an id kills the process; on a CPU it was an IndexError."""
    from transformers import AutoTokenizer

    folder = shutil.copytree(model_folders["llama"], tmp_path / "model")
    larger = AutoTokenizer.from_pretrained(folder)
    larger.add_tokens(["xylophone"])
    larger.save_pretrained(folder)
    data = tmp_path / "data.csv"
    rows = [{"input": f"item {i}", "label": f"word {i}"} for i in range(10)]
    rows[3][place] += "xylophone"
    data.write_text("input,label\n" + "".join(f"{row['input']},{row['label']}\n" for row in rows))
    settings = ["task=custom", f"task.source.path={data}"]
    with pytest.raises(UserError, match=r"example 3 .*its token 600 is beyond the model's 600 embeddings"):
        reference.make_plan(folder, tmp_path / "out", *settings)
    assert not (tmp_path / "out").exists()
