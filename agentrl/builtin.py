"""The parts in the box, registered as any plugin registers its own: lazily, by entry point.

Importing this module imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentrl.hooks import hookimpl
from agentrl.plugins import Lazy

Factories = Mapping[str, Callable[..., Any] | Lazy]
TRAIN = ("torch", "transformers")
# Written out, as importing the package to ask it takes a second; a test compares.
# fmt: off
FAMILIES = (
    "deepseek-r1", "deepseek-v3", "deepseek-v4", "default", "gemma4", "glm-4.5", "glm-5",
    "glm-5.1", "glm-5.3", "gpt-oss", "hy3", "inkling", "kimi-k2", "kimi-k2.5",
    "laguna-m.1", "laguna-s-2.1", "laguna-xs-2.1", "laguna-xs.2", "llama-3", "minimax-m2", "nemotron-3",
    "nemotron-3-ultra", "nemotron-3.5", "prime-qwen3", "qwen3", "qwen3-vl", "qwen3.5", "qwen3.6",
    "qwen3.8",
)
# fmt: on


@hookimpl
def agentrl_engines() -> Factories:
    return {
        "transformers": Lazy(
            "agentrl.engines.transformers:TransformersEngine", TRAIN, "train", "in process, on CPU or one GPU"
        ),
        "vllm": Lazy(
            "agentrl.engines.vllm_server:VllmEngine", ("vllm",), "", "a vLLM server that the run starts and stops"
        ),
        "openai": Lazy("agentrl.engines.openai:OpenAIEngine", (), "", "an OpenAI-compatible API, for evaluation only"),
        "scripted": Lazy(
            "agentrl.engines.scripted:ScriptedEngine", (), "", "replays a script, with latency; for tests"
        ),
    }


@hookimpl
def agentrl_renderers() -> Factories:
    names = {
        "auto": "the one that fits the tokenizer",
        "chatml": "ChatML with Hermes tool calls (Qwen2.5, SmolLM2)",
        "chatml+llama": "ChatML with Llama's JSON tool calls",
        "chatml+plain": "ChatML with plain-text tool calls, for small models",
        "word": "one token a word, for models from scratch",
        "word+tools": "one token a word, tools listed in the prompt",
    }
    names |= {family: "a model family of the package `renderers`" for family in FAMILIES}
    return {name: _renderer(name, summary) for name, summary in names.items()}


def _renderer(name: str, summary: str) -> Callable[[Any], Any]:
    def build(tokenizer: Any) -> Any:
        from agentrl.rendering import make_renderer

        return make_renderer(tokenizer, name)

    build.__doc__ = summary
    return build


@hookimpl
def agentrl_strategies() -> Factories:
    return {
        "independent": Lazy(
            "agentrl.rollout.strategies.independent:Independent", summary="every member of a group from the start"
        )
    }


@hookimpl
def agentrl_context_policies() -> Factories:
    return {
        "append": Lazy("agentrl.rollout.context:Append", summary="the whole episode, one growing context"),
        "window": Lazy("agentrl.rollout.context:Window", summary="the task and the last `size` steps"),
    }


@hookimpl
def agentrl_samplers() -> Factories:
    target = "agentrl.tasks.samplers:SequentialSampler"
    return {"sequential": Lazy(target, summary="every task once an epoch, shuffled in windows")}


@hookimpl
def agentrl_methods() -> Factories:
    return {
        "grpo": Lazy("agentrl.method:grpo", summary="group-relative advantages of whole episodes"),
        "rloo": Lazy("agentrl.method:rloo", summary="leave-one-out baseline, no scaling"),
        "gigpo": Lazy("agentrl.method:gigpo", summary="episode advantage plus step advantage at equal states"),
        "step_return": Lazy("agentrl.method:step_return", summary="return-to-go against the group's steps"),
    }


@hookimpl
def agentrl_credit_rules() -> Factories:
    return {
        "episode": Lazy("agentrl.credit.rules:EpisodeCredit", summary="a trajectory against its group"),
        "anchor": Lazy("agentrl.credit.rules:AnchorCredit", summary="a step against those taken in the same state"),
        "step_return": Lazy("agentrl.credit.rules:StepReturnCredit", summary="return-to-go against the group's steps"),
    }


@hookimpl
def agentrl_losses() -> Factories:
    surrogates = "agentrl.losses.surrogates"
    return {
        "clipped": Lazy(f"{surrogates}:clipped", ("torch",), "train", "PPO's clip, with clip-higher and dual clip"),
        "reinforce": Lazy(f"{surrogates}:reinforce", ("torch",), "train", "log-probability times advantage"),
        "negative_log_likelihood": Lazy(
            f"{surrogates}:negative_log_likelihood", ("torch",), "train", "imitation of the given tokens"
        ),
    }
