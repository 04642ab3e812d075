"""Information gain against probabilities worked out by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from builders import make_step
from fakes_rollout import BYTE, Engine, Renderer

from agentrl.errors import ConfigError, InfrastructureFault, InvalidDataError
from agentrl.rewards.information_gain import InformationGain
from agentrl.types import Floats, Status, Task, TokenIds, Trajectory

FRAME = "is {answer}!"


class Knowing(Engine):
    """Teacher-forced: a byte of the answer has the log-probability that `tell` gives; all else is hopeless."""

    def __init__(self, tell: Callable[[TokenIds, str], float]) -> None:
        super().__init__()
        self.asked: list[TokenIds] = []
        self._tell = tell

    async def score(self, tokens: TokenIds) -> Floats:
        self.asked.append(tokens)
        logprobs = np.full(len(tokens), -50.0, np.float32)
        text = Renderer().decode(tokens)
        answer = text[text.rindex("is ") + 3 : -1]
        end = len(tokens) - 2  # "!" and the stop token
        logprobs[end - len(answer) : end] = self._tell(tokens[: end - len(answer)], answer)
        return logprobs


def gain_of(engine: Engine, frame: str = FRAME, **options: str) -> InformationGain:
    return InformationGain(engine, Renderer(), answer="answer", frame=frame, **options)  # type: ignore[arg-type]


def episode(answer: object) -> Trajectory:
    """Three steps; their prompts are 3, then 2, then 2 tokens longer than what went before."""
    sizes = ((3, 2), (2, 1), (2, 2))
    steps = tuple(make_step("t", i, prompt=[BYTE + 65] * p, tokens=[BYTE + 66] * n) for i, (p, n) in enumerate(sizes))
    return Trajectory("t", Task("g", "test", data={"answer": answer, "n": 1}), "g", steps, Status.OK)


def likely(*probabilities: float) -> Callable[[TokenIds, str], float]:
    """By how many tokens came before the frame: 3, 7 and 10."""
    by_length = dict(zip((3, 7, 10), probabilities, strict=True))
    return lambda before, answer: float(np.log(by_length[len(before) - len("is ")]))


async def test_a_step_is_paid_what_it_added_to_the_probability_of_the_answer() -> None:
    engine = Knowing(likely(0.1, 0.5, 0.25))
    gains = await gain_of(engine).score(episode("blue"))
    # p is the geometric mean over the answer's own four bytes; the last step is left to the outcome.
    assert list(gains) == pytest.approx([0.4, -0.25, 0.0])
    assert sorted(len(tokens) for tokens in engine.asked) == [3 + 9, 7 + 9, 10 + 9]


async def test_of_several_answers_the_likeliest_counts() -> None:
    chances = {"red": (0.2, 0.3, 0.9), "blue": (0.1, 0.8, 0.1), "7": (0.01, 0.02, 0.03)}

    def tell(before: TokenIds, answer: str) -> float:
        return likely(*chances[answer])(before, answer)

    model = gain_of(Knowing(tell))
    assert list(await model.score(episode(["red", "blue"]))) == pytest.approx([0.6, 0.1, 0.0])
    assert list(await model.score(episode(7))) == pytest.approx([0.01, 0.01, 0.0])
    assert list(await model.score(replace(episode("red"), steps=()))) == []


@pytest.mark.parametrize("missing", [None, "", []])
async def test_a_task_without_an_answer_is_told(missing: object) -> None:
    model = gain_of(Knowing(likely(1, 1, 1)))
    with pytest.raises(InvalidDataError, match="has no answer under 'answer'; its data has answer, n"):
        await model.score(episode(missing))


async def test_weights_that_change_midway_a_number_that_is_none_and_no_room_are_faults() -> None:
    def moving(before: TokenIds, answer: str) -> float:
        engine.version += 1
        return -1.0

    engine = Knowing(moving)
    with pytest.raises(InfrastructureFault, match="the weights changed from version 0 to 3"):
        await gain_of(engine).score(episode("red"))
    broken = Knowing(lambda before, answer: float("nan"))
    with pytest.raises(InfrastructureFault, match="not finite"):
        await gain_of(broken).score(episode("red"))
    small = Knowing(likely(1, 1, 1))
    small.max_context = 17
    with pytest.raises(InvalidDataError, match=r"a prompt of 10 tokens and an answer of 8 do not fit"):
        await gain_of(small).score(episode("red"))


@pytest.mark.parametrize(
    ("options", "told"),
    [({"frame": "no place"}, "where the answer goes"), ({"tool": "say"}, "an answer by a call needs both")],
)
def test_a_frame_without_a_place_is_refused(options: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        gain_of(Engine(), **options)
