"""What a run prints, kept up to a limit of bytes a stream; what comes after is thrown away."""

from __future__ import annotations

STREAMS = ("stdout", "stderr")


class Printed:
    """Text as it arrives, in pieces."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = {stream: bytearray() for stream in STREAMS}
        self._cut = dict.fromkeys(STREAMS, False)

    def add(self, stream: str, text: str) -> None:
        kept = self._kept[stream]
        # Lone surrogates would not survive the trip to a tokenizer.
        data = text.encode("utf-8", "replace")
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
