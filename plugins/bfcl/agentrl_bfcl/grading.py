"""Whether a turn was right: the benchmark's own checks of state and responses, against the ground truth's instances.

The verdict is the benchmark's: the first turn that is wrong fails the task, whatever comes after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from bfcl_eval.eval_checker.multi_turn_eval.multi_turn_checker import response_checker, state_checker

from agentrl_bfcl.entries import Entry, calls_of
from agentrl_bfcl.simulation import Simulation


class Grader:
    """Plays the ground truth beside the model, a turn at a time."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.right = 0
        "Turns with a ground truth that were right, before the first wrong one."
        self.wrong = ""
        "Why the first wrong turn is wrong."
        self._truth = Simulation(entry)
        self._ended = 0
        self._responses: list[str] = []

    @property
    def count(self) -> int:
        """Turns with a ground truth. What is done in the others only matters for the state later on."""
        return sum(bool(turn) for turn in self.entry.truth)

    @property
    def success(self) -> bool:
        return self._ended == len(self.entry.truth) and not self.wrong

    def end_turn(self, model: Simulation, responses: Sequence[str]) -> bool:
        """Judge the turn that ends, by the model's instances and its responses in this turn. Is it counted right?"""
        calls = calls_of(self.entry.truth[self._ended])
        turn, self._ended = self._ended, self._ended + 1
        wanted = [self._truth.call(call.name, self._truth.arguments(call)).text for call in calls]
        self._responses += responses
        if self.wrong or not calls:
            return False
        self.wrong = self._problem(model, turn, wanted) if responses else f"turn {turn + 1} was left without a call"
        self.right += not self.wrong
        return not self.wrong

    def _problem(self, model: Simulation, turn: int, wanted: list[str]) -> str:
        state = state_checker(model.instances, self._truth.instances)
        if not state["valid"]:
            return f"after turn {turn + 1} the state differs from the ground truth's"
        # Of all turns so far: what was found out before need not be asked again.
        if not response_checker(self._responses, wanted, turn)["valid"]:
            return f"in turn {turn + 1} a response is missing that the ground truth has"
        return ""
