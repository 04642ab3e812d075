"""Messages to tokens and sampled tokens to actions.

The one rule: the prefix is kept. Whatever was sent to or sampled by the engine stays as it is, and a new turn only
adds ids behind it; a template that cannot do that says so (`extend` returns None), which is a fork.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentrl.errors import RenderingError, UnknownNameError, did_you_mean
from agentrl.protocols import Renderer
from agentrl.rendering.chatml import END, START, ChatML
from agentrl.rendering.families import Family, family_names, family_of
from agentrl.rendering.plain import Plain
from agentrl.rendering.self_test import SelfTest, self_test
from agentrl.rendering.toolcalls import Hermes, LlamaJSON
from agentrl.rendering.word import Word
from agentrl.tiny import CONTROL_TOKENS

__all__ = ["SelfTest", "make_renderer", "renderer_names", "self_test"]

OWN: dict[str, Callable[[Any], Renderer]] = {
    "chatml": lambda tokenizer: ChatML(tokenizer, Hermes()),
    "chatml+llama": lambda tokenizer: ChatML(tokenizer, LlamaJSON()),
    "chatml+plain": lambda tokenizer: ChatML(tokenizer, Plain()),
    "word": lambda tokenizer: Word(tokenizer, Plain(), list_tools=False),
    "word+tools": lambda tokenizer: Word(tokenizer, Plain(), list_tools=True),
}


def renderer_names() -> tuple[str, ...]:
    return ("auto", *OWN, *family_names())


def make_renderer(tokenizer: Any, name: str = "auto") -> Renderer:
    """The renderer called `name`, or with "auto" the one that fits the tokenizer.

    "auto": `word` where the tokenizer has its control tokens; a family of the package `renderers` where it knows the
    model by name; `chatml` where there are `<|im_start|>` and `<|im_end|>`. A part after `+` names another tool-call
    form. Raises `UnknownNameError` for a name, `RenderingError` for a tokenizer that no renderer fits.
    """
    if name == "auto":
        name = _fitting(tokenizer)
    if name in OWN:
        return OWN[name](tokenizer)
    if name in family_names():
        return Family(tokenizer, name)
    known = renderer_names()
    raise UnknownNameError(f"no renderer is called {name!r}.{did_you_mean(name, known)} There are: {', '.join(known)}.")


def _fitting(tokenizer: Any) -> str:
    vocabulary = tokenizer.get_vocab()
    if all(token in vocabulary for token in CONTROL_TOKENS):
        return "word"
    family = family_of(tokenizer)
    if family is not None:
        return family
    if START in vocabulary and END in vocabulary:
        return "chatml"
    raise RenderingError(
        f"no renderer fits the tokenizer of {tokenizer.name_or_path!r}: it has neither {START} and {END} nor "
        f"{' '.join(CONTROL_TOKENS)}, and no model family is known by that name. "
        f"Name one of {', '.join(renderer_names()[1:])}; 'default' takes any chat template and forks at every step."
    )
