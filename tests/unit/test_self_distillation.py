"""A policy that teaches itself: the prompts with a hint, what is read behind them, and where no gradient goes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forests import random_groups, row_by_row, tiny_llama
from test_learner import SGD, gradient_of

from agentrl import Env, Task, call, tool
from agentrl.batch import TrainingBatch, build_batch
from agentrl.environment import adapt
from agentrl.errors import ConfigError, InvalidDataError, TrainingError
from agentrl.losses.credits import Distillation
from agentrl.losses.objective import Objective, Teacher, token_ratio
from agentrl.losses.surrogates import reinforce
from agentrl.method import Hint
from agentrl.protocols import ContextPolicy
from agentrl.rendering import make_renderer
from agentrl.rollout.context import Append, Window
from agentrl.rollout.demonstrate import play
from agentrl.rollout.privilege import privileged_prompts, told
from agentrl.runs.hints import Hints
from agentrl.tiny import word_tokenizer
from agentrl.training.dump import load_batch, save_batch
from agentrl.training.learner import LoraSettings, TorchLearner
from agentrl.types import Action, Group, Message, TokenIds, Trajectory

HINT = np.array([7, 8, 9], np.int32)
SELF = (Distillation(),)


def hinted(seed: int) -> TrainingBatch:
    """A forest with shared, branching and rewritten contexts, and a teacher that reads three ids more in each."""
    groups = random_groups(seed)
    steps = [step for group in groups for step in group.steps() if step.context is None]
    batch = build_batch(groups, None, {step.id: np.concatenate([HINT, step.prompt]) for step in steps})
    size = len(batch.columns)
    return replace(batch, scale=np.full(size, 1 / size, np.float32))


def learner(who: Teacher, model: object = None, **more: object) -> TorchLearner:
    objective = Objective(token_ratio, reinforce(), credits=SELF, needs_teacher=True, teacher=who)
    return TorchLearner(tiny_llama() if model is None else model, objective, settings=SGD, **more)  # type: ignore[arg-type]


def test_the_teachers_contexts_hold_the_same_columns_behind_other_prompts() -> None:
    batch = hinted(0)
    assert batch.teacher_contexts is not None
    seen = []
    for plain, told_ in zip(batch.contexts, batch.teacher_contexts, strict=True):
        assert np.array_equal(told_.tokens, np.concatenate([HINT, plain.tokens]))
        assert np.array_equal(told_.column, np.concatenate([[-1, -1, -1], plain.column]))
        at = told_.column >= 0
        assert np.array_equal(told_.tokens[at], batch.columns.token[told_.column[at]])
        seen += told_.column[at].tolist()
    assert sorted(seen) == list(range(len(batch.columns)))


@pytest.mark.parametrize("budget", [40, 4096])
def test_the_teacher_scores_each_sampled_token_at_its_place_behind_the_hint(budget: int) -> None:
    batch = hinted(1)
    seen: list[np.ndarray] = []

    def look(update):  # type: ignore[no-untyped-def]
        seen.append(update.teacher_logprobs)
        return update.teacher_logprobs - update.logprobs

    objective = Objective(token_ratio, reinforce(), credits=(look,), needs_teacher=True, teacher="current")
    settings = replace(SGD, temperature=0.7, micro_batch_tokens=budget)
    assert TorchLearner(tiny_llama(), objective, settings=settings).update(batch).updated
    with torch.no_grad():
        wanted, _ = row_by_row(tiny_llama(), replace(batch, contexts=batch.teacher_contexts or ()), 0.7)
        untold, _ = row_by_row(tiny_llama(), batch, 0.7)
    np.testing.assert_allclose(seen[0], wanted.numpy(), atol=1e-4)
    assert np.abs(wanted.numpy() - untold.numpy()).max() > 0.1


def test_no_gradient_flows_through_the_teacher() -> None:
    batch = hinted(2)
    frozen = gradient_of(learner("model", teacher=tiny_llama()), batch)
    for who in ("current", "start"):
        for name, found in gradient_of(learner(who), batch).items():
            torch.testing.assert_close(found, frozen[name], atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=2)])
def test_the_teacher_of_the_start_stays_there_and_the_current_one_moves(lora: LoraSettings | None) -> None:
    batch = hinted(3)
    seen: dict[str, list[np.ndarray]] = {"start": [], "current": []}
    for who, found in seen.items():

        def look(update, found=found):  # type: ignore[no-untyped-def]
            found.append(update.teacher_logprobs)
            return update.teacher_logprobs - update.logprobs

        objective = Objective(token_ratio, reinforce(), credits=(look,), needs_teacher=True, teacher=who)  # type: ignore[arg-type]
        settings = replace(SGD, learning_rate=1e-2, lora=lora)
        trained = TorchLearner(tiny_llama(), objective, settings=settings)
        for _ in range(2):
            assert trained.update(batch).updated
    np.testing.assert_array_equal(seen["start"][0], seen["start"][1])
    assert np.abs(seen["current"][0] - seen["current"][1]).max() > 1e-3


def test_a_policy_that_is_told_nothing_cannot_teach_itself() -> None:
    with pytest.raises(TrainingError, match="nothing to learn from it"):
        learner("start").update(replace(hinted(4), teacher_contexts=None))


def test_the_hint_makes_its_tokens_likelier() -> None:
    """What the told policy likes better than the untold one becomes likelier."""
    batch = hinted(5)
    trained = learner("start", copy.deepcopy(tiny_llama()))
    with torch.no_grad():
        before, _ = row_by_row(tiny_llama(), batch)
        teacher, _ = row_by_row(tiny_llama(), replace(batch, contexts=batch.teacher_contexts or ()))
    assert trained.update(batch).updated
    with torch.no_grad():
        after, _ = row_by_row(trained.model, batch)
    assert float(((teacher - before) * (after - before)).sum()) > 0


def test_a_saved_batch_keeps_what_its_teacher_reads(tmp_path: Path) -> None:
    batch = hinted(6)
    save_batch(batch, tmp_path / "batch.npz")
    loaded = load_batch(tmp_path / "batch.npz").teacher_contexts
    assert loaded is not None and batch.teacher_contexts is not None
    for one, other in zip(loaded, batch.teacher_contexts, strict=True):
        assert np.array_equal(one.tokens, other.tokens) and np.array_equal(one.column, other.column)


class Bells(Env):
    """Ring the bells that the seed chose."""

    runs_in = "loop"
    max_steps = 3

    def tasks(self, split: str) -> Iterator[Task]:
        yield Task(f"{split}-1", "bells", data={"answer": "low"})

    def reset(self, task: Task) -> str:
        self.rung: list[str] = []
        return "ring the bells"

    @tool
    def ring(self, bell: str) -> str:
        """Ring one.

        bell: which
        """
        self.rung.append(bell)
        return f"{bell} rang"

    def done(self) -> bool:
        return len(self.rung) == 3

    def oracle(self, task: Task) -> Iterator[Action]:
        for bell in ("low", "high", "low"):
            yield call("ring", bell=bell)


RENDERER = make_renderer(word_tokenizer(["ring the bells low high rang solution :"], 256), "word")


async def rung(context: ContextPolicy) -> Trajectory:
    world = adapt(Bells())
    task = next(iter(world.tasks("train")))
    actions = [call("ring", bell=bell) for bell in ("high", "high", "low")]
    return await play(world, RENDERER, task, actions, id="t", context=context)


def in_words(tokens: TokenIds) -> str:
    return RENDERER.decode(tokens)


async def test_a_hint_changes_prompts_where_a_context_begins_and_nothing_else() -> None:
    trajectory = await rung(Append())
    prompts = privileged_prompts(trajectory, "ring low", RENDERER, Append(), adapt(Bells()).tools())
    assert list(prompts) == [trajectory.steps[0].id]
    assert in_words(trajectory.steps[0].prompt) == "<obs> ring the bells <act>"
    assert in_words(prompts[trajectory.steps[0].id]) == "<obs> ring the bells ring low <act>"
    windowed = await rung(Window(1, note=""))
    prompts = privileged_prompts(windowed, "ring low", RENDERER, Window(1, note=""), adapt(Bells()).tools())
    begun = [step.id for step in windowed.steps if step.context is None]
    assert list(prompts) == begun and len(begun) == 2
    batch = build_batch([Group("g", windowed.task, (windowed,))], None, prompts)
    assert batch.teacher_contexts is not None
    for told_ in batch.teacher_contexts:
        at = told_.column >= 0
        assert np.array_equal(told_.tokens[at], batch.columns.token[told_.column[at]])
        assert in_words(told_.tokens).count("ring low") == 1 + in_words(told_.tokens).count("<act> ring low")


async def test_a_prompt_that_cannot_be_rendered_again_is_refused() -> None:
    trajectory = await rung(Append())
    first = trajectory.steps[0]
    guided = replace(first, prompt=np.concatenate([first.prompt[:1], first.prompt]))
    with pytest.raises(InvalidDataError, match="cannot be rendered again"):
        privileged_prompts(replace(trajectory, steps=(guided,)), "x", RENDERER, Append(), adapt(Bells()).tools())


async def test_the_hint_is_the_oracles_moves_or_the_tasks_answer() -> None:
    trajectory = await rung(Append())
    group = Group("g", trajectory.task, (trajectory,))
    first = trajectory.steps[0].id

    async def prompt(hint: Hint) -> str:
        hints = Hints(hint, lambda: adapt(Bells()), RENDERER, Append())
        return in_words((await hints.prompts([group]))[first])

    moves = "ring low ring high ring low"
    assert await prompt(Hint("oracle", frame="solution: {hint}")) == f"<obs> ring the bells solution: {moves} <act>"
    assert await prompt(Hint("answer", "answer")) == "<obs> ring the bells low <act>"
    with pytest.raises(ConfigError, match=r"no answer under 'gold'; its data has answer"):
        await prompt(Hint("answer", "gold"))


def test_an_environment_without_an_oracle_is_refused_before_it_is_played() -> None:
    class Blind(Bells):
        oracle = Env.oracle

    Hints(Hint("oracle"), lambda: adapt(Bells()), RENDERER, Append()).check()
    Hints(Hint("answer", "answer"), lambda: adapt(Blind()), RENDERER, Append()).check()
    with pytest.raises(ConfigError, match=r"has no `oracle\(task\)`"):
        Hints(Hint("oracle"), lambda: adapt(Blind()), RENDERER, Append()).check()


def test_hints_that_say_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="where the hint goes"):
        Hint("oracle", frame="no place")
    with pytest.raises(ConfigError, match=r"names its key of Task\.data"):
        Hint("answer")


def test_the_hint_goes_to_the_first_message_of_the_users() -> None:
    system, first, second = Message("system", "s"), Message("user", "a"), Message("user", "b")
    assert [m.content for m in told((system, first, second), "h")] == ["s", "a\n\nh", "b"]
    assert [(m.role, m.content) for m in told((system,), "h")] == [("system", "s"), ("user", "h")]
