"""The environment `tau_retail`: the shop of tau-bench behind its own tools, and a user who talks.

The reward is the benchmark's: the database as the ground truth leaves it, and everything told that had to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from agentrl import Action, EnvironmentFault, Message, Observation, StepResult, Task, ToolCall, ToolSpec, call, say
from agentrl.errors import ConfigError
from agentrl.outcomes import unknown_tool
from agentrl_tau_bench.books import Books
from agentrl_tau_bench.checkout import open_checkout
from agentrl_tau_bench.customer import Customer, ModelCustomer, ScriptedCustomer

_HANDS_OVER = "transfer_to_human_agents"
_RESPOND = "respond"
"In a ground truth: what is said, which changes nothing."


class TauRetail:
    """Serve the user of an online shop by its policy: tau-bench's retail domain."""

    runs_in = "process"
    step_deadline = 180.0
    reset_deadline = 180.0

    def __init__(
        self,
        *,
        data: str = "",
        max_steps: int = 30,
        user_url: str = "",
        user_model: str = "",
        user_key_env: str = "OPENAI_API_KEY",
    ) -> None:
        """data: a checkout of tau-bench; $TAU_BENCH_DATA where empty. max_steps: actions, 30 in the benchmark.

        user_url: an OpenAI-compatible chat API (".../v1") whose `user_model` plays the user, as in the benchmark; a
        script where it is empty, whose results are not the benchmark's. user_key_env: the variable with its key.
        """
        if bool(user_url) != bool(user_model):
            raise ConfigError(
                f"user_url is {user_url!r} and user_model {user_model!r}; a model that plays the user needs both."
            )
        self._checkout = open_checkout(data)
        self._played_by = (user_url, user_model, user_key_env)
        self.max_steps = max_steps
        user = {"user_url": user_url, "user_model": user_model, "user_key_env": user_key_env}
        self.made_with = {"data": str(self._checkout.folder), "max_steps": max_steps, **user}
        self._task: Task | None = None
        self._customer: Customer | None = None

    def tasks(self, split: str) -> Iterator[Task]:
        """The benchmark's: train (500), test (115) and dev (20)."""
        for number, found in enumerate(self._checkout.tasks(split)):
            actions = [[name, dict(arguments)] for name, arguments in found.actions]
            told = {"instruction": found.instruction, "actions": actions, "outputs": list(found.outputs)}
            yield Task(f"tau_retail-{split}-{number}", "tau_retail", number, told, split)

    def tools(self) -> Sequence[ToolSpec]:
        return self._checkout.specs

    async def reset(self, task: Task) -> Observation:
        await self.close()
        self._task, self._steps = task, 0
        self._books = Books(self._checkout)
        self._talk: list[tuple[str, str]] = []
        self._customer = self._new_customer(task.data["instruction"])
        self._opening = await self._customer.opening()
        said = (Message("system", self._checkout.policy), Message("user", self._opening))
        return Observation(said, state_key=self._key())

    async def step(self, action: Action) -> StepResult:
        if self._task is None or self._customer is None:
            raise EnvironmentFault("there is no episode to act in: call `reset` first.")
        self._steps += 1
        result = self._call(action.tool_calls) if action.tool_calls else await self._speak(action.text)
        if not result.terminated and self._steps < self.max_steps:
            return result
        graded = self._graded()
        return StepResult(
            result.observation,
            graded.reward,
            graded.scores,
            result.terminated,
            not result.terminated,
            result.policy_error,
        )

    async def grade(self) -> StepResult:
        """What the episode is worth where it stands."""
        return self._graded()

    async def close(self) -> None:
        customer, self._customer = self._customer, None
        if customer is not None:
            await customer.close()

    async def snapshot(self) -> dict[str, Any]:
        return {"changes": self._books.changes(), "talk": self._talk, "opening": self._opening, "steps": self._steps}

    async def restore(self, snapshot: Mapping[str, Any]) -> Observation:
        """Of the same task, which `reset` has begun."""
        self._books.put_back(snapshot["changes"])
        self._talk = [(said, answered) for said, answered in snapshot["talk"]]
        self._opening, self._steps = snapshot["opening"], snapshot["steps"]
        if isinstance(self._customer, ModelCustomer):
            self._customer.began(self._opening)
        return Observation((), state_key=self._key())

    def oracle(self, task: Task) -> Iterator[Action]:
        """The ground truth's calls, then what had to be told. The scripted user leaves at that."""
        yield from _calls(task)
        yield say(_farewell(task))

    def cheats(self, task: Task) -> Mapping[str, Iterable[Action]]:
        """The last change left out, where there is one; nothing told, where something had to be."""
        made, books, changed = _calls(task), Books(self._checkout), []
        before = books.changes()
        for place, action in enumerate(made):
            books.call(action.tool_calls[0].name, action.tool_calls[0].arguments)
            now = books.changes()
            changed += [place] if now != before else []
            before = now
        named: dict[str, Iterable[Action]] = {}
        if changed:
            kept = [action for place, action in enumerate(made) if place != changed[-1]]
            named["leave the last change out"] = [*kept, say(_farewell(task))]
        if task.data["outputs"]:
            named["tell nothing"] = [*made, say("Goodbye.")]
        return named

    def _call(self, calls: Sequence[ToolCall]) -> StepResult:
        messages, mistakes, over = [], [], False
        for made in calls:
            if self._checkout.has(made.name):
                answer = self._books.call(made.name, made.arguments)
                text, failed = answer.text, answer.failed
            else:
                text, failed = unknown_tool(made.name, [tool.name for tool in self.tools()]), True
            messages.append(Message("tool", text, name=made.name, call_id=made.id))
            mistakes += [text] if failed else []
            over = over or (made.name == _HANDS_OVER and not failed)
        shown = Observation(tuple(messages), state_key=self._key())
        return StepResult(shown, terminated=over, policy_error="; ".join(mistakes))

    async def _speak(self, text: str) -> StepResult:
        assert self._customer is not None
        answer = await self._customer.reply(tuple(self._talk), text)
        self._talk.append((text, answer or ""))
        said = () if answer is None else (Message("user", answer),)
        return StepResult(Observation(said, state_key=self._key()), terminated=answer is None)

    def _graded(self) -> StepResult:
        if self._task is None:
            raise EnvironmentFault("there is no episode to grade: call `reset` first.")
        truth = Books(self._checkout)
        for action in _calls(self._task):
            truth.call(action.tool_calls[0].name, action.tool_calls[0].arguments)
        state = truth.changes() == self._books.changes()
        told = self._told()
        success = float(state and all(told))
        share = sum(told) / len(told) if told else 1.0
        return StepResult(Observation(()), success, {"success": success, "state": float(state), "told": share})

    def _told(self) -> list[bool]:
        """For each output, whether some words to the user hold it; commas in numbers do not count."""
        assert self._task is not None
        said = [text.lower().replace(",", "") for text, _ in self._talk]
        return [any(output.lower() in text for text in said) for output in self._task.data["outputs"]]

    def _key(self) -> str:
        """Equal where database, what was told, and the number of answers of the user are equal."""
        assert self._task is not None
        state = [self._task.id, self._books.changes(), self._told(), len(self._talk)]
        return sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()[:24]

    def _new_customer(self, instruction: str) -> Customer:
        url, model, key_env = self._played_by
        if not url:
            return ScriptedCustomer(instruction)
        return ModelCustomer(self._checkout.part_of_user(instruction), url, model, key_env)


def _calls(task: Task) -> list[Action]:
    """The ground truth without words and without the hand-over, which would end the episode before they are said."""
    listed = task.data["actions"]
    return [call(name, **arguments) for name, arguments in listed if name not in (_RESPOND, _HANDS_OVER)]


def _farewell(task: Task) -> str:
    outputs = task.data["outputs"]
    return f"Done. What you wanted to know: {'; '.join(outputs)}." if outputs else "Done."
