"""A taskset with a tool server and a state, as verifiers' users write them: the counter is to reach a number."""

from __future__ import annotations

import verifiers.v1 as vf

__all__ = ["CounterTaskset"]


class CounterState(vf.State):
    total: int = 0


class CounterData(vf.TaskData):
    target: int


class Counter(vf.Toolset[vf.ToolsetConfig, CounterState]):
    @vf.tool
    def add(self, number: int) -> str:
        """Add a number to the counter."""
        self.state.total += number
        return f"the counter is at {self.state.total}"


class CounterTask(vf.Task[CounterData, CounterState]):
    @classmethod
    def toolsets(cls, config: vf.TaskConfig) -> list[vf.Toolset]:
        return [Counter(vf.ToolsetConfig())]

    @vf.reward
    async def reached(self, trace: vf.Trace) -> float:
        return float(trace.state.total == self.data.target)

    @vf.reward(weight=0.5)
    async def said(self, trace: vf.Trace) -> float:
        return float(str(self.data.target) in trace.last_reply)


class CounterTaskset(vf.Taskset[CounterTask, vf.TasksetConfig]):
    def load(self) -> list[CounterTask]:
        prompt = "Bring the counter to {} and say the number."
        datas = [CounterData(prompt=prompt.format(n), system_prompt="You count.", target=n) for n in range(3, 13)]
        return [CounterTask(data, self.config.task) for data in datas]


if __name__ == "__main__":
    Counter.run()
