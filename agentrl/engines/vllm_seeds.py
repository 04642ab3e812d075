"""Per-request seeds on vLLM's CPU backend: a draw that vLLM throws away is taken back, so that seeds repeat.

Where a prompt is computed in pieces (a long one, or any that is computed anew after a publish), vLLM samples at each
piece, discards the token and rewinds the request's generator by an offset. CPU generators have none: vLLM 0.32 raises
"CPU Generator does not use offset" there, which kills its engine process.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.v1.sample.ops.topk_topp_sampler import TopKTopPSampler
from vllm.v1.worker.gpu_input_batch import CachedRequestState

DRAW = 4
"""What a CUDA generator's offset advances by at a draw, and what vLLM therefore takes off."""


class RewindingGenerator(torch.Generator):
    """A CPU generator that can take back its last draw, with the two methods by which vLLM asks for that."""

    before: torch.Tensor

    def remember(self) -> None:
        self.before = self.get_state()

    def get_offset(self) -> int:
        return DRAW

    def set_offset(self, offset: int) -> torch.Generator:
        if offset != 0:
            raise ValueError(f"one draw can be taken back (offset 0); vLLM asked for offset {offset}.")
        return self.set_state(self.before)


def rewinding(generator: torch.Generator) -> RewindingGenerator:
    """A generator that goes on as `generator` would have."""
    copy = RewindingGenerator(device="cpu")
    copy.set_state(generator.get_state())
    copy.remember()
    return copy


def install() -> None:
    """Call before vLLM builds its sampler."""
    finish, sample = CachedRequestState.__post_init__, TopKTopPSampler.forward_cpu

    def finish_with_rewinding(self: Any) -> None:
        finish(self)
        if self.generator is not None:
            self.generator = rewinding(self.generator)

    def remember_and_sample(self: Any, logits: Any, generators: Any, k: Any, p: Any) -> Any:
        for generator in generators.values():
            if isinstance(generator, RewindingGenerator):
                generator.remember()
        return sample(self, logits, generators, k, p)

    CachedRequestState.__post_init__ = finish_with_rewinding
    TopKTopPSampler.forward_cpu = remember_and_sample
