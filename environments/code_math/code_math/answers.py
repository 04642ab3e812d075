"""Which part of what was said is the answer, and whether it is right.

One answer is given: several numbers in a sentence, or several guesses, are none.
"""

from __future__ import annotations

import re

from code_math.values import TEXT_LIMIT, Collection, Number, Value, Words, numbers_in, parse, same

_PHRASE = re.compile(r"\banswer\b\s*(?:is|:|=|would be)\s*:?|####", re.IGNORECASE)


def is_right(text: str, right: Value) -> bool:
    """What `text` ends up saying has the value `right`."""
    said = final(text)
    given = parse(said)
    if given == Words(""):
        return False
    if same(given, right):
        return True
    if not isinstance(right, Number) or isinstance(given, Collection | Number):
        return False
    # "There are 12 of them": the only number of the sentence. A question, such as the task's own, is no answer.
    only = numbers_in(said) if len(said) <= TEXT_LIMIT and "?" not in said else []
    return len(only) == 1 and same(only[0], right)


def value_of(answer: str) -> Value:
    """Of a problem's own answer, which may end a solution."""
    return parse(final(answer))


def final(text: str) -> str:
    """The last `\\boxed{...}`, else what follows the last `####` or "answer is", else all of it."""
    if (boxed := _last_boxed(text)) is not None:
        return boxed
    phrases = list(_PHRASE.finditer(text))
    return text[phrases[-1].end() :].strip() if phrases else text.strip()


def _last_boxed(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for place in range(begin, len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[begin:place]
    return None
