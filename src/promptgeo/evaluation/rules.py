"""When is what a model writes correct? One rule for each value of template.scoring.

A new rule is a class here, its entry in RULES, and a member of schema.Scoring.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

from promptgeo.config.schema import Scoring, Template
from promptgeo.data.example import Example
from promptgeo.data.label_tokens import label_ids
from promptgeo.data.row import Row
from promptgeo.errors import UserError
from promptgeo.model.interface import LM


class Continuation:
    """What a model wrote after an example's text, finished or not: one token at least."""

    def __init__(self, lm: LM, tokens: Sequence[int]):
        self.lm, self.tokens = lm, list(tokens)

    @cached_property
    def ended(self) -> bool:
        """Whether it ends with an end-of-sequence token, which is not part of the text."""
        return self.tokens[-1] in self.lm.end_tokens

    @cached_property
    def text(self) -> str:
        return self.lm.decode(self.tokens[:-1] if self.ended else self.tokens)


class Rule(ABC):
    """How continuations are scored under a template."""

    forced = False
    """Whether a teacher-forced forward decides every row: nothing after the first wrong token counts."""

    def __init__(self, template: Template):
        self.template, self.end = template, template.end

    @abstractmethod
    def check(self, example: Example, row: Row) -> None:
        """Raises UserError, naming the example, where the rule cannot score it."""

    @abstractmethod
    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        """Whether the finished continuation is correct."""

    @abstractmethod
    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        """Whether an unfinished continuation could still be scored as correct. False only if it cannot."""

    def is_whole(self, written: Continuation) -> bool:
        """Whether its answer is: nothing that follows is part of it."""
        return bool(self.end) and self.end in written.text

    def output(self, written: Continuation) -> str:
        """The part of the text that counts as the model's answer: up to the terminator, where there is one."""
        return written.text.partition(self.end)[0] if self.end else written.text


class Line(Rule):
    """The line that is written equals an accepted answer, spaces around it apart."""

    def check(self, example: Example, row: Row) -> None:
        for answer in example.answers:
            if self.end in answer:
                raise UserError(f"example {example.id}: its label ({answer[:60]!r}) holds the terminator template.end")

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        terminated = written.ended or self.end in written.text
        return terminated and self.output(written).strip() in {answer.strip() for answer in example.answers}

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        line = _whole(written.text).split(self.end, 1)[0].strip()
        return any(answer.strip().startswith(line) for answer in example.answers)


class Prefix(Rule):
    """What is written starts with an accepted answer, spaces before it apart."""

    def check(self, example: Example, row: Row) -> None:
        """It can score any label."""

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        return any(written.text.strip().startswith(answer.strip()) for answer in example.answers)

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        text, answers = _whole(written.text).strip(), [answer.strip() for answer in example.answers]
        return any(answer.startswith(text) or text.startswith(answer) for answer in answers)


class Token(Rule):
    """The first token is an accepted answer; the label is one token, and so must be any other answer that counts."""

    forced = True

    def check(self, example: Example, row: Row) -> None:
        if len(row.label) != 1:
            raise UserError(
                f"template.scoring=token: the label of example {example.id} ({example.label[:60]!r}) is "
                f"{len(row.label)} tokens for this model; use another template"
            )

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        first = written.tokens[0]
        return first == row.label[0] or any(
            label_ids(written.lm, self.template, answer) == [first] for answer in example.accepted
        )

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        return False

    def output(self, written: Continuation) -> str:
        return written.lm.decode(written.tokens[:1])


class Recite(Rule):
    """What is written begins with the label's tokens, all of them; they may be a label's first (task.label_length).

    What is shown as written ends with the first wrong token.
    """

    forced = True

    def check(self, example: Example, row: Row) -> None:
        """It can score any label; further accepted answers do not count."""

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        return written.tokens[: len(row.label)] == row.label.tolist()

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        return False

    def is_whole(self, written: Continuation) -> bool:
        return False


RULES: dict[Scoring, type[Rule]] = {
    Scoring.line: Line,
    Scoring.prefix: Prefix,
    Scoring.token: Token,
    Scoring.recite: Recite,
}


def rule_of(template: Template) -> Rule:
    """The rule that the template names."""
    return RULES[template.scoring](template)


def check_scoring(template: Template, examples: Sequence[Example], rows: Sequence[Row]) -> None:
    """Raises UserError naming the first example that the template's scoring cannot score."""
    rule = rule_of(template)
    for example, row in zip(examples, rows, strict=True):
        rule.check(example, row)


def _whole(text: str) -> str:
    """`text` without a character at its end that the last token began and a further one may complete."""
    return text.rstrip("\ufffd")
