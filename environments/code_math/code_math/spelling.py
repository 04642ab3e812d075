"""How an answer is spelled: LaTeX, Markdown and typography as the plain text that `values` reads.

A spelling never changes a value; what is not known stays as it is.
"""

from __future__ import annotations

import re
import unicodedata

_DASHES = str.maketrans(dict.fromkeys("\u2212\u2010\u2011\u2012\u2013\u2014\ufe63\uff0d", "-"))
_NARROW = "\u00a0\u2007\u2009\u202f"
"Spaces that stand between thousands."
_PART = r"(?:\{([^{}]+)\}|(\d))"
_FRACTION = re.compile(rf"(\d)?\s*\\[dt]?frac\s*{_PART}\s*{_PART}")
_VULGAR = re.compile(r"(\d)?\s*([\u00bc-\u00be\u2150-\u215e])")
_POWER_OF_TEN = re.compile(r"(?<=\d)\s*(?:\\times|\\cdot|[\u00d7\u00b7*x])\s*10\s*\^\s*\{?\s*([-+]?\d{1,3})\s*\}?")
_ABOUT = re.compile(r"^(?:about|approximately|approx\.?|around|roughly|\\approx|[\u2248~])\s*", re.IGNORECASE)


def plain(text: str) -> str:
    """Without what only typesets: dollars around, `\\text`, `\\frac`, `x =`, "about", a full stop."""
    text = text.strip().strip("`").translate(_DASHES).replace("{,}", ",")
    text = re.sub(rf"(?<=\d)[{_NARROW}](?=\d{{3}}(?!\d))", "", text)
    text = re.sub(r"\\(?:left|right|displaystyle)|\\[,;:!]", "", text).replace("\\ ", " ").replace("\\%", "%")
    text = re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r" \1", text)
    text = re.sub(r"\^\{?\\circ\}?", "°", text)
    text = re.sub(r"(?<=[A-Za-z])\^\{?([23])\}?(?![\d.])", lambda found: "²" if found[1] == "2" else "³", text)
    text = _VULGAR.sub(_vulgar, _FRACTION.sub(_fraction, text))
    text = _POWER_OF_TEN.sub(r"e\1", text)
    text = re.sub(r"\bFraction\(\s*(-?\d+)\s*,\s*(\d+)\s*\)", r"\1/\2", text)
    # Bold, and not the operator: 10**6 is no 106.
    text = re.sub(r"\*\*([^*]+)\*\*", r"\1", text).replace("\\{", "{").replace("\\}", "}").strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    text = _ABOUT.sub("", re.sub(r"^[A-Za-z]\w{0,2}\s*=\s*(?!=)", "", text))
    text = re.sub(r"^\(\s*([^\s(),;]+)\s*\)$", r"\1", text)
    return text.rstrip(".").strip() if not re.search(r"\d\.$", text[:-1]) else text.strip()


def _fraction(found: re.Match[str]) -> str:
    above, below = found[2] or found[3], found[4] or found[5]
    whole = f"{found[1]} " if found[1] else ""
    return f"{whole}{_single(above)}/{_single(below)}"


def _single(part: str) -> str:
    """A fraction's part, in brackets where it is a sum."""
    return part.strip() if re.fullmatch(r"\s*-?[\w.,\\]+\s*", part) else f"({part.strip()})"


def _vulgar(found: re.Match[str]) -> str:
    whole = f"{found[1]} " if found[1] else ""
    return whole + unicodedata.normalize("NFKC", found[2]).replace("\u2044", "/")
