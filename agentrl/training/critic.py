"""A critic: the value of a step from before its decision, by a model of its own with a value head.

Rule: a value is read where the step's prompt ends, so it knows nothing of what was answered; shared prefixes are
computed once, as the learner does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agentrl.batch import Doubles, TrainingBatch
from agentrl.errors import StoreError
from agentrl.training.logprobs import tree_model
from agentrl.training.packing import MicroBatch, pack
from agentrl.training.settings import CriticSettings

WEIGHTS = "critic.safetensors"


class TorchCritic:
    """`model` is a causal language model of its own (a copy of the policy's start); its output head is not used."""

    def __init__(self, model: Any, settings: CriticSettings, *, micro_batch_tokens: int = 2048) -> None:
        self.settings = settings
        self._micro_batch_tokens = micro_batch_tokens
        self._model = model
        self._tree_model = tree_model(model)
        width = int(model.config.get_text_config().hidden_size)
        self.head = torch.nn.Linear(width, 1, device=self._tree_model.device)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.zero_()
        trained = {f"body.{name}": p for name, p in self._tree_model.body.named_parameters()}
        self._trained: dict[str, Tensor] = trained | {f"head.{n}": p for n, p in self.head.named_parameters()}
        self._optimizer = torch.optim.AdamW(self._trained.values(), lr=settings.learning_rate, weight_decay=0.0)

    def values(self, batch: TrainingBatch) -> Doubles:
        """Expected return from each step on, shape [rows]; 0 for a step that sampled nothing."""
        found = np.zeros(len(batch.table))
        with torch.no_grad():
            for micro in self._micro_batches(batch):
                rows, values = self._read(batch, micro)
                found[rows] = values.double().cpu().numpy()
        return found

    def fit(self, batch: TrainingBatch, targets: Doubles) -> dict[str, float]:
        """Squared error to `targets`, shape [rows], over the steps that sampled something; `epochs` updates."""
        sampled = batch.table.length > 0
        count = max(int(sampled.sum()), 1)
        losses = []
        for _ in range(self.settings.epochs):
            self._optimizer.zero_grad(set_to_none=True)
            total = 0.0
            for micro in self._micro_batches(batch):
                rows, values = self._read(batch, micro)
                target = torch.from_numpy(targets[rows].astype(np.float32)).to(values.device)
                loss = 0.5 * ((values - target) ** 2).sum() / count
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
            self._optimizer.step()
            losses.append(total)
        variance = float(targets[sampled].var()) if count > 1 else 0.0
        explained = 1.0 - 2.0 * losses[0] / variance if variance > 0 else 0.0
        return {"critic_loss": losses[0], "critic_explained_variance": explained}

    def save(self, folder: Path) -> None:
        """Weights and Adam's moments, beside a learner's checkpoint. Raises `StoreError`."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._trained.items()}
        for name, parameter in self._trained.items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"adam.{key}.{name}"] = value.detach().cpu().contiguous()
        try:
            save_file(tensors, folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"the critic could not be written to {folder}: {error}. Free space.") from error

    def load(self, folder: Path) -> None:
        """Raises `StoreError` where the checkpoint has no critic of this shape."""
        try:
            stored = load_file(folder / WEIGHTS)
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    parameter.copy_(stored[name])
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            raise StoreError(
                f"{folder} holds no critic that fits: {error}. Resume with the method and the model it was saved with."
            ) from error
        for name, parameter in self._trained.items():
            moments = {
                key: stored[f"adam.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{key}.{name}" in stored
            }
            if moments:
                self._optimizer.state[parameter] = {
                    key: value if key == "step" else value.to(parameter.device) for key, value in moments.items()
                }

    def _micro_batches(self, batch: TrainingBatch) -> Iterator[MicroBatch]:
        trajectories = np.unique(batch.table.trajectory).astype(np.int64)
        return iter(pack(batch, trajectories, self._micro_batch_tokens))

    def _read(self, batch: TrainingBatch, micro: MicroBatch) -> tuple[npt.NDArray[np.int64], Tensor]:
        """Rows of the table, and the value of each: [rows of the micro-batch], with its gradient."""
        row = batch.columns.row[micro.tree.column]
        rows, first = np.unique(row, return_index=True)
        hidden = self._tree_model.hidden(micro.tree)
        states = hidden.index_select(0, torch.from_numpy(micro.tree.predictor[first]).to(hidden.device))
        return rows.astype(np.int64), self.head(states.float())[:, 0]
