"""Files from elsewhere: their prompts are read whatever wrote them, their code is not run, and no size is believed.

Each input that is refused is one line, exit status 2, and nothing is written.
"""

import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from promptgeo import RunTable, UserError
from promptgeo.cli import runs as runs_cli
from promptgeo.runs import tensor_files
from promptgeo.runs.folder import Run, find_runs
from promptgeo.runs.tensor_files import read_tensors

GIVEN = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
TENSOR = torch.from_numpy(GIVEN)


@pytest.fixture
def status_of(monkeypatch, capsys, tmp_path):
    """Runs promptgeo-runs import in an empty folder with a table of one prompt: (status, out, err)."""
    monkeypatch.chdir(tmp_path)
    Path("table.csv").write_text("task,init\na,cat\n")

    def run(*arguments: str) -> tuple[int, str, str]:
        status = 0
        try:
            runs_cli.main(["import", *arguments, "--table", "table.csv", "--out", "out"])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def imported(status_of):
    """The one run that a file becomes, and what was said of what is not imported."""

    def run(*arguments: str) -> tuple[Run, str]:
        status, _, error = status_of(*arguments)
        assert status == 0, error
        ((only,), damaged) = find_runs("out")
        assert not damaged
        return only, error

    return run


@pytest.fixture
def refused(status_of):
    """What is said of arguments that are refused, without the command's name and the newline."""

    def run(*arguments: str) -> str:
        before = sorted(os.listdir())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            status, out, error = status_of(*arguments)
        assert (status, out, error.count("\n"), error[:11]) == (2, "", 1, "promptgeo: "), error
        assert sorted(os.listdir()) == before and len(error) < 600
        return error[11:-1]

    return run


WRITERS: dict[str, Callable[[str], object]] = {
    "p.npz": lambda path: np.savez(path, GIVEN),
    "compressed.npz": lambda path: np.savez_compressed(path, final=GIVEN),
    "npz_that_is_called.npy": lambda path: (np.savez("p.npz", GIVEN), os.rename("p.npz", path)),
    "npy_that_is_called.npz": lambda path: (np.save("p.npy", GIVEN), os.rename("p.npy", path)),
    "big_endian.npy": lambda path: np.save(path, GIVEN.astype(">f8")),
    "tensor.pt": lambda path: torch.save(TENSOR, path),
    "parameter.pth": lambda path: torch.save(torch.nn.Parameter(TENSOR), path),
    "task_prompt": lambda path: torch.save(TENSOR, path),
    "before_1.6": lambda path: torch.save(TENSOR, path, _use_new_zipfile_serialization=False),
    "state.ckpt": lambda path: torch.save({"epoch": 3, "state_dict": {"p": TENSOR}, "name": "mine"}, path),
    "transposed.bin": lambda path: torch.save(TENSOR.T.contiguous().T, path),
    "negative.pt": lambda path: torch.save(torch.complex(TENSOR, -TENSOR).conj().imag, path),
    "slice.pt": lambda path: torch.save(torch.cat([TENSOR, TENSOR])[:4], path),
    "double.pt": lambda path: torch.save(TENSOR.double(), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_prompt_is_read_whatever_wrote_it(imported, name):
    WRITERS[name](name)
    run, said = imported(name)
    assert np.array_equal(run.prompt(), GIVEN) and run.prompt().dtype == np.float32 and not said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_numbers_of_few_bits_keep_their_value(imported, dtype):
    torch.save(TENSOR.to(dtype), "p.pt")
    assert np.array_equal(imported("p.pt")[0].prompt(), TENSOR.to(dtype).float().numpy())


SEVERAL = {
    "weights": {"layer": torch.ones(7, 7), "prompt": TENSOR},
    "optimizer": {"state": {0: {"exp_avg": TENSOR * 2}}},
}


def test_of_several_tensors_one_is_named(imported, refused):
    torch.save(SEVERAL, "p.ckpt")
    listed = "weights.prompt [4, 3], weights.layer [7, 7], optimizer.state.0.exp_avg [4, 3]"
    assert refused("p.ckpt") == f"p.ckpt: has 3 tensors, {listed}; say which is the trained prompt: --tensor NAME"
    assert refused("p.ckpt", "--tensor", "x") == f"p.ckpt: --tensor x: is no one tensor of it; it has {listed}"
    run, said = imported("p.ckpt", "--tensor", "prompt")
    left = ["weights.layer", "optimizer.state.0.exp_avg"]
    assert np.array_equal(run.prompt(), GIVEN) and run.info["imported"]["left_out"] == left
    assert said == f"p.ckpt: not used: {', '.join(left)} (tensors of the file)\n"


def test_a_whole_name_comes_before_an_ending_and_two_endings_are_none(imported, refused):
    torch.save({"a": {"p": TENSOR}, "b": {"p": TENSOR * 2}}, "two.pt")
    assert refused("two.pt", "--tensor", "p").startswith(
        "two.pt: --tensor p: is no one tensor of it; it has a.p [4, 3]"
    )
    np.savez("q.npz", **{"p": GIVEN, "a.p": GIVEN * 2})
    assert np.array_equal(imported("q.npz", "--tensor", "p")[0].prompt(), GIVEN)


def test_a_file_of_many_tensors_is_still_one_line(imported, refused):
    np.savez("many.npz", **{f"weight{k}": GIVEN for k in range(300)}, prompt=GIVEN)
    said = refused("many.npz")
    assert said.startswith("many.npz: has 301 tensors, prompt [4, 3], weight0 [4, 3], ") and "and 293 more; say" in said
    run, _ = imported("many.npz", "--tensor", "prompt")
    assert len(run.info["imported"]["left_out"]) == 21 and run.info["imported"]["left_out"][-1] == "and 280 more"


def test_p0_and_checkpoints_are_read_by_name_from_every_kind(imported):
    np.savez("p.npz", initial=GIVEN, trajectory=np.stack([GIVEN + 1, GIVEN + 2]), steps=[3, 9], final=GIVEN + 3)
    run, said = imported("p.npz")
    assert np.array_equal(run.prompt("initial"), GIVEN) and np.array_equal(run.prompt(9), GIVEN + 2) and not said
    assert run.info["results"]["steps"] == 9 and "left_out" not in run.info["imported"]


def test_p0_of_a_file_that_has_both_is_its_initial_prompt(imported):
    np.save("p.npy", GIVEN[None])
    np.savez("both.npz", initial=GIVEN[None] + 1, final=GIVEN[None])
    assert np.array_equal(imported("p.npy", "--initial", "both.npz")[0].prompt("initial"), GIVEN + 1)


class Harm:
    """What unpickles it makes a file."""

    def __reduce__(self):
        return os.mkdir, ("harm",)


@pytest.mark.parametrize("name", ["p.pt", "old.pt", "task_prompt", "p.npy", "p.npz", "plain.pkl"])
def test_no_code_of_a_file_is_run(refused, name):
    import pickle

    if name.startswith("p.np"):
        (np.save if name == "p.npy" else np.savez)(name, np.array([Harm()], dtype=object))
    elif name == "plain.pkl":
        Path(name).write_bytes(pickle.dumps(Harm(), protocol=2))
    else:
        torch.save({"prompt": TENSOR, "x": Harm()}, name, _use_new_zipfile_serialization=name != "old.pt")
    said = refused(name)
    assert not Path("harm").exists() and "weights_only" not in said
    if not name.startswith("p.np"):
        assert said == (
            f"{name}: holds more than tensors (posix.mkdir); reading that could run any code, so it is not read: "
            "save the prompt alone: torch.save(prompt.detach().cpu(), PATH)"
        )


def test_a_module_is_refused_by_its_name(refused):
    torch.save(torch.nn.Embedding(4, 3), "p.pt")
    said = refused("p.pt")
    assert said.startswith("p.pt: holds more than tensors (torch.nn.modules.sparse.Embedding); reading that could run")


def test_objects_beside_a_prompt_are_left_out(imported, refused):
    np.savez("p.npz", final=GIVEN, notes=np.array([{"lr": 1}], dtype=object))
    assert refused("p.npz", "--tensor", "notes").startswith(
        "p.npz: notes cannot be read: Object arrays cannot be loaded"
    )
    run, said = imported("p.npz")
    assert np.array_equal(run.prompt(), GIVEN) and said == "p.npz: not used: notes (tensors of the file)\n"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (TENSOR.to(torch.complex64), "final holds complex64; a prompt is made of floating-point numbers"),
        (torch.ones(4, 3, dtype=torch.int64), "final holds int64; a prompt is made of floating-point numbers"),
        (torch.ones(4, 3, dtype=torch.bool), "final holds bool; a prompt is made of floating-point numbers"),
        (TENSOR.to_sparse(), "final cannot be read: "),
        (torch.empty(4, 3, device="meta"), "final cannot be read: "),
        (torch.tensor(1.5), "final has shape []; [N, P, d]"),
        (torch.ones(4), "final has shape [4]; [N, P, d]"),
        (torch.ones(0, 3), "final has shape [0, 3]; [P, d]"),
        (torch.ones(4, 0), "final has shape [4, 0]; [P, d]"),
        (torch.full((4, 3), torch.inf), "final is not finite at [0, 0]; a prompt is made of finite numbers"),
        (torch.full((4, 3), 1e300, dtype=torch.float64), "final is not finite at [0, 0]"),
        ({}, "holds no tensors"),
        ({"epoch": 3, "names": ["a", None]}, "holds no tensors"),
        (
            {"initial": TENSOR},
            "has initial [4, 3], and none is called final; say which is the trained prompt: --tensor",
        ),
        ({"a.b": TENSOR, "a": {"b": TENSOR}}, "is not a readable torch.save file: two of its tensors are called a.b"),
    ],
)
def test_what_is_no_prompt_is_refused(refused, value, said):
    torch.save(value, "p.pt")
    assert refused("p.pt").startswith(f"p.pt: {said}")


@pytest.mark.parametrize("name", ["p.npy", "p.npz", "p.pt"])
def test_complex_numbers_are_refused_and_lose_no_part(refused, name):
    array = GIVEN + 1j
    {"npy": np.save, "npz": np.savez, "pt": lambda p, a: torch.save(torch.from_numpy(a), p)}[name[2:]](name, array)
    assert "holds complex64; a prompt is made of floating-point numbers" in refused(name)


@pytest.mark.parametrize("which", ["prompts", "initial", "trajectory"])
def test_complex_numbers_are_refused_in_python(which):
    import pandas as pd

    arrays = {"prompts": GIVEN[None], "initial": GIVEN[None], "trajectory": GIVEN[None, None]}
    arrays[which] = arrays[which] + 1j
    with pytest.raises(UserError, match=f"{which} holds complex64; a prompt is made of floating-point numbers"):
        RunTable.from_arrays(arrays.pop("prompts"), pd.DataFrame({"task": ["a"]}), **arrays)


@pytest.mark.parametrize("name", ["p.npy", "p.npz", "compressed.npz", "p.safetensors", "p.pt", "before_1.6.pt"])
def test_half_a_file_is_never_a_prompt(tmp_path, name):
    path = tmp_path / name
    if name == "p.safetensors":
        safetensors.numpy.save_file({"final": GIVEN}, path)
    elif name == "p.npy":
        np.save(path, GIVEN)
    else:
        WRITERS[{"p.pt": "tensor.pt", "before_1.6.pt": "before_1.6"}.get(name, name)](str(path))
    whole = path.read_bytes()
    assert np.array_equal(read_tensors(path).numbers(next(iter(read_tensors(path).tensors))), GIVEN)
    for length in (*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError) as error:
            read_tensors(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_two_arrays_in_one_npy_are_not_one(refused):
    with open("p.npy", "wb") as stream:
        np.save(stream, GIVEN)
        np.save(stream, GIVEN)
    assert refused("p.npy") == "p.npy: is not a readable .npy array: it holds more than one array"


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def test_a_shape_is_not_believed(refused):
    for k, shape in enumerate(["(4, 10000000000000)", "(99999999999999999999, 3)", "(-1, 3)", "(4, 'x')"]):
        Path(f"{k}.npy").write_bytes(npy_header(shape) + bytes(48))
        with zipfile.ZipFile(f"{k}.npz", "w") as archive:
            archive.writestr("final.npy", npy_header(shape) + bytes(48))
        assert refused(f"{k}.npy").startswith(f"{k}.npy: is not a readable .npy array: ")
        assert refused(f"{k}.npz").startswith(f"{k}.npz: ")
    header = b'{"final":{"dtype":"F32","shape":[4,10000000000000],"data_offsets":[0,160000000000000]}}'
    Path("p.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(48))
    assert refused("p.safetensors").startswith("p.safetensors: is not a readable .safetensors file: ")


@pytest.mark.parametrize("name", ["bomb.npz", "bomb.pt", "task_prompt"])
def test_a_zip_bomb_is_not_unpacked(refused, monkeypatch, name):
    monkeypatch.setattr(tensor_files, "PACKED", 2**20)
    if name == "bomb.npz":
        np.savez_compressed(name, np.zeros((1000, 1000), np.float32))
    else:
        torch.save(torch.zeros(1000, 1000), "whole.pt")
        with zipfile.ZipFile("whole.pt") as plain, zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as packed:
            for member in plain.namelist():
                packed.writestr(member, plain.read(member))
    assert Path(name).stat().st_size < 2**15
    assert refused(name) == f"{name}: unpacks to 0.00373 GB, more than 0.000977 GB: save it unpacked"


def test_a_view_that_claims_more_than_its_file_is_refused(refused):
    torch.save({"final": torch.ones(1).expand(10**6, 10**5)}, "p.pt")
    assert refused("p.pt") == "p.pt: final cannot be read: it comes to 373 GB, more than 0.25 GB"


def test_containers_that_hold_themselves_or_lie_deep_end(refused):
    deep: dict = {"final": TENSOR}
    for _ in range(200):
        deep = {"inside": deep}
    itself: list = []
    itself.append(itself)
    wide: list = []
    for _ in range(60):
        wide = [wide, wide]  # 2^60 of them, were each looked into as often as it is named
    for name, value in {"deep": deep, "itself": itself, "wide": wide}.items():
        torch.save(value, f"{name}.pt")
        assert ("too deeply" if name == "deep" else "holds no tensors") in refused(f"{name}.pt")


def test_two_members_of_one_name_are_refused(refused):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile("p.npz", "w") as archive:
            for _ in range(2):
                archive.writestr("final.npy", npy_header("(4, 3)") + GIVEN.tobytes())
    assert refused("p.npz") == "p.npz: holds two arrays of one name; save it again"


@pytest.mark.parametrize("name", ["p.npy", "p.safetensors", "p.pt", "task_prompt", "table.csv", "adapter"])
@pytest.mark.parametrize("what", ["pipe", "device", "large"])
def test_files_only_and_no_endless_ones(refused, monkeypatch, name, what):
    """A pipe would be waited for; a device never ends; what is too large is not begun."""
    np.save("good.npy", GIVEN)
    given = "good.npy" if name == "table.csv" else name
    at, largest = Path(name), {"table.csv": "64", "adapter": "16"}.get(name, "8,192")
    if name == "adapter":
        at.mkdir()
        at = at / "adapter_config.json"
    at.unlink(missing_ok=True)
    if what == "pipe":
        os.mkfifo(at)
    elif what == "device":
        at.symlink_to("/dev/zero")
    else:
        with at.open("wb") as stream:
            stream.truncate(9 * 2**30)  # sparse: it takes no room
    wanted = f"is larger than {largest} MB" if what == "large" else "is a pipe or a device, not a file"
    assert wanted in refused(given)


def test_odd_files_say_what_they_are(refused):
    contents = {
        "p.pt": (b"none", "p.pt: is not a readable torch.save file: Unsupported operand 110 (save the prompt alone"),
        "e.pt": (b"", "e.pt: the file is empty"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid x\n", "lfs: is a pointer of Git LFS, not the file"),
        "page": (b"<!DOCTYPE html>", "page: cannot be read; .npy, .npz, .safetensors or a torch.save file (.pt) is"),
        "z.npz": (b"PK\x03\x04", "z.npz: is not a readable .npz file: "),
        "a\x1b[31m.npz": (b"x", "a\\x1b[31m.npz: is not a readable .npz file: "),
    }
    for name, (content, said) in contents.items():
        Path(name).write_bytes(content)
        assert refused(name).startswith(said)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("1:99999999999999999999", "--steps: 2 rising whole numbers are needed, a step for each checkpoint of t.npy; "),
        ("99999999999999999999:1", "--steps: 2 rising whole numbers are needed"),
        ("9223372036854775808,9223372036854775809", "--steps: 2 rising whole numbers are needed"),
        ("9223372036854775807:1", "--steps: 2 rising whole numbers are needed"),
        ("9007199254740992:1", "--steps: 2 rising whole numbers are needed"),
        ("-1:1", "--steps: 2 rising whole numbers are needed"),
        ("1:" + "9" * 4300, "--steps: 2 rising whole numbers are needed"),
        ("1:" + "9" * 4301, "--steps=1:999"),
        ("1:1e3", "--steps=1:1e3: FIRST:BY is needed"),
        ("1:2:3", "--steps=1:2:3: FIRST:BY is needed"),
    ],
)
def test_steps_have_bounds(refused, steps, said):
    np.save("t.npy", np.stack([GIVEN, GIVEN + 1])[None])
    assert refused("t.npy", f"--steps={steps}").startswith(said)
    Path("table.csv").write_text(f'task,init,steps\na,cat,"{steps}"\n')
    assert refused("t.npy").startswith(said.replace("--steps", "table.csv, line 2: steps"))


@pytest.mark.parametrize(
    "steps",
    [
        np.array([1, 2**64 - 1], np.uint64),
        np.array([2**63, 3], np.uint64),
        np.array([1, 2**53 + 2]),
        np.array([1.0, 2.0]),
        np.array([True, False]),
        np.array([[1, 2]]),
        np.array(5),
        np.array([5, 5]),
        np.array([-3, 5]),
        np.array([1, 2 + 0j]),
    ],
)
def test_a_files_own_steps_have_bounds_too(refused, steps):
    np.savez("t.npz", trajectory=np.stack([GIVEN, GIVEN + 1]), steps=steps)
    assert refused("t.npz").startswith("t.npz: steps: 2 rising whole numbers are needed")


def test_the_last_step_that_is_read(imported):
    np.save("t.npy", np.stack([GIVEN, GIVEN + 1])[None])
    assert imported("t.npy", f"--steps=1,{2**53}")[0].tensors["steps"].tolist() == [1, 2**53]


def test_steps_without_checkpoints_are_not_swallowed(refused):
    np.save("p.npy", GIVEN)
    assert refused("p.npy", "--steps", "0:1") == "--steps 0:1: no file has checkpoints; leave it out"


@pytest.mark.parametrize("column", ["seed", "n"])
@pytest.mark.parametrize("value", ["99999999999999999999", "-9223372036854775809", "9" * 5000])
def test_whole_numbers_of_a_table_have_bounds(refused, column, value):
    np.save("p.npy", GIVEN)
    Path("table.csv").write_text(f"task,init,{column}\na,cat,{value}\n")
    assert refused("p.npy").startswith(f"table.csv, line 2: {column}={value[:80]}: a whole number")


@pytest.mark.parametrize("column", ["task", "init", "model", "template"])
@pytest.mark.parametrize("text", ["x" * 5000, "custom", "../../sweeps/x", "..", "/", "a\x00b"])
def test_any_text_of_a_table_may_be_a_name(imported, column, text):
    np.save("p.npy", GIVEN)
    cells = {"task": "a", "init": "cat", column: text}
    Path("table.csv").write_text(f"{','.join(cells)}\n{','.join(cells.values())}\n")
    run, _ = imported("p.npy")
    named = {"model": "name_or_path"}.get(column, "name")
    assert run.info["config"][column][named] == text and run.folder.parent == Path("out")


CONFIG = {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}


def write_adapter(folder: str, tensors: dict | None = None, ending: str = "safetensors", **fields: object) -> None:
    """As PEFT lays it out."""
    Path(folder).mkdir(parents=True)
    Path(folder, "adapter_config.json").write_text(json.dumps(CONFIG | fields))
    tensors = {"prompt_embeddings": TENSOR} | (tensors or {})
    if ending == "bin":
        torch.save(tensors, f"{folder}/adapter_model.bin")
    else:
        safetensors.torch.save_file(tensors, f"{folder}/adapter_model.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_an_adapter_of_either_format(imported, ending):
    write_adapter("cat", ending=ending, base_model_name_or_path="org/base")
    run, said = imported("cat")
    assert np.array_equal(run.prompt(), GIVEN) and not said and run.info["imported"].keys() == {"file", "table", "line"}
    assert run.info["config"]["model"]["name_or_path"] == "org/base"


def test_an_adapter_lies_in_the_folder_of_its_name(imported, refused):
    """PEFT saves one called cat in cat/ of the folder that it is given."""
    write_adapter("saved/cat")
    run, _ = imported("saved")
    assert np.array_equal(run.prompt(), GIVEN) and run.info["imported"]["file"] == "cat"
    write_adapter("saved/dog")
    assert refused("saved") == "saved: holds the adapters cat, dog; name one of them: saved/cat"
    assert refused("saved", "--tensor", "x") == "saved: holds the adapters cat, dog; name one of them: saved/cat"
    Path("bare").mkdir()
    assert refused("bare").startswith("bare: has no adapter_config.json: it is no PEFT adapter")


def test_the_folder_that_peft_itself_writes_for_a_name(imported):
    peft = pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2ForSequenceClassification

    model = GPT2ForSequenceClassification(
        GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    )
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(model, config, adapter_name="mood").save_pretrained("saved")
    run, said = imported("saved")
    weights = safetensors.numpy.load_file("saved/mood/adapter_model.safetensors")
    assert np.array_equal(run.prompt(), weights["prompt_embeddings"])
    assert run.info["imported"]["task_type"] == "SEQ_CLS"
    assert set(run.info["imported"]["left_out"]) == weights.keys() - {"prompt_embeddings"} != set()
    assert said.startswith("saved/mood: was trained as SEQ_CLS: its head (") and "score" in said


def test_a_head_is_not_left_behind_without_a_word(status_of):
    head = {"base_model.score.weight": torch.ones(2, 3)}
    for name, tensors in {"cat": head, "dog": {}, "owl": head}.items():
        write_adapter(name, {"prompt_embeddings": TENSOR + len(name)} | tensors, task_type="SEQ_CLS")
    Path("table.csv").write_text("task,init,file,mood\na,cat,cat,\na,dog,dog,\na,owl,owl,\n")
    status, _, said = status_of("cat", "dog", "owl")
    end = "is left behind, and without it the prompt does not answer as it did"
    assert status == 0 and said.splitlines() == [
        f"cat and 1 more: was trained as SEQ_CLS: its head (base_model.score.weight) {end}",
        f"dog: was trained as SEQ_CLS: its head (which it does not hold) {end}",
        "not used: mood (columns of table.csv)",
    ]
    records = {run.info["imported"]["file"]: run.info["imported"] for run in find_runs("out")[0]}
    assert records["cat"]["left_out"] == ["base_model.score.weight"] and "left_out" not in records["dog"]
    assert [record["task_type"] for record in records.values()] == ["SEQ_CLS"] * 3


@pytest.mark.parametrize("fields", [{"task_type": "SEQ_2_SEQ_LM"}, {"num_transformer_submodules": 2}])
def test_an_encoder_decoders_adapter_is_refused_and_why(refused, fields):
    write_adapter("t5", {"prompt_embeddings": torch.cat([TENSOR, TENSOR])}, **fields)
    assert refused("t5") == (
        "t5: was trained for an encoder-decoder model (SEQ_2_SEQ_LM), whose prompts stand before the encoder's and the "
        "decoder's input; only prompts of decoders (CAUSAL_LM) can be imported"
    )


@pytest.mark.parametrize("key", ["base_model_name_or_path", "revision", "task_type"])
@pytest.mark.parametrize("value", [5, ["gpt2"], {"a": 1}, True, 1.5])
def test_what_an_adapter_says_of_its_model_is_a_text(refused, key, value):
    write_adapter("cat", **{key: value})
    assert refused("cat") == f"cat/adapter_config.json: cannot be read: {key} must be a text or null"


def test_an_adapters_model_may_be_unknown_or_of_any_spelling(imported):
    write_adapter("cat", base_model_name_or_path="x" * 5000)
    run, _ = imported("cat")
    assert run.info["config"]["model"]["name_or_path"] == "x" * 5000 and len(run.folder.name) < 255


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b"{",
        b"[" * 100_000,
        b'{"num_virtual_tokens": ' + b"9" * 5000 + b"}",
        b"\xff\xfe{\x00",
    ],
)
def test_an_odd_adapter_config_is_one_line(refused, content):
    write_adapter("cat")
    Path("cat/adapter_config.json").write_bytes(content)
    assert refused("cat").startswith("cat/adapter_config.json: cannot be read: ")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base_model_name_or_path": "\ud800"}, "cat/adapter_config.json: cannot be read: "),
        ({"peft_type": ["x"] * 900}, "cat: is a PEFT adapter of type ['x', "),
        ({"peft_type": None}, "cat: is a PEFT adapter of type None"),
        ({"num_virtual_tokens": None}, "cat/adapter_model.safetensors: prompt_embeddings [None, d] is needed"),
        ({"num_virtual_tokens": "4"}, "cat/adapter_model.safetensors: prompt_embeddings [4, d] is needed"),
        ({"num_virtual_tokens": 5}, "cat/adapter_model.safetensors: prompt_embeddings [5, d] is needed"),
    ],
)
def test_an_adapter_config_that_does_not_fit_is_one_line(refused, fields, said):
    write_adapter("cat", **fields)
    assert refused("cat").startswith(said)


def test_an_adapter_without_a_prompt_is_one_line(refused):
    write_adapter("cat")
    safetensors.torch.save_file({"a": TENSOR, "b": TENSOR + 1}, "cat/adapter_model.safetensors")
    assert refused("cat").endswith("[4, d] is needed, as adapter_config.json has it; found a [4, 3], b [4, 3]")
    Path("cat/adapter_model.safetensors").unlink()
    assert refused("cat") == "cat/adapter_model.safetensors: no such file"
    torch.save({"prompt_embeddings": TENSOR, "x": Harm()}, "cat/adapter_model.bin")
    assert refused("cat").startswith("cat/adapter_model.bin: ") and not Path("harm").exists()
