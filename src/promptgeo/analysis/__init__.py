"""What finished runs say: one question per file, each a function RunTable -> Result named like its file.

This is also where an analysis of your own finds what it needs. It is a function whose first parameter is `runs`; its
other parameters are its options, with defaults, and what it declares with @question (see Question):

    from promptgeo.analysis import Finding, Result, decided, question

    @question(of=True, claims=("spread_is_small",))
    def spread(runs, *, of, scale=1.0) -> Result:
        result = Result()
        ...
        number = result.number("spread", value, n, "runs", low, high)
        result.findings.append(Finding.of(number, f"They spread over {value:.3f} (n = {n} runs)."))
        result.claims.append(decided("spread_is_small", (low, high), "...", threshold=0.1, below=True))
        return result

With `_target_: my_package.my_file.spread` and its options in mine/analysis/spread.yaml it is made by

    python -m promptgeo.analyze runs=outputs/quickstart --config-dir mine 'analysis=[spread]' 'allow=[my_package]'
"""

from promptgeo.analysis.deciding import Premise, decided
from promptgeo.analysis.question import Convention, Of, question
from promptgeo.analysis.result import Claim, Finding, Number, Outcome, Result

__all__ = ["Claim", "Convention", "Finding", "Number", "Of", "Outcome", "Premise", "Result", "decided", "question"]
