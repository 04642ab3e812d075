"""The scripted customer: raises wishes one by one, tells facts when asked, leaves when served or out of patience.

A pure function of the scenario, the talk so far and what happened in the shop; nothing is drawn by chance.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from random import Random
from typing import Protocol

from retail_desk.scenario import Goal, Scenario
from retail_desk.shop import Shop
from retail_desk.talk import Talk, agrees, listen, proposes
from retail_desk.voices import VOICES

ASKED: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "name": r"\bname\b|who (am i|are you)",
        "postcode": r"post ?code|postal code|\bzip\b",
        "order": r"order (number|id|no)|which order|what order|number of (the|your) order",
        "reason": r"\bwhy\b|\breason\b",
        "item": r"(which|what) (items?|products?|one|part|article)",
        "options": r"colou?r|\bsize|(which|what) (variant|version|option|kind|shade|finish|width|edge)|instead|prefer"
        r"|(exchange|swap)[^.?]* for\b|replace[^.?]* with\b",
        "payment": r"payment|(which|what|your) (card|method)|gift card|refund(ed)? to|how .*\bpay\b"
        r"|(how|where) [^.?]*(refund|money)",
        "address": r"(new|which|what|full|correct|delivery) address|street|where .*(send|sent|deliver|go)",
    }.items()
}
_ASKS = re.compile(r"\?|\b(please|kindly|tell me|let me know|provide|give me|share|i need|we need)\b", re.IGNORECASE)
_UNAVAILABLE = re.compile(
    r"out of stock|not in stock|no stock|sold out|unavailable|not available|no longer (have|available)|none left",
    re.IGNORECASE,
)


class Customer(Protocol):
    """Who talks to the desk."""

    tokens: int
    "Read and written by a model for this customer."

    async def reply(self, talk: Talk, shop: Shop, text: str) -> str | None:
        """The answer to `text`; None leaves. Keeps `talk` up to date."""
        ...

    async def close(self) -> None: ...


class ScriptedCustomer:
    tokens = 0

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._lines = VOICES[scenario.voice].talk

    async def reply(self, talk: Talk, shop: Shop, text: str) -> str | None:
        clear = listen(talk, self._scenario, text)
        answer = self._say("which", talk) if not clear else self._answer(talk, shop, text)
        talk.turns.append((text, answer or ""))
        return answer

    async def close(self) -> None:
        return None

    def _answer(self, talk: Talk, shop: Shop, text: str) -> str | None:
        goal = self._scenario.goals[talk.goal]
        if served(talk, shop, goal):
            return self._served(talk, shop, goal)
        parts = []
        mark = f"{talk.goal}.second"
        if goal.second and mark not in talk.flags and _UNAVAILABLE.search(text):
            talk.flags.add(mark)
            parts.append(goal.second)
        elif proposes(text, goal.order):
            yes = self._say("yes", talk)
            if agrees(yes):
                talk.agreed.add(goal.order)
            parts.append(yes)
        parts += self._facts(talk, goal, text, fresh_only=bool(parts))
        if parts:
            talk.patience = self._scenario.patience
            return " ".join(parts)
        talk.patience -= 1
        if talk.patience <= 0:
            return None
        changed = any(order == goal.order for _, order in shop.changes)
        again = goal.ask.question if changed and goal.ask else goal.wish
        return f"{self._say('lost', talk)} {again}"

    def _served(self, talk: Talk, shop: Shop, goal: Goal) -> str | None:
        mark = f"{talk.goal}.insist"
        if goal.insist and mark not in talk.flags and ("refuse", goal.order) in shop.changes:
            talk.flags.add(mark)
            return goal.insist
        talk.goal += 1
        talk.patience = self._scenario.patience
        if talk.goal == len(self._scenario.goals):
            talk.goal -= 1
            return None
        return self._scenario.goals[talk.goal].wish

    def _facts(self, talk: Talk, goal: Goal, text: str, *, fresh_only: bool) -> list[str]:
        """What the customer is asked for. With `fresh_only`, only what was not told before."""
        known = {**self._scenario.caller, **goal.facts}
        asked = [name for name, pattern in ASKED.items() if pattern.search(text)] if _ASKS.search(text) else []
        answers = []
        for name in asked:
            mark = name if name in self._scenario.caller else f"{talk.goal}.{name}"
            if fresh_only and (mark in talk.told or name not in known):
                continue
            second = goal.second if name == "options" and f"{talk.goal}.second" in talk.flags else ""
            answers.append(second or known.get(name) or self._say("nothing", talk))
            talk.told.add(mark)
            if self._scenario.terse:
                break
        return list(dict.fromkeys(answers))

    def _say(self, what: str, talk: Talk) -> str:
        """One of the lines, by the number of turns, so that the same talk goes the same way."""
        return Random(f"{what}/{len(talk.turns)}").choice(self._lines[what])


def served(talk: Talk, shop: Shop, goal: Goal) -> bool:
    """As far as the customer can tell: the shop's mail about the order came, and the answer: to the question, or no."""
    changed = not goal.changes or any(order == goal.order for _, order in shop.changes)
    answer = goal.ask is not None or (goal.refused and ("refuse", goal.order) in shop.changes)
    return changed and (goal.order in talk.beliefs or not answer)
