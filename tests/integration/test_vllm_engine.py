"""The vLLM engine against a real server on the CPU, and that server against transformers."""

from __future__ import annotations

import asyncio
import copy
import importlib.util
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio

from agentrl.engines import vllm_warden
from agentrl.engines.vllm_api import ServerSettings
from agentrl.engines.vllm_publish import PublishedWeights, VllmPublisher
from agentrl.engines.vllm_server import VllmEngine
from agentrl.errors import InfrastructureFault, InvalidDataError
from agentrl.protocols import GenerateRequest
from agentrl.types import Completion, Finish, Floats, SamplingParams, TokenIds, token_ids

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra `train`)")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(600),
]

VOCABULARY = 128
CONTEXT = 8192
# Seconds of work for the server, of which the tests wait for the first few tokens only.
LONG = 1000
POLL = 0.01
LABEL = "vllm.label.json"
SMALL = ServerSettings(kv_cache_bytes=64 << 20)
PROMPT = token_ids(np.random.default_rng(1).integers(0, VOCABULARY, 24))


@dataclass
class World:
    engine: VllmEngine
    publisher: VllmPublisher
    model: Any
    folder: Path
    failing: asyncio.Task[str]
    "What a server that cannot start was found to say."
    orphan: asyncio.Task[int]
    "The process group of a server whose owner was killed."

    def scores(self, tokens: TokenIds, temperature: float = 1.0) -> Floats:
        """What transformers says under the weights that the learner's model holds now."""
        return scores(self.model, tokens, temperature)

    def perturb(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)

    def tensors(self) -> dict[str, Any]:
        return {name: tensor.clone() for name, tensor in self.model.named_parameters()}

    async def publish(self, version: int) -> None:
        await self.publisher.publish(version, self.tensors())

    def ask(self, prompt: TokenIds = PROMPT, max_tokens: int = 16, **sampling: object) -> GenerateRequest:
        return GenerateRequest(prompt, SamplingParams(max_tokens=max_tokens, **sampling))  # type: ignore[arg-type]

    def worst(self, prompt: TokenIds, completion: Completion, temperature: float = 1.0) -> float:
        expected = self.scores(np.concatenate([prompt, completion.tokens]), temperature)[len(prompt) :]
        return float(np.abs(expected - completion.logprobs).max())


def scores(model: Any, tokens: TokenIds, temperature: float = 1.0) -> Floats:
    ids = torch.tensor(tokens[None].astype(np.int64))
    with torch.no_grad():
        logits = model(ids).logits[0].float() / temperature
    picked = logits.log_softmax(-1)[:-1].gather(-1, ids[0, 1:, None])[:, 0].numpy()
    return np.concatenate([np.zeros(1, np.float32), picked])


def make_model(folder: Path) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


def make_engine(model: Path, folder: Path) -> VllmEngine:
    return VllmEngine(
        model,
        log_folder=folder,
        dtype="float32",
        max_context=CONTEXT,
        max_sequences=16,
        server=SMALL,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("vllm")
    model = make_model(folder / "model")
    engine = make_engine(folder / "model", folder / "run")
    publisher = VllmPublisher(engine, folder / "run", lambda tokens: made.scores(tokens))
    # Side by side: what these tests take is above all the starts of servers.
    failing = asyncio.create_task(failed_start(folder))
    orphan = asyncio.create_task(orphaned(folder))
    made = World(engine, publisher, model, folder, failing, orphan)
    try:
        await engine.start()
        yield made
    finally:
        for other in (failing, orphan):
            other.cancel()
        await asyncio.gather(failing, orphan, return_exceptions=True)
        await engine.close()
        await made.publisher.close()


async def test_logprobs_are_those_of_transformers_at_every_temperature(world: World) -> None:
    requests = [world.ask(seed=seed, temperature=t) for seed, t in enumerate((1.0, 0.7, 1.3, 0.0))]
    completions = await asyncio.gather(*(world.engine.generate(request) for request in requests))
    for request, completion in zip(requests, completions, strict=True):
        assert len(completion.tokens) == 16
        assert completion.finish is Finish.LENGTH
        assert completion.versions.tolist() == [0] * 16
        assert world.worst(PROMPT, completion, request.sampling.temperature or 1.0) < 1e-4


async def test_greedy_takes_the_likeliest_token_of_transformers(world: World) -> None:
    completion = await world.engine.generate(world.ask(temperature=0.0))
    with torch.no_grad():
        ids = torch.tensor(np.concatenate([PROMPT, completion.tokens])[None].astype(np.int64))
        likeliest = world.model(ids).logits[0, len(PROMPT) - 1 : -1].argmax(-1)
    assert completion.tokens.tolist() == likeliest.tolist()


async def test_a_seed_repeats_and_another_differs(world: World) -> None:
    one, same, other = [await world.engine.generate(world.ask(seed=seed, max_tokens=24)) for seed in (5, 5, 2**63 + 6)]
    assert one.tokens.tolist() == same.tokens.tolist() != other.tokens.tolist()


async def test_seeds_repeat_where_prompts_are_computed_in_pieces(world: World) -> None:
    # Together they exceed what vLLM computes in one pass; vLLM alone dies here ("CPU Generator does not use offset").
    prompts = [token_ids(np.random.default_rng(seed).integers(0, VOCABULARY, 1500)) for seed in range(6)]
    requests = [world.ask(prompt, seed=seed) for seed, prompt in enumerate(prompts)]
    together = await asyncio.gather(*(world.engine.generate(request) for request in requests))
    await world.engine.api.reset_prefix_cache()
    for request, completion in zip(requests, together, strict=True):
        alone = await world.engine.generate(request)
        assert alone.tokens.tolist() == completion.tokens.tolist()


async def test_only_our_stop_tokens_stop_and_they_are_kept(world: World) -> None:
    free = await world.engine.generate(world.ask(seed=3, max_tokens=64))
    stop = int(free.tokens[5])
    first = free.tokens.tolist().index(stop)
    stopped = await world.engine.generate(world.ask(seed=3, max_tokens=64, stop_token_ids=(stop,)))
    assert stopped.tokens.tolist() == free.tokens.tolist()[: first + 1]
    assert stopped.finish is Finish.STOP
    # The configuration of the model calls token 2 its end; nobody asked to stop there.
    eos = await world.engine.generate(world.ask(token_ids([2] * 8), max_tokens=200, seed=1))
    assert len(eos.tokens) == 200


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.4])
async def test_top_logprobs_are_those_of_the_distribution_that_is_sampled_from(
    world: World, temperature: float
) -> None:
    completion = await world.engine.generate(world.ask(seed=9, top_logprobs=3, temperature=temperature))
    with torch.no_grad():
        ids = torch.tensor(np.concatenate([PROMPT, completion.tokens])[None].astype(np.int64))
        logprobs = (world.model(ids).logits[0, len(PROMPT) - 1 : -1] / temperature).log_softmax(-1)
    for row, reported in zip(logprobs, completion.top_logprobs, strict=True):
        values, best = row.topk(3)
        assert list(reported) == best.tolist()
        assert list(reported.values()) == pytest.approx(values.tolist(), abs=1e-4)


async def test_score_is_that_of_transformers(world: World) -> None:
    tokens = token_ids(np.random.default_rng(4).integers(0, VOCABULARY, 200))
    assert np.abs(await world.engine.score(tokens) - world.scores(tokens)).max() < 1e-4


async def test_bad_token_ids_are_refused_and_the_server_lives(world: World) -> None:
    for prompt in (token_ids([1, VOCABULARY]), token_ids([-1]), token_ids([])):
        with pytest.raises(InvalidDataError, match="token"):
            await world.engine.generate(world.ask(prompt))
    assert (await world.engine.health()).ok


async def test_a_prompt_near_the_limit_ends_by_length(world: World) -> None:
    completion = await world.engine.generate(world.ask(token_ids([1] * (CONTEXT - 4)), max_tokens=64))
    assert (len(completion.tokens), completion.finish) == (4, Finish.LENGTH)
    full = await world.engine.generate(world.ask(token_ids([1] * CONTEXT)))
    assert (len(full.tokens), full.finish) == (0, Finish.LENGTH)
    with pytest.raises(InvalidDataError, match=f"at most {CONTEXT - 1}"):
        await world.engine.score(token_ids([1] * CONTEXT))


async def test_cancelling_ends_the_request_in_the_server(world: World) -> None:
    tasks = [asyncio.create_task(world.engine.generate(world.ask(max_tokens=LONG))) for _ in range(16)]
    await under_way(world, tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(60):
        while await computed(world):  # noqa: ASYNC110  (another process counts)
            await asyncio.sleep(POLL)
    assert (await world.engine.health()).running == 0


async def test_pause_holds_and_resume_continues_with_the_same_tokens(world: World) -> None:
    alone = await world.engine.generate(world.ask(temperature=0.0, max_tokens=LONG))
    held = asyncio.create_task(world.engine.generate(world.ask(temperature=0.0, max_tokens=LONG)))
    await under_way(world, [held])
    await world.engine.pause()
    assert await world.engine.api.paused()
    queued = asyncio.create_task(world.engine.generate(world.ask(temperature=0.0, max_tokens=1)))
    before = await computed(world)
    # The server answers calls meanwhile, and computes nothing between them.
    for _ in range(20):
        assert await computed(world) == before
    assert not held.done()
    assert not queued.done()
    await world.engine.resume()
    assert (await held).tokens.tolist() == alone.tokens.tolist()
    await queued


async def test_published_weights_are_what_the_server_computes_with(world: World) -> None:
    before = await world.engine.generate(world.ask(seed=1))
    world.perturb(1)
    await world.publish(1)
    completion = await world.engine.generate(world.ask(seed=1))
    assert completion.versions.tolist() == [1] * 16
    assert world.worst(PROMPT, completion) < 1e-4
    # The old answer is not explained by the new weights: the comparison above can fail.
    assert world.worst(PROMPT, before) > 1e-2
    report = world.publisher.report
    assert report is not None
    assert report.mismatch < 1e-5
    assert world.engine.version == 1


async def test_a_publish_that_changes_one_tensor_arrives(world: World) -> None:
    before = world.scores(PROMPT)
    with torch.no_grad():
        # Fused with two others in vLLM, and packed.
        world.model.model.layers[1].self_attn.k_proj.weight.mul_(-2)
    await world.publish(1)
    assert np.abs(world.scores(PROMPT) - before).max() > 1e-2
    assert np.abs(await world.engine.score(PROMPT) - world.scores(PROMPT)).max() < 1e-4


async def test_no_key_or_value_of_old_weights_is_reused(world: World) -> None:
    prompt = token_ids(np.random.default_rng(8).integers(0, VOCABULARY, 400))
    await world.engine.generate(world.ask(prompt, max_tokens=1))
    assert (await world.engine.generate(world.ask(prompt, max_tokens=1))).cached_tokens > 0
    world.perturb(2)
    await world.publish(2)
    completion = await world.engine.generate(world.ask(prompt, seed=1))
    assert completion.cached_tokens == 0
    assert world.worst(prompt, completion) < 1e-4


async def test_requests_in_flight_go_on_and_say_where_the_version_changed(world: World) -> None:
    tasks = [asyncio.create_task(world.engine.generate(world.ask(seed=s, max_tokens=LONG))) for s in range(4)]
    await under_way(world, tasks)
    # Paused by the caller, and the publish leaves it paused.
    await world.engine.pause()
    old = copy.deepcopy(world.model)
    world.perturb(3)
    await world.publish(3)
    assert await world.engine.api.paused()
    await world.engine.resume()
    for completion in await asyncio.gather(*tasks):
        assert len(completion.tokens) == LONG
        boundary = int((completion.versions == 2).sum())
        assert 0 < boundary < LONG
        assert completion.versions.tolist() == [2] * boundary + [3] * (LONG - boundary)
        whole = np.concatenate([PROMPT, completion.tokens])
        before, after = scores(old, whole)[len(PROMPT) :], world.scores(whole)[len(PROMPT) :]
        assert np.abs(completion.logprobs[:boundary] - before[:boundary]).max() < 1e-4
        assert np.abs(completion.logprobs[boundary:] - after[boundary:]).max() < 1e-4
        # A boundary that is one token off would show.
        assert np.abs(completion.logprobs - before)[boundary:].max() > 1e-2


async def test_a_stale_output_head_is_caught(world: World) -> None:
    with torch.no_grad():
        world.model.get_input_embeddings().weight.mul_(1.25)
    weights = await world.publisher.write(4, world.tensors())

    async def load_without_packing(api: object) -> None:
        # What vLLM itself does: the parameters change, the packed copies in use do not.
        await world.engine.api.call_worker("agentrl_load", [str(weights.path)])

    await world.engine.swap(4, load_without_packing)
    with pytest.raises(InfrastructureFault, match=r"does not compute with the published output head \(1 of 15"):
        await world.publisher.verify(weights)
    # The probe alone would have caught it too.
    scores = await world.engine.score(PROMPT)
    assert np.abs(scores - world.scores(PROMPT))[1:].mean() > 1e-2
    await world.publish(5)
    assert np.abs(await world.engine.score(PROMPT) - world.scores(PROMPT)).max() < 1e-4


async def test_a_probe_that_differs_makes_the_engine_refuse_until_a_good_publish(world: World) -> None:
    wrong = VllmPublisher(world.engine, world.folder / "wrong", lambda tokens: world.scores(tokens) - 0.5)
    with pytest.raises(InfrastructureFault, match=r"differ by 5\.00e-01 nats.*allowed: 0\.001"):
        await wrong.publish(6, world.tensors())
    with pytest.raises(InfrastructureFault, match="not verified"):
        await world.engine.generate(world.ask())
    assert not (await world.engine.health()).ok
    await wrong.close()
    world.engine.on_restart = world.publisher._restore
    await world.publish(7)
    assert (await world.engine.generate(world.ask())).versions.tolist() == [7] * 16


async def test_a_missing_tensor_is_named_and_nothing_sampled_with_the_others_is_handed_out(world: World) -> None:
    request = asyncio.create_task(world.engine.generate(world.ask(max_tokens=LONG)))
    await under_way(world, [request])
    tensors = world.tensors()
    del tensors["model.layers.1.mlp.down_proj.weight"]
    with pytest.raises(InfrastructureFault, match=r"lacks 1 of .*model\.layers\.1\.mlp\.down_proj\.weight"):
        await world.publisher.publish(8, tensors)
    with pytest.raises(InfrastructureFault, match="not verified"):
        await request
    await world.publish(9)


async def test_old_files_are_removed(world: World) -> None:
    files = [path for folder in world.publisher._folders for path in folder.glob("*")]
    last = world.publisher._last
    assert isinstance(last, PublishedWeights)
    assert files == [last.path]


async def test_a_killed_server_is_a_fault_and_comes_back_with_the_latest_weights(world: World) -> None:
    process = world.engine._process
    assert process is not None
    group = process.group
    assert group is not None
    request = asyncio.create_task(world.engine.generate(world.ask(max_tokens=LONG)))
    await under_way(world, [request])
    os.kill(group, signal.SIGKILL)
    with pytest.raises(InfrastructureFault, match=r"(?s)died during a request: .*SIGKILL.*vllm\.log"):
        await request
    assert not (await world.engine.health()).ok
    completion = await world.engine.generate(world.ask(seed=2))
    assert not vllm_warden.group_alive(group)
    assert completion.versions.tolist() == [9] * 16
    assert world.worst(PROMPT, completion) < 1e-4
    assert (await world.engine.health()).ok


async def test_a_server_that_cannot_start_says_why(world: World) -> None:
    said = await world.failing
    assert re.search(r"(?s)exit code 2.*vllm\.log.*float17", said)
    assert len(said) < 6000


async def failed_start(folder: Path) -> str:
    engine = make_engine(folder / "model", folder / "bad")
    engine.options = type(engine.options)(folder / "model", dtype="float17")
    with pytest.raises(InfrastructureFault) as caught:
        await engine.start()
    return str(caught.value)


async def test_a_killed_owner_leaves_no_process(world: World) -> None:
    group = await world.orphan
    label = world.folder / "orphan" / LABEL
    await until(lambda: not label.exists() and not vllm_warden.group_alive(group), seconds=30)


OWNER = """
import asyncio, sys
from agentrl.engines.vllm_api import ServerSettings
from agentrl.engines.vllm_server import VllmEngine
asyncio.run(VllmEngine(sys.argv[1], log_folder=sys.argv[2], dtype="float32", max_context=256,
                       server=ServerSettings(kv_cache_bytes=64 << 20)).start())
"""


async def orphaned(folder: Path) -> int:
    label = folder / "orphan" / LABEL
    owner = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, str(folder / "model"), str(folder / "orphan")
    )
    try:
        # The server and its engine.
        await until(lambda: label.exists() and len(vllm_warden.members(vllm_warden.labelled(label))) >= 2, seconds=120)
        return vllm_warden.labelled(label)
    finally:
        owner.kill()
        await owner.wait()


async def under_way(world: World, requests: Sequence[asyncio.Task[Completion]]) -> None:
    """Until the server has sampled tokens for all of them; a request that ended early tells its error."""
    async with asyncio.timeout(60):
        while sum(count > len(PROMPT) + 8 for count in await computed(world)) < len(requests):
            for request in requests:
                if request.done():
                    raise AssertionError(f"a request ended before all were under way: {request.result()}")
            await asyncio.sleep(POLL)


async def computed(world: World) -> list[int]:
    """Of every request that the server keeps, how many tokens it has computed: the worker's own account."""
    counts = (await world.engine.api.call_worker("agentrl_requests"))["computed"]
    assert isinstance(counts, list)
    return [int(count) for count in counts]


async def until(fact: Callable[[], bool], seconds: float) -> None:
    for _ in range(int(seconds * 10)):
        if fact():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not so after {seconds:g} s")
