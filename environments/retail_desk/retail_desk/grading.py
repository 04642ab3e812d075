"""What an episode was worth: the final state of the shop, what the customer was told, and the rules of the policy.

All three must hold for success. Partial credit counts each fact once and stays below one half without success.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from retail_desk.scenario import Scenario
from retail_desk.shop import Shop
from retail_desk.talk import Talk


@dataclass(frozen=True, slots=True)
class Grade:
    state: bool
    "The shop is as it should be, and nothing else has changed."
    told: float
    "Share of the questions whose right answer the customer believes, and of the refusals told; 1 where there is none."
    rules: bool
    "Each change was of a found customer's order and after a yes; nothing leaked, no exception was promised."
    partial: float
    "From 0 to 1."
    wrong_changes: int

    @property
    def success(self) -> bool:
        return self.state and self.told == 1 and self.rules


def grade(scenario: Scenario, wanted: Shop, shop: Shop, talk: Talk) -> Grade:
    """`wanted` is `scenario.expected()`."""
    owed = [goal.order for goal in scenario.goals if goal.ask or goal.refused]
    believed = sum(talk.beliefs.get(order, False) for order in owed)
    right, made = Counter(wanted.changes), Counter(shop.changes)
    hits = _right_changes(scenario, wanted, shop)
    wrong = sum((made - right).values()) + sum((made & right).values()) - hits
    owners = {scenario.books.orders[goal.order].customer for goal in scenario.goals}
    # A customer who must not be found, or need not be, is no fact to be credited.
    find = [owner in talk.found for owner in owners if all(change[0] != "escalate" for change in wanted.changes)]
    total = 2 * sum(right.values()) + 2 * len(owed) + len(find)
    points = 2 * hits + 2 * believed + sum(find) - wrong
    return Grade(
        state=shop.state() == wanted.state(),
        told=believed / len(owed) if owed else 1.0,
        rules=not (talk.unasked or talk.unserved or talk.leaked or talk.promised),
        partial=max(0, points) / total,
        wrong_changes=wrong,
    )


def _right_changes(scenario: Scenario, wanted: Shop, shop: Shop) -> int:
    """Changes of the scenario that left their order, and the money moved for it, as they should be."""
    hits = 0
    for goal in scenario.goals:
        for change in goal.changes:
            order = goal.order
            same = shop.orders[order] == wanted.orders[order] and _moved(shop, order) == _moved(wanted, order)
            hits += same and (change.tool, order) in shop.changes and shop.escalated == wanted.escalated
    return hits


def _moved(shop: Shop, order: str) -> list[tuple[str, str, int]]:
    return sorted(entry for entry in shop.moved if entry[0] == order)
