"""What a game prints, without what is there for people at a terminal; which commands belong to the game.

Words of the world are kept as they are.
"""

from __future__ import annotations

import re

LONGEST = 100
OUTSIDE = frozenset(
    (
        *("save", "restore", "restart", "quit", "q", "undo", "script"),
        *("transcript", "unscript", "recording", "replay", "verify", "version", "superbrief"),
        *("brief", "verbose", "normal", "notify", "score", "full", "nouns"),
        *("pronouns", "again", "g", "oops"),
    )
)
"Commands about the session and not about the world, and those whose meaning lies in earlier ones."
_STATUS = re.compile(r"^\s*>.*$|-= [^=\n]* =-\s*-?\d+/\d+", re.MULTILINE)
_OFFER = "Would you like to RESTART"
_LINES = re.compile(r"\n\s*\n+")


def feedback_of(printed: str) -> str:
    """Without prompts, status lines, runs of empty lines and what is offered after the end."""
    return _LINES.sub("\n", _STATUS.sub("", printed.partition(_OFFER)[0])).strip()


def refusal(command: str) -> str:
    """Why a command is not given to the game, in words for the model; "" where it is."""
    words = command.lower().split()
    if not words:
        return 'give a command, such as "look".'
    if len(command) > LONGEST:
        return f"a command has at most {LONGEST} characters."
    if "\n" in command or "." in command or ";" in command or "then" in words:
        return "give one command at a time."
    if words[0] in OUTSIDE or words[0].startswith("tw-"):
        return f"{words[0]!r} is no command of the game."
    return ""
