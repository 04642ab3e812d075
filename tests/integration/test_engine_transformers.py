"""The transformers engine against plain `transformers` on tiny random models: the same numbers in any company."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from agentrl.engines.transformers import TransformersEngine
from agentrl.engines.transformers_merged import MergedLinear
from agentrl.engines.transformers_publish import CopiedWeights, SharedWeights
from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError
from agentrl.protocols import GenerateRequest
from agentrl.types import Completion, Finish, SamplingParams, token_ids

VOCABULARY = 61
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}


def llama(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return sharpened(LlamaForCausalLM(LlamaConfig(**SIZES)))


def qwen2() -> Any:
    torch.manual_seed(1)
    return sharpened(Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)))


def qwen3() -> Any:
    torch.manual_seed(2)
    return sharpened(Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=32)))


def with_adapter() -> Any:
    model = peft.get_peft_model(llama(), peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def sharpened(model: Any) -> Any:
    """Weights large enough that a token's distribution really depends on what came before it."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    return model.eval()


@asynccontextmanager
async def running(model: torch.nn.Module, **options: Any) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine(model, **options)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


def after_passes(model: torch.nn.Module, count: int) -> asyncio.Event:
    """Set once the engine, built after this call, has made `count` forward passes."""
    loop, event, passes = asyncio.get_running_loop(), asyncio.Event(), itertools.count(1)

    def tick(*_: object) -> None:
        if next(passes) == count:
            loop.call_soon_threadsafe(event.set)

    model.register_forward_hook(tick)
    return event


def prompt(length: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()  # type: ignore[no-any-return]


def ask(tokens: Sequence[int], count: int = 8, session: str = "", **sampling: Any) -> GenerateRequest:
    return GenerateRequest(token_ids(list(tokens)), SamplingParams(count, **sampling), session)


@torch.no_grad()
def plain_logprobs(model: Any, tokens: Sequence[int], temperature: float = 1.0) -> np.ndarray[Any, Any]:
    """Log-probability of each token given those before it, from one forward pass; entry 0 is 0."""
    logits = model(input_ids=torch.tensor([list(tokens)])).logits[0].float() / temperature
    logprobs = torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(list(tokens)[1:])[:, None])[:, 0]
    return np.concatenate([[0.0], logprobs.numpy()])


def assert_plain(model: Any, sent: Sequence[int], completion: Completion, temperature: float = 1.0) -> None:
    whole = [*sent, *completion.tokens.tolist()]
    expected = plain_logprobs(model, whole, temperature)[len(sent) :]
    np.testing.assert_allclose(completion.logprobs, expected, atol=1e-5, rtol=1e-5)


async def episode(engine: TransformersEngine, name: str, steps: int, first: Sequence[int], seed: int) -> list[Any]:
    """A multi-turn episode: each prompt is everything so far and a delta of ragged length."""
    context, record = list(first), []
    rng = np.random.default_rng(seed)
    for step in range(steps):
        completion = await engine.generate(ask(context, int(rng.integers(1, 4)), name, seed=1000 * seed + step))
        record.append((list(context), completion))
        context += [*completion.tokens.tolist(), *rng.integers(0, VOCABULARY, int(rng.integers(3, 12))).tolist()]
        if rng.random() < 0.3:
            await asyncio.sleep(0.002)
    return record


@pytest.mark.parametrize("build", [llama, qwen2, qwen3, with_adapter])
async def test_logprobs_of_interleaved_episodes_are_those_of_a_plain_forward_pass(build: Callable[[], Any]) -> None:
    model = build()
    async with running(model, max_batch=6) as engine:
        shared = prompt(40, seed=9)
        tasks = [episode(engine, f"e{i}", 3 + i % 4, [*shared, *prompt(i % 3 + 1, i % 3)], i) for i in range(14)]
        episodes = await asyncio.gather(*tasks)
    for record in episodes:
        for sent, completion in record:
            assert_plain(model, sent, completion)
    later = [completion for record in episodes for _, completion in record[1:]]
    assert all(completion.cached_tokens >= 40 for completion in later)
    assert sum(record[0][1].cached_tokens > 0 for record in episodes) >= 12, "first prompts share a prefix"


async def test_a_later_step_computes_only_what_is_new() -> None:
    async with running(llama()) as engine:
        first = await engine.generate(ask(prompt(30), 4, "a"))
        extended = [*prompt(30), *first.tokens.tolist(), *prompt(5, 1)]
        second = await engine.generate(ask(extended, 4, "a"))
        assert (first.cached_tokens, second.cached_tokens) == (0, 33)


async def test_a_rewritten_context_reuses_the_common_prefix_only() -> None:
    model = llama()
    async with running(model) as engine:
        await engine.generate(ask(prompt(30), 4, "a"))
        rewritten = [*prompt(30)[:11], (prompt(30)[11] + 1) % VOCABULARY, *prompt(20, 3)]
        completion = await engine.generate(ask(rewritten, 6, "a"))
        assert completion.cached_tokens == 11
        assert_plain(model, rewritten, completion)


async def test_one_session_may_branch() -> None:
    model = llama()
    async with running(model) as engine:
        root = prompt(25)
        branches = await asyncio.gather(*(engine.generate(ask([*root, i], 6, "a", seed=i)) for i in range(5)))
        for i, completion in enumerate(branches):
            assert_plain(model, [*root, i], completion)


@pytest.mark.parametrize("build", [llama, with_adapter])
async def test_greedy_equals_generate(build: Callable[[], Any]) -> None:
    model = build()
    async with running(model) as engine:
        prompts = [prompt(n, n) for n in (3, 17, 40, 5)]
        completions = await asyncio.gather(*(engine.generate(ask(p, 20, temperature=0.0)) for p in prompts))
    for sent, completion in zip(prompts, completions, strict=True):
        ids = torch.tensor([sent])
        expected = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=20, pad_token_id=0
        )
        assert completion.tokens.tolist() == expected[0, len(sent) :].tolist()
        assert_plain(model, sent, completion)


async def test_a_request_samples_the_same_tokens_alone_and_in_any_batch() -> None:
    async with running(llama(), max_batch=5) as engine:
        requests = [ask(prompt(3 + 7 * i, i), 3 + i, seed=i, temperature=0.5 + 0.1 * i) for i in range(9)]
        alone = [await engine.generate(request) for request in requests]
    async with running(llama()) as engine:
        together = await asyncio.gather(*map(engine.generate, reversed(requests)))
    for one, other in zip(alone, reversed(together), strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()


async def test_tempered_logprobs_and_alternatives_describe_the_distribution_that_sampled() -> None:
    model = llama()
    async with running(model) as engine:
        hot, plain = await asyncio.gather(
            engine.generate(ask(prompt(9), 5, seed=1, temperature=2.5, top_logprobs=3)),
            engine.generate(ask(prompt(9), 5, seed=1)),
        )
    assert_plain(model, prompt(9), hot, temperature=2.5)
    assert plain.top_logprobs == ()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt(9), *hot.tokens.tolist()]])).logits[0, 8:-1] / 2.5
    best = torch.log_softmax(logits, -1).topk(3)
    for i, alternatives in enumerate(hot.top_logprobs):
        assert list(alternatives) == best.indices[i].tolist()
        np.testing.assert_allclose(list(alternatives.values()), best.values[i], atol=1e-5)


async def test_a_stop_token_ends_the_completion_and_is_part_of_it() -> None:
    async with running(llama()) as engine:
        free = await engine.generate(ask(prompt(9), 30, seed=3))
        stop = int(free.tokens[6])
        first = free.tokens.tolist().index(stop)
        stopped = await engine.generate(ask(prompt(9), 30, seed=3, stop_token_ids=(60_000, stop)))
        assert free.finish is Finish.LENGTH
        assert stopped.finish is Finish.STOP
        assert stopped.tokens.tolist() == free.tokens.tolist()[: first + 1]


async def test_the_context_limit_ends_a_completion_for_length() -> None:
    async with running(llama(), max_context=20) as engine:
        assert len((await engine.generate(ask(prompt(15), 50))).tokens) == 5
        full = await engine.generate(ask(prompt(20), 50))
        assert (len(full.tokens), full.finish) == (0, Finish.LENGTH)


async def test_long_prompts_are_computed_in_chunks_with_the_same_numbers() -> None:
    config = LlamaConfig(**(SIZES | {"max_position_embeddings": 2048}))
    torch.manual_seed(0)
    model = sharpened(LlamaForCausalLM(config))
    async with running(model) as engine:
        long, short = await asyncio.gather(
            engine.generate(ask(prompt(1300), 3, "a")), engine.generate(ask(prompt(5, 1), 6, "b"))
        )
        assert_plain(model, prompt(1300), long)
        assert_plain(model, prompt(5, 1), short)
        np.testing.assert_allclose(
            await engine.score(token_ids(prompt(1100))), plain_logprobs(model, prompt(1100)), atol=1e-4
        )


async def test_half_precision_logprobs_are_computed_in_full_precision_from_its_logits() -> None:
    model = llama().to(torch.bfloat16)
    async with running(model) as engine:
        record = await asyncio.gather(*(episode(engine, f"e{i}", 3, prompt(20, i), i) for i in range(4)))
    # A bf16 logit near 8 is rounded to 1/32; a log-probability rounded to bf16 as well would be off by more.
    differences = [
        completion.logprobs - plain_logprobs(model, [*sent, *completion.tokens.tolist()])[len(sent) :]
        for steps in record
        for sent, completion in steps
    ]
    assert np.abs(np.concatenate(differences)).mean() < 0.05


async def test_score_is_the_plain_forward_pass() -> None:
    model = llama()
    async with running(model) as engine:
        await engine.generate(ask(prompt(30), 4, "a"))
        np.testing.assert_allclose(
            await engine.score(token_ids(prompt(50))), plain_logprobs(model, prompt(50)), atol=1e-5
        )
        assert (await engine.score(token_ids([7]))).tolist() == [0.0]


async def test_a_token_budget_evicts_and_changes_no_number() -> None:
    model = llama()
    async with running(model, max_batch=2, cache_tokens=60) as engine:
        first = {name: await engine.generate(ask(prompt(30, i), 2, name, seed=i)) for i, name in enumerate("abcdef")}
        for i, name in enumerate("abcdef"):
            sent = [*prompt(30, i), *first[name].tokens.tolist(), 5]
            completion = await engine.generate(ask(sent, 4, name, seed=i))
            assert_plain(model, sent, completion)
            assert completion.cached_tokens == 0, "it was evicted by those that came after it"


async def test_no_key_outlives_its_weights() -> None:
    model = llama()
    async with running(model) as engine:
        publisher = SharedWeights(engine)
        first = await engine.generate(ask(prompt(30), 6, "a", seed=1))
        extended = [*prompt(30), *first.tokens.tolist(), *prompt(4, 1)]
        with engine.lock, torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
        await publisher.publish(1, dict(model.named_parameters()))
        second = await engine.generate(ask(extended, 6, "a", seed=2))
        assert (set(first.versions.tolist()), set(second.versions.tolist())) == ({0}, {1})
        assert second.cached_tokens == 0
        assert_plain(model, extended, second)


async def test_weights_written_without_a_publish_drop_the_cache_too() -> None:
    model = llama()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    async with running(model) as engine:
        await engine.generate(ask(prompt(30), 6, "a", seed=1))
        model(input_ids=torch.tensor([prompt(30)])).logits.square().mean().backward()
        with engine.lock:
            optimizer.step()
        assert_plain(model, prompt(30), await engine.generate(ask(prompt(30), 6, "a", seed=1)))


async def test_a_request_in_flight_survives_a_publish_and_names_both_versions() -> None:
    model = llama()
    sampling = after_passes(model, 5)
    async with running(model) as engine:
        request = asyncio.create_task(engine.generate(ask(prompt(10), 200, "a", seed=1)))
        await sampling.wait()
        await engine.pause()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.05)
        await SharedWeights(engine).publish(3, {})
        await engine.resume()
        completion = await request
        versions = completion.versions.tolist()
        assert set(versions) == {0, 3}
        assert versions == sorted(versions)
        tail = versions.index(3)
        assert_plain_tail = plain_logprobs(model, [*prompt(10), *completion.tokens.tolist()])[10 + tail :]
        np.testing.assert_allclose(completion.logprobs[tail:], assert_plain_tail, atol=1e-5)


async def test_pause_holds_sampling_and_resume_goes_on_with_the_same_tokens() -> None:
    model = llama()
    sampling = after_passes(model, 65)
    async with running(model) as engine:
        expected = await engine.generate(ask(prompt(10), 60, seed=4))
        request = asyncio.create_task(engine.generate(ask(prompt(10), 60, seed=4)))
        await sampling.wait()
        await engine.pause()
        late = asyncio.create_task(engine.generate(ask(prompt(4), 2, seed=5)))
        await asyncio.sleep(0.05)
        assert not late.done()
        assert len(await engine.score(token_ids(prompt(6)))) == 6, "scoring is not sampling"
        await engine.resume()
        assert (await request).tokens.tolist() == expected.tokens.tolist()
        assert len((await late).tokens) == 2


async def test_cancelling_frees_the_slot() -> None:
    model = llama()
    sampling = after_passes(model, 3)
    async with running(model, max_batch=1) as engine:
        endless = asyncio.create_task(engine.generate(ask(prompt(5), 250, "a")))
        queued = asyncio.create_task(engine.generate(ask(prompt(6), 250, "b")))
        await sampling.wait()
        queued.cancel()
        endless.cancel()
        await asyncio.gather(endless, queued, return_exceptions=True)
        assert len((await engine.generate(ask(prompt(5), 2, "a"))).tokens) == 2
        health = await engine.health()
        assert (health.running, health.waiting) == (0, 0)


class Breaks(LlamaForCausalLM):  # type: ignore[misc]
    """Raises in its forward pass when told to."""

    error: BaseException | None = None

    def forward(
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
        logits_to_keep: int = 0,
    ) -> Any:
        if Breaks.error is not None:
            raise Breaks.error
        return super().forward(
            input_ids, attention_mask, position_ids, past_key_values, use_cache=use_cache, logits_to_keep=logits_to_keep
        )


@pytest.fixture
def breaking() -> Any:
    torch.manual_seed(0)
    yield sharpened(Breaks(LlamaConfig(**SIZES)))
    Breaks.error = None


async def test_an_exception_in_the_model_reaches_every_request_and_the_engine_goes_on(breaking: Any) -> None:
    async with running(breaking, max_batch=2) as engine:
        await engine.generate(ask(prompt(9), 3, "a"))
        Breaks.error = ValueError("no memory left")
        results = await asyncio.gather(
            *(engine.generate(ask(prompt(5, i), 9, f"s{i}")) for i in range(6)), return_exceptions=True
        )
        assert all(isinstance(r, InfrastructureFault) and "no memory left" in str(r) for r in results)
        assert len({id(r) for r in results}) == 6
        assert "no memory left" in (await engine.health()).detail
        Breaks.error = None
        assert_plain(breaking, prompt(9), await engine.generate(ask(prompt(9), 3, "a")))
        assert (await engine.health()).ok


async def test_a_dead_thread_is_a_fault_for_those_who_wait_and_those_who_come(breaking: Any) -> None:
    async with running(breaking, max_batch=2) as engine:
        Breaks.error = SystemExit(3)
        results = await asyncio.gather(*(engine.generate(ask(prompt(5), 9)) for _ in range(4)), return_exceptions=True)
        assert all(isinstance(r, InfrastructureFault) for r in results)
        with pytest.raises(InfrastructureFault, match="SystemExit"):
            await engine.generate(ask(prompt(5), 9))
        assert not (await engine.health()).ok
        await asyncio.wait_for(engine.pause(), 30)


async def test_logits_that_are_not_finite_are_a_fault_and_leave_nothing_behind() -> None:
    model = llama()
    good = copy.deepcopy(model.state_dict())
    async with running(model) as engine:
        with engine.lock, torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight[3, 3] = torch.nan
        with pytest.raises(InfrastructureFault, match="not finite"):
            await engine.generate(ask(prompt(60), 3, "a"))
        with engine.lock:
            model.load_state_dict(good)
        assert_plain(model, prompt(5), await engine.generate(ask(prompt(5), 9, "a")))


async def test_closing_ends_what_is_in_flight() -> None:
    model = llama()
    sampling = after_passes(model, 3)
    engine = TransformersEngine(model)
    with pytest.raises(InfrastructureFault, match="not started"):
        await engine.generate(ask(prompt(5)))
    await engine.start()
    request = asyncio.create_task(engine.generate(ask(prompt(5), 250)))
    await sampling.wait()
    await engine.close()
    with pytest.raises(InfrastructureFault, match="closed"):
        await request
    await engine.close()


async def test_ids_that_the_model_does_not_know_are_named() -> None:
    async with running(llama()) as engine:
        with pytest.raises(InvalidDataError, match=f"0 to {VOCABULARY - 1}"):
            await engine.generate(ask([1, VOCABULARY]))
        with pytest.raises(InvalidDataError, match="empty"):
            await engine.generate(ask([]))


async def test_the_engine_sees_neither_dropout_nor_switches_of_the_learner() -> None:
    model = with_adapter()
    async with running(model) as engine:
        before = await engine.generate(ask(prompt(20), 5, seed=1))
        model.train()
        with model.disable_adapter():
            during = await engine.generate(ask(prompt(20), 5, seed=1))
        assert during.logprobs.tolist() == pytest.approx(before.logprobs.tolist(), abs=1e-6)
        assert model.training


async def test_copied_weights_arrive_and_are_read_back() -> None:
    learner, engine_model = qwen2(), qwen2()
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.mul_(1.2)
    async with running(engine_model) as engine:
        tensors = {name: tensor for name, tensor in learner.state_dict().items() if name != "lm_head.weight"}
        await CopiedWeights(engine).publish(5, tensors)
        completion = await engine.generate(ask(prompt(12), 6, seed=1))
        assert engine.version == 5
        assert_plain(learner, prompt(12), completion)
        with pytest.raises(InfrastructureFault, match=r"missing .*norm\.weight"):
            await CopiedWeights(engine).publish(6, {n: t for n, t in tensors.items() if n != "model.norm.weight"})
        with pytest.raises(InfrastructureFault, match="tied"):
            await CopiedWeights(engine).publish(
                6, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"] + 1.0}
            )
        assert engine.version == 5


async def test_merged_tensors_of_a_learner_with_adapters_are_taken_by_either_publisher() -> None:
    learner = with_adapter()
    merged = copy.deepcopy(learner).merge_and_unload()
    async with running(learner) as shared, running(llama()) as copied:
        await SharedWeights(shared).publish(2, merged.state_dict())
        await CopiedWeights(copied).publish(2, merged.state_dict())
        for engine in (shared, copied):
            completion = await engine.generate(ask(prompt(12), 6, seed=1))
            assert_plain(learner, prompt(12), completion)
            assert completion.versions.tolist() == [2] * 6


async def test_adapters_are_added_up_anew_with_every_version_and_after_every_silent_write() -> None:
    model = with_adapter()
    async with running(model) as engine:
        layer = engine.model.model.layers[0].self_attn.q_proj
        assert isinstance(layer, MergedLinear)
        for version in (1, 2, 0):
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "lora_" in name:
                        parameter.mul_(1.5)
            if version:
                await SharedWeights(engine).publish(version, {})
            completion = await engine.generate(ask(prompt(12), 6, seed=1))
            assert_plain(model, prompt(12), completion)
        assert not any("_sum" in name for name in engine.model.state_dict())


async def test_sharing_is_proved_not_assumed() -> None:
    model = llama()
    async with running(model) as engine:
        with pytest.raises(InfrastructureFault, match="differs"):
            await SharedWeights(engine).publish(1, llama(seed=5).state_dict())
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        with pytest.raises(InfrastructureFault, match=r"lm_head\.weight"):
            await SharedWeights(engine).publish(1, {})
        assert engine.version == 0


async def test_a_busy_engine_lets_the_learner_have_the_lock() -> None:
    model = llama()
    async with running(model, max_batch=8) as engine:

        def updates() -> int:
            for version in range(1, 9):
                with engine.lock, torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1.001)
                engine.set_version(version)
            return version

        requests = [asyncio.create_task(engine.generate(ask(prompt(10, i), 200, f"s{i}"))) for i in range(8)]
        assert await asyncio.wait_for(asyncio.to_thread(updates), 60) == 8
        assert not all(request.done() for request in requests), "they are not what the learner waited for"
        for request in requests:
            assert (await request).versions[-1] == 8


def test_a_model_that_cannot_be_driven_is_refused_with_a_reason() -> None:
    sliding = Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=32, max_window_layers=0)
    with pytest.raises(ConfigError, match="last 32 tokens"):
        TransformersEngine(Qwen2ForCausalLM(sliding))
    TransformersEngine(Qwen2ForCausalLM(sliding), max_context=32)
    with pytest.raises(ConfigError, match="positions end at 256"):
        TransformersEngine(llama(), max_context=300)
