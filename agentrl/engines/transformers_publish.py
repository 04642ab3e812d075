"""How the learner's weights reach a transformers engine: shared in place, or copied.

After `publish` returns, every new token is sampled from the published weights; what could not be proved is a fault.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import torch

from agentrl.engines.transformers import TransformersEngine
from agentrl.errors import InfrastructureFault


class SharedWeights:
    """For an engine over the learner's own module: nothing moves, the old keys and values are dropped.

    Proof: the engine's parameters are the very parameters of the learner's module, and `tensors`, where they bear
    the same names, have the same values. `tensors` may be empty (a learner with adapters need not merge them).
    """

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine

    async def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Waits for a running forward pass."""
        await asyncio.to_thread(self._publish, version, tensors)

    def _publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        engine = self._engine
        theirs = {id(parameter) for parameter in engine.source.parameters()}
        strangers = [name for name, parameter in engine.model.named_parameters() if id(parameter) not in theirs]
        if strangers:
            raise InfrastructureFault(
                f"version {version} cannot be published in place: {len(strangers)} of the engine's parameters are no "
                f"longer the learner's ({strangers[0]}, ...). Were they replaced after the engine was built? "
                "Build the engine last, or publish copies (CopiedWeights)."
            )
        mine = engine.model.state_dict()

        def compare() -> None:
            for name, tensor in tensors.items():
                if name in mine and not _same(mine[name], tensor):
                    raise InfrastructureFault(
                        f"version {version}: {name} of the published tensors differs from the module the engine "
                        "samples from. Is it the module that the learner trains?"
                    )

        engine.set_version(version, compare)


class CopiedWeights:
    """For an engine with weights of its own: the tensors are copied in and read back, every element compared."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine

    async def publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        """Waits for a running forward pass. `tensors` must name every weight; tied ones may be named once."""
        await asyncio.to_thread(self._publish, version, tensors)

    def _publish(self, version: int, tensors: Mapping[str, torch.Tensor]) -> None:
        engine = self._engine
        own = engine.model.state_dict()
        _check_names(version, own, tensors)

        def write() -> None:
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
            # Read back after all were written: of two tensors with one storage, the last writer wins.
            for name, tensor in tensors.items():
                if not _same(own[name], tensor):
                    raise InfrastructureFault(
                        f"version {version}: {name} does not read back as written. It holds "
                        f"{_unequal(own[name], tensor)} unequal elements: not finite, or tied to another weight."
                    )

        engine.set_version(version, write)


def _check_names(version: int, own: Mapping[str, torch.Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    unknown = sorted(tensors.keys() - own.keys())
    written = {own[name].data_ptr() for name in tensors.keys() & own.keys()}
    missing = sorted(name for name, tensor in own.items() if tensor.data_ptr() not in written)
    if unknown or missing:
        raise InfrastructureFault(
            f"version {version} does not fit the engine's model: unknown {unknown[:3] or 'none'} "
            f"({len(unknown)}), missing {missing[:3] or 'none'} ({len(missing)}). "
            "Publish the learner's named_tensors() with its adapters merged."
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise InfrastructureFault(
                f"version {version}: {name} has shape {tuple(tensor.shape)}; the engine's has {tuple(own[name].shape)}."
            )


def _same(own: torch.Tensor, other: torch.Tensor) -> bool:
    if own.data_ptr() == other.data_ptr() and own.shape == other.shape:
        return True
    return torch.equal(own, other.to(device=own.device, dtype=own.dtype))


def _unequal(own: torch.Tensor, other: torch.Tensor) -> int:
    return int((own != other.to(device=own.device, dtype=own.dtype)).sum())
