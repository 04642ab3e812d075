"""The scripted engine keeps the rules that a real engine keeps."""

from __future__ import annotations

import asyncio
import time

import pytest

from agentrl.engines.scripted import ScriptedEngine
from agentrl.errors import InfrastructureFault, InvalidDataError
from agentrl.protocols import Engine, GenerateRequest
from agentrl.types import Finish, SamplingParams, token_ids


def ask(*tokens: int, count: int = 8, session: str = "", stop: tuple[int, ...] = ()) -> GenerateRequest:
    return GenerateRequest(token_ids(tokens), SamplingParams(count, stop_token_ids=stop), session)


async def test_replies_come_in_order_and_a_script_that_ends_says_so() -> None:
    engine: Engine = ScriptedEngine([[1, 2], [3]], logprob=-0.5)
    first, second = await engine.generate(ask(9)), await engine.generate(ask(9))
    assert (first.tokens.tolist(), second.tokens.tolist()) == ([1, 2], [3])
    assert first.logprobs.tolist() == [-0.5, -0.5]
    assert (await engine.score(token_ids([4, 5, 6]))).tolist() == [0.0, -0.5, -0.5]
    with pytest.raises(InvalidDataError, match=r"2 replies and this is call 2"):
        await engine.generate(ask(9))


async def test_limits_and_stop_tokens_cut_the_reply() -> None:
    engine = ScriptedEngine(lambda prompt: [int(prompt[-1]) + i for i in range(6)], max_context=10)
    whole = await engine.generate(ask(1))
    assert (whole.tokens.tolist(), whole.finish) == ([1, 2, 3, 4, 5, 6], Finish.STOP)
    short = await engine.generate(ask(1, count=2))
    assert (short.tokens.tolist(), short.finish) == ([1, 2], Finish.LENGTH)
    stopped = await engine.generate(ask(1, stop=(99, 3)))
    assert (stopped.tokens.tolist(), stopped.finish) == ([1, 2, 3], Finish.STOP)
    full = await engine.generate(ask(*range(9)))
    assert (full.tokens.tolist(), full.finish) == ([8], Finish.LENGTH)
    assert (await engine.generate(ask(*range(12)))).finish is Finish.LENGTH


async def test_tokens_carry_the_version_at_which_they_were_sampled() -> None:
    engine = ScriptedEngine(lambda prompt: [1, 2], latency=0.02)
    call = asyncio.create_task(engine.generate(ask(1)))
    await asyncio.sleep(0)
    engine.set_version(4)
    assert (await call).versions.tolist() == [4, 4]
    assert engine.version == 4


async def test_faults_and_hangs_come_at_the_calls_named() -> None:
    engine = ScriptedEngine(lambda prompt: [1], faults={1: InfrastructureFault("engine 1 lost")}, hangs={2})
    assert (await engine.generate(ask(1))).tokens.tolist() == [1]
    with pytest.raises(InfrastructureFault, match="engine 1 lost"):
        await engine.generate(ask(1))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.generate(ask(1)), 0.02)
    assert (await engine.health()).running == 0


async def test_a_pause_holds_what_is_in_flight_and_loses_nothing() -> None:
    engine = ScriptedEngine(lambda prompt: [7])
    await engine.pause()
    call = asyncio.create_task(engine.generate(ask(1)))
    await asyncio.sleep(0.01)
    health = await engine.health()
    assert (call.done(), health.running, health.waiting) == (False, 0, 1)
    await engine.resume()
    assert (await call).tokens.tolist() == [7]


async def test_closing_ends_what_hangs() -> None:
    engine = ScriptedEngine(lambda prompt: [7], hangs={0})
    call = asyncio.create_task(engine.generate(ask(1)))
    await asyncio.sleep(0.01)
    await engine.close()
    with pytest.raises(InfrastructureFault, match="closed"):
        await call
    with pytest.raises(InfrastructureFault, match="closed"):
        await engine.generate(ask(1))
    assert not (await engine.health()).ok


async def test_it_knows_which_sessions_were_not_forgotten() -> None:
    engine = ScriptedEngine(lambda prompt: [7])
    for name in "ab":
        await engine.generate(ask(1, session=name))
    await engine.forget("a")
    assert engine.sessions == {"b"}


async def test_a_thousand_calls_wait_together() -> None:
    engine = ScriptedEngine(lambda prompt: [1, 2, 3], latency=0.05)
    started = time.process_time()
    completions = await asyncio.gather(*(engine.generate(ask(i)) for i in range(1000)))
    assert engine.most_running == 1000
    assert sum(len(c.tokens) for c in completions) == 3000
    assert time.process_time() - started < 1.0, "0.1 s was seen"
