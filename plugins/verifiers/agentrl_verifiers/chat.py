"""The chat program of verifiers without a process of its own: its loop runs where the rollout does.

A harness of theirs by the id `agentrl_verifiers`. Loop, tools and messages are those of their `null`. It runs nothing
that the policy writes: a process apart would keep nothing out, and importing its packages takes seconds.
"""

from __future__ import annotations

import asyncio
import functools
import sys
import traceback
from types import ModuleType
from typing import Any

from verifiers.v1.clients import ModelContext
from verifiers.v1.harnesses.null.harness import NullHarness
from verifiers.v1.runtimes import ProgramResult, Runtime, SubprocessRuntime
from verifiers.v1.trace import Trace

__all__ = ["ChatHarness"]


class ChatHarness(NullHarness):
    async def setup(self, runtime: Runtime) -> None:
        if not self._here(runtime):
            await super().setup(runtime)

    async def launch(
        self, ctx: ModelContext, trace: Trace, runtime: Runtime, *wiring: Any, tool_interception_url: str | None = None
    ) -> ProgramResult:
        """wiring: addresses, key and task, as their `null` is given them."""
        where = Here(runtime) if self._here(runtime) else runtime
        result: ProgramResult = await super().launch(
            ctx, trace, where, *wiring, tool_interception_url=tool_interception_url
        )
        return result

    def _here(self, runtime: Runtime) -> bool:
        """Not in a container, nor with variables of its own: there it starts as `null` does, with uv."""
        return isinstance(runtime, SubprocessRuntime) and not self.config.resolved_env


class Here:
    """As much of a runtime as starting their chat program takes; the program is a coroutine of this event loop."""

    def __init__(self, runtime: SubprocessRuntime) -> None:
        self._folder = runtime.workdir

    async def write(self, path: str, data: bytes) -> None:
        (self._folder / path).write_bytes(data)

    async def prepare_uv_script(self, script: str, env: dict[str, str], *, activate: bool = True) -> list[str]:
        return [script]

    async def run_program(self, argv: list[str], env: dict[str, str]) -> ProgramResult:
        """What the program ended with, as its process would have."""
        script, *arguments = argv
        option = "--initial-messages-file="
        whole = [f"{option}{self._folder / a.removeprefix(option)}" if a.startswith(option) else a for a in arguments]
        main = _program(script).main
        # It reads them before it first waits, so that no other rollout comes between.
        sys.argv = ["chat", *whole]
        try:
            await main()
        except asyncio.CancelledError:
            raise
        except SystemExit as ended:
            return ProgramResult(exit_code=int(ended.code or 0), stdout="", stderr=f"it ended with {ended.code}")
        except Exception:
            return ProgramResult(exit_code=1, stdout="", stderr=traceback.format_exc())
        return ProgramResult(exit_code=0, stdout="", stderr="")


@functools.cache
def _program(source: str) -> Any:
    """Their program is one text of several of their modules, of which none can be used by itself."""
    made = ModuleType(f"{__name__}_program")
    exec(compile(source, made.__name__, "exec"), made.__dict__)
    return made
