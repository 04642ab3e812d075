"""A taskset with a conversation of its own, as verifiers' users write them: guess a number, told higher or lower."""

from __future__ import annotations

import verifiers.v1 as vf

__all__ = ["GuessEnv", "GuessTaskset"]


class GuessData(vf.TaskData):
    secret: int


class GuessTask(vf.Task[GuessData]):
    @vf.reward
    async def found(self, trace: vf.Trace) -> float:
        return float(trace.last_reply.strip() == str(self.data.secret))

    @vf.metric
    async def guesses(self, trace: vf.Trace) -> float:
        return float(trace.num_turns)


class GuessTaskset(vf.Taskset[GuessTask, vf.TasksetConfig]):
    def load(self) -> list[GuessTask]:
        return [
            GuessTask(GuessData(prompt="Guess a number from 1 to 9.", secret=n % 9 + 1), self.config.task)
            for n in range(10)
        ]


class GuessConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig()
    tries: int = 4


class GuessEnv(vf.Env[GuessConfig]):
    async def run(self, task: vf.Task, agents: vf.Agents) -> None:
        async with agents.player.interaction(task) as game:
            said = await game.turn()
            for _ in range(self.config.tries - 1):
                word = said.last_reply.strip()
                if said.terminated or word == str(task.data.secret):
                    break
                low = not word.isdigit() or int(word) < task.data.secret
                said = await game.turn("higher" if low else "lower")
