"""The recipe's strategy `fission`: its pool of errors, and who says what was wrong with one.

A server is opened when it is first asked, and closed with the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from agentrl.engines.openai import OpenAIEngine
from agentrl.errors import ConfigError
from agentrl.protocols import Rollout
from agentrl.rollout.strategies.diagnosis import QUESTION, WORDS, Diagnosis, PolicyWriter, Writer
from agentrl.rollout.strategies.fission import Fission
from agentrl.types import Message, SamplingParams


@dataclass(frozen=True, slots=True)
class Simulator:
    """A model behind an OpenAI-compatible API that words errors, such as one fine-tuned for it."""

    base_url: str
    'Up to and with "/v1".'
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    "The environment variable that holds the key; a server on this machine needs none."
    timeout: float = 60.0
    "Seconds for one reply."
    max_tokens: int = 128


@dataclass(slots=True)
class ServerWriter:
    """Implements `diagnosis.Writer`. Greedy, so that a resumed group is told the same."""

    simulator: Simulator
    _engine: OpenAIEngine | None = field(default=None, init=False)

    async def write(self, question: Message, member: int, rollout: Rollout) -> str:
        simulator = self.simulator
        if self._engine is None:
            self._engine = OpenAIEngine(
                simulator.base_url, simulator.model, api_key_env=simulator.api_key_env, timeout=simulator.timeout
            )
        return (await self._engine.chat((question,), (), SamplingParams(simulator.max_tokens, 0.0))).action.text

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.close()
            self._engine = None


def open_fission(
    *,
    size: int = 64,
    share: float = 0.5,
    written_by: Literal["template", "policy", "simulator"] = "template",
    diagnosis: str = WORDS,
    question: str = QUESTION,
    simulator: Simulator | None = None,
) -> Fission:
    """A strategy that goes back to errors; `diagnosis` is the template, also where a model says nothing."""
    if (written_by == "simulator") != (simulator is not None):
        raise ConfigError(
            f'written_by is "{written_by}" and simulator is {"not " if simulator is None else ""}set: a simulator has '
            'a table `simulator = { base_url = "...", model = "..." }`, and the others have none.'
        )
    writer: Writer | None = None
    if simulator is not None:
        writer = ServerWriter(simulator)
    elif written_by == "policy":
        writer = PolicyWriter()
    return Fission(size, share, Diagnosis(diagnosis, question, writer))
