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
        "grpo": Lazy("agentrl.methods.groups:grpo", summary="group-relative advantages of whole episodes"),
        "rloo": Lazy("agentrl.methods.groups:rloo", summary="leave-one-out baseline, no scaling"),
        "gigpo": Lazy("agentrl.methods.steps:gigpo", summary="episode advantage plus step advantage at equal states"),
        "step_return": Lazy("agentrl.methods.steps:step_return", summary="return-to-go against the group's steps"),
        "dr_grpo": Lazy("agentrl.methods.groups:dr_grpo", summary="no deviation, constant denominator"),
        "lite_ppo": Lazy("agentrl.methods.groups:lite_ppo", summary="mean of the group, deviation of the batch"),
        "reinforce_plus_plus": Lazy(
            "agentrl.methods.groups:reinforce_plus_plus", summary="whitened return-to-go of tokens"
        ),
        "reinforce_plus_plus_baseline": Lazy(
            "agentrl.methods.groups:reinforce_plus_plus_baseline", summary="group baseline, whitened over the batch"
        ),
        "opo": Lazy("agentrl.methods.groups:opo", summary="baseline weighted by length"),
        "maxrl": Lazy("agentrl.methods.groups:maxrl", summary="differences relative to the group's mean"),
        "gpg": Lazy("agentrl.methods.groups:gpg", summary="differences scaled up for silent groups"),
        "bnpo": Lazy("agentrl.methods.groups:bnpo", summary="success rates normalised by a fitted Beta density"),
        "steppo": Lazy("agentrl.methods.steps:steppo", summary="GAE over steps with a critic"),
        "igpo": Lazy("agentrl.methods.steps:igpo", summary="turn rewards normalised in the group, summed ahead"),
        "eapo": Lazy("agentrl.methods.steps:eapo", summary="geometrically discounted outcome of each round"),
        "normalised_terms": Lazy(
            "agentrl.methods.steps:normalised_terms", summary="named scores normalised one by one"
        ),
        "branch": Lazy("agentrl.methods.steps:branch", summary="a branch against the fork that it left"),
        "d3s": Lazy("agentrl.methods.curated:d3s", summary="the members of a group whose returns vary most"),
        "loop": Lazy("agentrl.methods.groups:loop", summary="leave-one-out baseline under PPO's clip"),
        "dapo": Lazy("agentrl.methods.curated:dapo", summary="clip-higher, token mean, no group of equal returns"),
        "gigpo_similar": Lazy("agentrl.methods.steps:gigpo_similar", summary="GiGPO by likeness of observations"),
        "hgpo": Lazy("agentrl.methods.steps:hgpo", summary="GiGPO by equal histories of several depths"),
        "dart": Lazy("agentrl.methods.steps:dart", summary="outcomes compared over all steps of a task"),
        "custom": Lazy("agentrl.methods.custom:custom", summary="credit rules and a loss by name"),
    }


@hookimpl
def agentrl_reward_models() -> Factories:
    rules = "agentrl.rewards.rules"
    return {
        "environment": Lazy(f"{rules}:Environment", summary="the environment's own reward; weight -1 takes it out"),
        "executable": Lazy(f"{rules}:Executable", summary="1 for a step whose action could be executed"),
        "malformed": Lazy(f"{rules}:Malformed", summary="-1 for a step whose call was unreadable or refused"),
        "step_cost": Lazy(f"{rules}:StepCost", summary="-1 for every step"),
        "overlong": Lazy(f"{rules}:Overlong", summary="from 0 to -1 as an answer nears its limit of tokens"),
        "tool_use": Lazy(f"{rules}:ToolUse", summary="1 for a success that used all of the named tools"),
        "judge": Lazy("agentrl.runs.judge:open_judge", summary="a language model that grades by a rubric"),
        "information_gain": Lazy(
            "agentrl.rewards.information_gain:InformationGain", summary="what a step adds to p(right answer)"
        ),
        "process": Lazy(
            "agentrl.rewards.prm:ProcessReward.frozen", TRAIN, "train", "a trained process reward model, as it is"
        ),
        "progress": Lazy(
            "agentrl.rewards.progress:ProgressReward.frozen", TRAIN, "train", "a step's share of the return, learned"
        ),
    }


@hookimpl
def agentrl_credit_rules() -> Factories:
    return {
        "episode": Lazy("agentrl.credit.rules:EpisodeCredit", summary="a trajectory against its group"),
        "anchor": Lazy("agentrl.credit.rules:AnchorCredit", summary="a step against those taken in the same state"),
        "step_return": Lazy("agentrl.credit.rules:StepReturnCredit", summary="return-to-go against the group's steps"),
        "length_weighted": Lazy(
            "agentrl.credit.outcome:LengthWeightedCredit", summary="against the group's mean weighted by length"
        ),
        "relative": Lazy("agentrl.credit.outcome:RelativeCredit", summary="difference as a fraction of the mean"),
        "turn": Lazy("agentrl.credit.turns:TurnCredit", summary="step rewards normalised in the group, summed ahead"),
        "branch": Lazy("agentrl.credit.turns:BranchCredit", summary="a branch against the fork that it left"),
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
