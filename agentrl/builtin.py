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


METHODS: Mapping[str, Mapping[str, str]] = {
    "groups": {
        "grpo": "group-relative advantages of whole episodes",
        "rloo": "leave-one-out baseline, no scaling",
        "dr_grpo": "no deviation, constant denominator",
        "lite_ppo": "mean of the group, deviation of the batch",
        "reinforce_plus_plus": "whitened return-to-go of tokens",
        "reinforce_plus_plus_baseline": "group baseline, whitened over the batch",
        "opo": "baseline weighted by length",
        "maxrl": "differences relative to the group's mean",
        "gpg": "differences scaled up for silent groups",
        "bnpo": "success rates normalised by a fitted Beta density",
        "loop": "leave-one-out baseline under PPO's clip",
    },
    "steps": {
        "gigpo": "episode advantage plus step advantage at equal states",
        "step_return": "return-to-go against the group's steps",
        "steppo": "GAE over steps with a critic",
        "igpo": "turn rewards normalised in the group, summed ahead",
        "eapo": "geometrically discounted outcome of each round",
        "normalised_terms": "named scores normalised one by one",
        "gigpo_similar": "GiGPO by likeness of observations",
        "hgpo": "GiGPO by equal histories of several depths",
        "dart": "outcomes compared over all steps of a task",
    },
    "forks": {
        "arpo": "GRPO on groups that branch, soft or hard attribution",
        "branch": "a branch against the fork that it left",
        "r3l": "reflect, retry and learn from the retry",
        "fission": "recoveries from one error against one another",
    },
    "curated": {
        "dapo": "clip-higher, token mean, no group of equal returns",
    },
    "shaped": {
        "spo": "single stream: against the task's own past",
        "unlikeliness": "rare successes are worth more",
        "aspo": "successes gain by calling a tool early",
    },
    "replay": {
        "arpo_replay": "an earlier success for groups that only fail",
    },
    "assimilation": {
        "bepa": "an expert's success for groups that only fail, until the policy has one",
    },
    "custom": {
        "custom": "credit rules and a loss by name",
    },
    "objectives": {
        "gspo": "one ratio per trajectory, its geometric mean",
        "gspo_step": "one ratio per step, its geometric mean",
        "cispo": "clipped importance weights, no token without gradient",
        "sapo": "a sigmoid gate in place of a clip",
        "gmpo": "the geometric mean of clipped ratios",
        "dppo": "a bound on the change of probability",
        "ctpo": "the ratio of the whole prefix, bounds that widen",
        "minpro": "the ratio times the smallest one before it",
        "bapo": "bounds that balance good and bad tokens",
        "grpo_kl": "GRPO with a KL term of any estimator and anchor",
        "grpo_unbiased_kl": "GRPO with a KL term that stale samples do not bias",
        "r2vpo": "a soft bound on the variance of the ratio",
    },
    "entropy": {
        "clip_cov": "drops a few tokens of high covariance",
        "kl_cov": "holds the tokens of highest covariance",
        "epo": "entropy near each step's own past",
        "steer": "less weight where the entropy would change most",
        "lp_reg": "protects rare tokens that may be sparks",
        "high_entropy": "only the tokens of highest entropy learn",
        "d3s": "varied trajectories, and of them uncertain tokens",
        "gtpo": "tokens that good and bad share are not pushed down",
        "entropy_steps": "only the steps of highest entropy learn (DART)",
    },
    "offpolicy": {
        "decoupled_ppo": "PPO around recomputed weights, samples truncated (TIS)",
        "icepop": "drops tokens on which sampler and learner disagree",
        "mis": "drops trajectories with too large a weight",
        "geo_rejection": "drops trajectories by their mean log ratio",
        "m2po": "drops the tokens that moved most",
        "opsm": "drops bad trajectories that the policy has left",
        "topr": "tapered off-policy REINFORCE",
        "asymre": "REINFORCE with a baseline below the mean",
        "opmd": "mirror descent without a ratio",
        "rec": "REINFORCE within a ring of ratios",
        "nft": "likelihood of successes and of implied failures",
        "vespo": "REINFORCE with a soft kernel of the trajectory's weight",
        "vcpo": "learning rate by effective sample size, baseline of least variance",
    },
    "distillation": {
        "opd": "on-policy distillation from a teacher, also beyond it",
        "self_distillation": "on-policy distillation from the policy itself, told the solution",
        "dagger": "a teacher takes turns over, which are imitated",
    },
}
"Per module of `agentrl/methods/`, its presets and what they are."


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
    parts = "agentrl.rollout.strategies"
    return {
        "independent": Lazy(f"{parts}.independent:Independent", summary="every member of a group from the start"),
        "entropy_branching": Lazy(
            f"{parts}.branching:EntropyBranching", summary="forks where the policy became less certain (ARPO)"
        ),
        "random_branching": Lazy(f"{parts}.branching:RandomBranching", summary="forks anywhere: the control"),
        "tree": Lazy(f"{parts}.tree:Tree", summary="every branch splits again, round by round"),
        "retry_from_step": Lazy(
            f"{parts}.reflection:RetryFromStep", summary="failures again from a step that the policy picks (R3L)"
        ),
        "guided": Lazy(f"{parts}.guidance:Guided", summary="all others failed: a hint, more of it if need be (GHPO)"),
        "expert": Lazy("agentrl.runs.experts:open_expert", summary="all others failed: an expert's episode (BEPA)"),
        "recovery": Lazy(f"{parts}.recovery:Recovery", summary="failed calls gone on with, the failure told"),
        "fission": Lazy(
            "agentrl.runs.recoveries:open_fission", summary="errors of earlier batches gone back to (Fission-GRPO)"
        ),
    }


@hookimpl
def agentrl_context_policies() -> Factories:
    return {
        "append": Lazy("agentrl.rollout.context:Append", summary="the whole episode, one growing context"),
        "window": Lazy("agentrl.rollout.context:Window", summary="the task and the last `size` steps"),
    }


@hookimpl
def agentrl_samplers() -> Factories:
    categories, rates = "agentrl.tasks.curricula", "agentrl.tasks.priorities"
    return {
        "sequential": Lazy(
            "agentrl.tasks.samplers:SequentialSampler", summary="every task once an epoch, shuffled in windows"
        ),
        "sec": Lazy(f"{categories}:SoftmaxSampler", summary="a softmax bandit over categories, by mean |A| (SEC)"),
        "dump": Lazy(f"{categories}:OptimisticSampler", summary="by an upper bound of a category's mean |A| (DUMP)"),
        "staged": Lazy(f"{categories}:StagedSampler", summary="categories open one by one as they are won"),
        "pcl": Lazy(f"{rates}:MediumSampler", summary="of several tasks those that are won half of the time (PCL)"),
        "priority": Lazy(f"{rates}:PrioritySampler", summary="tasks by the spread of their outcomes (SPO)"),
    }


@hookimpl
def agentrl_methods() -> Factories:
    return {
        name: Lazy(f"agentrl.methods.{module}:{name}", summary=summary)
        for module, presets in METHODS.items()
        for name, summary in presets.items()
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
            "agentrl.rewards.prm:ProcessReward", TRAIN, "train", "how likely the episode succeeds, learned or as it is"
        ),
        "branch_value": Lazy(
            "agentrl.rewards.branches:BranchValue", summary="what a step adds to the mean return of what follows it"
        ),
        "progress": Lazy(
            "agentrl.rewards.progress:ProgressReward", TRAIN, "train", "a step's share of the return, learned"
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
    surrogates = {
        "clipped": "PPO's clip, with clip-higher and dual clip",
        "reinforce": "log-probability times advantage",
        "weighted_reinforce": "REINFORCE with importance weights",
        "cispo": "REINFORCE with clipped importance weights",
        "cispo_between": "the same, its bounds as ratios",
        "topr": "bad samples tapered by their ratio",
        "sapo": "a sigmoid gate in place of a clip",
        "gmpo": "the geometric mean of clipped ratios",
        "nft": "likelihood of successes and of implied failures",
        "vespo": "REINFORCE with a soft kernel of the weight",
        "negative_log_likelihood": "imitation of the given tokens",
    }
    regions = {
        "position_clipped": "a clip that widens with the token's position (CTPO)",
        "probability_bounded": "a bound on the change of probability (DPPO)",
        "ring": "REINFORCE within a ring of ratios (REC)",
        "adaptive_clip": "a clip that balances good and bad tokens (BAPO)",
    }
    found = {name: f"surrogates:{name}" for name in surrogates} | {name: f"trust_regions:{name}" for name in regions}
    found["adaptive_clip"] = "trust_regions:AdaptiveClip"
    summaries = surrogates | regions
    return {
        name: Lazy(f"agentrl.losses.{target}", ("torch",), "train", summaries[name]) for name, target in found.items()
    }


@hookimpl
def agentrl_sandboxes() -> Factories:
    return {
        "embedded": Lazy(
            "agentrl.sandbox.embedded:Embedded",
            ("pydantic_monty",),
            "sandbox",
            "an interpreter of a part of Python, without files or programs; milliseconds",
        ),
        "bubblewrap": Lazy(
            "agentrl.sandbox.bubblewrap:Bubblewrap",
            programs=(("bwrap", "bubblewrap"),),
            summary="Python and programs in namespaces of their own; no root, no network",
        ),
        "docker": Lazy(
            "agentrl.sandbox.docker:Docker", ("docker",), "docker", "Python and programs in containers, without network"
        ),
        "unsafe": Lazy("agentrl.sandbox.unsafe:Unsafe", summary="a bare process: only for code that you trust"),
    }
