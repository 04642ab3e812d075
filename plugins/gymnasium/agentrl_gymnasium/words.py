"""Observations in words: what Gymnasium gives as numbers, text or coloured terminal output.

Nothing is shown that the observation does not hold; an observation that is no text is refused, never summarised.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

MOST_NUMBERS = 64
"An observation with more of them is an image or the like, which words do not tell."

_COLOURED = re.compile(r"\x1b\[[0-9;]*m(.*?)\x1b\[0m", re.DOTALL)
_CODE = re.compile(r"\x1b\[[0-9;]*m")
_LINK = re.compile(r"\[([^]]*)\]\([^)]*\)")


def in_words(observation: Any) -> str:
    """Raises `ValueError` for what has no words: an array of more than `MOST_NUMBERS`."""
    if isinstance(observation, str):
        return observation
    if isinstance(observation, Mapping):
        return "\n".join(f"{name}: {in_words(value)}" for name, value in observation.items())
    if isinstance(observation, tuple | list):
        return ", ".join(in_words(value) for value in observation)
    if isinstance(observation, np.ndarray):
        if observation.size > MOST_NUMBERS:
            raise ValueError(
                f"an observation is an array of {'x'.join(map(str, observation.shape))} numbers; at most "
                f"{MOST_NUMBERS} are told in words. Wrap the environment so that it gives text."
            )
        return " ".join(in_words(value) for value in observation.reshape(-1))
    if isinstance(observation, float | np.floating):
        return f"{float(observation):.3g}"
    return str(observation)


def plain_terminal(text: str) -> str:
    """Terminal output without colours; what was coloured stands in brackets, since colour is where the agent is."""
    return _CODE.sub("", _COLOURED.sub(r"[\1]", text)).strip("\n")


def first_words(documentation: str | None) -> str:
    """The first paragraph of a world's documentation on one line, without headings and the targets of links."""
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(documentation or ""))
    told = next((paragraph for paragraph in paragraphs if not paragraph.lstrip().startswith("#")), "")
    return " ".join(_LINK.sub(r"\1", told).split())
