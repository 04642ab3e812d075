"""Which cached prefix a prompt gets, and what is evicted for it."""

from __future__ import annotations

import numpy as np

from agentrl.engines.transformers_slots import Claim, Slots
from agentrl.types import token_ids


def compute(slots: Slots, slot: int, *sampled: int) -> None:
    """As after a forward pass, and `sampled` tokens appended and computed."""
    at = int(slots.known[slot])
    slots.ids[slot, at : at + len(sampled)] = sampled
    slots.known[slot] = slots.filled[slot] = at + len(sampled)


def run(slots: Slots, tokens: list[int], session: str = "") -> Claim:
    claim = slots.claim(token_ids(tokens), session)
    assert claim is not None
    compute(slots, claim.slot)
    slots.release(claim.slot)
    return claim


def test_a_session_extends_its_own_slot() -> None:
    slots = Slots(4, 64)
    first = run(slots, [1, 2, 3], "a")
    assert run(slots, [1, 2, 3, 4, 5], "a") == Claim(first.slot, 3, first.slot)


def test_the_last_token_is_always_computed() -> None:
    slots = Slots(4, 64)
    run(slots, [1, 2, 3], "a")
    assert run(slots, [1, 2, 3], "a").cached == 2
    assert run(slots, [1], "a").cached == 0


def test_another_session_copies_the_longest_prefix() -> None:
    slots = Slots(4, 64)
    run(slots, [1, 2, 9], "a")
    best = run(slots, [1, 2, 3, 4], "b")
    assert slots.claim(token_ids([1, 2, 3, 7]), "c") == Claim(2, 3, best.slot)


def test_a_busy_slot_is_a_source_but_never_given_away() -> None:
    slots = Slots(2, 64)
    claim = slots.claim(token_ids([1, 2, 3]), "a")
    assert claim is not None
    compute(slots, claim.slot)
    other = slots.claim(token_ids([1, 2, 4]), "a")
    assert other == Claim(1, 2, 0)
    assert slots.claim(token_ids([5]), "b") is None


def test_who_waits_for_a_neighbour_is_served_when_that_is_computed() -> None:
    slots = Slots(4, 64)
    prompt = list(range(30))
    first = slots.claim(token_ids(prompt), "a")
    assert first is not None
    assert slots.claim(token_ids([*prompt[:-1], 99]), "b") is None
    compute(slots, first.slot)
    assert slots.claim(token_ids([*prompt[:-1], 99]), "b") == Claim(1, 29, 0)


def test_a_forgotten_sequence_still_serves_until_it_is_overwritten() -> None:
    slots = Slots(2, 64)
    run(slots, [1, 2, 3], "a")
    slots.forget("a")
    assert slots.idle_sessions() == set()
    assert slots.claim(token_ids([1, 2, 3, 4]), "b") == Claim(0, 3, 0)


def test_the_least_recently_used_session_makes_room() -> None:
    slots = Slots(2, 64)
    run(slots, [1, 1], "a")
    run(slots, [2, 2], "b")
    run(slots, [1, 1, 1], "a")
    assert run(slots, [3, 3], "c").slot == 1
    assert slots.idle_sessions() == {"a", "c"}


def test_a_budget_drops_the_longest_unused_first() -> None:
    slots = Slots(4, 64)
    for name, length in (("a", 10), ("b", 20), ("c", 5)):
        run(slots, list(range(length)), name)
    slots.trim(25)
    assert slots.idle_sessions() == {"b", "c"}
    slots.trim(5)
    assert slots.idle_sessions() == {"c"}
    slots.trim(0)
    assert slots.idle_sessions() == set()


def test_nothing_is_reused_after_a_drop_and_nobody_waits_for_it() -> None:
    slots = Slots(4, 64)
    prompt = list(range(30))
    run(slots, prompt, "a")
    busy = slots.claim(token_ids([9, 9, 9]), "b")
    assert busy is not None
    slots.drop()
    claim = slots.claim(token_ids(prompt), "a")
    assert claim is not None
    assert claim.cached == 0
    assert (slots.filled[busy.slot], slots.known[busy.slot]) == (0, 3)


def test_claims_only_ever_reuse_equal_ids() -> None:
    rng = np.random.default_rng(0)
    slots = Slots(6, 40)
    for turn in range(400):
        prompt = token_ids(rng.integers(0, 2, rng.integers(1, 30)))
        before, filled = slots.ids.copy(), slots.filled.copy()
        claim = slots.claim(prompt, "abcdefghi"[turn % 9])
        assert claim is not None
        assert claim.cached < len(prompt)
        assert claim.cached <= filled[claim.source]
        assert before[claim.source, : claim.cached].tolist() == prompt[: claim.cached].tolist()
        compute(slots, claim.slot, 1, 0)
        slots.release(claim.slot)
        if turn % 7 == 0:
            slots.forget("abcdefghi"[turn % 5])
        if turn % 50 == 0:
            slots.drop()
