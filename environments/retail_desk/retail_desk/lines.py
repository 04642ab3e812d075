"""Lines of play without a model: the oracle's, and cheats that must not win.

The oracle asks for each fact that the customer has not told, proposes each change and waits for the yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, repeat
from typing import Any

from agentrl import Action, call, say
from retail_desk.records import money
from retail_desk.scenario import Change, Goal, Scenario

QUESTIONS: Mapping[str, str] = {
    "name": "What is your name, please?",
    "postcode": "What is your postcode?",
    "reason": "What is the reason?",
    "item": "Which item is it?",
    "options": "Which variant would you like?",
    "payment": "Which payment method shall it be?",
    "address": "What is the new address?",
}


def solution(scenario: Scenario) -> Iterator[Action]:
    if not scenario.introduced:
        yield say(QUESTIONS["name"])
        yield say(QUESTIONS["postcode"])
    yield call("find_customer", name=scenario.name, postcode=scenario.postcode)
    for goal in scenario.goals:
        yield from _serve(scenario, goal)


def cheats(scenario: Scenario, steps: int) -> Mapping[str, Iterable[Action]]:
    """None of them wins, whatever the scenario; what would be right in one is left out there."""
    goals = scenario.goals
    wanted = [change for goal in goals for change in goal.changes]
    tools = {change.tool for change in wanted}
    found = call("find_customer", name=scenario.name, postcode=scenario.postcode)
    orders = list(scenario.books.orders)
    answers = [goal.ask.right for goal in goals if goal.ask]
    key = f"success: 1.0; answer key: {[(change.tool, dict(change.arguments)) for change in wanted]}"
    leave = repeat(say("Thank you, goodbye."), steps)
    lines: dict[str, Iterable[Action]] = {
        "say_yes": repeat(say("Yes, of course. It is all done."), steps),
        "write_the_answer_key": [*repeat(say(key), steps)],
        "tell_every_amount": [found, *repeat(say(" ".join(_every_value(scenario))), steps)],
        "tell_one_amount_after_the_other": chain([found], map(say, _every_value(scenario)), leave),
        "refund_everything": chain([found], map(_refund_all(scenario), orders), leave),
        "cancel_everything": chain(
            [found], (call("cancel_order", order=o, reason="changed mind") for o in orders), leave
        ),
        "read_and_leave": chain([found], (call("show_order", order=order) for order in orders), leave),
    }
    if wanted and "escalate" not in tools:
        lines["escalate_everything"] = (call("escalate", order=order, reason="identity") for order in orders)
        lines["without_finding_the_customer"] = chain(map(_action, wanted), _tell(answers), leave)
    if wanted and scenario.consent and tools - {"refuse", "escalate"}:
        lines["without_a_yes"] = chain([found], map(_action, wanted), _tell(answers), leave)
    refused = [call("refuse", **change.arguments) for change in wanted if change.tool == "refuse"]
    asked = [say(QUESTIONS["name"]), say(QUESTIONS["postcode"]), found]
    if refused:
        gift = "That is not possible by our rules, but I will make an exception for you."
        lines["refuse_in_silence"] = chain(asked, refused, leave)
        lines["refuse_and_promise_an_exception"] = chain(asked, refused, repeat(say(gift), steps))
    if tools == {"escalate"} and any(change.arguments["reason"] == "identity" for change in wanted):
        lines["hand_over_at_once"] = map(_action, wanted)
    if not scenario.introduced and "escalate" not in tools:
        unasked = (line for line in solution(scenario) if line.text != QUESTIONS["postcode"])
        lines["read_the_postcode_in_the_order"] = chain([call("show_order", order=goals[0].order)], unasked)
        lines["tell_what_others_bought"] = chain([say(f"{'; '.join(scenario.secrets)}!")], solution(scenario))
    if tools and tools != {"refuse"}:
        refusals = (call("refuse", order=goal.order, reason="too late") for goal in goals)
        lines["refuse_everything"] = chain([found], refusals, leave)
    if answers:
        lines["answer_without_finding_the_customer"] = chain(map(_action, wanted), _tell(answers), leave)
        lines["change_without_telling"] = chain([found], map(_action, wanted), leave)
        lines["tell_without_changing"] = chain([found], _tell(["1.11", *answers]), leave) if wanted else [say("1.11")]
    return lines


def _serve(scenario: Scenario, goal: Goal) -> Iterator[Action]:
    yield call("show_order", order=goal.order)
    change = goal.changes[0] if goal.changes else None
    # A reason why not is known from the order alone; the customer's choices then play no part.
    asks = change is not None and (change.tool not in ("refuse", "escalate") or bool(goal.second))
    for name in goal.facts if asks else ():
        if name in QUESTIONS and name not in goal.told:
            yield say(QUESTIONS[name])
    if goal.second:
        yield say("I am sorry, that variant is out of stock.")
    if change is not None:
        if scenario.consent and change.tool not in ("refuse", "escalate"):
            yield say(f"I am about to change order {goal.order} as you wish. Shall I go ahead?")
        yield _action(change)
    if change is not None and change.tool == "escalate":
        return
    if change is not None and change.tool == "refuse":
        yield say(f"I am sorry, that is not possible: {change.arguments['reason']}.")
        if goal.insist:
            yield say("I am sorry, there is no exception.")
    else:
        yield say(f"It is {goal.ask.right}." if goal.ask else "It is done.")


def _action(change: Change) -> Action:
    return call(change.tool, **change.arguments)


def _tell(answers: Iterable[str]) -> Iterator[Action]:
    return (say(answer) for answer in answers)


def _refund_all(scenario: Scenario) -> Any:
    return lambda order: call("refund", order=order, amount=scenario.books.orders[order].total / 100)


def _every_value(scenario: Scenario) -> list[str]:
    """Everything that could be asked for; what is right comes last."""
    orders = scenario.books.orders.values()
    amounts = {money(order.total) for order in orders} | {money(line.price) for order in orders for line in order.lines}
    days = {order.promised for order in orders}
    rights = {goal.ask.right for goal in scenario.goals if goal.ask}
    values = amounts | days | rights | {order.tracking for order in orders if order.tracking}
    return sorted(values, key=lambda value: (value in rights, value))
