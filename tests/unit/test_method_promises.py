"""What every method promises of its credit, in one table: a new method says here what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
from builders import make_step
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.batch import StepTable, TrainingBatch
from agentrl.credit.segments import Doubles, Places
from agentrl.method import Method
from agentrl.plugins import Host, load_host
from agentrl.types import Group, Status, Task, Trajectory

HOST: Host = load_host()
OPTIONS: dict[str, dict[str, Any]] = {
    "custom": {"credit": [{"name": "episode"}]},
    "normalised_terms": {"weights": {"reward": 1.0}},
}
NAMES = sorted(entry.name for entry in HOST.entries("methods"))


@dataclass(frozen=True)
class Promise:
    """Of the advantages of one batch, where rewards are paid at the end of an episode."""

    zero: Literal["trajectories", "steps", "tokens", "batch", "no"] = "trajectories"
    "Over what they sum to 0: the trajectories of a group, its steps, its tokens, all trajectories of a batch."
    shift: bool = True
    "The same if every return of a batch is c higher."
    scale: Literal["same", "linear", "no"] = "same"
    "What they do if every reward is k times as high."
    equal: Literal["group", "batch", "single", "no"] = "group"
    """Exactly 0 in float32 for a group of equal episodes; only where the whole batch is equal; only for episodes of one
    step, as later steps are nearer to the reward."""
    order: bool = True
    "They follow a permutation of trajectories and groups."


DIFFERENCE = Promise(scale="linear")
"The return minus a baseline, without a scale."
PLACES = Promise(zero="no", shift=False)
"An episode term, and steps compared by discounted return."
RETURNS = Promise(zero="steps", shift=False, equal="single")
PROMISES: dict[str, Promise] = {
    **dict.fromkeys(
        ("grpo", "lite_ppo", "dapo", "normalised_terms", "custom", "aspo", "opd", "self_distillation", "dagger"),
        Promise(),
    ),
    **dict.fromkeys(("gspo", "gspo_step", "cispo", "sapo", "gmpo", "dppo", "ctpo", "minpro", "bapo"), Promise()),
    **dict.fromkeys(("grpo_kl", "grpo_unbiased_kl", "r2vpo", "clip_cov", "kl_cov", "epo", "steer"), Promise()),
    **dict.fromkeys(("lp_reg", "high_entropy", "entropy_steps", "gtpo", "vespo"), Promise()),
    **dict.fromkeys(("decoupled_ppo", "icepop", "mis", "geo_rejection", "m2po", "opsm"), Promise()),
    **dict.fromkeys(("rloo", "loop", "dr_grpo", "gpg", "branch", "topr", "opmd", "rec", "nft", "vcpo"), DIFFERENCE),
    # Which of two equal returns it drops depends on their order.
    # Of groups without forks.
    **dict.fromkeys(("arpo", "fission", "arpo_replay", "bepa"), Promise()),
    "r3l": Promise(zero="no", scale="linear"),
    "d3s": Promise(order=False),
    "opo": Promise(zero="tokens", scale="linear"),
    "maxrl": Promise(shift=False),
    "bnpo": Promise(shift=False, scale="no"),
    "unlikeliness": Promise(shift=False),
    "asymre": Promise(zero="no", scale="no", equal="no"),
    "reinforce_plus_plus": Promise(zero="no", equal="batch"),
    "reinforce_plus_plus_baseline": Promise(zero="no", equal="batch"),
    "spo": Promise(zero="batch", scale="no", equal="batch"),
    "dart": Promise(zero="steps"),
    "gigpo": PLACES,
    "hgpo": PLACES,
    # Its places are found in the order in which observations come, and here all read alike.
    "gigpo_similar": replace(PLACES, order=False, equal="single"),
    "step_return": RETURNS,
    "eapo": RETURNS,
    "igpo": Promise(zero="no", shift=False, equal="single"),
    # Its baseline is a critic, which knows of no group.
    "steppo": Promise(zero="no", shift=False, scale="no", equal="no"),
}

Shape = list[list[tuple[float, list[int]]]]
"Per group and trajectory: the return, and the sampled tokens of each step."
returns = st.sampled_from([0.0, 0.0625, 0.125, 0.3, 0.4, 0.5])
lengths = st.lists(st.integers(1, 4), min_size=1, max_size=3)
shapes = st.lists(st.lists(st.tuples(returns, lengths), min_size=1, max_size=5), min_size=1, max_size=3)


def test_every_method_says_what_it_promises() -> None:
    assert sorted(PROMISES) == NAMES


def preset(name: str) -> Method:
    made: Method = HOST.create("methods", name, OPTIONS.get(name, {}), given={"host": HOST})
    return made


def credit_of(name: str) -> str:
    """Everything of a method that makes an advantage: methods that share it differ in their objective only."""
    made = preset(name)
    return repr((made.credit, made.curations, made.shapings, made.token_credits, made.critic))


KINDS: dict[str, list[str]] = {}
for each in NAMES:
    KINDS.setdefault(credit_of(each), []).append(each)
DISTINCT = [names[0] for names in KINDS.values()]
"One method of each kind of credit."


def those(keeps: Callable[[Promise], bool]) -> list[str]:
    return [name for name in DISTINCT if keeps(PROMISES[name])]


def test_methods_of_one_credit_make_one_promise() -> None:
    for names in KINDS.values():
        assert len({PROMISES[name] for name in names}) == 1, names


def trajectory(name: str, group: str, value: float, steps: Sequence[int], prompt: Sequence[int] = (1, 2)) -> Trajectory:
    made = tuple(
        make_step(
            name,
            index,
            reward=value if index == len(steps) - 1 else 0.0,
            state=f"s{index}",
            prompt=prompt,
            tokens=range(3, 3 + length),
            last=index == len(steps) - 1,
        )
        for index, length in enumerate(steps)
    )
    return Trajectory(name, Task(group, "test"), group, made, Status.OK)


def build(shape: Shape, change: Callable[[float], float] = lambda value: value, **how: Any) -> list[Group]:
    return [
        Group(
            f"g{i}",
            Task(f"g{i}", "test"),
            tuple(
                trajectory(f"g{i}t{j}", f"g{i}", change(value), steps, **how) for j, (value, steps) in enumerate(group)
            ),
        )
        for i, group in enumerate(shape)
    ]


def credited(name: str, groups: Sequence[Group]) -> TrainingBatch:
    method = preset(name)
    batch = method.columns(groups)
    return method.assign(replace(batch, table=with_values(method, batch.table)))


def with_values(method: Method, table: StepTable) -> StepTable:
    """A critic that looks at where a step is and at nothing else."""
    return table if method.critic is None else replace(table, value=np.cos(table.index + table.length))


def by_name(batch: TrainingBatch, groups: Sequence[Group]) -> dict[str, list[float]]:
    """Advantages per task and, within, in ascending order of trajectories: what does not depend on their order."""
    found: dict[str, list[float]] = {}
    rows = batch.columns.row
    for row in np.unique(rows):
        task = batch.table.tasks[batch.table.group[row]]
        found.setdefault(task, []).extend(batch.advantage[rows == row].tolist())
    return {task: sorted(values) for task, values in found.items()}


def steps_of(batch: TrainingBatch) -> tuple[Doubles, Places]:
    """The advantage of each row that sampled something, and the row."""
    rows, first = np.unique(batch.columns.row, return_index=True)
    return batch.advantage[first].astype(np.float64), rows.astype(np.int64)


@pytest.mark.parametrize("name", those(lambda promise: promise.zero != "no"))
@settings(max_examples=6)
@given(shape=shapes)
def test_advantages_sum_to_zero(name: str, shape: Shape) -> None:
    batch = credited(name, build(shape))
    if not len(batch.table):
        return
    values, rows = steps_of(batch)
    kind = PROMISES[name].zero
    if kind in ("trajectories", "batch"):
        first = batch.table.index[rows] == 0
        values, rows = values[first], rows[first]
    elif kind == "tokens":
        values = values * batch.table.length[rows]
    owner = np.zeros(len(rows), np.int64) if kind == "batch" else batch.table.group[rows]
    np.testing.assert_allclose(np.bincount(owner, weights=values), 0.0, atol=1e-5)


@pytest.mark.parametrize("name", those(lambda promise: promise.shift))
@settings(max_examples=6)
@given(shape=shapes, shift=st.sampled_from([0.25, 0.5]))
def test_a_shift_of_all_returns_changes_nothing(name: str, shape: Shape, shift: float) -> None:
    plain, moved = credited(name, build(shape)), credited(name, build(shape, lambda value: value + shift))
    np.testing.assert_allclose(moved.advantage, plain.advantage, atol=1e-4)


@pytest.mark.parametrize("name", those(lambda promise: promise.scale != "no"))
@settings(max_examples=6)
@given(shape=shapes, factor=st.sampled_from([0.5, 2.0]))
def test_a_scale_of_all_rewards_does_what_is_promised(name: str, shape: Shape, factor: float) -> None:
    plain, scaled = credited(name, build(shape)), credited(name, build(shape, lambda value: value * factor))
    expected = plain.advantage * (factor if PROMISES[name].scale == "linear" else 1.0)
    # A deviation of some 1e-4, between steps that are worth nearly the same, stands beside an epsilon of 1e-6.
    np.testing.assert_allclose(scaled.advantage, expected, atol=1e-2)


@pytest.mark.parametrize("name", those(lambda promise: promise.equal != "no"))
@settings(max_examples=6)
@given(
    value=st.floats(0, 1, width=32),
    members=st.integers(2, 15),
    steps=lengths,
    other=st.tuples(st.floats(0, 1, width=32), st.floats(0, 1, width=32)),
)
def test_equal_episodes_get_exactly_zero(
    name: str, value: float, members: int, steps: list[int], other: tuple[float, float]
) -> None:
    kind = PROMISES[name].equal
    steps = steps[:1] if kind == "single" else steps
    shape: Shape = [[(value, steps)] * members]
    if kind != "batch":
        # Another group that does differ must not leak into this one.
        shape.append([(other[0], steps), (other[1], steps)])
    batch = credited(name, build(shape))
    of_group = np.array(batch.table.tasks)[batch.table.group[batch.columns.row]] == "g0" if len(batch.table) else []
    assert batch.advantage.dtype == np.float32
    assert not batch.advantage[of_group].any()


@pytest.mark.parametrize("name", those(lambda promise: promise.order))
@settings(max_examples=6)
@given(shape=shapes, seed=st.integers(0, 99))
def test_the_order_of_trajectories_and_groups_says_nothing(name: str, shape: Shape, seed: int) -> None:
    dice = np.random.default_rng(seed)
    groups = build(shape)
    turned = [
        replace(group, trajectories=tuple(group.trajectories[i] for i in dice.permutation(len(group.trajectories))))
        for group in (groups[i] for i in dice.permutation(len(groups)))
    ]
    plain, other = by_name(credited(name, groups), groups), by_name(credited(name, turned), turned)
    assert plain.keys() == other.keys()
    for task in plain:
        np.testing.assert_allclose(other[task], plain[task], atol=1e-5)


@pytest.mark.parametrize("name", DISTINCT)
@settings(max_examples=6)
@given(shape=shapes, seed=st.integers(0, 99))
def test_rows_of_groups_may_be_interleaved(name: str, shape: Shape, seed: int) -> None:
    method = preset(name)
    table = method.columns(build(shape)).table
    if not len(table):
        return
    table = with_values(method, table)
    order = np.random.default_rng(seed).permutation(len(table))
    columns = {
        key: column[order]
        for key in StepTable.__dataclass_fields__
        if isinstance(column := getattr(table, key), np.ndarray)
    }
    scores = {key: column[order] for key, column in table.scores.items()}
    mixed = StepTable(**columns, tasks=table.tasks, scores=scores)
    credit = method.credit(table)
    assert np.isfinite(credit).all()
    np.testing.assert_allclose(method.credit(mixed), credit[order], atol=1e-6)


@pytest.mark.parametrize("name", DISTINCT)
@settings(max_examples=6)
@given(shape=shapes, prompt=st.lists(st.integers(0, 9), min_size=1, max_size=6))
def test_what_the_environment_wrote_is_in_no_number(name: str, shape: Shape, prompt: list[int]) -> None:
    plain, other = credited(name, build(shape)), credited(name, build(shape, prompt=prompt))
    for key in ("advantage", "weight", "scale"):
        np.testing.assert_array_equal(getattr(plain, key), getattr(other, key))
    seen = np.concatenate([context.column for context in other.contexts] or [np.zeros(0, np.int64)])
    assert sorted(seen[seen >= 0].tolist()) == list(range(len(other.columns)))
    prompts = sum(len(prompt) * len(steps) for steps in (t.steps for g in build(shape) for t in g.trajectories))
    assert name in ("dapo", "d3s") or int((seen < 0).sum()) == prompts
