"""Strategies: which places they fork, what a group costs, and what a resumed group repeats."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from fakes_rollout import Engine, Renderer, World

from agentrl.environment import call, say
from agentrl.errors import ConfigError
from agentrl.protocols import GenerateRequest, RolloutStrategy
from agentrl.rollout.engine import RolloutEngine
from agentrl.rollout.forking import demands_of
from agentrl.rollout.limits import EpisodeLimits, Supervision
from agentrl.rollout.strategies.branching import EntropyBranching, RandomBranching
from agentrl.rollout.strategies.guidance import Guided, in_words
from agentrl.rollout.strategies.independent import Independent
from agentrl.rollout.strategies.recovery import Recovery
from agentrl.rollout.strategies.reflection import RetryFromStep, read_reflection, transcript
from agentrl.rollout.strategies.rounds import sampled
from agentrl.rollout.strategies.tree import Tree
from agentrl.rollout.tokens import TokenPlayer
from agentrl.types import Source, Status, Task, Trajectory

QUICK = Supervision(backoff=0.001, failure_window=1000)
TASK = Task("t", "counter", data={"length": 6})


async def group(
    strategy: RolloutStrategy,
    size: int = 8,
    *,
    engine: Engine | None = None,
    recorded: dict[int, Trajectory] | None = None,
    seed: int = 0,
    task: Task = TASK,
) -> list[Trajectory]:
    player = TokenPlayer(engine or Engine(), Renderer())
    async with RolloutEngine(World(), player, supervision=QUICK, seed=seed) as play:
        rollout = play.group("g000000", recorded, demands=demands_of(strategy))
        return list(await strategy.run(task, size, rollout))


def shape(members: Sequence[Trajectory]) -> list[tuple[str | None, int, tuple[str, ...]]]:
    return [(t.forked_from, len(t.steps) - len(t.own), tuple(step.action.text for step in t.steps)) for t in members]


ALL = [
    Independent(),
    Independent(tokens=60),
    EntropyBranching(),
    RandomBranching(initial=2, chance=0.8, beams=3),
    Tree(roots=2),
    RetryFromStep(),
    Recovery(),
]


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: f"{type(s).__name__}-{s.tokens}")
async def test_every_member_is_played_once_and_begins_with_what_it_shares(strategy: RolloutStrategy) -> None:
    members = await group(strategy)
    assert [t.id for t in members] == [f"g000000-{number}" for number in range(len(members))]
    assert len(members) <= 8 and (strategy.tokens or len(members) == 8)  # type: ignore[attr-defined]
    assert {t.status for t in members} == {Status.OK}
    owners = {step.id: t for t in members for step in t.own}
    assert len(owners) == sum(len(t.own) for t in members)
    for t in members:
        for step in t.steps[: len(t.steps) - len(t.own)]:
            assert step in owners[step.id].steps
    assert sampled(members) == sum(len(step.tokens) for t in members for step in t.own)


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: f"{type(s).__name__}-{s.tokens}")
async def test_a_resumed_group_is_the_one_that_was_never_stopped(strategy: RolloutStrategy) -> None:
    whole = await group(strategy)
    for kept in (1, 4, 5, 7):
        recorded = dict(list(enumerate(whole))[:kept])
        assert shape(await group(strategy, recorded=recorded)) == shape(whole)
    others = [shape(await group(strategy, seed=seed)) for seed in (1, 2)]
    assert any(other != shape(whole) for other in others)


async def test_entropy_branching_forks_where_the_entropy_rose() -> None:
    class Rising(Engine):
        """Uncertain at the step that follows a "b"."""

        def __init__(self) -> None:
            super().__init__(lambda request: random.Random(request.sampling.seed).choice("ab"))

        async def generate(self, request: GenerateRequest):  # type: ignore[no-untyped-def]
            self.wide = Renderer().decode(request.tokens).endswith("saw b")
            return await super().generate(request)

        def alternatives(self, token: int) -> dict[int, float]:
            return {0: math.log(0.5), 1: math.log(0.5)} if self.wide else {0: math.log(0.999), 1: math.log(0.001)}

    # One request at a time, as the fake keeps the last prompt in mind.
    strategy = EntropyBranching(initial=2, chance=0.0, weight=1e6, top=2)
    player = TokenPlayer(Rising(), Renderer())
    alone = Supervision(environment_slots=1, engine_slots=1, backoff=0.001)
    async with RolloutEngine(World(), player, supervision=alone, seed=3) as play:
        rollout = play.group("g000000", demands=demands_of(strategy))
        members = list(await strategy.run(TASK, 12, rollout))
    forks = [t for t in members if t.forked_from is not None]
    assert len(forks) >= 3
    for t in forks:
        at = len(t.steps) - len(t.own)
        assert t.steps[at - 1].action.text == "b", "a fork leaves where the step was uncertain"
    assert strategy.probability(members[0], 0) == 0.0


async def test_probability_is_chance_plus_the_rise_and_is_clipped() -> None:
    rule = EntropyBranching(chance=0.5, weight=0.2, top=10)
    member = (await group(rule, 2))[0]
    entropies = [step.scores["entropy"] for step in member.steps]
    for at, entropy in enumerate(entropies):
        rise = (entropy - entropies[0]) / math.log(11)
        assert rule.probability(member, at) == pytest.approx(0.5 + 0.2 * rise)
    assert EntropyBranching(chance=1.0, weight=9.0).probability(member, 1) <= 1.0


async def test_random_branching_without_chance_is_the_plain_group_and_with_all_of_it_forks_the_first_places() -> None:
    plain = await group(RandomBranching(chance=0.0))
    assert shape(plain) == shape(await group(Independent()))
    members = await group(RandomBranching(initial=2, chance=1.0))
    assert Counter(len(t.steps) - len(t.own) for t in members) == {0: 2, 1: 2, 2: 2, 3: 2}


async def test_a_tree_doubles_round_by_round_below_its_splits() -> None:
    members = await group(Tree(roots=1), 8, task=Task("t", "counter", data={"length": 30}))
    first, *others = [len(t.steps) - len(t.own) for t in members[1:]]
    assert 0 < first < min(others) and members[0].forked_from is None
    # Round by round: one fork, then one of each of the two leaves, then of each of the four.
    leaves = {members[0].id, members[1].id}
    owners = {step.id: t.id for t in members for step in t.own}
    assert {owners[t.forked_from or ""] for t in members[2:4]} <= leaves and len(members) == 8


@pytest.mark.parametrize("tokens", [40, 60, 90])
async def test_a_budget_of_tokens_counts_what_is_shared_once(tokens: int) -> None:
    branching = await group(RandomBranching(initial=2, chance=1.0, tokens=tokens), 30)
    plain = await group(Independent(tokens=tokens), 30)
    # An episode of the fake world is six steps of two tokens.
    assert tokens - 12 < sampled(plain) <= tokens and tokens - 12 < sampled(branching) <= tokens
    assert len(branching) > len(plain)


def reflecting(answer: Callable[[GenerateRequest], str] | str) -> Engine:
    """Says "b" in an episode, and `answer` where it is asked to reflect."""

    def say(request: GenerateRequest) -> str:
        if "went wrong" in Renderer().decode(request.tokens):
            return answer if isinstance(answer, str) else answer(request)
        return "a" if "use a" in Renderer().decode(request.tokens) else "b"

    return Engine(say)


async def test_a_failure_is_retried_from_the_step_that_the_policy_picks_with_its_guidance() -> None:
    said = json.dumps({"retry_from_step": 2, "guidance": "use a"})
    members = await group(RetryFromStep(), 4, engine=reflecting(f"Well. {said}"))
    base, retries = members[:2], members[2:]
    assert [t.source for t in members] == [Source.POLICY] * 2 + [Source.GUIDED] * 2
    for parent, retry in zip(base, retries, strict=True):
        assert retry.forked_from == parent.steps[1].id and retry.given == "use a"
        assert [step.action.text for step in retry.steps] == ["b", "b", "a", "a", "a", "a"]
        assert retry.reward == 4.0 and parent.reward == 0.0
        assert all("use a" not in Renderer().decode(step.prompt) for step in retry.steps)


async def test_a_reflection_that_cannot_be_read_leaves_a_plain_fork_and_a_success_is_left_alone() -> None:
    members = await group(RetryFromStep(), 4, engine=reflecting("no idea"))
    assert [t.source for t in members] == [Source.POLICY] * 4 and not any(t.given for t in members)
    won = await group(RetryFromStep(), 4, engine=Engine(lambda request: "a"))
    assert [t.forked_from for t in won] == [None] * 4


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"retry_from_step": 1, "guidance": " go "}', (1, "go")),
        ('```json\n{"a": {"retry_from_step": 0, "guidance": "x"}}\n```', (0, "x")),
        ('{"retry_from_step": 3, "guidance": "x"}', None),
        ('{"retry_from_step": true, "guidance": "x"}', None),
        ('{"retry_from_step": 1, "guidance": " "}', None),
        ("{broken", None),
        ("", None),
    ],
)
def test_a_reflection_is_read_from_the_first_object_that_fits(text: str, found: tuple[int, str] | None) -> None:
    assert read_reflection(text, 3) == found


async def test_a_refused_call_is_gone_on_with_twice_and_the_refusal_is_told() -> None:
    engine = Engine(lambda request: random.Random(request.sampling.seed).choice(["a", "?"]))
    members = await group(Recovery(), 8, engine=engine)
    recoveries = [t for t in members if t.forked_from is not None]
    assert len(recoveries) == 4 and all(count == 2 for count in Counter(t.forked_from for t in recoveries).values())
    for t in recoveries:
        assert t.own[0].told == "That call failed: what? Correct it and go on."
        assert t.steps[len(t.steps) - len(t.own) - 1].error == "what?"
    base = [t for t in members if t.forked_from is None]
    assert len(base) == 4 and "(refused: what?)" in transcript(recoveries[0])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: EntropyBranching(initial=0), "initial is 0"),
        (lambda: EntropyBranching(top=1), "at least 2 alternatives"),
        (lambda: RandomBranching(beams=1), "beams is 1"),
        (lambda: RandomBranching(chance=1.5), "chance 1.5"),
        (lambda: RandomBranching(initial=8, tokens=5), "tokens is 5 for a group that begins with 8"),
        (lambda: Tree(roots=0), "roots is 0"),
        (lambda: Recovery(attempts=1), "at least 2 are needed"),
        (lambda: Recovery(diagnosis="{what}"), "cannot be filled in"),
        (lambda: Guided(shares=(0.0, 0.5)), "shares"),
        (lambda: Guided(shares=(0.5, 0.25)), "shares"),
        (lambda: Guided(shares=()), "shares"),
        (lambda: Guided(words="{0}"), "cannot be filled in"),
        (lambda: RetryFromStep(question="{"), "cannot be filled in"),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


async def test_members_after_a_full_context_are_still_forked_within_the_limits() -> None:
    limits = EpisodeLimits(max_steps=3)
    async with RolloutEngine(World(), TokenPlayer(Engine(), Renderer()), supervision=QUICK, limits=limits) as play:
        strategy = RandomBranching(chance=1.0)
        rollout = play.group("g000000", demands=demands_of(strategy))
        members = await strategy.run(TASK, 6, rollout)
    assert [len(t.steps) for t in members] == [3] * 6 and {t.status for t in members} == {Status.TRUNCATED}


class Solved(World):
    """A world that knows how it is won: by saying "a" all along."""

    def __call__(self):  # type: ignore[no-untyped-def]
        instance = super().__call__()
        instance.oracle = lambda task: iter([say("a")] * task.data["length"])
        return instance


HALF = Guided(reserve=2, shares=(0.5,))


async def guided(world: World, answer: Callable[[GenerateRequest], str], strategy: Guided = HALF) -> list[Trajectory]:
    async with RolloutEngine(world, TokenPlayer(Engine(answer), Renderer()), supervision=QUICK) as play:
        members = list(await strategy.run(TASK, 5, play.group("g000000", demands=demands_of(strategy))))
    assert [t.id for t in members] == [f"g000000-{number}" for number in range(5)] and world.open == 0
    return members


async def test_only_where_all_others_fail_the_reserve_is_guided_by_half_of_the_oracles_line() -> None:
    members = await guided(Solved(), lambda request: "a" if "begins" in Renderer().decode(request.tokens) else "b")
    assert [t.source for t in members] == [Source.POLICY] * 3 + [Source.GUIDED] * 2
    assert [t.reward for t in members] == [0.0] * 3 + [6.0] * 2
    assert members[3].given == "A solution begins like this: a, a, a." and members[3].forked_from is None
    assert members[3].steps[0].observation == members[0].steps[0].observation
    assert "begins" not in Renderer().decode(members[3].tokens_through(members[3].steps[-1]))
    fine = await guided(Solved(), lambda request: "a" if request.session.endswith("-1") else "b")
    assert [t.source for t in fine] == [Source.POLICY] * 5


@pytest.mark.parametrize(("enough", "shown"), [(2, [2]), (3, [2, 3]), (5, [2, 3, 5]), (6, [2, 3, 5])])
async def test_more_of_the_solution_is_shown_for_as_long_as_everyone_fails(enough: int, shown: list[int]) -> None:
    """Six actions at 25, 50 and 75 %, rounded up: 2, 3 and 5 of them."""

    def answer(request: GenerateRequest) -> str:
        return "a" if f"this: {', '.join(['a'] * enough)}" in Renderer().decode(request.tokens) else "b"

    members = await guided(Solved(), answer, Guided())
    hints = [t.given.count("a,") + 1 for t in members if t.given]
    assert hints == shown and [t.source for t in members[:2]] == [Source.POLICY] * 2
    assert [bool(t.given) for t in members] == [False] * 2 + [True] * len(shown) + [False] * (3 - len(shown))
    assert [t.success for t in members if t.given] == [False] * (len(shown) - 1) + [enough < 6]


async def test_a_hint_in_the_prompt_is_trained_with() -> None:
    strategy = Guided(shares=(1.0,), placed="prompt")
    *_, helped = await guided(
        Solved(), lambda request: "a" if "begins" in Renderer().decode(request.tokens) else "b", strategy
    )
    first = helped.steps[0]
    assert helped.source is Source.POLICY and not helped.given and not len(first.seen)
    assert "begins like this: a, a, a, a, a, a." in Renderer().decode(first.prompt)


async def test_guidance_without_an_oracle_is_refused() -> None:
    with pytest.raises(ConfigError, match="has no oracle"):
        await guided(World(), lambda request: "b")


def test_an_action_in_words() -> None:
    assert in_words(call("go", direction="east")) == "go east" and in_words(say("done")) == "done"
