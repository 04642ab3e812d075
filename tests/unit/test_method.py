"""What a method does around its parts: memory of parts within parts, groups that it keeps, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from builders import make_groups, make_trajectory
from fakes_rollout import Diary, Engine, Renderer, SetSampler, World
from forests import tiny_llama

from agentrl.batch import StepTable
from agentrl.credit.curation import DropEqual, Varied
from agentrl.credit.outcome import Whitened
from agentrl.credit.rules import EpisodeCredit, WeightedSum
from agentrl.credit.segments import Doubles
from agentrl.credit.turns import HardAttribution
from agentrl.errors import ConfigError, TrainingError
from agentrl.losses.gates import AllOf
from agentrl.losses.objective import Objective, token_ratio
from agentrl.losses.surrogates import reinforce
from agentrl.method import Method, Needs, aggregate_by
from agentrl.methods import curated, groups, steps
from agentrl.plugins import Host, load_host
from agentrl.rollout.accounting import BatchShape
from agentrl.rollout.collector import Collector
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.tokens import TokenPlayer
from agentrl.stateful import held, states
from agentrl.training.critic import TorchCritic
from agentrl.training.learner import LearnerSettings, TorchLearner
from agentrl.types import JSON, Group

HOST: Host = load_host()
OPTIONS: dict[str, dict[str, Any]] = {
    "custom": {"credit": [{"name": "episode"}]},
    "normalised_terms": {"weights": {"reward": 1.0}},
}
NAMES = sorted(entry.name for entry in HOST.entries("methods"))


def preset(name: str) -> Method:
    made: Method = HOST.create("methods", name, OPTIONS.get(name, {}), given={"host": HOST})
    return made


@dataclass(slots=True)
class Seen:
    """A credit rule that counts the rows it was shown."""

    rows: int = field(default=0, init=False)

    def __call__(self, table: StepTable) -> Doubles:
        return np.zeros(len(table))

    def remember(self, table: StepTable) -> None:
        self.rows += len(table)

    def state(self) -> JSON:
        return {"rows": self.rows}

    def restore(self, state: JSON) -> None:
        self.rows = int(state["rows"])


@dataclass(slots=True)
class CountingGate(Seen):
    """A gate with a memory."""

    def __call__(self, update: Any) -> float:  # type: ignore[override]
        self.rows += 1
        return 1.0


def method(credit: Any, **rest: Any) -> Method:
    return replace(groups.grpo(), credit=credit, **rest)


NESTED: dict[str, Callable[[Seen], Any]] = {
    "by itself": lambda rule: rule,
    "in a sum": lambda rule: WeightedSum(((1.0, EpisodeCredit()), (0.5, rule))),
    "whitened": Whitened,
    "in a sum, whitened, shared": lambda rule: HardAttribution(Whitened(WeightedSum(((1.0, rule),)))),
}


@pytest.mark.parametrize("where", NESTED)
def test_a_rule_inside_another_remembers_and_is_checkpointed(where: str) -> None:
    first, second = Seen(), Seen()
    one, two = method(NESTED[where](first)), method(NESTED[where](second))
    one.batch(make_groups(g=[make_trajectory("a", "g", [1, 0]), make_trajectory("b", "g", [0])]))
    assert first.rows == 3
    state = json.loads(json.dumps(one.state()))
    assert list(state.values()) == [{"rows": 3}]
    two.restore(state)
    assert second.rows == 3 and two.state() == state


def test_two_rules_of_a_sum_keep_their_memories_apart() -> None:
    rule = WeightedSum(((1.0, Seen()), (1.0, Seen())))
    rule.terms[0][1].rows = 4  # type: ignore[attr-defined]
    assert states(held("credit", rule)) == {"credit.terms.0.1": {"rows": 4}, "credit.terms.1.1": {"rows": 0}}


def test_a_gate_inside_a_gate_is_checkpointed() -> None:
    def objective(gate: CountingGate) -> Objective:
        return Objective(token_ratio, reinforce(), gate=AllOf((gate,)))

    first, second = CountingGate(), CountingGate()
    first.rows = 5
    objective(second).restore(json.loads(json.dumps(objective(first).state())))
    assert second.rows == 5


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_groups_is_columns_without_tokens(name: str) -> None:
    made = preset(name)
    batch = made.columns([])
    if made.critic is not None:
        batch = replace(batch, table=replace(batch.table, value=np.zeros(0)))
    batch = made.assign(batch)
    assert len(batch.columns) == len(batch.table) == 0 and not batch.has_signal
    json.dumps(made.state())


def equal_groups() -> list[Group]:
    return make_groups(g=[make_trajectory("a", "g", [1]), make_trajectory("b", "g", [1])])


def test_a_curation_that_keeps_nothing_takes_no_step_and_says_so() -> None:
    """Not even one of a term that asks for no advantage, and the critic has nothing to fit."""
    made = curated.dapo()
    batch = made.batch(equal_groups())
    for objective in (made.objective(), preset("opd").objective(), preset("epo").objective()):
        learner = TorchLearner(tiny_llama(), objective, settings=LearnerSettings(), teacher=tiny_llama(seed=1))
        before = {key: value.clone() for key, value in learner.named_tensors().items()}
        report = learner.update(batch)
        assert not report.updated and "kept no group" in report.reason
        assert learner.version == 0
        assert all((value == before[key]).all() for key, value in learner.named_tensors().items())
    critic = TorchCritic(tiny_llama(), steps.CRITIC)
    assert critic.values(batch).shape == (0,)
    assert critic.fit(batch, np.zeros(0))["critic_loss"] == 0.0


def test_dapo_keeps_groups_whose_outcomes_differ() -> None:
    mixed = make_groups(g=[make_trajectory("a", "g", [1]), make_trajectory("b", "g", [0])])
    # A penalty: both succeed, and their returns differ.
    taxed = make_groups(g=[make_trajectory("a", "g", [1]), make_trajectory("b", "g", [0.75])])
    for made, kept in ((curated.dapo(), [1, 0, 1]), (curated.dapo(varied="success"), [1, 0, 0])):
        assert made.keep is not None
        for each, expected in zip((mixed, equal_groups(), taxed), kept, strict=True):
            assert made.keep(each[0]) == bool(expected)
            assert made.columns(each).table.groups == expected
    assert DropEqual(Varied())([*mixed, *equal_groups()]) == mixed


async def test_dapos_dynamic_sampling_fills_the_batch_with_groups_that_differ() -> None:
    made = curated.dapo()
    assert made.keep is not None
    rollout = RolloutEngine(World(), TokenPlayer(Engine(), Renderer()))
    collector = Collector(
        rollout, Independent(), SetSampler(), Diary(), BatchShape(groups=3, group_size=2), keep=made.keep
    )
    async with rollout, collector:
        batch = await collector.next_batch(0)
        dropped = collector.take_statistics().dropped
    assert len(batch) == 3 and all(len({t.reward for t in group.trajectories}) == 2 for group in batch)
    assert dropped.get("filtered", 0) > 0
    assert made.columns(batch).table.groups == 3


@pytest.mark.parametrize("name", NAMES)
def test_a_group_that_is_too_small_is_refused_with_what_to_do(name: str) -> None:
    made = preset(name)
    made.check(made.needs.group)
    if made.needs.group > 1:
        with pytest.raises(ConfigError, match=r"compares at least \d+ trajectories.*Raise it, or choose a method"):
            made.check(made.needs.group - 1)


def test_a_method_with_anchors_is_refused_where_states_have_no_names() -> None:
    members = [make_trajectory("a", "g", [1]), make_trajectory("b", "g", [0])]
    for name in ("gigpo", "hgpo"):
        with pytest.raises(ConfigError, match=r"no state keys\. Give it a `state_key`, choose gigpo_similar"):
            preset(name).check(8, state_keys=False)
        with pytest.raises(TrainingError, match="no state keys"):
            preset(name).batch(make_groups(g=members))
    for name in ("grpo", "gigpo_similar"):
        preset(name).check(8, state_keys=False)


def test_a_rule_with_anchors_in_a_recipe_is_refused_too() -> None:
    credit = [{"name": "episode"}, {"name": "anchor", "weight": 0.5}]
    made: Method = HOST.create("methods", "custom", {"credit": credit}, given={"host": HOST})
    assert made.needs == Needs(anchors=True)
    with pytest.raises(ConfigError, match="no state keys"):
        made.check(8, state_keys=False)


def test_gigpo_can_be_put_together_in_a_recipe() -> None:
    members = [
        make_trajectory("a", "g", [0, 1], states=["x", "y"]),
        make_trajectory("b", "g", [0, 0], states=["x", "y"]),
        make_trajectory("c", "g", [1], states=["x"]),
    ]
    credit = [{"name": "episode"}, {"name": "anchor", "weight": 0.5}]
    made: Method = HOST.create("methods", "custom", {"credit": credit}, given={"host": HOST})
    whole = steps.gigpo(omega=0.5).batch(make_groups(g=members))
    np.testing.assert_array_equal(made.batch(make_groups(g=members)).advantage, whole.advantage)
    assert len(set(whole.advantage.tolist())) == 5


def test_a_critic_that_is_absent_is_named() -> None:
    batch = steps.steppo().columns(make_groups(g=[make_trajectory("a", "g", [1])]))
    with pytest.raises(TrainingError, match="needs a critic's values; give the method a `critic`"):
        steps.steppo().assign(batch)
    with pytest.raises(TrainingError, match="'grpo' has no critic"):
        groups.grpo().targets(batch.table)


def test_every_aggregation_has_a_name() -> None:
    table = make_groups(
        g=[make_trajectory("a", "g", [1, 0]), make_trajectory("b", "g", [0])], h=[make_trajectory("c", "h", [0])]
    )
    shares = {
        name: groups.grpo(aggregate=name).batch(table).scale.tolist()  # type: ignore[arg-type]
        for name in ("token_mean", "trajectory_mean", "step_mean", "prompt_mean", "trajectory_sum")
    }
    # Steps of two tokens: two in a, one in b, one in c.
    np.testing.assert_allclose(shares["token_mean"], [1 / 8] * 8)
    np.testing.assert_allclose(shares["trajectory_mean"], [1 / 12] * 4 + [1 / 6] * 4)
    np.testing.assert_allclose(shares["step_mean"], [1 / 8] * 8)
    np.testing.assert_allclose(shares["prompt_mean"], [1 / 12] * 6 + [1 / 4] * 2)
    np.testing.assert_allclose(shares["trajectory_sum"], [1 / 3] * 8)
    assert aggregate_by("prompt_mean") is not aggregate_by("token_mean")
