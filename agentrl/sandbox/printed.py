"""What a run prints, kept up to a limit of bytes a stream; what comes after is thrown away.

Control characters are shown as escapes, so that no code can drive the terminal of who reads what it printed.
"""

from __future__ import annotations

STREAMS = ("stdout", "stderr")
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n\r"}


class Printed:
    """Text as it arrives, in pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = {stream: bytearray() for stream in STREAMS}
        self._cut = dict.fromkeys(STREAMS, False)

    def add(self, stream: str, text: str) -> None:
        kept = self._kept[stream]
        # Lone surrogates would not survive the trip to a tokenizer.
        data = text.translate(_CONTROL).encode("utf-8", "replace")
        room = self._limit - len(kept)
        kept += data[:room]
        self._cut[stream] |= len(data) > room

    @property
    def over(self) -> bool:
        """Something was thrown away."""
        return any(self._cut.values())

    def text(self, stream: str) -> str:
        kept = self._kept[stream].decode("utf-8", "replace")
        return f"{kept}\n[cut: {stream} has more than {self._limit:,} bytes]\n" if self._cut[stream] else kept
