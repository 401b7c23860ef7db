"""For which runs does a condition hold? It is read, as comparisons of columns; nothing in it is run.

What it accepts means what it means to pandas' query, which evaluates calls and attributes too: a line that is passed on
with a study must not be a program.
"""

import ast
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from promptgeo.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

LONGEST = 10_000
"""Characters of a condition: a list of hundreds of names fits."""
DEEPEST = 50
"""Levels of parentheses, nots and the like."""

_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_TOKEN = re.compile(r"""('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|`([^`]*)`|([&|@])""", re.DOTALL)
"""A text, a column in backticks, or a sign that pandas' query takes in another sense than Python."""
_WAY_OUT = "a condition compares columns with texts and numbers: task == 'plus_one' and not seed in [0, 1]"
_INSTEAD: dict[type[ast.AST], str] = {
    ast.Attribute: "a column with dots in its name stands in backticks: `training.epochs` == 5",
    ast.BinOp: "nothing is computed in a condition; write the number itself",
    ast.Is: "write == or !=; a column differs from itself where its value is missing: lr != lr",
    ast.IsNot: "write == or !=; a column equals itself where its value is not missing: lr == lr",
}


def rows_where(table: "pd.DataFrame", condition: str) -> list[Any]:
    """The index labels of the rows for which a condition holds: "task == 'plus_one' and seed < 3".

    A condition is made of comparisons (== != < <= > >=, also chained), membership (in, not in, of a list) and and, or,
    not, or & | ~; of columns, those with other characters than a name's in backticks; and of texts, numbers, True,
    False and None. Raises UserError for anything else, for a column that is not there, and for a text and a number that
    have no order.
    """
    if len(condition) > LONGEST:
        raise UserError(f"{condition[:80]}...: has {len(condition)} characters; {LONGEST} are read at most")
    quoted: dict[str, str] = {}

    def plain(token: re.Match[str]) -> str:
        text, column, sign = token.groups()
        if sign == "@":
            raise UserError(
                f"{condition}: @ stands for a variable of Python, which a condition has none of; {_WAY_OUT}"
            )
        if column is None:
            return text or {"&": " and ", "|": " or "}[sign]
        quoted[name := f"_column_{len(quoted)}_"] = column
        return f" {name} "

    try:
        tree = ast.parse(_TOKEN.sub(plain, condition).strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = getattr(error, "msg", "") or "it is nested too deeply"
        raise UserError(f"{condition}: cannot be read ({reason}); {_WAY_OUT}") from error
    if _depth(tree) > DEEPEST:
        raise UserError(f"{condition[:80]}...: is nested more than {DEEPEST} levels deep")
    holds = _Condition(table, condition, quoted).holds(tree)
    rows: list[Any] = table.index[holds.fillna(False).astype(bool)].tolist()
    return rows


def _depth(tree: ast.AST) -> int:
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


@dataclass(frozen=True)
class _Condition:
    table: "pd.DataFrame"
    text: str
    quoted: dict[str, str]
    """Name that stands for it in the tree -> column that stood in backticks."""

    def holds(self, node: ast.AST) -> "pd.Series":
        """For which rows a condition holds. Raises UserError for what is no condition."""
        match node:
            case ast.BoolOp(op, parts):
                join = operator.and_ if isinstance(op, ast.And) else operator.or_
                return reduce(join, map(self.holds, parts))
            case ast.UnaryOp(ast.Not() | ast.Invert(), part):
                return ~self.holds(part)
            case ast.Compare(first, operators, others):
                pairs = zip([first, *others], operators, others, strict=False)
                return reduce(operator.and_, [self._compared(node, *pair) for pair in pairs])
            case ast.Name() if (column := self._column(node)).dtype.kind == "b":
                return column
            case ast.Name():
                raise self._error(node, "is no comparison; compare the column with a value")
        raise self._refused(node)

    def _compared(self, whole: ast.AST, left: ast.AST, sign: ast.cmpop, right: ast.AST) -> "pd.Series":
        try:
            match sign:
                case ast.In() | ast.NotIn():
                    within = self._value(left, column=True).isin(self._list(right))
                    return within if isinstance(sign, ast.In) else ~within
                case ast.Is() | ast.IsNot():
                    raise self._error(whole, _INSTEAD[type(sign)])
            values = self._value(left), self._value(right)
            if not any(hasattr(value, "dtype") for value in values):
                raise self._error(whole, f"compares no column; {_WAY_OUT}")
            if isinstance(sign, ast.Eq | ast.NotEq) and any(isinstance(value, str) for value in values):
                column, text = values if isinstance(values[1], str) else values[::-1]
                return column.isin([text]) if isinstance(sign, ast.Eq) else ~column.isin([text])  # as pandas does
            return _COMPARISONS[type(sign)](*values)
        except (TypeError, ValueError, ArithmeticError) as error:
            reason = " ".join(str(error).split())
            raise self._error(
                whole, f"has no answer ({reason}); compare texts with texts, numbers with numbers"
            ) from error

    def _value(self, node: ast.AST, column: bool = False) -> Any:
        """A side of a comparison: a column, a condition, or what is written there. column: the last is refused."""
        match node:
            case ast.Name():
                return self._column(node)
            case ast.BoolOp() | ast.Compare() | ast.UnaryOp(ast.Not() | ast.Invert()):
                return self.holds(node)
        value = self._literal(node)
        if column:
            raise self._error(
                node, "is no column; `in` asks of a column whether its value is in a list: init in ['cat']"
            )
        return value

    def _literal(self, node: ast.AST) -> str | float | None:
        match node:
            case ast.Constant(str() | int() | float() | None as value):
                return value
            case ast.UnaryOp(ast.USub() | ast.UAdd() as sign, ast.Constant(int() | float() as value)):
                return -value if isinstance(sign, ast.USub) else value
        raise self._refused(node)

    def _list(self, node: ast.AST) -> list[str | float | None]:
        if not isinstance(node, ast.List | ast.Tuple):
            raise self._error(
                node, "is no list; `in` asks whether a column's value is in a list: init in ['cat', 'dog']"
            )
        return [self._literal(each) for each in node.elts]

    def _column(self, node: ast.Name) -> "pd.Series":
        name = self.quoted.get(node.id, node.id)
        if name not in self.table.columns:
            columns = ", ".join(map(str, self.table.columns))
            raise UserError(
                f"{self.text}: these runs have no column {name} (a text stands in quotes); their columns: {columns}"
            )
        return self.table[name]

    def _refused(self, node: ast.AST) -> UserError:
        return self._error(node, f"is not read in a condition; {_INSTEAD.get(type(node), _WAY_OUT)}")

    def _error(self, node: ast.AST, what: str) -> UserError:
        part = re.sub(r"_column_\d+_", lambda found: f"`{self.quoted.get(found[0], found[0])}`", ast.unparse(node))
        return UserError(f"{self.text}: {part[:80]} {what}")
