"""The README of exported weights: what they are, how they were made, what was measured and what that does not say.

Every number comes from the run's files; what was not measured is said to be so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrl.evaluation.comparison import compare
from agentrl.evaluation.harness import Evaluation
from agentrl.evaluation.result import EvaluationResult
from agentrl.models import KNOWN
from agentrl.runs.folder import RunFolder
from agentrl.runs.sides import held_out, open_side
from agentrl.sections import Config


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What the run's folder does not say."""

    form: str
    "merged or adapter."
    base: str = ""
    "A folder beside the adapter that holds its base; empty where it is the recipe's model."
    versions: Mapping[str, str] | None = None
    "Of what was trained with, by distribution."
    results: Sequence[EvaluationResult] = ()
    "Evaluations of these weights that are told beside the run's own."


def model_card(run: RunFolder, config: Config, facts: CardFacts) -> str:
    return "\n".join(
        [
            *_front(config, facts),
            f"# {config.name}",
            "",
            f"A language-model agent trained on the environment `{config.environment.name}` with "
            f"`{config.method.name}` by agentrl.",
            "",
            *_use(config, facts),
            "## Evaluation",
            "",
            *_table(run, facts),
            "",
            *_limits(run, config, facts),
            *_training(run, config, facts),
        ]
    )


def _front(config: Config, facts: CardFacts) -> Iterator[str]:
    yield "---"
    yield f"library_name: {'peft' if facts.form == 'adapter' else 'transformers'}"
    yield "pipeline_tag: text-generation"
    if "/" in (path := config.model.path or "") and not Path(path).expanduser().exists():
        yield f"base_model: {json.dumps(path)}"
    yield "tags: [agentrl, reinforcement-learning, agent]"
    yield "---"
    yield ""


def _use(config: Config, facts: CardFacts) -> Iterator[str]:
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
    yield ""
    yield 'folder = "."'
    if facts.form == "adapter":
        base = f'f"{{folder}}/{facts.base}"' if facts.base else json.dumps(config.model.path)
        yield "from peft import PeftModel"
        yield ""
        yield f"base = AutoModelForCausalLM.from_pretrained({base})"
        yield "model = PeftModel.from_pretrained(base, folder)"
    else:
        yield "model = AutoModelForCausalLM.from_pretrained(folder)"
    yield "tokenizer = AutoTokenizer.from_pretrained(folder)"
    yield "```"
    yield ""
    yield (
        f"It was trained on prompts of the renderer `{config.model.renderer}` and sampled at temperature "
        f"{config.rollout.temperature:g}, at most {config.rollout.max_tokens} tokens an answer. Other prompts are "
        "untested."
    )
    yield ""


def _table(run: RunFolder, facts: CardFacts) -> Iterator[str]:
    rows = [*_own_rows(run), *(row for result in facts.results for row in _result_rows(result))]
    if not rows:
        yield "Nothing was measured."
        return
    yield "| who | tasks | sampling | success, 95 % interval by task |"
    yield "|---|---|---|---|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _own_rows(run: RunFolder) -> Iterator[tuple[str, str, str, str]]:
    """The first and the last weights that were measured, and their difference, at each temperature."""
    measured = held_out(run)
    for temperature in sorted({evaluation.temperature for _, evaluation in measured}):
        of_it = [(path, evaluation) for path, evaluation in measured if evaluation.temperature == temperature]
        (first_path, first), (last_path, last) = of_it[0], of_it[-1]
        how = "greedy" if temperature == 0 else f"temperature {temperature:g}"
        yield (_who(first), _tasks(first), how, _score(first))
        if last_path != first_path:
            yield (_who(last), _tasks(last), how, _score(last))
            if first.successes().keys() & last.successes().keys():
                found = compare(open_side(first_path), open_side(last_path))
                flips = f"{len(found.won)} tasks up, {len(found.lost)} down"
                told = f"{found.difference.points()}; {flips}"
                yield ("difference, task by task", str(found.difference.interval.tasks), how, told)
    if run.null_score.is_file():
        null = json.loads(run.null_score.read_text())
        yield ("an agent that says nothing", f"{null['tasks']} for training", "", f"{100 * null['success']:.1f}%")


def _result_rows(result: EvaluationResult) -> Iterator[tuple[str, str, str, str]]:
    manifest, score = result.manifest, result.interval()
    temperature = manifest.conditions.temperature
    how = "greedy" if temperature == 0 else f"temperature {temperature:g}"
    suite = f"{manifest.suite} {manifest.version} (`{manifest.hash}`)"
    told = score.percent() if score else "nothing was scored"
    yield (f"`{manifest.policy}`", f"{score.tasks if score else 0} of {suite}", how, told)
    if result.null is not None:
        nobody = result.null.score
        yield ("an agent that says nothing", f"{nobody.tasks} of {suite}", "", nobody.percent())


def _who(evaluation: Evaluation) -> str:
    return "before training" if evaluation.update == 0 else f"after {evaluation.update} updates"


def _tasks(evaluation: Evaluation) -> str:
    faults = f", {evaluation.faults()} attempts ended in faults and are not scored" if evaluation.faults() else ""
    return f"{len(evaluation.successes())} held out{faults}"


def _score(evaluation: Evaluation) -> str:
    return evaluation.success().percent() if evaluation.successes() else "nothing was scored"


def _limits(run: RunFolder, config: Config, facts: CardFacts) -> Iterator[str]:
    yield "## What this does not say"
    yield ""
    yield (
        f"- The tasks were held out from training and come from the same environment, `{config.environment.name}`: how "
        "the agent does elsewhere was not measured, nor was anything about safety."
    )
    yield f"- It is one run with seed {config.seed}; the intervals are over tasks and do not tell how far seeds differ."
    updates = {evaluation.update for _, evaluation in held_out(run)}
    if len(updates) < 2 and not facts.results:
        yield "- There is no measurement before and after, so nothing here shows that training helped."
    if config.warm_start is not None:
        yield (
            f"- Before the first update it learned from {config.warm_start.demonstrations:,} demonstrations; 'before "
            "training' is after them."
        )
    if config.model.path in KNOWN:
        yield f"- The base model `{config.model.path}` is under {KNOWN[str(config.model.path)].license}."
    elif config.model.path:
        yield "- The licence of the base model holds for these weights; see there."
    yield ""


def _training(run: RunFolder, config: Config, facts: CardFacts) -> Iterator[str]:
    model, training, rollout = config.model, config.training, config.rollout
    base = f"`{model.path}`" if model.path else f"`{model.name}`, made from scratch"
    trained = f"LoRA adapters of rank {model.lora_rank}" if model.lora_rank else "all weights"
    yield "## How it was made"
    yield ""
    yield f"- base model: {base}; trained: {trained}"
    yield (
        f"- method `{config.method.name}`: {training.batches} batches of {rollout.tasks_per_batch} tasks with "
        f"{rollout.group_size} episodes each, learning rate {training.learning_rate:g}, staleness at most "
        f"{rollout.max_staleness}"
    )
    for name, version in sorted((facts.versions or {}).items()):
        yield f"- {name} {version}"
    yield "- command: `agentrl train config.toml`, with the recipe below"
    yield ""
    yield "```toml"
    yield run.recipe.read_text().strip()
    yield "```"
    yield ""
