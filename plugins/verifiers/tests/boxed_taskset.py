"""A taskset that no single answer can be scored for: its reward looks into a runtime."""

from __future__ import annotations

import verifiers.v1 as vf

__all__ = ["BoxedTaskset"]


class BoxedTask(vf.Task[vf.TaskData]):
    @vf.reward
    async def left_behind(self, runtime: vf.Runtime) -> float:
        return float(bool(await runtime.read("answer.txt")))


class BoxedTaskset(vf.Taskset[BoxedTask, vf.TasksetConfig]):
    def load(self) -> list[BoxedTask]:
        return [BoxedTask(vf.TaskData(prompt="Write a file."), self.config.task) for _ in range(6)]
