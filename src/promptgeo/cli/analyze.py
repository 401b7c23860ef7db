"""python -m promptgeo.analyze runs=FOLDER 'analysis=[NAME,...]' [key=value ...]: analyse finished runs.

    python -m promptgeo.analyze runs=outputs/quickstart 'analysis=[curves,mean_distances]'
    python -m promptgeo.analyze runs=outputs/quickstart 'analysis=[neighbours]' analysis.neighbours.epsilon=0.5
    python -m promptgeo.analyze runs=outputs/quickstart analysis=curves where="task == 'plus_two' and seed < 2"

The command ends with the answer in three sentences and a table of claims. All findings, tables, figures and numbers
lie in <runs>/analysis/<analysis>/. Results are cached: an analysis is computed again only where its runs, its options
or its code have changed, or with overwrite=true.

An option of an analysis is set by analysis.<name>.<option>=<value>; 'analysis=[<name>]' --help shows the options.
promptgeo-analyze is the same command.
An analysis of your own is a function in mine/analysis/<module>.py and a file mine/analysis/<name>.yaml whose _target_
names it, <module>.<function>: --config-dir mine. Of a package that lies elsewhere: 'allow=[<package>]'.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptgeo.cli.completion import answer_shell
from promptgeo.config.compose_analyze import AnalyzeConfig, analysis_file, available, compose_analyze
from promptgeo.config.explain import OneLineParser, entry
from promptgeo.config.paths import conf_dir
from promptgeo.config.terminal import console, say, show_log, warn
from promptgeo.training.interruption import exit_statuses

if TYPE_CHECKING:
    from promptgeo.analysis.ask import Answer

EXPLORATORY = "Exploratory findings: no p and no interval is adjusted for how many there are, but where it says so."


def main(arguments: Sequence[str] | None = None) -> None:
    """The console entry point. arguments: of the command line, by default sys.argv[1:].

    Exit status 2: the user must mend something. 1: an analysis was left out, because these runs cannot support it or it
    failed; the others are stored. 130, 143: stopped by Ctrl-C, SIGTERM.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] and arguments[0] in ("-sc", "--shell_completion"):
        with exit_statuses("give the command again"):
            answer_shell("analyze", arguments[1:])
        return
    if not arguments or {"-h", "--help"} & set(arguments):
        with exit_statuses("give the command again"):
            say(_help([argument for argument in arguments if argument not in ("-h", "--help")]))
        return
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # python -m has it: an analysis of one's own may lie here
    show_log()
    with exit_statuses("finished analyses are kept, the same command makes the others"):
        answers = _answers(arguments)
        _tell(answers)
    if any(answer.refused for answer in answers):
        sys.exit(1)


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(prog="promptgeo-analyze", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd")
    return parser.parse_intermixed_args(arguments)


def _answers(arguments: Sequence[str]) -> "list[Answer]":
    given = _parsed(arguments)
    config = compose_analyze(given.overrides, given.config_dir)
    from promptgeo.analysis.ask import run_analyses

    answers, _ = run_analyses(config, notify=warn, config_dir=given.config_dir)
    return answers


def _tell(answers: "Sequence[Answer]") -> None:
    """Prints at most three sentences, and the claims that were tested."""
    from promptgeo.cli.summary import table_of_claims
    from promptgeo.report.answer import answer, claim_rows
    from promptgeo.report.claims import findings, verdicts
    from promptgeo.report.study import study_of

    stored = [each.stored for each in answers if each.stored]
    study = study_of("", [], [claim["name"] for each in stored for claim in each.info["claims"]])
    told = verdicts(study, stored)
    found = [finding for _, group in findings(stored) for finding in group]
    both = len({finding.get("of") for finding in found}) > 1
    for finding in found:
        if both and "of" in finding:
            finding["sentence"] = f"{finding['of']}: {finding['sentence']}"
    sentences = answer(told, found)
    if sentences:
        say("\n".join([EXPLORATORY, *(f"- {sentence}" for sentence in sentences)]))
    if rows := claim_rows(told, study, stored):
        console().print(table_of_claims(rows))
    claimed = {test["analysis"] for verdict in told for test in verdict.tests}
    if claimed:  # an analysis without a claim is answered by its first finding
        first = {finding["analysis"]: finding for finding in reversed(found) if finding["analysis"] not in claimed}
        for name in sorted(first, key=[each.name for each in stored].index):
            say(f"- {name}: {first[name]['sentence']}")
    if rows or len(found) > len(sentences):
        say(f"all {len(found)} findings: result.json in the folders of the analyses")


def _help(arguments: Sequence[str]) -> str:
    """The page; where the line names analyses, their files: what they give, how, and their options."""
    given = _parsed(arguments)
    chosen = compose_analyze(given.overrides, given.config_dir).analysis
    if chosen:
        return "\n".join(_file_of(name, given.config_dir) for name in chosen)
    own = available(given.config_dir) if given.config_dir else []
    analyses = [entry(name, _description(name)) for name in available() if name not in own]
    analyses += [entry(name, _description(name, given.config_dir)) for name in own]
    keys = []
    for key in fields(AnalyzeConfig):
        default = key.default if key.default_factory is MISSING else key.default_factory()
        inside = vars(default) if is_dataclass(default) else {}
        names = {f"{key.name}.{name}": value for name, value in inside.items()} or {key.name: default}
        keys += [entry(f"{name}={_as_written(value)}", key.metadata["help"]) for name, value in names.items()]
    return "\n".join([str(__doc__), "Analyses:", *analyses, "", "Keys:", *keys])


def _file_of(name: str, config_dir: str | None) -> str:
    folder = config_dir if config_dir and name in available(config_dir) else conf_dir()
    return (Path(folder) / "analysis" / f"{name}.yaml").read_text(encoding="utf-8")


def _description(name: str, config_dir: str | None = None) -> str:
    """What an analysis gives and needs, as its file says."""
    settings = analysis_file(name, config_dir)
    needs = f" Needs {settings['_needs_']}." if "_needs_" in settings else ""
    return f"{settings.get('_about_', '')}{needs}"


def _as_written(value: Any) -> str:
    """A default as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


if __name__ == "__main__":
    main()
