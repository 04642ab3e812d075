"""From one step of a recorded episode on, with whoever is given: new episodes, in a folder of their own.

They are forks as a strategy makes them: the steps before are shared as they are, in a world that is proved to be there.
The recorded tokens are kept where the new policy's renderer writes the same ones; else the messages are rendered anew.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from agentrl.errors import ConfigError, StoreError
from agentrl.protocols import ContextPolicy
from agentrl.replay.rerender import rerender, tools_of
from agentrl.replay.source import CONTINUED, ORIGIN, RECIPE, Continued, Recorded
from agentrl.rollout.advice import AdvisedPlayer
from agentrl.rollout.context import history
from agentrl.rollout.decisions import Player
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import Supervision
from agentrl.rollout.rewarding import without
from agentrl.rollout.tokens import TokenPlayer
from agentrl.store.ledger import LEDGER, Ledger
from agentrl.types import Message, Observation, Step, Trajectory


@dataclass(frozen=True, slots=True)
class Going:
    """How it goes on."""

    step: int
    "The first one that is taken anew."
    times: int = 1
    "Episodes."
    temperature: float = 1.0
    max_tokens: int | None = None
    "Sampled tokens per answer; what the policy was made for, else 256, where None."
    seed: int = 0


async def continue_from(
    recorded: Recorded, parent: Trajectory, going: Going, player: Player, out: Path
) -> list[Trajectory]:
    """Each episode is in the ledger of `out` when it ends. Raises `InvalidDataError` where there is no such step."""
    bare = replace(parent, steps=tuple(without(step, recorded.terms) for step in parent.steps))
    player = await _going_on(recorded, bare, going.step, player)
    limits = replace(recorded.limits, temperature=going.temperature, max_tokens=going.max_tokens or 256)
    name = f"{parent.id}@{going.step}"
    with Ledger(out) as ledger:
        ledger.issue(0, name, parent.task, [f"{name}-{member}" for member in range(going.times)])

        async def keep(trajectory: Trajectory) -> None:
            await asyncio.to_thread(ledger.finish, trajectory)

        supervision = Supervision(environment_slots=8, engine_slots=8, failure_bound=1.0)
        async with RolloutEngine(
            recorded.environment, player, limits=limits, supervision=supervision, seed=going.seed
        ) as engine:
            group = engine.group(name, record=keep)
            forks = (group.fork(bare, going.step, member) for member in range(going.times))
            return list(await asyncio.gather(*forks))


def claim(out: Path, recorded: Recorded, told: Continued) -> None:
    """Begin a folder of continued episodes, which says where they come from. Raises `ConfigError` where it is taken."""
    begun = (out / CONTINUED).is_file() and not (out / LEDGER).exists()
    if out.exists() and any(out.iterdir()) and not begun:
        raise ConfigError(f"{out} is not empty; continued episodes go to a folder of their own: choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name in (RECIPE, ORIGIN):
            if (recorded.folder / name).is_file():
                shutil.copyfile(recorded.folder / name, out / ORIGIN)
        (out / CONTINUED).write_bytes(msgspec.json.format(msgspec.json.encode(told), indent=1) + b"\n")
    except OSError as error:
        raise StoreError(f"{out} cannot be written: {error}. Choose another --out.") from error


@dataclass(frozen=True, slots=True)
class Retold:
    """Implements `protocols.ContextPolicy`: another one, with a context that begins anew before one step."""

    context: ContextPolicy
    at: int

    def rewrite(self, steps: Sequence[Step], observation: Observation) -> tuple[Message, ...] | None:
        shown = self.context.rewrite(steps, observation)
        return history(steps, observation) if shown is None and len(steps) == self.at else shown


async def _going_on(recorded: Recorded, parent: Trajectory, at: int, player: Player) -> Player:
    """`player`, told the messages so far where the recorded tokens are not those that it would have read."""
    if isinstance(player, AdvisedPlayer):
        return replace(player, player=await _going_on(recorded, parent, at, player.player))
    if not isinstance(player, TokenPlayer) or at == 0:
        return player
    tools = await tools_of(recorded.environment(), parent.task)
    before = replace(parent, steps=parent.steps[:at], forked_from=None)
    found = await rerender(before, player.renderer, player.context, tools)
    if found.steps == at and found.first is None:
        return player
    return replace(player, context=Retold(player.context, at))
