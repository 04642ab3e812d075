"""A customer played by a model behind an OpenAI-compatible chat API.

The model is told what the scripted customer knows and speaks freely; what was agreed, believed and leaked is judged
from the words as for the scripted one. A server that fails is an `InfrastructureFault`, never a silent customer.
"""

from __future__ import annotations

from agentrl.engines.openai import OpenAIEngine
from agentrl.errors import InfrastructureFault
from agentrl.types import Message, SamplingParams
from retail_desk.scenario import Scenario
from retail_desk.shop import Shop
from retail_desk.talk import Talk, agrees, listen, proposes

LEAVES = "[LEAVE]"
_LONGEST = 600
"Characters of one answer of the customer."

_PART = """\
You play a customer who chats with the desk of an online shop. Write only what the customer says: one or two
sentences.
- You want, one after the other:
{wishes}
- You tell the facts below only when you are asked for them, and you know nothing else. Invent no number.
{facts}
- When the desk asks whether it shall do what you want, begin your answer with Yes; with No where it is something else.
- If you are refused, ask once for an exception; if you are refused again, accept it.
- A line [mail: ...] says what the shop has really done.
- When all your wishes were served or refused and your questions answered, or if the desk leads you nowhere for
  {patience} turns, write only {leaves}"""


class ModelCustomer:
    def __init__(self, scenario: Scenario, url: str, model: str, key_env: str) -> None:
        """Raises `ConfigError` where the key is missing."""
        self._scenario = scenario
        self._engine = OpenAIEngine(url, model, api_key_env=key_env)
        self._part = part_of(scenario)
        self.tokens = 0

    async def reply(self, talk: Talk, shop: Shop, text: str) -> str | None:
        # A model raises its wishes as it likes: all of them are open.
        talk.goal = len(self._scenario.goals) - 1
        listen(talk, self._scenario, text)
        # Only the shop sends mail.
        text = text.replace("[", "(").replace("]", ")")
        mail = "".join(f"\n[mail: {tool} was done for order {order}]" for tool, order in shop.changes)
        messages = [Message("system", self._part), Message("assistant", self._scenario.opening)]
        for said, answer in talk.turns:
            messages += [Message("user", said), Message("assistant", answer)]
        messages.append(Message("user", f"{text}{mail}"))
        reply = await self._engine.chat(messages, (), SamplingParams(max_tokens=200, temperature=0.0, seed=0))
        self.tokens += reply.usage.prompt_tokens + reply.usage.completion_tokens
        answer = reply.action.text.strip()[:_LONGEST]
        if not answer:
            raise InfrastructureFault("the model that plays the customer answered nothing; allow it more tokens.")
        leaves = LEAVES in answer
        for goal in self._scenario.goals:
            if not leaves and proposes(text, goal.order) and agrees(answer):
                talk.agreed.add(goal.order)
        talk.turns.append((text, answer))
        return None if leaves else answer

    async def close(self) -> None:
        await self._engine.close()


def part_of(scenario: Scenario) -> str:
    """The instructions of the model that plays the customer."""
    wishes, facts = [], list(scenario.caller.values())
    for number, goal in enumerate(scenario.goals, 1):
        wishes.append(f"  {number}. {goal.wish}")
        facts += [f"(wish {number}, {name}) {sentence}" for name, sentence in goal.facts.items()]
        if goal.second:
            facts.append(f"(wish {number}, only if your first choice cannot be had) {goal.second}")
    return _PART.format(
        wishes="\n".join(wishes),
        facts="\n".join(f"  {fact}" for fact in facts),
        patience=scenario.patience,
        leaves=LEAVES,
    )
