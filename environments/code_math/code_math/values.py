"""What an answer is worth as a value: numbers, fractions, sets, lists, quantities with units, or else words.

Exact where both sides are exact; a decimal stands for a number that rounds to it, where it has three digits that count.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from code_math.spelling import plain

TEXT_LIMIT = 1_000
"Characters that are read as a value; more is words."
_DIGITS = 400
_PLACES = 3
"Decimals that a rounded answer needs at least."
_ROUGH = 200
"A rounded answer differs from the right one by at most a 200th of it: 0.000 is nobody's 1/4096."
_NOISE = Fraction(1, 10**9)
"Relative error that binary floating point may leave in a decimal."

_LENGTH = {"mm": "1/1000", "cm": "1/100", "m": "1", "km": "1000", "in": "0.0254", "ft": "0.3048", "mi": "1609.344"}
_MASS = {"mg": "1/1000", "g": "1", "kg": "1000", "t": "1000000"}
_TIME = {"s": "1", "min": "60", "h": "3600", "day": "86400"}
_VOLUME = {"ml": "1/1000", "l": "1"}
_SPEED = {"m/s": "1", "km/h": "5/18", "mph": "0.44704"}
_ANGLE = {"°": "1"}
_MONEY = {"cent": "1/100", "dollar": "1"}
_KINDS = {
    **{"length": _LENGTH, "mass": _MASS, "time": _TIME, "volume": _VOLUME, "speed": _SPEED},
    **{"angle": _ANGLE, "money": _MONEY},
}
_UNITS = {name: (kind, Fraction(factor)) for kind, table in _KINDS.items() for name, factor in table.items()}
_ALIASES = {
    **{"meter": "m", "metre": "m", "kilometer": "km", "kilometre": "km", "centimeter": "cm", "centimetre": "cm"},
    **{
        "inche": "in",
        "inch": "in",
        "foot": "ft",
        "feet": "ft",
        "mile": "mi",
        "gram": "g",
        "kilogram": "kg",
        "ton": "t",
    },
    **{
        "second": "s",
        "sec": "s",
        "minute": "min",
        "hour": "h",
        "hr": "h",
        "liter": "l",
        "litre": "l",
        "milliliter": "ml",
    },
    **{"kmh": "km/h", "kph": "km/h", "$": "dollar", "usd": "dollar", "¢": "cent", "degree": "°", "deg": "°"},
}
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_WORD = r"[A-Za-z$€¢°%][A-Za-z/²³°%]*"
_IN_A_SENTENCE = re.compile(rf"(?<![\w.])([-+]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d{{1,3}})?(?:/\d+)?)\s*({_WORD})?")


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    places: int | None = None
    "Decimals as written; None where it was written exactly (a whole number, a fraction)."
    unit: str = ""
    "Of a percentage `%`; its value is a hundredth of what is written."


@dataclass(frozen=True, slots=True)
class Collection:
    items: tuple[Value, ...]
    order: Literal["free", "fixed", "unsaid"]
    "Braces, brackets, or bare commas."


@dataclass(frozen=True, slots=True)
class Words:
    text: str


Value: TypeAlias = Number | Collection | Words


def parse(text: str) -> Value:
    """Never raises: what is no value is words."""
    if len(text) > TEXT_LIMIT:
        return Words(text)
    text = plain(text)
    return _collection(text) or _number(text) or Words(_words(text))


def same(given: Value, right: Value) -> bool:
    """`right` decides what counts: whether order does, and which unit a bare number has."""
    match given, right:
        case Number(), Number():
            return _same_number(given, right)
        case Collection(), Collection(order="fixed"):
            ordered = given.order != "free" and len(given.items) == len(right.items)
            return ordered and all(same(a, b) for a, b in zip(given.items, right.items, strict=True))
        case Collection(), Collection(order="free"):
            return _each_in(given, right) and _each_in(right, given)
        case Collection(), Collection():
            return len(given.items) == len(right.items) and _one_to_one(given.items, right.items)
        case (Number() | Words(), Collection(items=(only,))):
            return same(given, only)
        case Words(), Words():
            return given == right
    return False


def numbers_in(text: str) -> list[Number]:
    """The different numbers that stand in a sentence, with units that are known."""
    found: dict[tuple[Fraction, str], Number] = {}
    for digits, word in _IN_A_SENTENCE.findall(plain(text[:TEXT_LIMIT])):
        number = _number(digits.rstrip(","))
        if number is not None:
            unit = _unit(word)
            # "12 in all" is no length.
            known = unit if (unit in _UNITS and unit != "in") or unit == "%" else ""
            number = _with_unit(number.value, number.places, known)
            found.setdefault((number.value, number.unit), number)
    return list(found.values())


def _words(text: str) -> str:
    """Without regard to case, and to spaces that part no words."""
    return re.sub(r"\s*([^\w\s])\s*", r"\1", " ".join(text.casefold().split()))


def _collection(text: str) -> Collection | None:
    brackets = {"{": ("}", "free"), "(": (")", "fixed"), "[": ("]", "fixed")}
    order: Literal["free", "fixed", "unsaid"] = "unsaid"
    inner = text
    if text[:1] in brackets and text[-1:] == brackets[text[0]][0]:
        inner = text[1:-1]
        order = "free" if text[0] == "{" else "fixed"
    elif _number(text) is not None:
        return None
    parts = _split(inner)
    if parts is None or (len(parts) < 2 and order != "free"):
        return None
    items = tuple(parse(part) for part in parts)
    if order == "unsaid" and any(isinstance(item, Words) for item in items):
        return None
    return Collection(items, order)


def _split(text: str) -> list[str] | None:
    """At commas, `and`, `or` outside of brackets; None where brackets do not match or nest deeply."""
    parts, depth, start = [], 0, 0
    for match in re.finditer(r"[(\[{]|[)\]}]|,?\s+(?:and|or)\s+|[,;]", text):
        mark = match[0]
        depth += (mark in "([{") - (mark in ")]}")
        if not 0 <= depth <= 4:
            return None
        if depth == 0 and mark not in "([{)]}":
            parts.append(text[start : match.start()])
            start = match.end()
    parts.append(text[start:])
    return None if depth else [part.strip() for part in parts if part.strip()]


def _number(text: str) -> Number | None:
    """`-3`, `1,234.5`, `2/3`, `1 1/2`, `6e3`, each with a unit before or behind."""
    unit = ""
    if found := re.fullmatch(rf"([$€])\s*(.+)|(.*?[\d.])\s*({_WORD})", text):
        unit, text = _unit(found[1] or found[4]), found[2] or found[3]
    whole, _, rest = text.partition(" ")
    if rest and re.fullmatch(r"[-+]?\d+", whole) and re.fullmatch(r"\d+/\d+", rest.strip()):
        first, second = _number(whole), _number(rest.strip())
        if first is None or second is None:
            return None
        sign = -1 if whole.startswith("-") else 1
        return _with_unit(first.value + sign * second.value, None, unit)
    above, slash, below = (part.strip() for part in text.partition("/"))
    one, other = _decimal(above), _decimal(below) if slash else (Fraction(1), None)
    if one is None or other is None or other[0] == 0:
        return None
    return _with_unit(one[0] / other[0], None if slash else one[1], unit)


def _decimal(text: str) -> tuple[Fraction, int | None] | None:
    """The value, and its decimals where it has a point."""
    if not text or len(text) > _DIGITS or not _NUMBER.fullmatch(text) or not any(c.isdigit() for c in text):
        return None
    digits = text.replace(",", "")
    try:
        value = Fraction(digits)
    except ValueError:
        return None
    mantissa = digits.lower().partition("e")[0]
    return value, len(mantissa.partition(".")[2]) if "." in mantissa or "e" in digits.lower() else None


def _with_unit(value: Fraction, places: int | None, unit: str) -> Number:
    if unit == "%":
        return Number(value / 100, None if places is None else places + 2, unit)
    return Number(value, places, unit)


def _unit(word: str) -> str:
    bare = word.strip().casefold()
    for name in (bare, bare.rstrip("s"), _ALIASES.get(bare, ""), _ALIASES.get(bare.rstrip("s"), "")):
        if name in _UNITS or name == "%":
            return name
    return bare.rstrip("s") or bare


def _same_number(given: Number, right: Number) -> bool:
    return any(_equal(reading, right) for reading in _readings(given, right))


def _readings(given: Number, right: Number) -> Iterator[Number]:
    """The given number in the right answer's unit. A bare number has that unit, and 25 may be said as 25 %."""
    if given.unit == right.unit or not given.unit or not right.unit:
        yield given
        if right.unit == "%" and not given.unit:
            yield _with_unit(given.value, given.places, "%")
        if given.unit == "%" and not right.unit and abs(right.value) >= 1:
            yield Number(given.value * 100, None if given.places is None else max(given.places - 2, 0))
        return
    kind, factor = _UNITS.get(given.unit, ("", Fraction(1)))
    other, base = _UNITS.get(right.unit, ("?", Fraction(1)))
    if kind == other:
        yield replace(given, value=given.value * factor / base)


def _equal(given: Number, right: Number) -> bool:
    gap = abs(given.value - right.value)
    if not gap:
        return True
    if given.places is None and right.places is None:
        return False
    if gap <= _NOISE * max(abs(right.value), _NOISE):
        return True
    # The one with fewer decimals is the other one rounded; a whole number is never meant roughly.
    if right.value.denominator == 1:
        return False
    places = min(places for places in (given.places, right.places) if places is not None)
    return places >= _PLACES and gap <= Fraction(1, 2 * 10**places) and gap * _ROUGH <= abs(right.value)


def _each_in(one: Collection, other: Collection) -> bool:
    return all(any(same(a, b) for b in other.items) for a in one.items)


def _one_to_one(given: Sequence[Value], right: Sequence[Value]) -> bool:
    left = list(right)
    for item in given:
        match = next((place for place, other in enumerate(left) if same(item, other)), None)
        if match is None:
            return False
        del left[match]
    return not left
