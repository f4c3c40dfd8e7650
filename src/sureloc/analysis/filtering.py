"""Rows that satisfy an expression, such as `sigma_x_nm < 20 and p_exists > 0.9`.

An expression is read by Python's own grammar (`ast`) and walked node by node; what is not in the
list below is refused, and nothing is ever executed:

- columns of the table, numbers, texts in quotes, `True` and `False`;
- `<  <=  >  >=  ==  !=`, also chained (`5 < sigma_x_nm < 20`);
- `and`, `or`, `not`; `+  -  *  /  **`;
- `abs(a)`, `sqrt(a)`, `min(a, b, ...)`, `max(a, b, ...)`, row by row.

NaN compares as in NumPy and pandas: every comparison with it is false, but `!=` is true.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sureloc.errors import InputError, did_you_mean

MOST_CHARACTERS = 2000
MOST_LEVELS = 150
SHOWN_CHARACTERS = 20  # of an expression, where it cannot be read
Values = npt.NDArray[Any]

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS: Mapping[str, tuple[Callable[..., Values], bool]] = {  # what it does, takes many
    "abs": (np.abs, False),
    "sqrt": (np.sqrt, False),
    "min": (lambda *a: reduce(np.minimum, a), True),
    "max": (lambda *a: reduce(np.maximum, a), True),
}
_INSTEAD: Mapping[type[ast.AST], str] = {
    ast.BitAnd: "write 'and'",
    ast.BitOr: "write 'or'",
    ast.Invert: "write 'not'",
    ast.Is: "write '=='",
    ast.IsNot: "write '!='",
    ast.Assign: "write '==' to compare",
    ast.NamedExpr: "write '==' to compare",
}
_NUMBER, _TRUTH, _TEXT = "a number", "true or false", "a text"


def rows_that_satisfy(
    table: pd.DataFrame, expression: str, other_names: Mapping[str, str] | None = None
) -> npt.NDArray[np.bool_]:
    """Give for every row whether it satisfies an expression.

    Args:
        table: any table; its numbers count as float64.
        expression: see the module.
        other_names: columns by what other programs call them, to hint at.

    Returns:
        Booleans, shape (rows,).

    Raises:
        InputError: the expression cannot be read, holds something that is not allowed, names a
            column that the table lacks, mixes numbers with truths, or says nothing about rows.
    """
    tree = _parsed(expression)
    if _is_deep(tree):
        raise InputError(
            f"The expression {expression[:40]!r}... is nested too deeply: {MOST_LEVELS} levels are "
            "allowed. Filter in several steps."
        )
    with np.errstate(all="ignore"):  # 1 / 0 is infinite and sqrt(-1) NaN, which compare so
        value = _Walk(expression, table, other_names or {}).value(tree)
    if _kind(value) != _TRUTH:
        raise InputError(
            f"The expression {expression!r} gives {_kind(value)}, but rows are kept by true or "
            "false; compare it with something, as in 'sigma_x_nm < 20'."
        )
    return np.broadcast_to(value, (len(table),)).copy()


def columns_of(expression: str) -> list[str]:
    """Give the names that an expression uses, functions left out, in alphabetical order.

    Raises:
        InputError: the expression cannot be read.
    """
    names = {node.id for node in ast.walk(_parsed(expression)) if isinstance(node, ast.Name)}
    return sorted(names - set(_FUNCTIONS))


def _parsed(expression: str) -> ast.expr:
    text = expression.strip()
    if len(text) > MOST_CHARACTERS:
        raise InputError(
            f"The expression has {len(text):,} characters; {MOST_CHARACTERS:,} are allowed. Filter "
            "in several steps."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as "is" with a number, refused below
            return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = " Write '==' to compare." if re.search(r"[^=!<>:]=(?!=)", text) else ""
        if re.search(r"&&|\|\||!(?!=)|\b(AND|OR|NOT|And|Or|Not)\b", text):
            hint = " Write 'and', 'or' and 'not'."
        raise InputError(
            f"The expression {text!r} cannot be read ({getattr(error, 'msg', error)}"
            f"{_near(text, error)}).{hint} An example: sigma_x_nm < 20 and p_exists > 0.9"
        ) from error


def _near(text: str, error: Exception) -> str:
    """Say where an expression cannot be read, as far as Python tells."""
    if not isinstance(error, SyntaxError) or error.offset is None:
        return ""
    rest = text[error.offset - 1 :] if error.offset else ""  # 0 where something is missing
    return f" near {rest[:SHOWN_CHARACTERS]!r}" if rest else " at the end"


def _is_deep(tree: ast.expr) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(MOST_LEVELS):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return bool(level)


class _Walk:
    """Give the value of an expression's nodes: float64, booleans or texts, a scalar or per row."""

    def __init__(
        self, expression: str, table: pd.DataFrame, other_names: Mapping[str, str]
    ) -> None:
        self._expression = expression.strip()
        self._table = table
        self._other_names = other_names

    def value(self, node: ast.expr) -> Values:
        match node:
            case ast.Constant(value=bool() | str()):
                return np.asarray(node.value)
            case ast.Constant(value=int() | float()):
                return self._number(node)
            case ast.Name():
                return self._column(node.id)
            case ast.Compare():
                return self._comparison(node)
            case ast.BoolOp():
                parts = [self._of_kind(part, _TRUTH) for part in node.values]  # noqa: PD011 - no table
                join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
                return np.asarray(reduce(join, parts))
            case ast.UnaryOp(op=ast.Not()):
                return np.logical_not(self._of_kind(node.operand, _TRUTH))
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                value = self._of_kind(node.operand, _NUMBER)
                return -value if isinstance(node.op, ast.USub) else value
            case ast.BinOp() if type(node.op) in _ARITHMETIC:
                left, right = (self._of_kind(n, _NUMBER) for n in (node.left, node.right))
                return np.asarray(_ARITHMETIC[type(node.op)](left, right))
            case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
                return self._call(name, node)
        raise self._refusal(node)

    def _number(self, node: ast.Constant) -> Values:
        try:
            return np.asarray(float(node.value))  # type: ignore[arg-type]
        except OverflowError as error:
            raise InputError(
                f"The number in {self._text(node)!r} is too large; numbers reach 1.8e308."
            ) from error

    def _column(self, name: str) -> Values:
        if name not in self._table.columns:
            columns = [str(column) for column in self._table.columns]
            ours = self._other_names.get(name)
            near = f" (it is {ours} here)" if ours in columns else did_you_mean(name, columns)
            raise InputError(
                f"The table has no column {name!r}{near}; it has {', '.join(columns)}."
            )
        column = self._table[name]
        if column.dtype == bool:
            return column.to_numpy(bool)
        if pd.api.types.is_numeric_dtype(column.dtype):
            return column.to_numpy(np.float64)
        return column.to_numpy(object).astype(str)

    def _comparison(self, node: ast.Compare) -> Values:
        operands = [self.value(part) for part in (node.left, *node.comparators)]
        results = []
        for op, left, right in zip(node.ops, operands[:-1], operands[1:], strict=True):
            if type(op) not in _COMPARISONS:
                raise self._refusal(node, op)
            kinds = {_kind(left), _kind(right)}
            ordered = not isinstance(op, ast.Eq | ast.NotEq)
            if len(kinds) > 1 or (ordered and kinds != {_NUMBER}):
                raise InputError(
                    f"{self._text(node)!r} compares {' with '.join(map(_kind, (left, right)))}; "
                    "compare numbers with numbers (texts and truths by == and != alone)."
                )
            results.append(np.asarray(_COMPARISONS[type(op)](left, right)))
        return np.asarray(reduce(np.logical_and, results))

    def _call(self, name: str, node: ast.Call) -> Values:
        function, many = _FUNCTIONS[name]
        if (len(node.args) < 2) if many else (len(node.args) != 1):
            raise InputError(
                f"{self._text(node)!r} gives {name} {len(node.args)} values; it takes "
                f"{'two or more' if many else 'one'}."
            )
        return np.asarray(function(*(self._of_kind(part, _NUMBER) for part in node.args)))

    def _of_kind(self, node: ast.expr, kind: str) -> Values:
        value = self.value(node)
        if _kind(value) != kind:
            raise InputError(
                f"{self._text(node)!r} is {_kind(value)} where the expression "
                f"{self._expression!r} needs {kind}."
            )
        return value

    def _refusal(self, node: ast.expr, op: ast.cmpop | None = None) -> InputError:
        culprit: object = op or getattr(node, "op", node)
        instead = next(
            (words for kind, words in _INSTEAD.items() if isinstance(culprit, kind)), None
        )
        allowed = (
            "comparisons, and, or, not, + - * / **, columns, numbers, texts, and "
            f"{', '.join(_FUNCTIONS)}"
        )
        near = ""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            near = did_you_mean(node.func.id, _FUNCTIONS)
        return InputError(
            f"{self._text(node)!r} is not allowed in an expression{near}; "
            f"{instead or f'allowed are {allowed}'}."
        )

    def _text(self, node: ast.expr) -> str:
        return ast.get_source_segment(self._expression, node) or self._expression


def _kind(value: Values) -> str:
    return {"b": _TRUTH, "f": _NUMBER}.get(value.dtype.kind, _TEXT)
