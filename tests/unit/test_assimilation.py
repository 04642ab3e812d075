"""An expert in a group: how it is played, what is learned from it, and when the policy's own successes replace it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import make_groups, make_trajectory
from fakes_rollout import Engine, Renderer, World, same

from agentrl.batch import UpdateColumns, build_table
from agentrl.environment import say
from agentrl.errors import ConfigError, InvalidDataError
from agentrl.losses.objective import LossInputs
from agentrl.losses.regularisers import imitation, shaped_imitation
from agentrl.methods.assimilation import Assimilation, bepa
from agentrl.plugins import load_host
from agentrl.protocols import GenerateRequest
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.forking import demands_of
from agentrl.rollout.limits import Supervision
from agentrl.rollout.strategies.expert import Shown
from agentrl.rollout.tokens import TokenPlayer
from agentrl.runs.experts import open_expert
from agentrl.store.ledger import Ledger
from agentrl.store.records import decode, encode
from agentrl.types import Action, Group, Source, Status, Task, Trajectory

QUICK = Supervision(attempts=1, backoff=0.001, failure_window=1000)
TASK = Task("t", "counter", data={"length": 3})


class Solved(World):
    """A world that is won by saying "a" three times, and knows `line`."""

    def __init__(self, line: Sequence[str] = "aaa") -> None:
        super().__init__()
        self.line = line

    def __call__(self):  # type: ignore[no-untyped-def]
        instance = super().__call__()
        instance.oracle = lambda task: map(say, self.line)
        return instance


async def shown(
    world: World, answer: Callable[[GenerateRequest], str], strategy: Shown | None = None, version: int = 0
) -> list[Trajectory]:
    strategy, engine = strategy or Shown(), Engine(answer)
    engine.version = version
    async with RolloutEngine(world, TokenPlayer(engine, Renderer()), supervision=QUICK) as play:
        rollout = play.group("g000000", demands=demands_of(strategy))
        members = list(await strategy.run(TASK, 4, rollout))
        with pytest.raises(InvalidDataError, match="no action was given"):
            await rollout.demonstrate(TASK, 9, ())
    assert world.open == 0
    return members


async def test_where_all_fail_the_expert_plays_the_last_member_in_the_policys_tokens() -> None:
    members = await shown(Solved(), lambda request: "b", version=5)
    assert [t.source for t in members] == [Source.POLICY] * 3 + [Source.EXPERT]
    expert = members[3]
    assert expert.success and expert.reward == 3.0 and expert.id == "g000000-3"
    for step, other in zip(expert.steps, members[0].steps, strict=True):
        assert step.action == Action("a") and step.source is Source.EXPERT
        assert step.tokens.tolist() == Renderer().action_tokens(Action("a")).tolist()
        assert step.logprobs.tolist() == [0.0] * len(step.tokens) and set(step.versions.tolist()) == {5}
        assert step.index == other.index
    assert expert.steps[0].prompt.tolist() == members[0].steps[0].prompt.tolist()
    assert same(decode(encode(expert)).steps[1], expert.steps[1])


async def test_a_group_that_wins_unaided_is_shown_nothing() -> None:
    members = await shown(Solved(), lambda request: "a" if request.session.endswith("-1") else "b")
    assert [t.source for t in members] == [Source.POLICY] * 4


@pytest.mark.parametrize("line", ["b", "bbb", "a"[:0]])
async def test_a_trace_that_does_not_win_is_left_out(line: str) -> None:
    members = await shown(Solved(line), lambda request: "b")
    assert [t.source for t in members] == [Source.POLICY] * (4 if not line else 3)


async def test_an_action_that_the_renderer_cannot_express_is_a_fault_and_never_imitated() -> None:
    members = await shown(Solved(["!"]), lambda request: "b")
    assert [t.status for t in members] == [Status.OK] * 3 + [Status.INFRASTRUCTURE_ERROR]
    assert "reads it back as" in members[3].error


def test_recorded_successes_are_shown_and_nothing_else(tmp_path: Path) -> None:
    won, lost = make_trajectory("g000000-0", "g000000", [1.0]), make_trajectory("g000000-1", "g000000", [0.0])
    longer = make_trajectory("g000000-2", "g000000", [0.0, 1.0])
    with Ledger(tmp_path / "run") as ledger:
        ledger.issue(0, "g000000", won.task, [t.id for t in (won, lost, longer)])
        ledger.finish(lost)
        with pytest.raises(ConfigError, match="no episode recorded"):
            open_expert(recorded=tmp_path / "run")
        ledger.finish(longer, won)
    expert = open_expert(recorded=tmp_path / "run").expert
    assert expert.names == {won.task.id: "g000000-0"}  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"holds no ledger\.sqlite"):
        load_host().create("strategies", "expert", {"recorded": str(tmp_path)})


async def test_recorded_actions_are_played_again_and_unknown_tasks_are_played_as_any(tmp_path: Path) -> None:
    async with RolloutEngine(World(), TokenPlayer(Engine(lambda r: "a"), Renderer()), supervision=QUICK) as play:
        episode = await play.group("g000000").episode(TASK, 0)
    with Ledger(tmp_path) as ledger:
        ledger.issue(0, "g000000", TASK, [episode.id])
        ledger.finish(episode)
    members = await shown(World(), lambda request: "b", open_expert(recorded=tmp_path))
    assert members[3].source is Source.EXPERT and [s.action.text for s in members[3].steps] == ["a"] * 3
    strategy = open_expert(recorded=tmp_path)
    async with RolloutEngine(World(), TokenPlayer(Engine(lambda r: "b"), Renderer()), supervision=QUICK) as play:
        other = await strategy.run(replace(TASK, id="u"), 4, play.group("g000001"))
    assert [t.source for t in other] == [Source.POLICY] * 4


def group(number: int, *members: tuple[float, Source], task: str = "t") -> Group:
    made = [
        replace(make_trajectory(f"{number}-{place}", f"g{number}", [0.0, value]), source=source)
        for place, (value, source) in enumerate(members)
    ]
    found = make_groups(**{f"g{number}": made})[0]
    return replace(found, task=replace(found.task, id=task))


LOST, WON = (0.0, Source.POLICY), (1.0, Source.POLICY)
EXPERT, PLANNED = (1.0, Source.EXPERT), (1.0, Source.GUIDED)


def ids(group: Group) -> list[tuple[str, str]]:
    return [(t.id, t.source.value) for t in group.trajectories]


def test_the_policys_own_success_takes_the_experts_place_and_a_plan_gives_way_to_it() -> None:
    part = Assimilation()
    first = group(1, LOST, LOST, EXPERT)
    assert part([first])[0] is first, "there is nothing else yet, and an expert's is not kept"
    assert part([group(2, LOST, LOST, EXPERT)])[0].trajectories[2].source is Source.EXPERT
    part([group(3, LOST, LOST, PLANNED)])
    # A hint that won just now is nearer than one that won before; without any, the kept one stands in.
    fresh = group(4, LOST, LOST, PLANNED)
    assert part([fresh])[0] is fresh
    assert ids(part([group(5, LOST, LOST, LOST)])[0]) == [("4-2", "replay"), ("5-1", "policy"), ("5-2", "policy")]
    won = group(6, LOST, WON, LOST)
    assert part([won])[0] is won
    assert ids(part([group(7, LOST, LOST, EXPERT)])[0])[2] == ("6-1", "replay")
    assert ids(part([group(8, LOST, LOST, PLANNED)])[0])[2] == ("6-1", "replay")
    assert ids(part([group(9, LOST, LOST)])[0])[0] == ("6-1", "replay")
    assert ids(part([group(10, LOST, LOST, task="u")])[0])[0] == ("10-0", "policy")


def test_the_memory_goes_on_where_it_was_saved() -> None:
    one, two = bepa(size=3), bepa(size=3)
    one.columns([group(1, WON, WON, LOST), group(2, PLANNED, LOST)])
    two.restore(json.loads(json.dumps(one.state())))
    for number in (3, 4, 5):
        lost = group(number, LOST, LOST, EXPERT)
        assert ids(one.curations[0]([lost])[0]) == ids(two.curations[0]([lost])[0])


def expert_group() -> Group:
    """Three failures and an expert's success, of two steps with two tokens each."""
    found = group(1, LOST, LOST, LOST, EXPERT)
    *others, expert = found.trajectories
    steps = tuple(replace(s, source=Source.EXPERT, logprobs=np.zeros(2, np.float32)) for s in expert.steps)
    return replace(found, trajectories=(*others, replace(expert, steps=steps)))


def test_an_experts_tokens_are_imitated_and_count_in_the_baseline_by_hand() -> None:
    """Advantages of (0, 0, 0, 1): mean 1/4, deviation 1/2, so -1/2 for each failure and 3/2 for the expert."""
    method = bepa()
    batch = method.batch([expert_group()])
    assert batch.taught.tolist() == [False] * 12 + [True] * 4
    np.testing.assert_allclose(batch.advantage, [-0.5] * 12 + [1.5] * 4, rtol=1e-4)
    for option, gradient in (
        # Of -log pi: 1 a token. Of -pi / (pi + 0.1) at pi = 0.1 and 0.9: 0.1 pi / (pi + 0.1)^2.
        ("imitated", [-1.0, -1.0]),
        ("shaped", [-0.25, -0.09]),
    ):
        objective = bepa(expert=option, imitation=2.0).objective()  # type: ignore[arg-type]
        logprobs = np.full(16, -1.0, np.float32)
        logprobs[12:] = np.log([0.1, 0.9, 0.1, 0.9])
        seen = UpdateColumns(
            batch.table,
            batch.columns,
            batch.advantage,
            batch.weight,
            logprobs,
            batch.columns.behavior_logprobs,
            logprobs,
        )
        decided = objective.prepare(seen)
        assert decided.teaches and decided.advantage[12:].tolist() == [0.0] * 4
        np.testing.assert_array_equal(decided.advantage[:12], batch.advantage[:12])
        now = torch.tensor(logprobs, requires_grad=True)
        inputs = LossInputs(
            logprobs=now,
            behavior_logprobs=torch.tensor(batch.columns.behavior_logprobs),
            proximal_logprobs=torch.tensor(batch.columns.behavior_logprobs),
            advantage=torch.tensor(decided.advantage),
            row=torch.tensor(batch.columns.row, dtype=torch.int64),
            trajectory=torch.tensor(seen.trajectory, dtype=torch.int64),
            term_weights=tuple(None if w is None else torch.tensor(w) for w in decided.term_weights),
        )
        objective(inputs).loss.sum().backward()  # type: ignore[no-untyped-call]
        assert now.grad is not None
        # On-policy tokens of a failure at ratio 1: the plain policy gradient, -A.
        np.testing.assert_allclose(now.grad[:12], [0.5] * 12, rtol=1e-4)
        np.testing.assert_allclose(now.grad[12:], 2.0 * np.array(gradient * 2), rtol=1e-4)


def test_shaping_is_the_derivative_that_it_says_it_is() -> None:
    logprobs = torch.linspace(-6.0, -0.01, 40, dtype=torch.float64, requires_grad=True)
    inputs = LossInputs(logprobs, logprobs, logprobs, logprobs, logprobs, logprobs)
    shaped_imitation(shape=0.1)(inputs).sum().backward()  # type: ignore[no-untyped-call]
    pi = logprobs.detach().exp()
    torch.testing.assert_close(logprobs.grad, -0.1 * pi / (pi + 0.1) ** 2)
    assert float(imitation(inputs)[0].detach()) == pytest.approx(6.0)


def test_a_method_that_would_take_an_expert_for_the_policy_is_refused() -> None:
    host = load_host()
    bepa().check(4, experts=True)
    host.create("methods", "dagger").check(4, experts=True)
    for name in ("grpo", "gigpo", "arpo_replay", "opd"):
        with pytest.raises(ConfigError, match="would train them as the policy's own"):
            host.create("methods", name).check(4, experts=True)


def test_columns_say_whose_a_token_is() -> None:
    assert build_table([expert_group()]).taught.tolist() == [False] * 6 + [True] * 2  # type: ignore[union-attr]
