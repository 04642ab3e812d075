"""Text to ids and back, without a template.

Text never becomes a control token: `<|im_end|>` in an observation is encoded as the characters that it is, so an
environment (or a web page it shows) cannot close a turn or open one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from agentrl.errors import RenderingError
from agentrl.types import TokenIds

_CACHED_TEXTS = 4096
_LONGEST_CACHED_TEXT = 2048  # characters: a cache of 10 MB observations would be the largest thing in the driver


class Tokenizer(Protocol):
    """What the renderers need of a `transformers` fast tokenizer, which satisfies it."""

    name_or_path: str

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = False) -> str: ...

    def convert_tokens_to_ids(self, tokens: str) -> int | None: ...


class TextCodec:
    """Encodes and decodes plain text with a private copy of the tokenizer's backend."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise RenderingError(
                f"the tokenizer is a {type(tokenizer).__name__} without a `backend_tokenizer`; "
                "a fast tokenizer is needed (load it with agentrl.models.load_tokenizer)."
            )
        # A copy, because these settings would change the caller's tokenizer.
        self._backend = copy.deepcopy(backend)
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self._cached = lru_cache(maxsize=_CACHED_TEXTS)(self._encode)

    def encode(self, text: str) -> tuple[int, ...]:
        return self._cached(text) if len(text) <= _LONGEST_CACHED_TEXT else self._encode(text)

    def decode(self, tokens: Sequence[int] | npt.NDArray[Any]) -> str:
        """Control tokens are shown as text; ids outside the vocabulary vanish."""
        return str(self._backend.decode([int(t) for t in tokens], skip_special_tokens=False))

    def words(self, tokens: Sequence[int] | npt.NDArray[Any]) -> list[str]:
        """The vocabulary entry of every id, for tokenizers whose tokens are words."""
        return [self._backend.id_to_token(int(t)) or "" for t in tokens]

    def control(self, token: str) -> int | None:
        """The id of a control token, None where the vocabulary has no such entry."""
        found = self._backend.token_to_id(token)
        return None if found is None else int(found)

    def _encode(self, text: str) -> tuple[int, ...]:
        return tuple(self._backend.encode(text, add_special_tokens=False).ids)


def joined(parts: Sequence[Sequence[int]]) -> TokenIds:
    return np.fromiter((token for part in parts for token in part), np.int32)
