"""What a server's observation is in words: what an MCP tool answered, messages, or the fields as lines.

Nothing is added to what the server sent; what is empty is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

UNTOLD = ("done", "reward", "metadata")
"Fields of every observation that are for programs."


def in_words(observation: Mapping[str, Any], show: Sequence[str] = ()) -> str:
    """show: the fields to tell, in this order; all that are not empty if there are none."""
    names = show or [name for name, value in observation.items() if name not in UNTOLD and value not in (None, "", [])]
    told = {name: plain(observation.get(name)) for name in names}
    if len(told) == 1:
        return next(iter(told.values()))
    return "\n".join(f"{name}: {text}" for name, text in told.items())


def answer(observation: Mapping[str, Any]) -> tuple[str, str, str]:
    """Of a called tool: the text; the mistake if it is the model's; what failed if it is the server's."""
    error = observation.get("error")
    if error:
        kind, said = str(error.get("error_type", "")), str(error.get("message", ""))
        return ("", "", said or kind) if kind in ("transport_error", "timeout") else (said, said or kind, "")
    result = observation.get("result")
    if not isinstance(result, Mapping) or "content" not in result:
        return plain(result), "", ""
    parts = [part.get("text") or f"[{part.get('type')}]" for part in result["content"]]
    text = "\n".join(parts) if parts else plain(result.get("data"))
    return (text, text or "the tool failed", "") if result.get("is_error") else (text, "", "")


def plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
