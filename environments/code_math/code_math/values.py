"""What an answer is worth as a value: numbers, fractions, sets, lists, quantities with units, or else words.

Exact where both sides are exact; a decimal stands for a number that rounds to it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

TEXT_LIMIT = 1_000
"Characters that are read as a value; more is words."
_DIGITS = 400
_PLACES = 3
"Decimals that a rounded answer needs at least."
_NOISE = Fraction(1, 10**9)
"Relative error that binary floating point may leave in a decimal."

_LENGTH = {"mm": "1/1000", "cm": "1/100", "m": "1", "km": "1000", "in": "0.0254", "ft": "0.3048", "mi": "1609.344"}
_MASS = {"mg": "1/1000", "g": "1", "kg": "1000", "t": "1000000"}
_TIME = {"s": "1", "min": "60", "h": "3600", "day": "86400"}
_VOLUME = {"ml": "1/1000", "l": "1"}
_SPEED = {"m/s": "1", "km/h": "5/18", "mph": "0.44704"}
_MONEY = {"cent": "1/100", "dollar": "1"}
_KINDS = {"length": _LENGTH, "mass": _MASS, "time": _TIME, "volume": _VOLUME, "speed": _SPEED, "money": _MONEY}
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
    **{"kmh": "km/h", "kph": "km/h", "$": "dollar", "usd": "dollar", "¢": "cent"},
}
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d{1,3})?")
_WORD = r"[A-Za-z$€¢°%][A-Za-z/²³°%]*"


@dataclass(frozen=True, slots=True)
class Number:
    value: Fraction
    places: int | None = None
    "Decimals as written; None where it was written exactly (a whole number, a fraction)."
    unit: str = ""


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
    text = _plain(text)
    if len(text) > TEXT_LIMIT:
        return Words(text)
    return _collection(text) or _number(text) or Words(" ".join(text.casefold().split()))


def same(given: Value, right: Value) -> bool:
    """`right` decides what counts: whether order does, and which unit a bare number has."""
    match given, right:
        case Number(), Number():
            return _same_number(given, right)
        case Collection(), Collection(order="fixed"):
            ordered = given.order != "free" and len(given.items) == len(right.items)
            return ordered and all(same(a, b) for a, b in zip(given.items, right.items, strict=True))
        case Collection(), Collection():
            return _each_in(given, right) and _each_in(right, given)
        case (Number() | Words(), Collection(items=(only,))):
            return same(given, only)
        case Words(), Words():
            return given == right
    return False


def numbers_in(text: str) -> set[Fraction]:
    """Every number that stands in a sentence."""
    pieces = re.findall(r"(?<![\w.])[-+]?\d[\d,]*(?:\.\d+)?(?:/\d+)?", _plain(text[:TEXT_LIMIT]))
    found = (_number(piece.rstrip(",")) for piece in pieces)
    return {number.value for number in found if number is not None}


def _plain(text: str) -> str:
    """Without what only typesets: dollars around, \\text, \\frac, `x =`, a full stop."""
    text = text.strip().replace("−", "-").replace("\\,", "").replace("\\ ", " ").replace("\\%", "%")
    text = re.sub(r"\\(?:left|right|displaystyle|!)", "", text)
    text = re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\\[dt]?frac\{([^{}]+)\}\{([^{}]+)\}", r"\1/\2", text)
    text = re.sub(r"\bFraction\(\s*(-?\d+)\s*,\s*(\d+)\s*\)", r"\1/\2", text)
    text = text.replace("\\{", "{").replace("\\}", "}").replace("**", "").strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1]
    text = re.sub(r"^[A-Za-z]\w{0,2}\s*=\s*(?!=)", "", text)
    return text.rstrip(".").strip() if not re.search(r"\d\.$", text[:-1]) else text.strip()


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
        return Number(value / 100, None if places is None else places + 2)
    return Number(value, places, unit)


def _unit(word: str) -> str:
    bare = word.strip().casefold()
    for name in (bare, bare.rstrip("s"), _ALIASES.get(bare, ""), _ALIASES.get(bare.rstrip("s"), "")):
        if name in _UNITS or name == "%":
            return name
    return bare.rstrip("s") or bare


def _same_number(given: Number, right: Number) -> bool:
    value = given.value
    if given.unit and right.unit and given.unit != right.unit:
        kind, factor = _UNITS.get(given.unit, ("", Fraction(1)))
        other, base = _UNITS.get(right.unit, ("?", Fraction(1)))
        if kind != other:
            return False
        value = value * factor / base
    if value == right.value:
        return True
    if given.places is None and right.places is None:
        return False
    if abs(value - right.value) <= _NOISE * max(abs(right.value), _NOISE):
        return True
    # The one with fewer decimals is the other one rounded; a whole number is never meant roughly.
    if right.value.denominator == 1:
        return False
    known = [places for places in (given.places, right.places) if places is not None]
    return min(known) >= _PLACES and abs(value - right.value) <= Fraction(1, 2 * 10 ** min(known))


def _each_in(one: Collection, other: Collection) -> bool:
    return all(any(same(a, b) for b in other.items) for a in one.items)
