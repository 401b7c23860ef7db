"""How large is the atlas's page, and how smoothly does it move? In headless Chromium, in real time.

The page is the one that the analysis writes; for the measurement alone its policy is taken off and a script is added
that drags the map with pointer events, one for each frame, and writes the intervals between frames to the console.
"""

import argparse
import json
import re
import resource
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd

from promptgeo.analysis.geometry.vocabulary import Vocabulary
from promptgeo.analysis.questions.atlas import NEAREST, atlas
from promptgeo.analysis.result import Result
from promptgeo.report.pdf import BROWSERS, OPTIONS
from promptgeo.runs.table import RunTable

from peft_recipe import environment  # isort: skip

WIDTH, LENGTH, TASKS, INITS = 256, 4, 10, 5
"""tiny's width; tokens of a prompt."""
ALONE = [option for option in OPTIONS if "pdf" not in option]
"""With an option of printing Chromium shows no page."""
SECONDS = 5
LONGEST = 120
"""Seconds that the browser may take."""
TOLD = re.compile("FRAMES(.*)SEMARF")
DRAG = """
const intervals = [];
const send = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {pointerId: 1, clientX: x, clientY: y}));
const drag = (name, then) => {
  const box = canvas.getBoundingClientRect(), began = performance.now(), times = [];
  const along = (t, period) => 0.5 + 0.4 * Math.sin(t / period);
  const place = (t) => [box.left + box.width * along(t, 400), box.top + box.height * along(t, 530)];
  send("pointerdown", ...place(0));
  const frame = (now) => {
    times.push(now);
    send("pointermove", ...place(now - began));
    if (now - began < SECONDS * 1000) return requestAnimationFrame(frame);
    send("pointercancel", ...place(now - began));
    intervals.push({name, intervals: times.slice(1).map((t, k) => +(t - times[k]).toFixed(2))});
    then();
  };
  requestAnimationFrame(frame);
};
setTimeout(() => drag("whole map", () => {
  zoom(4, wide / 2, high / 2);
  drag("zoomed in", () => console.log(`FRAMES${JSON.stringify(intervals)}SEMARF`));
}), 1000);
""".replace("SECONDS", str(SECONDS))


def synthetic(runs: int, checkpoints: int) -> tuple[RunTable, Vocabulary]:
    """Runs of a grid of tasks and inits, on their way from the init towards the task."""
    generator = np.random.default_rng(0)
    task_Td, init_Id = generator.normal(size=(TASKS, 1, WIDTH)), 2 * generator.normal(size=(INITS, 1, WIDTH))
    n_N = np.arange(runs)
    p0 = np.broadcast_to(init_Id[n_N // TASKS % INITS], (runs, LENGTH, WIDTH))
    delta = task_Td[n_N % TASKS] + generator.normal(size=p0.shape)
    share_C = np.arange(1, checkpoints + 1) / checkpoints
    path = p0[:, None] + delta[:, None] * share_C[:, None, None]
    path[:, :-1] += 0.2 * generator.normal(size=path[:, :-1].shape)
    table = pd.DataFrame(
        {
            "model": "synthetic",
            "task": [f"task {n % TASKS}" for n in n_N],
            "init": [f"init {n // TASKS % INITS}" for n in n_N],
            "seed": n_N // (TASKS * INITS),
            "lr": 0.01,
            "prompt_length": LENGTH,
            "accuracy_final": generator.random(runs),
        }
    )
    words = generator.normal(size=(4096, WIDTH)).astype(np.float32)
    made = RunTable.from_arrays(p0 + delta, table, p0, path, range(1, checkpoints + 1))
    return made, Vocabulary(words, [f" word{i}" for i in range(len(words))])


def same_as_brute_force(runs: RunTable, result: Result, some: int = 200) -> bool:
    """Of some points, whether their nearest prompts, of all and of other runs, are those of all distances, sorted."""
    table = result.tables["neighbours"]
    run_K = np.repeat(np.arange(len(runs)), [len(path_CPd) - 1 for path_CPd in runs.arrays["trajectory"]])
    mean_Kd = np.concatenate([path_CPd[1:].mean(1) for path_CPd in runs.arrays["trajectory"]]).astype(np.float64)
    unit_Kd = mean_Kd / np.linalg.norm(mean_Kd, axis=1, keepdims=True)
    for point in np.random.default_rng(0).choice(len(unit_Kd), min(some, len(unit_Kd)), replace=False):
        cosine_K, own_K = unit_Kd @ unit_Kd[point], np.arange(len(unit_Kd)) == point
        for among, left_out_K in (("all", own_K), ("other runs", run_K == run_K[point])):
            nearest = table[(table["point"] == point) & (table["among"] == among)]["neighbour"].to_numpy()
            order_K = np.argsort(np.where(left_out_K, np.inf, -cosine_K), kind="stable")
            if len(nearest) != NEAREST or not np.array_equal(order_K[:NEAREST], nearest):
                return False
    return True


def browser() -> str:
    """Raises SystemExit without one."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SystemExit("Chromium or Chrome is needed on the PATH")
    return found


def browser_version() -> str:
    return subprocess.run([browser(), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def frame_intervals(page: str, size: str) -> dict[str, list[float]]:
    """Milliseconds between frames, of each drag. Raises SystemExit without a browser."""
    before, policy, rest = page.partition('<meta http-equiv="Content-Security-Policy"')
    moving = before + rest.partition(">")[2].replace("paint();\nresize();\n", f"paint();\nresize();\n{DRAG}")
    assert policy and DRAG in moving
    with tempfile.TemporaryDirectory(prefix="promptgeo-") as folder:
        place = Path(folder) / "page.html"
        place.write_text(moving, encoding="utf-8")
        own = (f"--user-data-dir={folder}/profile", f"--window-size={size}", "--enable-logging=stderr")
        line = [browser(), *ALONE, *own, "--remote-debugging-port=0", place.as_uri()]  # the port keeps it open
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        late = threading.Timer(LONGEST, process.terminate)
        late.start()
        try:
            assert process.stderr is not None
            said = next((found for found in map(TOLD.search, process.stderr) if found), None)
        finally:
            late.cancel()
            process.terminate()
            process.communicate()
    if said is None:
        raise SystemExit(f"the page said nothing within {LONGEST} s")
    return {each["name"]: each["intervals"] for each in json.loads(said[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--checkpoints", type=int, default=10, help="prompts of a run, its final one among them")
    parser.add_argument("--plane", default="tsne", choices=("tsne", "pca"))
    parser.add_argument("--window", default="1280,800")
    parser.add_argument("--page", type=Path, help="also write the page here")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    given = parser.parse_args()
    runs, vocabulary = synthetic(given.runs, given.checkpoints)
    began = time.perf_counter()
    result = atlas(runs, vocabulary=vocabulary, plane=given.plane, max_points=given.runs * given.checkpoints)
    seconds = time.perf_counter() - began
    page = result.pages["atlas"]
    if given.page:
        given.page.write_text(page, encoding="utf-8")
    intervals = frame_intervals(page, given.window)
    said = {
        "prompts": len(result.tables["points"]),
        "plane": given.plane,
        "seconds": round(seconds, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "neighbours_equal_brute_force": same_as_brute_force(runs, result),
        "page_mb": round(len(page.encode()) / 1e6, 2),
        "frames": {name: len(those) for name, those in intervals.items()},
        "median_ms": {name: round(float(np.median(those)), 1) for name, those in intervals.items()},
        "p95_ms": {name: round(float(np.percentile(those, 95)), 1) for name, those in intervals.items()},
        "window": given.window,
        "browser": browser_version() + ", headless, without a GPU",
    } | environment("cpu")
    text = json.dumps(said, indent=1)
    if given.out:
        given.out.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
