"""Is every p, interval and verdict right as often as it says? Simulated on runs whose truth is known.

    python benchmarks/calibration.py --out calibration [--draws 400] [--only init_vs_task ...] [--scenario "init only"]
    python benchmarks/calibration.py --out calibration --report [--draws 100]

Each analysis of conf/analysis/ answers synthetic runs (calibrating/scenarios.py): without effects, with effects of the
init, the position, the run and the cell alone, with tasks that only differ in how far they move, unequal groups, few
runs, accuracies at the ceiling and the floor, failed and no trainings, and with planted effects. A known function from
prompts to answers stands in for the model (calibrating/stand_in.py). Of each line the rate is compared with what it
says (calibrating/rates.py): p <= .05 without its effect in 5 % of draws, a 95 % interval holds the truth in 95 %, and
a claim holds falsely, or falsely does not hold, in at most 5 %. Binomial tests, Holm over all lines; where a rate is
not compatible, its draws are doubled once. Of planted effects the share of draws that finds them is told beside them.

Draws lie in --out, in blocks: a second call goes on where the first was stopped, and draws anew what was changed.
rates.json and rates.txt are written there; --report writes reports.json, the share of whole reports on null data in
which a confirmatory claim holds falsely. Seeds are 0 to draws - 1.
"""

import argparse
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from calibrating.drawing import BLOCK, Pair, draw, pairs, pool_of, stored
from calibrating.lines import reason, registered
from calibrating.rates import LEAST_POWER, MOST_WRONG, Rate, adjusted, as_table, powers, rates
from promptgeo.analysis.resampling import clopper_pearson


def drawn(out: Path, wanted: Sequence[Pair], first: int, draws: int, processes: int) -> None:
    begun = time.perf_counter()
    for done, blocks, _ in draw(out, wanted, first, draws, processes):
        left = (time.perf_counter() - begun) / done * (blocks - done)
        print(f"\r{done} of {blocks} blocks, {left / 60:.0f} min left ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def judged(out: Path, wanted: Sequence[Pair], draws: dict[Pair, int]) -> list[Rate]:
    return adjusted(rate for pair in wanted for rate in rates(pair[1], stored(out, *pair, draws[pair])))


def judged_at_all(out: Path, pair: Pair) -> bool:
    """Whether some line has a truth: of the others a first block shows that they are registered."""
    return any(reason(s.analysis, s.name, s.convention) is None for those in stored(out, *pair, BLOCK) for s in those)


def unjudged(out: Path, wanted: Sequence[Pair]) -> tuple[dict[str, str], list[str]]:
    """(lines without a truth -> why, lines that are not registered)."""
    reasons, unknown = {}, set()
    for pair in wanted:
        for said in (one for those in stored(out, *pair, 1) for one in those):
            if (why := reason(said.analysis, said.name, said.convention)) is not None:
                reasons[f"{said.analysis} | {said.convention} | {said.name}"] = why
            elif not registered(said.analysis, said.kind, said.name, said.p is not None):
                unknown.add(f"{said.analysis} | {said.kind} | {said.name}")
    return reasons, sorted(unknown)


def calibrate(out: Path, wanted: list[Pair], draws: int, processes: int) -> None:
    drawn(out, wanted, 0, min(draws, BLOCK), processes)
    drawn(out, [pair for pair in wanted if judged_at_all(out, pair)], 0, draws, processes)
    counts = dict.fromkeys(wanted, draws)
    ordered = judged(out, wanted, counts)
    again = {(rate.line.split(" | ")[0], rate.scenario) for rate in ordered if rate.side == "WRONG"}
    if again:
        print(f"{len(again)} pairs of analysis and scenario are drawn {draws} times more", file=sys.stderr)
        drawn(out, sorted(again), draws, draws, processes)
        counts |= dict.fromkeys(again, 2 * draws)
        ordered = judged(out, wanted, counts)
    reasons, unknown = unjudged(out, wanted)
    over = [r for r in ordered if r.what.startswith("falsely") and r.rate > MOST_WRONG]
    report = {"draws": draws, "lines": len({r.line for r in ordered}), "rates": [r.as_dict() for r in ordered]}
    power = [each for pair in wanted for each in powers(pair[1], stored(out, *pair, draws))]
    report |= {"power": [rate.as_dict() for rate in power]}
    report |= {"without_truth": reasons, "not_registered": unknown}
    (out / "rates.json").write_text(as_json(report), encoding="utf-8")
    (out / "rates.txt").write_text(as_table([*ordered, *power], all_of_them=True) + "\n", encoding="utf-8")
    print(as_table([*ordered, *power]))
    sides = Counter(rate.side or "as it says" for rate in ordered)
    print(f"{len(ordered)} rates of {report['lines']} lines: " + ", ".join(f"{n} {side}" for side, n in sides.items()))
    weak = sum(rate.side == "weak" for rate in power)
    print(f"{len(power)} planted effects, {weak} of them found in less than {LEAST_POWER:.0%} of draws")
    print(f"{len(over)} verdicts are wrong in more than {MOST_WRONG:.0%} of draws; {len(unknown)} lines not registered")


COLUMNS = ("line", "scenario", "what", "rate", "draws", "nominal", "side")
"""Of a rate in rates.json."""


def as_json(report: dict[str, Any]) -> str:
    """The report as JSON, a rate on each line."""
    parts = [f' "columns": {json.dumps(COLUMNS)}']
    for key, value in report.items():
        if key in ("rates", "power"):
            rows = ([rate[c] if c != "rate" else round(rate[c], 4) for c in COLUMNS] for rate in value)
            parts.append(
                f' "{key}": [\n' + ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in rows) + "\n ]"
            )
        else:
            parts.append(f' "{key}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def report_rates(out: Path, draws: int, only: Sequence[str], processes: int) -> None:
    from calibrating.reports import false_claims, with_claims

    shares = {}
    for study in [name for name in with_claims() if not only or name in only]:
        with pool_of(processes) as pool:
            held = list(pool.map(partial(false_claims, study), range(draws)))
        wrong = sum(map(bool, held))
        which = Counter(claim for those in held for claim in those)
        shares[study] = {"draws": draws, "wrong": wrong, "interval": clopper_pearson(wrong, draws), "claims": which}
        print(f"{study}: {wrong} of {draws} reports hold a confirmatory claim falsely {dict(which)}", flush=True)
        (out / "reports.json").write_text(json.dumps(shares, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--draws", type=int, help="400; of reports 100")
    parser.add_argument("--only", nargs="*", default=[], help="analyses; with --report, studies")
    parser.add_argument("--scenario", nargs="*", default=[])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # as Ctrl-C does: the processes end too
    options.out.mkdir(parents=True, exist_ok=True)
    if options.report:
        report_rates(options.out, options.draws or 100, options.only, options.processes)
    else:
        calibrate(options.out, pairs(options.only, options.scenario), options.draws or 400, options.processes)


if __name__ == "__main__":
    main()
