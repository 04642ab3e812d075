"""Episodes with a chat engine: what it is shown, how episodes end, faults, deadlines, one way out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import pytest
from keydoor.env import KeyDoor
from still_clock import still_clock
from tool_desk.env import ToolDesk

from agentrl import Action, Env, Task, call, say, tool
from agentrl.adapter import Adapter
from agentrl.environment import adapt
from agentrl.errors import ConfigError, InfrastructureFault
from agentrl.evaluation.harness import evaluate
from agentrl.protocols import ChatEngine, ChatReply, ContextPolicy, Environment, Usage
from agentrl.rollout.chat import ChatPlayer
from agentrl.rollout.context import Append
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.types import Finish, Message, Observation, SamplingParams, Status, Step, StepResult, ToolSpec

QUICK = Supervision(backoff=0.001, failure_bound=1.0)
ONCE = Supervision(attempts=1, failure_bound=1.0)
TASK = Task("t", "bell")
Answer = Callable[[Sequence[Message]], Action | Exception]


class Chat:
    """Answers what `answer` makes of the messages; counts one token per character."""

    def __init__(self, answer: Answer, *, latency: float = 0.0, finish: Finish = Finish.STOP, context: int = 9999):
        self.max_context = context
        self.asked: list[tuple[Message, ...]] = []
        self.samplings: list[SamplingParams] = []
        self.tools: Sequence[ToolSpec] = ()
        self.running = self.peak = 0
        self._answer, self._latency, self._finish = answer, latency, finish

    async def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[ToolSpec],
        sampling: SamplingParams,
        response_format: object = None,
    ) -> ChatReply:
        self.asked.append(tuple(messages))
        self.samplings.append(sampling)
        self.tools = tools
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            await asyncio.sleep(self._latency)
        finally:
            self.running -= 1
        action = self._answer(messages)
        if isinstance(action, Exception):
            raise action
        return ChatReply(action, self._finish, Usage(sum(len(m.content) for m in messages), 7))


def chat(
    world: Callable[[], Environment],
    engine: ChatEngine,
    limits: EpisodeLimits | None = None,
    supervision: Supervision | None = None,
    *,
    context: ContextPolicy | None = None,
    seed: int = 0,
) -> RolloutEngine:
    player = ChatPlayer(engine, context or Append())
    return RolloutEngine(world, player, limits=limits, supervision=supervision, seed=seed)


class Bell(Env):
    """Ring three times."""

    runs_in = "loop"
    max_steps = 5
    step_deadline = reset_deadline = 1.0

    def __init__(self, faults: Callable[[], Exception | None] = lambda: None, hangs: str = "") -> None:
        self.rung, self.closed, self.faults, self.hangs = 0, 0, faults, hangs

    def tasks(self, split: str) -> Iterable[Task]:
        return [Task(f"bell-{index}", "bell") for index in range(6)]

    async def reset(self, task: Task) -> str:
        if self.hangs == "reset":
            await asyncio.sleep(60)
        return "Ring."

    @tool
    async def ring(self, times: int = 1) -> str:
        """Ring the bell."""
        if fault := self.faults():
            raise fault
        if self.hangs == "ring":
            await asyncio.sleep(60)
        self.rung += times
        return f"rung {self.rung}"

    def done(self) -> bool:
        return self.rung >= 3

    def answered(self, text: str) -> str:
        return "Go on."

    def reward(self) -> float:
        return float(self.rung == 3)

    async def close(self) -> None:
        if self.hangs == "close":
            await asyncio.sleep(60)
        self.closed += 1


class Street:
    """Makes bells and remembers them."""

    def __init__(self, make: Callable[[], Env] = Bell) -> None:
        self.made: list[Env] = []
        self._make = make

    def __call__(self) -> Environment:
        self.made.append(self._make())
        return adapt(self.made[-1])

    def all_closed(self) -> bool:
        return all(bell.closed == 1 for bell in self.made if isinstance(bell, Bell))


def ringing(messages: Sequence[Message]) -> Action:
    return call("ring")


def usage(step: Step) -> tuple[float, float]:
    return step.scores["prompt_tokens"], step.scores["completion_tokens"]


def desk_answer(level: str) -> tuple[list[Task], Answer]:
    """Held-out requests, and the oracle as a function of the conversation alone."""
    env = ToolDesk(level=level)  # type: ignore[arg-type]
    # Two desks may be asked the same sentence; the conversation has to tell them apart before the first lookup.
    asked = {env.reset(task).messages[-1].content: task for task in islice(env.tasks("test"), 10)}
    lines = {text: list(env.oracle(task)) for text, task in asked.items()}
    tasks = list(asked.values())

    def answer(messages: Sequence[Message]) -> Action:
        place = max(index for index, message in enumerate(messages) if message.role == "user")
        return lines[messages[place].content][sum(m.role == "assistant" for m in messages[place:])]

    return tasks, answer


@pytest.mark.parametrize("level", ["easy", "medium", "hard"])
async def test_the_oracle_wins_every_request_of_the_desk_through_a_chat(level: str) -> None:
    tasks, answer = desk_answer(level)
    assert len(tasks) >= 8
    engine = Chat(answer, latency=0.001)
    limits, slots = EpisodeLimits(temperature=0.0), Supervision(environment_slots=3)
    async with chat(lambda: adapt(ToolDesk(level=level)), engine, limits, slots) as rollout:  # type: ignore[arg-type]
        result = await evaluate(rollout, tasks, attempts=2, temperature=0.0, update=0)
    assert result.success().value == 1.0 and result.faults() == 0 and result.mean_reward() == 1.0
    assert engine.peak == 3
    assert [spec.name for spec in engine.tools] == ["find_person", "find_room", "calculate", "book"]


async def test_the_oracle_finds_the_door_through_a_chat() -> None:
    street = Street(KeyDoor)
    task = next(iter(KeyDoor().tasks("test")))

    def answer(messages: Sequence[Message]) -> Action:
        env = street.made[-1]
        assert isinstance(env, KeyDoor)
        return next(env.oracle(task))

    async with chat(street, Chat(answer)) as rollout:
        trajectory = await rollout.episode(task, 0)
        idle = await chat(street, Chat(lambda messages: say("hm"))).episode(task, 0)
    assert trajectory.status is Status.OK and trajectory.success
    assert all(step.anchor for step in trajectory.steps)
    assert idle.status is Status.TRUNCATED and not idle.success and len(idle.steps) == KeyDoor().max_steps


async def test_every_request_shows_the_whole_episode_and_its_usage_is_kept() -> None:
    engine = Chat(ringing)
    trajectory = await chat(Street(), engine).episode(TASK, 2)
    first = Message("user", "Ring.")
    made = Message("assistant", "", call("ring").tool_calls)
    assert engine.asked[2] == (first, made, Message("tool", "rung 1", name="ring"), made, engine.asked[2][-1])
    assert engine.asked[2][-1].content == "rung 2"
    assert [usage(step) for step in trajectory.steps] == [(5, 7), (11, 7), (17, 7)]
    assert trajectory.steps[-1].scores["success"] == 1.0
    assert (trajectory.id, trajectory.group, trajectory.forks) == ("t-2", "t", 0)
    assert [step.context for step in trajectory.steps] == [None, "t-2.0", "t-2.1"]
    assert [m.content for m in trajectory.final.messages] == ["rung 3"] if trajectory.final else False
    assert all(len(step.tokens) == len(step.logprobs) == len(step.prompt) == 0 for step in trajectory.steps)


async def test_seeds_depend_on_the_place_of_the_step_and_fit_31_bits() -> None:
    engine, other = Chat(ringing), Chat(ringing)
    for member in (0, 1, 0):
        await chat(Street(), engine, seed=3).episode(TASK, member)
    await chat(Street(), other, seed=4).episode(TASK, 0)
    seeds = [sampling.seed or 0 for sampling in engine.samplings]
    assert seeds[:3] == seeds[6:] and len(set(seeds[:6])) == 6
    assert not {sampling.seed for sampling in other.samplings} & set(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


async def test_a_context_policy_chooses_what_is_shown() -> None:
    class Last:
        def rewrite(self, steps: Sequence[Step], observation: Observation) -> tuple[Message, ...] | None:
            return (Message("user", f"after {len(steps)}"),) if len(steps) == 1 else None

    engine = Chat(ringing)
    trajectory = await chat(Street(), engine, context=Last()).episode(TASK, 0)
    assert engine.asked[1] == (Message("user", "after 1"),)
    assert [message.content for message in engine.asked[2]] == ["after 1", "", "rung 2"]
    assert [step.context for step in trajectory.steps] == [None, None, "t-0.1"] and trajectory.forks == 1


async def test_a_malformed_call_is_told_and_the_episode_goes_on() -> None:
    def answer(messages: Sequence[Message]) -> Action:
        return Action(error="the arguments are not JSON") if len(messages) == 1 else call("ring", times=3)

    for factory in (Street(), Plain):
        engine = Chat(answer)
        trajectory = await chat(factory, engine).episode(TASK, 0)
        assert engine.asked[1][-1] == Message("user", "the arguments are not JSON")
        assert [step.error for step in trajectory.steps] == ["the arguments are not JSON", ""]
        assert trajectory.success and trajectory.status is Status.OK


async def test_an_answer_that_was_cut_off_is_a_mistake_and_mistakes_in_a_row_end_the_episode() -> None:
    engine = Chat(lambda messages: say("well"), finish=Finish.LENGTH)
    trajectory = await chat(Street(), engine, limits=EpisodeLimits(max_policy_errors=2)).episode(TASK, 0)
    assert trajectory.status is Status.POLICY_ERROR and trajectory.steps[-1].terminated
    assert "cut off" in engine.asked[1][-1].content and engine.asked[1][1] == Message("assistant", "well")
    assert trajectory.steps[-1].scores["success"] == 0.0 and not trajectory.success


async def test_limits_truncate_and_the_environment_grades_at_ours() -> None:
    short = await chat(Street(), Chat(ringing), limits=EpisodeLimits(max_steps=2)).episode(TASK, 0)
    assert short.status is Status.TRUNCATED and len(short.steps) == 2
    assert short.steps[-1].truncated and short.steps[-1].scores["success"] == 0.0
    full = await chat(Street(), Chat(ringing, context=20), limits=EpisodeLimits(max_tokens=8)).episode(TASK, 0)
    assert full.status is Status.TRUNCATED and len(full.steps) == 1
    assert full.steps[-1].truncated and full.steps[-1].scores["success"] == 0.0
    with pytest.raises(ConfigError, match=r"max_tokens is 20.*context of 20"):
        chat(Street(), Chat(ringing, context=20), limits=EpisodeLimits(max_tokens=20))


@pytest.mark.parametrize("fault", [RuntimeError("a bug"), TimeoutError("slow")])
async def test_a_passing_fault_of_the_world_is_retried_in_a_fresh_one(fault: Exception) -> None:
    faults = iter([None, fault, None, fault])
    street, calm = Street(lambda: Bell(lambda: next(faults, None))), Chat(ringing)
    engine = Chat(ringing)
    trajectory = await chat(street, engine, supervision=QUICK).episode(TASK, 0)
    await chat(Street(), calm, supervision=QUICK).episode(TASK, 0)
    assert trajectory.status is Status.OK and trajectory.attempt == 2 and len(trajectory.steps) == 3
    assert len(street.made) == 3 and street.all_closed()
    assert engine.samplings[-3:] == calm.samplings


@pytest.mark.parametrize(
    ("make", "answer", "status", "words"),
    [
        (lambda: Bell(lambda: OSError("bell broke")), ringing, Status.ENVIRONMENT_ERROR, "bell broke"),
        (lambda: 1 / 0, ringing, Status.ENVIRONMENT_ERROR, "the environment cannot be made: ZeroDivisionError"),
        (lambda: Plain(float("nan")), ringing, Status.ENVIRONMENT_ERROR, "reward nan at step 0"),
        (Bell, lambda messages: InfrastructureFault("503"), Status.INFRASTRUCTURE_ERROR, "InfrastructureFault: 503"),
        (Bell, lambda messages: ValueError("odd"), Status.INFRASTRUCTURE_ERROR, "ValueError: odd"),
    ],
)
async def test_a_lasting_fault_is_recorded_and_never_scored(
    make: Callable[[], Env], answer: Answer, status: Status, words: str
) -> None:
    street = Street(make)
    async with chat(street, Chat(answer), supervision=QUICK) as rollout:
        result = await evaluate(rollout, [TASK], attempts=1, temperature=1.0, update=0)
    assert result.attempts[0].status == status and words in result.attempts[0].error
    assert result.faults() == 1 and result.successes() == {}
    assert street.all_closed() and len(street.made) in (0, 3)


@pytest.mark.parametrize(
    ("hangs", "latency", "status", "words"),
    [
        ("ring", 0.0, Status.ENVIRONMENT_ERROR, "step_deadline"),
        ("reset", 0.0, Status.ENVIRONMENT_ERROR, "reset_deadline"),
        ("", 60.0, Status.INFRASTRUCTURE_ERROR, "did not answer step 0 of t-0 within 0.05 s"),
        ("close", 0.0, Status.OK, ""),
    ],
)
@still_clock
async def test_every_wait_has_its_deadline(hangs: str, latency: float, status: Status, words: str) -> None:
    def make() -> Environment:
        world = adapt(Bell(hangs=hangs))
        assert isinstance(world, Adapter)
        world.step_deadline = world.reset_deadline = 0.05
        return world

    limits = EpisodeLimits(generate_deadline=0.05, close_deadline=0.05)
    trajectory = await chat(make, Chat(ringing, latency=latency), limits, ONCE).episode(TASK, 0)
    assert asyncio.get_running_loop().time() < 5
    assert trajectory.status is status and words in trajectory.error


@still_clock
async def test_worlds_without_deadlines_of_their_own_are_cut_at_ours() -> None:
    limits = EpisodeLimits(step_deadline=0.05, episode_deadline=5)
    late = await chat(lambda: Plain(hangs=True), Chat(ringing), limits, ONCE).episode(TASK, 0)
    assert late.status is Status.ENVIRONMENT_ERROR and "within 0.05 s (step_deadline)" in late.error
    limits = EpisodeLimits(episode_deadline=0.05)
    late = await chat(lambda: Plain(hangs=True), Chat(ringing), limits, ONCE).episode(TASK, 0)
    assert late.status is Status.INFRASTRUCTURE_ERROR and "episode_deadline" in late.error


@still_clock
async def test_a_cancelled_evaluation_closes_every_environment() -> None:
    street = Street()
    async with chat(street, Chat(ringing, latency=30)) as rollout:
        work = asyncio.create_task(evaluate(rollout, [TASK], attempts=4, temperature=1.0, update=0))
        await asyncio.sleep(0.05)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    assert len(street.made) == 4 and street.all_closed()


@still_clock
async def test_closing_the_rollout_ends_what_still_plays() -> None:
    street = Street()
    async with chat(street, Chat(ringing, latency=30)) as rollout:
        work = asyncio.create_task(rollout.episode(TASK, 0))
        await asyncio.sleep(0.05)
    assert street.all_closed()
    assert (await work).status is Status.CANCELLED


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_context": 0}, "max_context is 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"generate_deadline": 0.0}, "generate_deadline is 0"),
    ],
)
def test_limits_that_end_nothing_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EpisodeLimits(**wrong)  # type: ignore[arg-type]


class Plain:
    """A world that is no `Env`: it has no deadlines, no limit, and tells no mistake itself."""

    def __init__(self, reward: float = 1.0, hangs: bool = False) -> None:
        self._reward, self._hangs = reward, hangs

    def tasks(self, split: str) -> Iterable[Task]:
        return [TASK]

    def tools(self) -> Sequence[ToolSpec]:
        return ()

    async def reset(self, task: Task) -> Observation:
        return Observation((Message("user", "Ring."),))

    async def step(self, action: Action) -> StepResult:
        if self._hangs:
            await asyncio.sleep(60)
        return StepResult(Observation(()), self._reward, terminated=True)

    async def close(self) -> None: ...


async def test_an_episode_that_we_end_is_graded_where_it_stands() -> None:
    """One ring of three times wins; the model then says nothing but nonsense, or runs out of context."""

    class Patient(Bell):
        def done(self) -> bool:
            return False

    def once(messages: Sequence[Message]) -> Action:
        return call("ring", times=3) if len(messages) == 1 else Action(error="nonsense")

    wrong = await chat(Street(Patient), Chat(once), EpisodeLimits(max_policy_errors=2)).episode(TASK, 0)
    assert wrong.status is Status.POLICY_ERROR and wrong.steps[-1].terminated and len(wrong.steps) == 3
    full = await chat(Street(Patient), Chat(once, context=20), EpisodeLimits(max_tokens=8)).episode(TASK, 0)
    assert full.status is Status.TRUNCATED and full.steps[-1].truncated and len(full.steps) == 1
    for trajectory in (wrong, full):
        assert trajectory.reward == 1.0 and trajectory.success and trajectory.steps[-1].scores["success"] == 1.0
