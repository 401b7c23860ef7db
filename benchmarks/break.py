"""What does it take to break promptgeo? Kills, damaged files, full disks and odd inputs, each tried again and again.

    python benchmarks/break.py [--short] [--seed 0] [--only kills,damage,...] [--out break.json]

Nothing may be lost, accepted in silence or touched outside the folder for outputs; no traceback, nothing that hangs;
the exit status as documented. Prints a table, and whatever did not hold with what the commands said; exit status 1
where something did not. --short: a minute instead of an hour.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

KINDS = ("inputs", "damage", "full disks", "kills")


def attempts(kind: str, work: Path, short: bool, chance: random.Random) -> "Iterator[Tried]":  # noqa: F821
    from breaking import damage, full_disk, inputs, kills

    if kind == "inputs":
        known, made = inputs.fixed(), inputs.generated(8 if short else 300, chance)
        return inputs.try_inputs(work, (chance.sample(known[1:], 12) if short else known) + made)  # the first is long
    if kind == "damage":
        return damage.damage(work, *((2, 2) if short else (300, 100)), chance, small=short)
    if kind == "full disks":
        return full_disk.fill(work, 1 if short else 1000, short, chance)
    counts = (1, 1, 0) if short else (40, 10, 5)
    return kills.kill(
        work, dict(zip((signal.SIGKILL, signal.SIGTERM, signal.SIGINT), counts, strict=True)), chance, short
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--short", action="store_true", help="a minute instead of an hour")
    parser.add_argument("--seed", type=int, default=0, help="of all that is left to chance")
    parser.add_argument("--only", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--out", type=Path, help="write the JSON here")
    given = parser.parse_args()
    if unknown := set(given.only.split(",")) - set(KINDS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: is none of {', '.join(KINDS)}")
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    work = Path(tempfile.mkdtemp(prefix="promptgeo-break-"))
    os.environ["PROMPTGEO_CACHE"] = str(work / "cache")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no command outlives this one
    from breaking.command import import_everything

    import_everything()
    kinds, broken = {}, []
    print(f"{'':12}" + "".join(f"{name:>17}" for name in ("tried", "broken", "longest_seconds", "seconds")), flush=True)
    try:
        for kind in given.only.split(","):
            start, tried = time.monotonic(), []
            for each in attempts(kind, work / kind.replace(" ", "-"), given.short, random.Random(given.seed)):
                tried.append(each)
                if each.problems:
                    print(
                        f"BROKEN {each.kind}: {each.what}\n  {'; '.join(each.problems)}\n{each.output}", file=sys.stderr
                    )
            broken += [asdict(each) for each in tried if each.problems]
            kinds[kind] = row = {
                "tried": len(tried),
                "broken": sum(bool(each.problems) for each in tried),
                "longest_seconds": round(max(each.seconds for each in tried), 1),
                "seconds": round(time.monotonic() - start),
            }
            print(f"{kind:12}" + "".join(f"{value:>17}" for value in row.values()), flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if given.out:
        report = {"seed": given.seed, "short": given.short, "kinds": kinds, "broken": broken}
        given.out.write_text(json.dumps(report, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
