"""Who edits the experiences of a run: a model behind an OpenAI-compatible API, or the policy itself on its own engine.

The learner asks from its own thread; the answer comes from the run's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack

from agentrl.engines.openai import OpenAIEngine
from agentrl.errors import InvalidDataError
from agentrl.protocols import Engine, GenerateRequest, Renderer
from agentrl.sections import Experience
from agentrl.types import Message, SamplingParams

AGAIN = 0.7
"Temperature of a question whose last reply could not be read: at 0 the same reply would come again."


def open_editor(
    settings: Experience, engine: Engine, renderer: Renderer, stack: AsyncExitStack
) -> Callable[[Sequence[Message], int], str]:
    """Blocking; to be called from another thread than the running loop's. Closed by the stack."""
    loop = asyncio.get_running_loop()

    def sampling(number: int) -> SamplingParams:
        return SamplingParams(settings.max_tokens, AGAIN if number else 0.0, number, renderer.stop_token_ids)

    async def by_policy(messages: Sequence[Message], number: int) -> str:
        prompt = renderer.render(messages, ())
        room = engine.max_context - len(prompt)
        if room < 1:
            raise InvalidDataError(
                f"the question about a group has {len(prompt)} tokens and the policy's context {engine.max_context}: "
                "it cannot edit its own experiences. Raise rollout.max_context, lower experience.longest, or name a "
                "server with a larger model as experience.base_url."
            )
        asked = SamplingParams(
            min(settings.max_tokens, room), sampling(number).temperature, number, renderer.stop_token_ids
        )
        completion = await engine.generate(GenerateRequest(prompt, asked))
        return renderer.parse(completion.tokens, ()).text

    if settings.base_url is None:
        return _blocking(by_policy, loop)
    server = OpenAIEngine(settings.base_url, settings.model, api_key_env=settings.api_key_env)
    stack.push_async_callback(server.close)

    async def by_server(messages: Sequence[Message], number: int) -> str:
        return (await server.chat(messages, (), sampling(number))).action.text

    return _blocking(by_server, loop)


def _blocking(
    ask: Callable[[Sequence[Message], int], Coroutine[None, None, str]], loop: asyncio.AbstractEventLoop
) -> Callable[[Sequence[Message], int], str]:
    return lambda messages, number: asyncio.run_coroutine_threadsafe(ask(messages, number), loop).result()
