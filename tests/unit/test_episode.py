"""One episode: deltas, limits, policy errors, context policies, demonstrations."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from fakes_rollout import BYTE, STOP, Engine, Renderer, World
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.errors import EnvironmentFault, InfrastructureFault, InvalidDataError, RenderingError
from agentrl.protocols import ContextPolicy
from agentrl.rollout.context import Append, Window, history
from agentrl.rollout.decisions import sampling_seed
from agentrl.rollout.demonstrate import play
from agentrl.rollout.episode import Episode, Setting
from agentrl.rollout.limits import EpisodeLimits
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Action, Completion, Finish, Source, Status, Task, Trajectory


def task(length: int = 3) -> Task:
    return Task("t", "counter", data={"length": length})


def setting(
    engine: Engine, *, renderer: Renderer | None = None, context: ContextPolicy | None = None, **limits: float
) -> Setting:
    who = TokenPlayer(engine, renderer or Renderer(), context or Append())
    return Setting(who, EpisodeLimits(**limits), seed=7)  # type: ignore[arg-type]


async def run(who: Setting, length: int = 3, world: World | None = None) -> Trajectory:
    return await Episode(who, task(length), group="g", member=0).play((world or World())())


async def test_an_episode_holds_what_was_sent_and_sampled() -> None:
    engine = Engine(lambda request: "a")
    trajectory = await run(setting(engine))
    assert trajectory.status is Status.OK
    assert [step.reward for step in trajectory.steps] == [1.0, 1.0, 1.0]
    assert [step.anchor for step in trajectory.steps] == ["s0", "s1", "s2"]
    assert [step.terminated for step in trajectory.steps] == [False, False, True]
    assert [step.context for step in trajectory.steps] == [None, "g-0.0", "g-0.1"]
    assert Renderer().decode(trajectory.steps[1].prompt) == "user:saw a"
    for step, request, sampled in zip(trajectory.steps, engine.requests, engine.completions, strict=True):
        assert np.array_equal(trajectory.tokens_through(step), np.concatenate([request.tokens, sampled]))
    assert trajectory.final is not None and trajectory.final.messages[0].content == "saw a"
    assert all(request.session == "g-0" for request in engine.requests)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.sampled_from(["a", "bb", "!x", "?", "long" * 10, ""]), min_size=12, max_size=12),
    window=st.none() | st.integers(0, 3),
    extends=st.booleans(),
    length=st.integers(1, 8),
    max_steps=st.integers(1, 8),
    max_context=st.integers(40, 300),
)
def test_concatenated_deltas_are_what_the_engine_saw(
    answers: list[str], window: int | None, extends: bool, length: int, max_steps: int, max_context: int
) -> None:
    engine = Engine(lambda request: answers[len(engine.requests)])
    context = Append() if window is None else Window(window)
    who = setting(
        engine,
        renderer=Renderer(extends),
        context=context,
        max_steps=max_steps,
        max_context=max_context,
        max_tokens=20,
        max_policy_errors=3,
    )
    trajectory = asyncio.run(run(who, length))
    assert len(trajectory.steps) == len(engine.requests)
    for step, request, sampled in zip(trajectory.steps, engine.requests, engine.completions, strict=True):
        assert np.array_equal(trajectory.tokens_through(step), np.concatenate([request.tokens, sampled]))
        assert len(request.tokens) + 20 <= max_context
    assert trajectory.forks == sum(step.context is None for step in trajectory.steps[1:])
    assert not any(step.terminated or step.truncated for step in trajectory.steps[:-1])
    last = trajectory.steps[-1]
    assert last.terminated != last.truncated
    assert last.truncated == (trajectory.status is Status.TRUNCATED)


async def test_a_malformed_call_is_told_to_the_model_and_does_not_touch_the_world() -> None:
    engine = Engine(lambda request: "!oops" if len(engine.requests) == 0 else "a")
    trajectory = await run(setting(engine), length=1)
    assert [step.error for step in trajectory.steps] == ["malformed", ""]
    assert Renderer().decode(trajectory.steps[1].prompt) == "user:malformed"
    assert trajectory.steps[1].anchor == trajectory.steps[0].anchor == "s0"
    assert trajectory.status is Status.OK and trajectory.reward == 1.0


async def test_policy_errors_in_a_row_end_the_episode_without_success() -> None:
    trajectory = await run(setting(Engine(lambda request: "?"), max_policy_errors=2), length=9)
    assert trajectory.status is Status.POLICY_ERROR
    assert [step.error for step in trajectory.steps] == ["what?", "what?"]
    assert trajectory.steps[-1].terminated and not trajectory.success


async def test_a_good_step_between_policy_errors_resets_their_count() -> None:
    engine = Engine(lambda request: "?" if len(engine.requests) % 2 == 0 else "a")
    trajectory = await run(setting(engine, max_policy_errors=2), length=4)
    assert trajectory.status is Status.OK


async def test_the_step_limit_truncates_the_last_step_and_is_no_success() -> None:
    trajectory = await run(setting(Engine(lambda request: "a"), max_steps=2), length=5)
    assert trajectory.status is Status.TRUNCATED
    assert [step.truncated for step in trajectory.steps] == [False, True]
    assert trajectory.reward == 2.0 and not trajectory.success


async def test_an_answer_cut_at_the_token_limit_is_a_policy_error() -> None:
    trajectory = await run(setting(Engine(lambda request: "aaaaaa"), max_tokens=4, max_policy_errors=1))
    assert trajectory.steps[0].finish is Finish.LENGTH
    assert "4 tokens" in trajectory.steps[0].error
    assert len(trajectory.steps[0].tokens) == 4


async def test_a_full_context_truncates() -> None:
    trajectory = await run(setting(Engine(lambda request: "a"), max_context=35, max_tokens=8), length=9)
    assert trajectory.status is Status.TRUNCATED
    assert len(trajectory.steps) == 2


async def test_a_first_prompt_without_room_is_a_fault_that_says_the_numbers() -> None:
    with pytest.raises(EnvironmentFault, match=r"12 tokens.*context of 16"):
        await run(setting(Engine(), max_context=16, max_tokens=8))


async def test_a_window_shows_the_task_and_the_last_steps() -> None:
    trajectory = await run(setting(Engine(lambda request: "a"), context=Window(1)), length=3)
    third = Renderer().decode(trajectory.steps[2].prompt)
    assert trajectory.steps[2].context is None and trajectory.forks == 1
    assert third == "user:task t\n\n[1 earlier steps are not shown]\n\nsaw aassistant:auser:saw a"


async def test_a_window_without_a_note_shows_nothing_of_what_is_left_out() -> None:
    trajectory = await run(setting(Engine(lambda request: "a"), context=Window(0, note="")), length=3)
    assert Renderer().decode(trajectory.steps[2].prompt) == "user:task t\n\nsaw a" and trajectory.forks == 2


async def test_a_template_that_cannot_extend_forks_with_the_whole_history() -> None:
    trajectory = await run(setting(Engine(lambda request: "a"), renderer=Renderer(extends=False)), length=2)
    assert trajectory.forks == 1
    assert Renderer().decode(trajectory.steps[1].prompt) == "user:task tassistant:auser:saw a"
    final = trajectory.final
    assert final is not None
    assert [message.role for message in history(trajectory.steps, final)] == ["user", "assistant"] * 2 + ["user"]


async def test_an_engine_that_changes_tokens_in_place_is_caught() -> None:
    class Rude(Engine):
        last: Completion | None = None

        async def generate(self, request):  # type: ignore[no-untyped-def]
            if self.last is not None:
                self.last.tokens[0] = STOP
            self.last = await super().generate(request)
            return self.last

    with pytest.raises(InvalidDataError, match="recorded deltas"):
        await run(setting(Rude(lambda request: "a")), length=5)


async def test_the_environment_is_cut_at_its_deadline() -> None:
    world = World(lambda verb, task, step: 30.0 if verb == "step" else None)
    with pytest.raises(EnvironmentFault, match=r"step of task 't' did not come back within 0.02 s"):
        await run(setting(Engine(), step_deadline=0.02), world=world)


async def test_the_engine_is_cut_at_its_deadline() -> None:
    with pytest.raises(InfrastructureFault, match=r"step 0 of g-0 within 0.02 s"):
        await run(setting(Engine(latency=lambda request: 30.0), generate_deadline=0.02))


async def test_a_reward_that_is_not_finite_is_a_fault() -> None:
    class Nan(World):
        def __call__(self):  # type: ignore[no-untyped-def]
            instance = super().__call__()
            step = instance.step

            async def poisoned(action: Action):  # type: ignore[no-untyped-def]
                return type(await step(action))(await instance.reset(task()), reward=float("nan"))

            instance.step = poisoned
            return instance

    with pytest.raises(EnvironmentFault, match="reward nan"):
        await run(setting(Engine()), world=Nan())


async def test_an_observation_of_ten_megabytes_is_a_fault() -> None:
    huge = Task("t" * 10_000_000, "counter", data={"length": 1})
    with pytest.raises(EnvironmentFault, match="10,000,005 characters"):
        await Episode(setting(Engine()), huge, group="g", member=0).play(World()())


def test_sampling_seeds_depend_on_every_part_of_the_place_and_on_nothing_else() -> None:
    base = (7, "g", "t", 0, 0)
    seeds = {sampling_seed(*base), sampling_seed(8, *base[1:]), sampling_seed(7, "h", "t", 0, 0)}
    seeds |= {sampling_seed(7, "g", "u", 0, 0), sampling_seed(7, "g", "t", 1, 0), sampling_seed(7, "g", "t", 0, 1)}
    assert len(seeds) == 6
    assert sampling_seed(*base) == 27597429875869 and max(seeds) < 2**48


async def test_a_demonstration_is_written_in_the_tokens_of_the_policy() -> None:
    trajectory = await play(World()(), Renderer(), task(2), (Action(text) for text in "ab"), id="demo-1")
    assert trajectory.status is Status.OK and trajectory.source is Source.EXPERT and trajectory.id == "demo-1"
    assert trajectory.steps[0].tokens.tolist() == [BYTE + ord("a"), STOP]
    assert not trajectory.steps[0].logprobs.any() and trajectory.oldest_version == 0
    assert trajectory.reward == 1.0


async def test_a_demonstration_that_ends_early_is_truncated() -> None:
    trajectory = await play(World()(), Renderer(), task(3), [Action("a")], id="d")
    assert trajectory.status is Status.TRUNCATED and trajectory.steps[-1].truncated and not trajectory.success


async def test_a_demonstration_that_does_not_read_back_is_refused() -> None:
    with pytest.raises(RenderingError, match="reads it back"):
        await play(World()(), Renderer(), task(3), [Action("!a")], id="d")


@pytest.mark.parametrize("limits", [{"max_tokens": 0}, {"temperature": -1.0}, {"step_deadline": 0.0}])
def test_limits_that_end_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(limits))):
        EpisodeLimits(**limits)  # type: ignore[arg-type]
