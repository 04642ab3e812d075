"""Arithmetic from text: numbers, + - * / // % and brackets; nothing is ever executed."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

LIMIT = 60
"Characters of an expression."

_BINARY: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def calculate(expression: str) -> str:
    """The value as text, whole numbers without a point. Raises `ValueError` in words for the model."""
    # The characters are checked before the parser sees them: it warns about texts such as `1if`.
    if not re.fullmatch(r"[0-9\s.+\-*/%()]+", expression):
        raise ValueError(f"{expression[:LIMIT]!r} is not a sum; write one like '3 * 12'.")
    if len(expression) > LIMIT:
        raise ValueError(f"the expression has {len(expression)} characters; at most {LIMIT} are allowed.")
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except ZeroDivisionError:
        raise ValueError(f"{expression!r} divides by zero.") from None
    except (SyntaxError, RecursionError, OverflowError):
        raise ValueError(f"{expression!r} is not a sum; write one like '3 * 12'.") from None
    rounded = round(value, 4)
    return str(int(rounded)) if rounded == int(rounded) else str(rounded)


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool) and abs(number) < 1e15:
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _BINARY:
            return _BINARY[type(sign)](_value(left), _value(right))
    raise SyntaxError("not arithmetic")
