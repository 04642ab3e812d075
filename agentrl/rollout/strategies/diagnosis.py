"""What a policy is told of its own error before it tries again: a template, or what a model writes.

A model that cannot be reached, or says nothing, leaves the template: a recovery never waits for a diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.protocols import Rollout
from agentrl.rollout.strategies.reflection import transcript
from agentrl.types import Message, Trajectory

WORDS = "That call failed: {error} Correct it and go on."
QUESTION = """An assistant works on a task with tools. This is what happened so far:

{transcript}

The last call was refused: {error}
Say in one or two short sentences what is wrong with it and what to check before trying again. Do not write the call."""
LONGEST = 600
"Characters of a diagnosis that are told: the paper's are a sentence or two, and a model may ramble."


class Writer(Protocol):
    """Who writes a diagnosis."""

    async def write(self, question: Message, member: int, rollout: Rollout) -> str:
        """Raises `InfrastructureFault` where no answer comes."""

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class PolicyWriter:
    """The policy itself, outside of any episode; nothing of its answer is trained on."""

    async def write(self, question: Message, member: int, rollout: Rollout) -> str:
        return await rollout.ask((question,), member)

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """`words` with `{error}` filled in, or what `writer` says to `question` (`{transcript}` and `{error}`)."""

    words: str = WORDS
    question: str = QUESTION
    writer: Writer | None = None

    def __post_init__(self) -> None:
        _check("diagnosis", self.words, error="")
        _check("question", self.question, error="", transcript="")

    async def of(self, parent: Trajectory, at: int, rollout: Rollout) -> str:
        """Of the refused step before step `at`."""
        error = parent.steps[at - 1].error
        if self.writer is not None:
            seen = transcript(replace(parent, steps=parent.steps[:at]))
            question = Message("user", self.question.format(transcript=seen, error=error))
            try:
                said = (await self.writer.write(question, 0, rollout)).strip()
            except InfrastructureFault:
                # The recoveries have supervision of their own: where the engine is really gone, that says so.
                said = ""
            if said:
                return said[:LONGEST]
        return self.words.format(error=error)


def _check(name: str, text: str, **values: str) -> None:
    try:
        text.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        allowed = " and ".join(f"{{{value}}}" for value in values)
        raise ConfigError(
            f"{name} cannot be filled in ({type(error).__name__}: {error}); it may name {allowed}, and other braces "
            "are doubled."
        ) from None
