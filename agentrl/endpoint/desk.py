"""The sessions of `agentrl serve`: who comes is given one, plays one episode in it, and says what it was worth.

A session ends in exactly one record: with the verdict of its client, or as a fault that is not scored where the client
stays away, the engine fails or the server is stopped.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from agentrl.endpoint.folder import ServedFolder
from agentrl.endpoint.memory import digests_of
from agentrl.endpoint.problems import Problem
from agentrl.endpoint.requests import ChatRequest
from agentrl.endpoint.session import Ending, Exchange, Session
from agentrl.endpoint.world import ClientWorld
from agentrl.errors import AgentRLError, InfrastructureFault, RenderingError, StoreError
from agentrl.rollout.decisions import Player
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.episode import answered, trajectory_id
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.types import JSON, Action, SamplingParams, Status, Step, StepResult, Task, Trajectory

ENVIRONMENT = "endpoint"
"What the tasks of served episodes are called to be of."
REMEMBERED = 10_000
"Sessions that are over and still answer what became of them; the folder holds all."
STOPPED = "the server was stopped before the session was finished."
_NAME = re.compile(r"[\w.:@+-]{1,128}")
_WEEK = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class DeskSettings:
    """Within what sessions are served."""

    models: tuple[str, ...] = ()
    temperature: float = 1.0
    "Where a request names none."
    max_tokens: int = 1024
    "Of one answer, where a request names no number; never more than the context has room for."
    seed: int = 0
    sessions: int = 256
    "Open at once."
    concurrency: int = 64
    "Requests at the engine at once."
    idle: float = 600.0
    "Seconds without a request after which a session is ended as unfinished."
    max_steps: int = 1000
    "Answers in one session."


@dataclass(slots=True)
class Sitting:
    """One open session with its episode."""

    session: Session
    group: str
    member: int
    task: Task
    anonymous: bool
    episode: asyncio.Task[Trajectory] | None = None
    last: Step | None = None
    "The latest answer."
    fault: str = ""
    "Why it is not scored, where its client could not finish it."


@dataclass(frozen=True, slots=True)
class Plan:
    """A session that was announced and has not asked yet."""

    group: str
    task: str
    data: dict[str, JSON] = field(default_factory=dict)


class Desk:
    """Implements `server.Reception`. Belongs to one event loop; `close` before the folder."""

    def __init__(self, player: Player, folder: ServedFolder, settings: DeskSettings) -> None:
        self.settings = settings
        self.done: OrderedDict[str, dict[str, JSON]] = OrderedDict()
        "What became of the latest sessions, by name."
        self._folder = folder
        self._open: dict[str, Sitting] = {}
        self._plans: dict[str, Plan] = {}
        self._count = 0
        self._closing = False
        self._born = f"{int(time.time()):x}"
        self._rollout = RolloutEngine(
            lambda: ServedWorld(self),
            player,
            # One token: requests say how many they want, and a prompt fits where there is room for one.
            limits=EpisodeLimits(
                max_steps=settings.max_steps,
                max_tokens=1,
                temperature=settings.temperature,
                max_policy_errors=settings.max_steps,
                episode_deadline=_WEEK,
            ),
            supervision=Supervision(
                environment_slots=settings.sessions,
                engine_slots=settings.concurrency,
                attempts=1,
                failure_bound=1.0,
            ),
            seed=settings.seed,
        )

    @property
    def models(self) -> tuple[str, ...]:
        return self.settings.models

    @property
    def open(self) -> int:
        return len(self._open)

    def session(self, name: str, request: ChatRequest) -> Session:
        self._check_open()
        if not name:
            known = self._continued(request)
            return (known or self._begin(self._fresh(), Plan("", ""), anonymous=True)).session
        if name not in self._open and name in self.done:
            told = self.done[name]
            raise Problem(409, f"the session {name} is over ({told['status']}); begin another.", code="session_over")
        if name not in self._open:
            self._begin(_checked(name), self._plans.pop(name, Plan("", "")), anonymous=False)
        return self._open[name].session

    def announce(self, name: str, plan: Plan) -> str:
        """A session that will come, with its task; its name. Raises `Problem` where there is one of that name."""
        self._check_open()
        name = _checked(name) if name else self._fresh()
        if name in self._open or name in self._plans or name in self.done:
            raise Problem(409, f"there is a session {name} already.", code="session_exists", param="id")
        if len(self._plans) >= REMEMBERED:
            raise Problem(429, f"{len(self._plans):,} sessions were announced and have not asked yet.")
        self._plans[name] = plan
        return name

    def state(self, name: str) -> dict[str, JSON]:
        """Raises `Problem` where there is no such session."""
        if name in self._open:
            sitting = self._open[name]
            told: dict[str, JSON] = {"id": name, "status": "open", "answers": sitting.session.answers}
            return {**told, "waiting": sitting.session.waiting, "task": sitting.task.id, "group": sitting.group}
        if name in self.done:
            return self.done[name]
        if name in self._plans:
            return {"id": name, "status": "announced", "task": self._plans[name].task, "group": self._plans[name].group}
        raise Problem(404, f"there is no session {name}.", code="session_unknown", param="id")

    async def finish(self, name: str, ending: Ending, task: str = "") -> dict[str, JSON]:
        """What became of it, once that is safe on the disk. Raises `Problem`."""
        self.state(name)
        if name in self._plans:
            raise Problem(409, f"the session {name} has asked nothing, so there is nothing to finish.")
        if name in self.done:
            raise Problem(409, f"the session {name} is over already; it was recorded.", code="session_over")
        sitting = self._open[name]
        if len(ending.step_rewards) > sitting.session.answers:
            words = f"{len(ending.step_rewards)} step rewards for {sitting.session.answers} answers."
            raise Problem(400, words, param="step_rewards")
        sitting.session.end(ending)
        if task:
            sitting.task = replace(sitting.task, id=task)
        assert sitting.episode is not None
        await asyncio.wait({sitting.episode})
        if sitting.episode.cancelled() or sitting.episode.exception() is not None:
            raise Problem(503, f"the session {name} could not be recorded: {sitting.episode}.")
        return self.done[name]

    async def close(self) -> None:
        """End every session, each with its record."""
        self._closing = True
        episodes = []
        for sitting in list(self._open.values()):
            sitting.session.refuse(Problem(503, STOPPED, code="shutting_down"))
            sitting.session.break_off(STOPPED)
            episodes += [sitting.episode] if sitting.episode else []
        if episodes:
            await asyncio.wait(episodes, timeout=self._rollout.limits.close_deadline)
        await self._rollout.close()
        if episodes:
            await asyncio.wait(episodes)

    def sitting(self, name: str) -> Sitting:
        return self._open[name]

    def keep(self, episode: str, answer: Step) -> None:
        """Before it is given. Raises `StoreError`."""
        self._folder.answer(episode, answer)

    def _continued(self, request: ChatRequest) -> Sitting | None:
        """The session without a name that knows the longest beginning of `request`; of equal ones an idle one."""
        digests = digests_of(request.messages, request.tools)
        found: list[tuple[int, bool, Sitting]] = []
        for sitting in self._open.values():
            covered = sitting.session.memory.place(digests)[1] if sitting.anonymous else 0
            if covered:
                found.append((covered, not sitting.session.waiting, sitting))
        return max(found, key=lambda one: one[:2])[2] if found else None

    def _begin(self, name: str, plan: Plan, *, anonymous: bool) -> Sitting:
        if len(self._open) >= self.settings.sessions:
            raise Problem(429, f"{len(self._open)} sessions are open, the most there may be.", code="too_many_sessions")
        task = Task(plan.task or name, ENVIRONMENT, 0, {**plan.data, "session": name}, "served")
        group = plan.group or task.id
        sitting = Sitting(Session(name), group, self._folder.member(group), task, anonymous)
        self._open[name] = sitting
        sitting.episode = asyncio.create_task(self._play(sitting), name=name)
        sitting.episode.add_done_callback(lambda work: work.cancelled() or work.exception())
        return sitting

    async def _play(self, sitting: Sitting) -> Trajectory:
        name = sitting.session.name
        over = Problem(503, STOPPED, code="shutting_down")
        told: dict[str, JSON] = {"id": name, "status": "lost"}
        try:
            await asyncio.to_thread(self._folder.issue, sitting.group, sitting.task)
            kept: list[Trajectory] = []

            async def record(trajectory: Trajectory) -> None:
                kept.append(_judged(trajectory, sitting))
                await self._folder.record(kept[-1])

            played = await self._rollout.group(sitting.group, record=record).episode(sitting.task, sitting.member)
            trajectory = kept[-1] if kept else played
            told, over = _told(name, trajectory), _over(name, trajectory)
            return trajectory
        except AgentRLError as error:
            over = Problem(503, f"the session {name} cannot be recorded: {error}")
            raise
        finally:
            del self._open[name]
            self.done[name] = told
            while len(self.done) > REMEMBERED:
                self.done.popitem(last=False)
            sitting.session.close(over)

    def _fresh(self) -> str:
        self._count += 1
        return f"s{self._born}-{self._count}"

    def _check_open(self) -> None:
        if self._closing:
            raise Problem(503, "the server is stopping.", code="shutting_down")


class ServedWorld(ClientWorld):
    """The client of one session, which came by itself."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self.patience = desk.settings.idle
        self._desk = desk
        self._sitting: Sitting

    def tasks(self, split: str) -> Iterable[Task]:
        return ()

    async def come(self, task: Task) -> None:
        self._sitting = self._desk.sitting(task.data["session"])
        self.session = self._sitting.session

    async def step(self, action: Action) -> StepResult:
        assert self._decision is not None
        sitting = self._sitting
        name = trajectory_id(sitting.group, sitting.member)
        sitting.last = answered(self._decision, name, sitting.last, self._shown)
        try:
            self._desk.keep(name, sitting.last)
        except StoreError as error:
            raise InfrastructureFault(str(error)) from error
        return await super().step(action)

    async def heard(self, wait: Callable[[], Awaitable[Exchange | Ending]]) -> Exchange | Ending:
        try:
            async with asyncio.timeout(self.patience):
                return await wait()
        except TimeoutError:
            return Ending(
                fault=f"the client did not finish the session and did not ask for {self.patience:g} s (idle)."
            )

    def broke_off(self, fault: str) -> None:
        """What was answered is kept; the record is of an episode that is not scored."""
        self._sitting.fault = fault

    def sampling(self, given: SamplingParams, room: int) -> SamplingParams:
        """As the request says."""
        asked = self._exchange.request
        wanted = self._desk.settings.max_tokens if asked.max_tokens is None else asked.max_tokens
        seed = given.seed if asked.seed is None else (asked.seed + len(self._exchange.choices)) % 2**48
        temperature = given.temperature if asked.temperature is None else asked.temperature
        return replace(given, max_tokens=max(1, min(wanted, room)), temperature=temperature, seed=seed)

    async def close(self) -> None:
        """The session is its desk's."""


def plan_of(body: dict[str, Any]) -> tuple[str, Plan]:
    """`{"id": ..., "task": ... or {"id": ..., "data": {...}}, "group": ...}`, each of which may be left out."""
    unknown = body.keys() - {"id", "task", "group"}
    if unknown:
        raise Problem(400, f"{min(unknown)!r} is no key of a session; id, task and group are.", param=min(unknown))
    name, task, group = body.get("id") or "", body.get("task") or "", body.get("group") or ""
    data = task.get("data", {}) if isinstance(task, dict) else {}
    task = task.get("id", "") if isinstance(task, dict) else task
    if not all(isinstance(value, str) for value in (name, task, group)) or not isinstance(data, dict):
        raise Problem(400, "id, task and group are texts, and the data of a task is an object.")
    return name, Plan(_checked(group) if group else "", _checked(task) if task else "", data)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise Problem(400, f"{name[:140]!r} is no name: 1 to 128 letters, digits and . : @ + - _ are.", param="session")
    return name


def _judged(trajectory: Trajectory, sitting: Sitting) -> Trajectory:
    trajectory = replace(trajectory, task=sitting.task)
    if not sitting.fault or not trajectory.status.trains:
        return trajectory
    return replace(trajectory, status=Status.ENVIRONMENT_ERROR, error=sitting.fault)


def _told(name: str, trajectory: Trajectory) -> dict[str, JSON]:
    return {
        "id": name,
        "status": trajectory.status.value,
        "episode": trajectory.id,
        "task": trajectory.task.id,
        "group": trajectory.group,
        "reward": trajectory.reward,
        "success": trajectory.success,
        "answers": len(trajectory.steps),
        "forks": trajectory.forks,
        "error": trajectory.error,
    }


def _over(name: str, trajectory: Trajectory) -> Problem:
    """What whoever still waits, or asks again, is told."""
    if trajectory.error.startswith(RenderingError.__name__):
        return Problem(400, f"the session {name} ended: {trajectory.error}", param="messages")
    if trajectory.status is Status.INFRASTRUCTURE_ERROR:
        return Problem(503, f"the session {name} ended: {trajectory.error}", code="engine_failed")
    if trajectory.status is Status.ENVIRONMENT_ERROR:
        return Problem(400, f"the session {name} ended: {trajectory.error}", code="session_over")
    return Problem(409, f"the session {name} is over ({trajectory.status.value}); begin another.", code="session_over")
