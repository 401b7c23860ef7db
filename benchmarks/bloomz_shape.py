"""Does study 2's model fit on a small machine? One epoch of 32 rows of CB on a random model in bloomz-560m's shape.

    python benchmarks/bloomz_shape.py --rows FOLDER [--precision fp32] [--length 15] [--test 8]

--rows holds CB/ in SuperGLUE's own format (train.jsonl, val.jsonl). The model has 250,880 embeddings of width 1,024
and 24 blocks, and GPT-2's tokenizer; its folder is made first and not timed. promptgeo.train runs in a process of its
own, as a user starts it: its seconds, and the largest memory that it held. Exit status 1 where that is 6 GB or more.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peft_recipe import PUBLISHED, make_model, make_tokenizer

SHAPE = "bloomz-560m"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--length", type=int, default=15, help="prompt tokens")
    parser.add_argument("--test", type=int, default=8, help="test rows")
    options = parser.parse_args()
    if not (PUBLISHED / "gpt2-tokenizer").exists():
        parser.error(f"needs GPT-2's tokenizer in {PUBLISHED / 'gpt2-tokenizer'}")
    with tempfile.TemporaryDirectory(prefix="promptgeo-shape-") as folder:
        made = f"import bloomz_shape; bloomz_shape.make({folder!r})"  # its memory is not training's
        subprocess.run([sys.executable, "-c", made], check=True, cwd=Path(__file__).parent)
        start = time.perf_counter()
        training = subprocess.Popen([sys.executable, "-m", "promptgeo.train", *_overrides(options, folder)])
        # Not of all children: the one that made the model may have held more.
        _, status, usage = os.wait4(training.pid, 0)
        seconds = time.perf_counter() - start
    if status:
        sys.exit(f"promptgeo.train ended with {os.waitstatus_to_exitcode(status)}")
    peak = usage.ru_maxrss * 1024
    settings = {name: str(value) for name, value in vars(options).items() if name != "rows"}
    print(json.dumps(settings | {"seconds": round(seconds, 1), "peak_bytes": peak}))
    sys.exit(peak >= 6e9)


def make(folder: str) -> None:
    """The random model and its tokenizer, in bf16."""
    model = make_model(SHAPE, "bf16", "cpu")
    model.save_pretrained(folder)
    make_tokenizer(model.config.vocab_size).save_pretrained(folder)


def _overrides(options: argparse.Namespace, folder: str) -> list[str]:
    return [
        "model=custom",
        f"model.name_or_path={folder}",
        "task=cb",
        f"task.source.folder={options.rows.resolve()}",
        "task.split.max_train=32",
        f"task.split.max_test={options.test}",
        "task.max_input_tokens=128",
        "template.longer_labels=warn",
        "init=vocab",
        f"prompt.length={options.length}",
        f"precision={options.precision}",
        "training.epochs=1",
        "evaluation.every=end",
        f"outputs={folder}/outputs",
    ]


if __name__ == "__main__":
    main()
