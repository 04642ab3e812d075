"""The chat program of verifiers in the interpreter that they are installed in: nothing is fetched to start it.

A harness of theirs by the id `agentrl_verifiers`; loop, tools and messages are theirs, as with the harness `null`.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from verifiers.v1.harnesses.null.harness import NullHarness
from verifiers.v1.harnesses.utils.launch import CHAT_PROGRAM_SOURCE
from verifiers.v1.runtimes import Runtime, SubprocessRuntime

__all__ = ["ChatHarness"]


class ChatHarness(NullHarness):
    async def setup(self, runtime: Runtime) -> None:
        """In a container, as `null` does it: with uv."""
        if isinstance(runtime, SubprocessRuntime):
            # They would have uv make an environment of packages that are all here already. What it finds is looked up
            # by the program's path before it is asked.
            source = CHAT_PROGRAM_SOURCE.encode()
            program = Path(runtime.scripts_dir) / f"{hashlib.sha256(source).hexdigest()}.py"
            if not program.is_file():
                program.parent.mkdir(parents=True, exist_ok=True)
                aside = program.with_suffix(f".{os.getpid()}")
                aside.write_bytes(source)
                aside.replace(program)
            runtime._uv_interpreters[str(program)] = sys.executable
        await super().setup(runtime)
