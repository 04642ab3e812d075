"""One game in ALFWorld's engine: commands in, what is seen out, and the planner that knows how to win.

The engine is Fast Downward behind TextWorld; its translator has globals and redirects standard output, so that
only one game of a process may run at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import fast_downward
import textworld
from textworld.envs import PddlEnv

from agentrl_alfworld.package import Demangler

NOTHING = "Nothing happens."
_TRACES = ("checked", "examined")
"Predicates that remember a look and change nothing that can be done."


class Game:
    """A started game. Raises what the engine raises where the file is broken."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        """told: domain, grammar and problem, as in a `.tw-pddl` file."""
        self._walkthrough = list(told.get("walkthrough") or ())
        self._engine: Any = PddlEnv(textworld.EnvInfos(feedback=True, admissible_commands=True, won=True))
        self._engine.load(dict(told))
        names = Demangler(game_infos=self._engine._entity_infos)
        for info in self._engine._entity_infos.values():
            info.name = names.demangle_alfred_name(info.id).strip()
        self._state: Any = self._engine.reset()

    @property
    def seen(self) -> str:
        """What the last command led to; before the first, the room and the task."""
        return str(self._state.feedback).partition("=-")[2].strip() or str(self._state.feedback).strip()

    @property
    def won(self) -> bool:
        return bool(self._state.won)

    @property
    def possible(self) -> list[str]:
        return list(self._state.admissible_commands)

    @property
    def key(self) -> str:
        """Of all that is true, looks apart."""
        facts = [str(fact) for fact in self._state["_facts"] if not fact.name.startswith(("new-axiom", *_TRACES))]
        return hashlib.sha256("\n".join(sorted(facts)).encode()).hexdigest()[:16]

    def act(self, command: str) -> None:
        self._state, _, _ = self._engine.step(command)

    def plan(self) -> list[str]:
        """Commands that win from here: the planner's, else the file's own."""
        found = self._engine._pddl_state.replan(self._engine._entity_infos)
        return [str(command).strip() for command in found] or self._walkthrough

    def close(self) -> None:
        fast_downward.close_lib(self._engine.downward_lib)
