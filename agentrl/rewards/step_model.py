"""A causal transformer with a linear head that reads one output at the last token of each step.

It reads the policy's own tokens, so its tokenizer is the policy's. Weights are float32 and never change while a pass
runs. What it saves is in `step_model_state`.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
import transformers
from torch import Tensor

from agentrl.errors import ConfigError, InvalidDataError, StoreError, TrainingError
from agentrl.rewards import step_model_state
from agentrl.rewards.calibration import calibration_error
from agentrl.rewards.contexts import Reading, readings
from agentrl.rewards.step_model_state import StepModelState
from agentrl.tiny import quiet
from agentrl.types import Trajectory


class Lesson(Protocol):
    """What a trajectory teaches, given the outputs of its steps, [steps, labels]."""

    def losses(self, outputs: Tensor, trajectory: Trajectory) -> Tensor:
        """A vector; the mean over all trajectories is minimised."""
        ...

    def forecasts(self, outputs: Tensor, trajectory: Trajectory) -> tuple[Tensor, Tensor]:
        """What the outputs foretell and what came of it: vectors of one length."""
        ...


@dataclass(frozen=True, slots=True)
class Fitting:
    """How a step model learns from one batch of groups."""

    train: Literal["head", "all"] = "head"
    "The head over a frozen trunk, or all weights."
    epochs: int = 1
    "Passes over the batch."
    batch: int = 32
    "Trajectories per update."
    learning_rate: float = 1e-3
    "Of AdamW, without decay."
    seed: int = 0
    "Of the order of trajectories."

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1 or not self.learning_rate > 0:
            raise ConfigError(
                f"epochs is {self.epochs}, batch {self.batch} and learning_rate {self.learning_rate:g}; "
                "at least 1, at least 1 and above 0 are needed."
            )


@dataclass(frozen=True, slots=True)
class NewHead:
    """The head of a model that comes without one: linear, of one output, which says 0 until it is trained."""

    bias: bool = True


class StepModel:
    """`head` over `trunk`. `fitting` None means that nothing is ever trained.

    `most_tokens` bounds a forward pass, padding included; a trajectory is never split over two.
    """

    def __init__(
        self,
        trunk: Any,
        head: torch.nn.Linear,
        fitting: Fitting | None,
        device: str = "cpu",
        *,
        most_tokens: int = 8192,
    ) -> None:
        self.trunk = trunk.to(device).eval()
        self.head = head.to(device)
        self.device = device
        self.most_tokens = most_tokens
        self.fits = 0
        "Calls of `fit` so far."
        self._fitting = fitting
        self._longest = getattr(trunk.config, "max_position_embeddings", None)
        self._vocabulary = int(trunk.get_input_embeddings().num_embeddings)
        self._lock = threading.Lock()
        self._trained = self._choose(fitting)
        self._optimizer = None
        if fitting is not None:
            self._optimizer = torch.optim.AdamW(
                self._trained.values(), lr=fitting.learning_rate, weight_decay=0.0, foreach=False
            )
        _require_causal(trunk, device)

    @torch.no_grad()
    def read(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """Per trajectory its outputs, [steps, labels], on the CPU."""
        with self._lock:
            found = [out for micro in self._micro_batches(trajectories) for out in self._outputs(micro)]
        return [out.cpu() for out in found]

    @property
    def trains(self) -> bool:
        return self._fitting is not None

    def fit(self, trajectories: Sequence[Trajectory], lesson: Lesson) -> dict[str, float]:
        """Learn from `trajectories`. `loss_before` and `calibration_error` are of what was said before they were seen.

        The gradient of an update does not depend on how its trajectories are split into passes. Raises `TrainingError`
        where a loss or a gradient is not finite; the update is not made.
        """
        fitting, optimizer = self._fitting, self._optimizer
        trajectories = [trajectory for trajectory in trajectories if trajectory.steps]
        if fitting is None or optimizer is None or not trajectories:
            return {}
        said = list(zip(self.read(trajectories), trajectories, strict=True))
        before = torch.cat([lesson.losses(out, t) for out, t in said])
        foretold, came = (
            torch.cat(parts) for parts in zip(*(lesson.forecasts(out, t) for out, t in said), strict=True)
        )
        dice = random.Random(f"{fitting.seed}/{self.fits}")
        last: list[Tensor] = []
        for _ in range(fitting.epochs):
            last = []
            order = dice.sample(trajectories, len(trajectories))
            for start in range(0, len(order), fitting.batch):
                with self._lock:
                    last.append(self._update(optimizer, order[start : start + fitting.batch], lesson))
        self.fits += 1
        return {
            "loss_before": float(before.mean()),
            "loss": float(torch.cat(last).mean()),
            "calibration_error": calibration_error(foretold.numpy(), came.numpy()),
        }

    def save(self, folder: Path) -> None:
        """Trained weights and the optimizer's moments. Raises `StoreError`."""
        moments = {}
        if self._optimizer is not None:
            moments = {name: self._optimizer.state.get(p, {}) for name, p in self._trained.items()}
        step_model_state.write(
            folder, StepModelState(self._trained, moments, self.fits, self._mark_of_trunk(self._trained))
        )

    def load(self, folder: Path) -> None:
        """What `save` wrote, bit for bit. Raises `StoreError` where it is torn or of another model."""
        state = step_model_state.read(folder)
        # One that never trains takes whatever was trained; one that trains on needs the moments of all that it trains.
        known = self._trained if self._fitting is not None else self._parameters()
        fits = all(name in known and tensor.shape == known[name].shape for name, tensor in state.weights.items())
        if not fits or not self._trained.keys() <= state.weights.keys():
            raise StoreError(
                f"{folder} holds {len(state.weights)} trained tensors of a reward model and this one trains "
                f"{len(self._trained)}, or others; use the model and the `fit` that it was saved with."
            )
        if state.trunk != self._mark_of_trunk(state.weights):
            raise StoreError(
                f"{folder} holds a head over other weights than those of this reward model; use the model that it was "
                "trained over: the policy that its run started from."
            )
        with torch.no_grad():
            for name, tensor in state.weights.items():
                parameter = known[name]
                parameter.copy_(tensor)
                if self._optimizer and name in state.moments:
                    # Adam keeps its step count on the CPU and its moments beside the parameter.
                    self._optimizer.state[parameter] = {
                        key: t.clone() if key == "step" else t.to(parameter.device)
                        for key, t in state.moments[name].items()
                    }
        self.fits = state.fits

    def _choose(self, fitting: Fitting | None) -> dict[str, torch.nn.Parameter]:
        """The parameters that are trained, or would be; the others are frozen."""
        whole = fitting is not None and fitting.train == "all"
        trained = {}
        for name, parameter in self._parameters().items():
            head = name.startswith("head.")
            parameter.requires_grad_(whole or (head and fitting is not None))
            if whole or head:
                trained[name] = parameter
        return trained

    def _mark_of_trunk(self, stored: Iterable[str]) -> str:
        """What tells the frozen trunk under a head from another; empty where the trunk is stored with the head."""
        if any(name.startswith("trunk.") for name in stored):
            return ""
        weights = self.trunk.get_input_embeddings().weight[:64].detach().cpu().contiguous()
        return hashlib.sha256(weights.numpy().tobytes()).hexdigest()

    def _parameters(self) -> dict[str, torch.nn.Parameter]:
        modules = {"head": self.head, "trunk": self.trunk}
        return {f"{part}.{name}": p for part, module in modules.items() for name, p in module.named_parameters()}

    def _update(self, optimizer: torch.optim.Optimizer, batch: Sequence[Trajectory], lesson: Lesson) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        losses = []
        for micro in self._micro_batches(batch):
            found = torch.cat([lesson.losses(out, t) for out, t in zip(self._outputs(micro), micro, strict=True)])
            found.sum().backward()  # type: ignore[no-untyped-call]
            losses.append(found.detach().cpu())
        values = torch.cat(losses)
        for parameter in self._trained.values():
            if parameter.grad is not None:
                parameter.grad /= len(values)
        gradients = [parameter.grad for parameter in self._trained.values() if parameter.grad is not None]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in (values, *gradients)):
            raise TrainingError(
                f"a reward model's loss is {float(values.mean()):g} and its gradient not finite, in its fit number "
                f"{self.fits + 1}. Lower the learning_rate of its `fit`; the last checkpoint is from before."
            )
        optimizer.step()
        return values

    def _micro_batches(self, trajectories: Sequence[Trajectory]) -> Iterator[list[Trajectory]]:
        """In order; as many together as fit into one pass."""
        micro: list[Trajectory] = []
        rows = longest = 0
        for trajectory in trajectories:
            lengths = [len(row.tokens) for row in readings(trajectory)]
            rows, longest = rows + len(lengths), max([longest, *lengths])
            if micro and rows * longest > self.most_tokens:
                yield micro
                micro, rows, longest = [], len(lengths), max(lengths, default=0)
            micro.append(trajectory)
        if micro:
            yield micro

    def _outputs(self, trajectories: Sequence[Trajectory]) -> list[Tensor]:
        """One forward pass; rows are padded on the right, where a causal model does not look."""
        rows = [(place, row) for place, trajectory in enumerate(trajectories) for row in readings(trajectory)]
        if not rows:
            return [torch.zeros(0, self.head.out_features) for _ in trajectories]
        longest = max(len(row.tokens) for _, row in rows)
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        seen = torch.zeros(len(rows), longest, dtype=torch.long)
        for index, (_, row) in enumerate(rows):
            self._check(row)
            tokens[index, : len(row.tokens)] = torch.from_numpy(row.tokens)
            seen[index, : len(row.tokens)] = 1
        hidden = self.trunk(input_ids=tokens.to(self.device), attention_mask=seen.to(self.device)).last_hidden_state
        found: list[list[Tensor]] = [[torch.empty(0)] * len(t.steps) for t in trajectories]
        for index, (place, row) in enumerate(rows):
            outputs = self.head(hidden[index, torch.from_numpy(row.places).to(self.device)])
            for step, output in zip(row.steps.tolist(), outputs, strict=True):
                found[place][step] = output
        return [torch.stack(outputs) if outputs else torch.zeros(0, self.head.out_features) for outputs in found]

    def _check(self, row: Reading) -> None:
        if self._longest is not None and len(row.tokens) > self._longest:
            raise InvalidDataError(
                f"a trajectory of {len(row.tokens)} tokens does not fit the reward model's context of {self._longest}. "
                "Lower [rollout] max_context or take a model with a longer one."
            )
        if len(row.tokens) and int(row.tokens.max()) >= self._vocabulary:
            raise InvalidDataError(
                f"the policy sampled token {int(row.tokens.max())} and the reward model knows 0 to "
                f"{self._vocabulary - 1}. Its tokenizer has to be the policy's."
            )


def open_step_model(
    path: Path, fitting: Fitting | None, device: str = "cpu", *, new_head: NewHead | None = None
) -> StepModel:
    """The token- or sequence-classification model in a folder, or any causal LM with a new head that says 0.

    `new_head` is what the latter is given by who will train it, or load one. No code from the folder is run.
    Raises `ConfigError` for a folder or a model that cannot be used.
    """
    if not (path / "config.json").is_file():
        raise ConfigError(f"{path} is no model folder: it has no config.json. Name one that `from_pretrained` reads.")
    config = transformers.AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    kind = (config.architectures or [""])[0]
    auto = transformers.AutoModel
    if kind.endswith("ForTokenClassification"):
        auto = transformers.AutoModelForTokenClassification
    elif kind.endswith("ForSequenceClassification"):
        auto = transformers.AutoModelForSequenceClassification
    with quiet(transformers):
        model = auto.from_pretrained(str(path), dtype=torch.float32, trust_remote_code=False)
    if auto is transformers.AutoModel:
        if new_head is None:
            raise ConfigError(
                f"{path} holds a {kind or 'model'} without a head for steps, and nothing trains one. "
                "Give `fit` to train one in the run, the folder of a classification model as `path`, or that of a "
                "saved reward model as `start`."
            )
        head = torch.nn.Linear(config.get_text_config().hidden_size, 1, bias=new_head.bias)
        # From zero, so that a head that has learned nothing yet says the same of every step.
        for parameter in head.parameters():
            torch.nn.init.zeros_(parameter)
        return StepModel(model, head, fitting, device)
    scoring = getattr(model, "score", None)
    if not isinstance(scoring, torch.nn.Linear):
        raise ConfigError(
            f"{path} holds a {kind}, whose head is not a linear layer over a causal model's states. Take a token or "
            "sequence classifier over a causal model."
        )
    return StepModel(model.base_model, scoring, fitting, device)


def require_same_tokens(policy: Path, other: Path) -> None:
    """Raises `ConfigError` where a token of the policy is not the same token in the model at `other`."""
    tokenizers = [transformers.AutoTokenizer.from_pretrained(str(p), trust_remote_code=False) for p in (policy, other)]
    mine, theirs = (tokenizer.get_vocab() for tokenizer in tokenizers)
    different = sorted(token for token, number in mine.items() if theirs.get(token) != number)
    if different:
        raise ConfigError(
            f"the reward model at {other} has another tokenizer than the policy: {len(different):,} of {len(mine):,} "
            f"tokens differ, such as {different[0]!r}. Take one of the policy's family, or a judge, which reads text."
        )


@torch.no_grad()
def _require_causal(trunk: Any, device: str) -> None:
    """Raises `ConfigError` where a token sees later ones: a step would be scored by what came after it."""
    probe = torch.tensor([[1, 2, 3, 4], [1, 2, 4, 3]], device=device) % trunk.get_input_embeddings().num_embeddings
    hidden = trunk(input_ids=probe).last_hidden_state
    if not torch.allclose(hidden[0, :2], hidden[1, :2], atol=1e-4):
        raise ConfigError(
            f"{type(trunk).__name__} is not causal: a step would be scored by what came after it. Take a reward model "
            "over a causal one."
        )
