"""What a check of an environment found, as data and as text.

Every failed check says what happened with its values, where in the author's code, and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    name: str
    outcome: Outcome
    what: str
    "What was seen, with values."
    where: str = ""
    "file:line of the author's code, where the check failed."
    advice: str = ""

    def __str__(self) -> str:
        lines = [f"{self.outcome:<8}{self.name:<14}{self.what}"]
        if self.outcome == "failed":
            lines += [f"{'':<22}at {self.where}"] if self.where else []
            lines += [f"{'':<22}{self.advice}"] if self.advice else []
        return "\n".join(lines)


def passed(name: str, what: str) -> CheckResult:
    return CheckResult(name, "ok", what)


def skipped(name: str, why: str) -> CheckResult:
    return CheckResult(name, "skipped", why)


def failed(name: str, what: str, where: str, advice: str) -> CheckResult:
    return CheckResult(name, "failed", what, where, advice)


@dataclass(frozen=True, slots=True)
class CheckReport:
    environment: str
    results: tuple[CheckResult, ...]
    left_out: str = ""
    "What there was no time for, in a sentence."

    @property
    def ok(self) -> bool:
        return not self.failures

    @property
    def failures(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.results if result.outcome == "failed")

    def __getitem__(self, name: str) -> CheckResult:
        """The result of the check `name`. Raises `KeyError`."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"no check is called {name!r}; there are {', '.join(r.name for r in self.results)}")

    def __str__(self) -> str:
        return "\n".join([*map(str, self.results), self.summary])

    @property
    def summary(self) -> str:
        """The last line, and what there was no time for."""
        counts = {outcome: sum(r.outcome == outcome for r in self.results) for outcome in ("ok", "failed", "skipped")}
        verdict = "sound" if self.ok else "NOT sound"
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
        return "\n".join(filter(None, [f"{self.environment} is {verdict}: {summary}", self.left_out]))
