"""Two servers written with openenv-core alone, as an author of theirs would: a guessing game, and tools in a vault."""

from __future__ import annotations

import os
import time
from typing import Any
from uuid import uuid4

from fastmcp import FastMCP
from openenv.core.env_server import (
    Action,
    CallToolAction,
    CallToolObservation,
    Environment,
    MCPEnvironment,
    Observation,
    State,
    create_fastapi_app,
)
from pydantic import Field

TOP = 9


class GuessAction(Action):
    """Guess the number.

    What stands here is for programmers.
    """

    number: int = Field(..., le=1000, description="your guess")


class GuessObservation(Observation):
    hint: str = ""
    tries: int = 0


class Guess(Environment[GuessAction, GuessObservation, State]):
    """Higher or lower."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed: int | None = None, episode_id: str | None = None) -> GuessObservation:  # type: ignore[override]
        self.secret = (seed or 0) % (TOP + 1)
        self.tries = 0
        return GuessObservation(hint=f"a number from 0 to {TOP}")

    def step(self, action: GuessAction, timeout_s: float | None = None, **_: Any) -> GuessObservation:
        if action.number == 666:
            os._exit(3)
        if action.number == 600:
            time.sleep(3.0)
        if action.number < 0:
            raise ValueError("negative numbers are not allowed")
        self.tries += 1
        right = action.number == self.secret
        hint = "right" if right else "higher" if action.number < self.secret else "lower"
        return GuessObservation(hint=hint, tries=self.tries, done=right, reward=1.0 if right else -0.1)

    @property
    def state(self) -> State:
        return State(episode_id=str(uuid4()), step_count=self.tries)


class Vault(MCPEnvironment):
    """Tools of a FastMCP server; the reward is the author's own, in the step."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self) -> None:
        server: Any = FastMCP("vault")
        self.code = 0
        self.opened = False

        @server.tool()
        def read_note() -> str:
            """Read the note on the door."""
            return f"The code is {self.code}."

        @server.tool()
        def open_door(code: int) -> dict[str, bool]:
            """Open the door."""
            if code < 0:
                raise ValueError("a code is not negative")
            self.opened = code == self.code
            return {"open": self.opened}

        super().__init__(server)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **_: Any) -> Observation:
        self.code, self.opened = 100 + (seed or 0), False
        return Observation(done=False, reward=0.0)

    def _step_impl(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        raise ValueError(f"{type(action).__name__} is no action of the vault")

    async def step_async(self, action: Action, timeout_s: float | None = None, **_: Any) -> Observation:
        shown = await super().step_async(action, timeout_s)
        if isinstance(action, CallToolAction) and self.opened:
            shown.done, shown.reward = True, 1.0
        return shown

    @property
    def state(self) -> State:
        return State()


guess_app = create_fastapi_app(Guess, GuessAction, GuessObservation, max_concurrent_envs=2)
vault_app = create_fastapi_app(Vault, CallToolAction, CallToolObservation, max_concurrent_envs=4)
