"""A taskset as verifiers' users write them: sums, an exact reward, a small one for brevity, both asynchronous."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import verifiers.v1 as vf

__all__ = ["SumsTaskset"]


class SumData(vf.TaskData):
    answer: str


class SumTask(vf.Task[SumData]):
    @vf.reward
    async def exact(self, trace: vf.Trace) -> float:
        await asyncio.sleep(0)
        return float(trace.last_reply == self.data.answer)

    @vf.reward(weight=0.25)
    async def brief(self, trace: vf.Trace) -> float:
        return float(0 < len(trace.last_reply) < 8)

    @vf.metric
    async def length(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply))


class SumsConfig(vf.TasksetConfig):
    count: int = 10
    first: int = 1


class SumsTaskset(vf.Taskset[SumTask, SumsConfig]):
    def load(self) -> Iterator[SumTask]:
        for place in range(self.config.count):
            one, other = self.config.first + place, 2 * place + 3
            prompt = [vf.UserMessage(content=f"What is {one} + {other}? Answer with the number.")]
            data = SumData(prompt=prompt, system_prompt="You add numbers.", answer=str(one + other))
            yield SumTask(data, self.config.task)
