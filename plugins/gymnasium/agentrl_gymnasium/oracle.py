"""What wins: value iteration over a transition table, and breadth-first search over copies of a world."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Table = Mapping[int, Mapping[int, Sequence[tuple[float, int, float, bool]]]]
"`P[state][action]`: probability, next state, reward, whether it ends there."


def best_actions(table: Table, *, discount: float = 0.999, tolerance: float = 1e-10) -> list[int]:
    """By state, the action of highest value (Bellman 1957). Just below 1, the discount prefers the shorter way."""
    states, actions = len(table), len(table[0])
    value = np.zeros(states)
    while True:
        worth = np.array(
            [
                [
                    sum(chance * (reward + discount * value[after] * (not ends)) for chance, after, reward, ends in way)
                    for way in (table[state][action] for action in range(actions))
                ]
                for state in range(states)
            ]
        )
        better = worth.max(axis=1)
        if np.abs(better - value).max() < tolerance:
            return [int(action) for action in worth.argmax(axis=1)]
        value = better


def by_chance(table: Table) -> bool:
    """Whether an action may lead to more than one state, and an end pays, so that only luck wins for sure."""
    ways = [way for row in table.values() for way in row.values()]
    moves = any(len({after for _, after, _, _ in way}) > 1 for way in ways)
    return moves and any(reward > 0 and ends for way in ways for _, _, reward, ends in way)


def shortest_win(world: Any, actions: Sequence[int], key: Callable[[Any], str], *, most: int = 20_000) -> list[int]:
    """The fewest actions that end `world` with a reward. Raises `ValueError` where `most` states hold no win."""
    start = copy.deepcopy(world)
    seen, waiting = {key(start)}, deque([(start, list[int]())])
    while waiting and len(seen) < most:
        now, path = waiting.popleft()
        for action in actions:
            after = copy.deepcopy(now)
            _, reward, terminated, _, _ = after.step(action)
            if terminated:
                if reward > 0:
                    return [*path, action]
                continue
            if key(after) not in seen:
                seen.add(key(after))
                waiting.append((after, [*path, action]))
    raise ValueError(f"no win was found within {len(seen)} states.")
