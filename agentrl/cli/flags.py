"""Options that belong together, as the fields of one frozen dataclass in place of a parameter each.

A field is written as typer wants a parameter written: its annotation with help and bounds, then its default.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, get_type_hints

import typer

Plugins = Annotated[
    list[str] | None,
    typer.Option("--plugin", help="A plugin beside the installed ones: path.py or a.module. Repeatable."),
]
Temperature = Annotated[float, typer.Option(min=0, help="0 is greedy.")]
Seed = Annotated[int, typer.Option(min=0, help="Of sampling.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Sampled tokens per answer.")]
EngineOptions = Annotated[
    list[str] | None, typer.Option("--engine-option", "-e", help="key=value for the engine. Repeatable.")
]
EngineName = Annotated[str, typer.Option(help="Who samples from weights: transformers or vllm.")]


def unfolded(command: Callable[..., None]) -> Callable[..., None]:
    """`command` as typer reads it: a parameter that is a dataclass is its fields there, and is made of what was said.

    Raises `TypeError` where two of them have a name in common.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    folded: dict[str, tuple[Any, list[str]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        options = _options(kind) if is_dataclass(kind) else [parameter.replace(annotation=kind)]
        if is_dataclass(kind):
            folded[parameter.name] = kind, [option.name for option in options]
        # By name: then one without a default may follow one that has it.
        parameters += [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options]
    names = [parameter.name for parameter in parameters]
    if twice := {name for name in names if names.count(name) > 1}:
        raise TypeError(f"{command.__qualname__} has the option {', '.join(sorted(twice))} twice; rename a field.")

    @functools.wraps(command)
    def told(**said: Any) -> None:
        for name, (kind, options) in folded.items():
            said[name] = kind(**{option: said.pop(option) for option in options})
        command(**said)

    told.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    told.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return told


def _options(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
