"""Code that ends in an expression shows its value, as at a prompt, also where the interpreter has no `ast`.

The code of a model is read by tokens only: Python's own parser may crash on what is nested deeply enough.
"""

from __future__ import annotations

import io
import keyword
import token
import tokenize

BINDING = "_ = ("
"What stands before the last expression in the code that runs."
_LONGEST = 10_000
"Characters of code that are read: at worst a tenth of a second, in which nothing else has its turn."
_STATEMENTS = frozenset(keyword.kwlist) - {"None", "True", "False", "not", "lambda", "await"} | {"@"}
_ASSIGNS = frozenset({"=", "+=", "-=", "*=", "/=", "//=", "%=", "**=", "&=", "|=", "^=", ">>=", "<<=", "@=", ":"})
_BLANK = frozenset({token.NL, token.COMMENT, token.ENDMARKER})


def with_echo(code: str) -> str:
    """`code`, its last expression bound to `_` and printed where it is not None; line numbers stay.

    What is no Python, is longer than 10,000 characters, or ends in a statement, comes back as it is.
    """
    if len(code) > _LONGEST:
        return code
    try:
        last = _last_statement(code)
    except (tokenize.TokenError, SyntaxError, ValueError):
        return code
    if not last or last[0].string in _STATEMENTS or _assigns(last):
        return code
    row, column = last[0].start
    lines = code.splitlines(keepends=True)
    head, tail = "".join(lines[: row - 1]) + lines[row - 1][:column], lines[row - 1][column:] + "".join(lines[row:])
    return f"{head}{BINDING}{tail.rstrip().rstrip(';')}\n)\nif _ is not None: print(repr(_))"


def without_binding(traceback: str) -> str:
    """The lines of a traceback as the code was written."""
    shown: list[str] = []
    cut = False
    for line in traceback.splitlines():
        marks = cut and not line.strip(" ~^")
        cut = line.strip().startswith(BINDING)
        if cut:
            line = line.replace(BINDING, "", 1)
        shown.append(line[len(BINDING) :] if marks else line)
    return "\n".join(shown)


def _last_statement(code: str) -> list[tokenize.TokenInfo]:
    """The tokens of the last simple statement; none where it stands within a block."""
    statement: list[tokenize.TokenInfo] = []
    depth, new_line, new_statement, in_block = 0, True, True, False
    for item in tokenize.generate_tokens(io.StringIO(code).readline):
        if item.type == token.ERRORTOKEN:
            return []
        if item.type in (token.INDENT, token.DEDENT):
            depth += 1 if item.type == token.INDENT else -1
        elif item.type == token.NEWLINE:
            new_line = new_statement = True
        elif item.string == ";":
            new_statement = True
        elif item.type not in _BLANK:
            # What follows `if x:` on its line is in its block.
            in_block = (depth > 0 or item.string in _STATEMENTS) if new_line else in_block
            if new_statement:
                statement = []
            statement.append(item)
            new_line = new_statement = False
    return [] if in_block else statement


def _assigns(statement: list[tokenize.TokenInfo]) -> bool:
    """It binds a name or opens a block: `x = 1`, `x: int`, `match x:`."""
    depth = lambdas = 0
    for item in statement:
        if item.type == token.NAME and item.string == "lambda":
            lambdas += 1
        if item.type != token.OP:
            continue
        depth += (item.string in "([{") - (item.string in ")]}")
        if depth == 0 and item.string == ":" and lambdas:
            lambdas -= 1
        elif depth == 0 and item.string in _ASSIGNS:
            return True
    return False
