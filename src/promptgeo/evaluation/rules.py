"""When is what a model writes correct? One rule for each value of template.scoring.

A new rule is a class here, its entry in RULES, and a member of schema.Scoring.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

from promptgeo.config.schema import Scoring, Template
from promptgeo.data.row import Row
from promptgeo.data.tasks import Example
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

    first_token_only = False
    """Whether nothing after the first token counts: then a teacher-forced forward decides every row."""

    def __init__(self, template: Template):
        self.end = template.end

    @abstractmethod
    def check(self, example: Example, row: Row) -> None:
        """Raises UserError, naming the example, where the rule cannot score it."""

    @abstractmethod
    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        """Whether the finished continuation is correct."""

    @abstractmethod
    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        """Whether an unfinished continuation could still be scored as correct. False only if it cannot."""

    def output(self, written: Continuation) -> str:
        """The part of the text that counts as the model's answer: up to the terminator, where there is one."""
        return written.text.partition(self.end)[0] if self.end else written.text


class Line(Rule):
    """The line that is written equals the label, spaces around it apart."""

    def check(self, example: Example, row: Row) -> None:
        if self.end in example.label:
            raise UserError(
                f"example {example.id}: its label ({example.label[:60]!r}) holds the terminator template.end"
            )

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        terminated = written.ended or self.end in written.text
        return terminated and self.output(written).strip() == example.label.strip()

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        return example.label.strip().startswith(_whole(written.text).split(self.end, 1)[0].strip())


class Prefix(Rule):
    """What is written starts with the label, spaces before it apart."""

    def check(self, example: Example, row: Row) -> None:
        """It can score any label."""

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        return written.text.strip().startswith(example.label.strip())

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        text, label = _whole(written.text).strip(), example.label.strip()
        return label.startswith(text) or text.startswith(label)


class Token(Rule):
    """The first token is the label, which is one token."""

    first_token_only = True

    def check(self, example: Example, row: Row) -> None:
        if len(row.label) != 1:
            raise UserError(
                f"template.scoring=token: the label of example {example.id} ({example.label[:60]!r}) is "
                f"{len(row.label)} tokens for this model; use another template"
            )

    def is_correct(self, written: Continuation, example: Example, row: Row) -> bool:
        return written.tokens[0] == row.label[0]

    def may_become_correct(self, written: Continuation, example: Example) -> bool:
        return False

    def output(self, written: Continuation) -> str:
        return written.lm.decode(written.tokens[:1])


RULES: dict[Scoring, type[Rule]] = {Scoring.line: Line, Scoring.prefix: Prefix, Scoring.token: Token}


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
