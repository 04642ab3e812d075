"""Merging trained agents of one origin into one model: what each changed of the base, put together.

Rule: one tensor of every model is in memory at a time (and one shard of the result), and the result is whole or absent.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from agentrl.errors import ConfigError, StoreError

REPORT = "merge.json"
_INDEX = "model.safetensors.index.json"
_HEAD = "lm_head.weight"

Combine = Callable[[Sequence[Tensor]], Tensor]
"From what each model changed of one tensor, float32, to what the merged one changes of it."


@dataclass(frozen=True, slots=True)
class Share:
    """How much of the weights one model changed, in elements."""

    model: str
    changed: int
    shared: int
    "Changed by another model too."
    scale: float = 1.0
    "What its unique changes are multiplied with."

    @property
    def unique(self) -> int:
        return self.changed - self.shared


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of the models, element by element: the control."""

    name: str = "average"
    threshold: float = 0.0
    "The largest change that does not count as one, in what is reported."

    def prepare(self, shares: Sequence[Share]) -> tuple[Sequence[Share], Combine]:
        return shares, lambda deltas: torch.stack(tuple(deltas)).mean(0)


@dataclass(frozen=True, slots=True)
class Reinforced:
    """Reinforced agent merging (RAM, arXiv:2601.13572): a shared change is averaged, a unique one is kept whole.

    An element counts as changed by a model above `threshold`. The mean goes over the models that changed it, so that
    a change of one model alone is not diluted by those that left the element alone. RAM+ multiplies the unique changes
    of model k with `1 + rescale * min(cap, shared_k / unique_k)`, counted over the whole model: the more of its changes
    are averaged away, the more the others weigh. `rescale` 0 is RAM. The paper leaves the numbers to the user; 0.2 and
    1 are those of its published command.
    """

    threshold: float = 1e-5
    rescale: float = 0.0
    cap: float = 1.0
    name: str = "ram"

    def prepare(self, shares: Sequence[Share]) -> tuple[Sequence[Share], Combine]:
        scaled = [
            Share(share.model, share.changed, share.shared, self._scale(share)) if share.unique else share
            for share in shares
        ]
        scales = [share.scale for share in scaled]

        def combine(deltas: Sequence[Tensor]) -> Tensor:
            changed = torch.stack([delta.abs() > self.threshold for delta in deltas])
            owners = changed.sum(0)
            kept = torch.stack([delta * scale for delta, scale in zip(deltas, scales, strict=True)])
            mean = (torch.stack(tuple(deltas)) * changed).sum(0) / owners.clamp(min=1)
            return torch.where(owners == 1, (kept * changed).sum(0), mean)

        return scaled, combine

    def _scale(self, share: Share) -> float:
        return 1.0 + self.rescale * min(self.cap, share.shared / share.unique)


@dataclass(frozen=True, slots=True)
class Ties:
    """Trim, elect a sign, average those that agree (TIES, Yadav et al. 2023): the control for conflicts.

    Of each tensor the `density` largest changes of a model are kept; the sign with the larger total wins an element.
    """

    density: float = 0.2
    name: str = "ties"
    threshold: float = 0.0
    "The largest change that does not count as one, in what is reported."

    def prepare(self, shares: Sequence[Share]) -> tuple[Sequence[Share], Combine]:
        return shares, self._combine

    def _combine(self, deltas: Sequence[Tensor]) -> Tensor:
        kept = torch.stack([self._trim(delta) for delta in deltas])
        sign = torch.sign(kept.sum(0))
        agree = (torch.sign(kept) == sign) & (kept != 0)
        total: Tensor = (kept * agree).sum(0) / agree.sum(0).clamp(min=1)
        return total

    def _trim(self, delta: Tensor) -> Tensor:
        count = max(1, round(self.density * delta.numel()))
        smallest = delta.abs().flatten().topk(count).values[-1]
        return torch.where(delta.abs() >= smallest, delta, torch.zeros_like(delta))


Rule = Average | Reinforced | Ties


def merge(
    out: Path, base: Path, models: Sequence[Path], rule: Rule, *, shard_bytes: int = 2 * 10**9
) -> Sequence[Share]:
    """Writes `out`: the base with the changes of `models` put together by `rule`, which `from_pretrained` loads.

    Config and tokenizer are the first model's. Weights are added up in float32 and written in the widest type in which
    a model holds them. Raises `ConfigError` for models of other shapes or vocabularies, `StoreError` for the disk.
    """
    if out.exists():
        raise StoreError(f"{out} is there already; a merged model goes into a new folder. Name another or delete it.")
    if len(models) < 2:
        raise ConfigError(f"{len(models)} models are given beside the base; merging needs at least two.")
    try:
        with ExitStack() as stack:
            origin, *trained = (stack.enter_context(_Weights(folder)) for folder in (base, *models))
            for model in trained:
                _check_alike(origin, model)
            shares, combine = rule.prepare(_shares(origin, trained, rule.threshold))
            out.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as room:
                aside = Path(room) / "model"
                aside.mkdir(mode=0o755)
                dtype = _write(aside, origin, trained, combine, shard_bytes)
                _write_config(aside, models[0], dtype)
                report = {
                    "rule": asdict(rule),
                    "base": str(base),
                    "models": [asdict(s) | {"unique": s.unique} for s in shares],
                }
                (aside / REPORT).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
                aside.rename(out)
    except (OSError, SafetensorError) as problem:
        if isinstance(problem, StoreError):
            raise
        raise StoreError(f"merging into {out} failed: {problem}. Nothing was written there.") from problem
    return shares


class _Weights:
    """The tensors of a model folder, one or several safetensors files, read one by one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = ExitStack()
        self._where: dict[str, Any] = {}

    def __enter__(self) -> _Weights:
        paths = sorted(self.folder.glob("model*.safetensors"))
        if not paths:
            raise ConfigError(f"{self.folder} holds no model*.safetensors; only such weights are merged.")
        for path in paths:
            file = self._files.enter_context(safe_open(path, framework="pt"))
            self._where |= dict.fromkeys(file.keys(), file)
        if json.loads((self.folder / "config.json").read_text(encoding="utf-8")).get("tie_word_embeddings"):
            # Some writers repeat the embedding under this name.
            self._where.pop(_HEAD, None)
        return self

    def __exit__(self, *error: object) -> None:
        self._files.close()

    def names(self) -> list[str]:
        return sorted(self._where)

    def shape(self, name: str) -> list[int]:
        found: list[int] = self._where[name].get_slice(name).get_shape()
        return found

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._where[name].get_tensor(name)
        return tensor


def _check_alike(base: _Weights, model: _Weights) -> None:
    """Raises `ConfigError` where the models are not of one shape and one vocabulary."""
    different = sorted(set(base.names()) ^ set(model.names()))
    if different:
        raise ConfigError(
            f"{model.folder} is of another architecture than {base.folder}: only one of them has {different[0]!r} "
            f"({len(different)} such tensors). Merge models that were trained from this base."
        )
    for name in base.names():
        if base.shape(name) != model.shape(name):
            raise ConfigError(
                f"{name!r} has shape {model.shape(name)} in {model.folder} and {base.shape(name)} in {base.folder}. "
                "Merge models that were trained from this base."
            )
    ours, theirs = _vocabulary(base.folder), _vocabulary(model.folder)
    if ours is not None and theirs is not None and ours != theirs:
        raise ConfigError(
            f"the vocabularies of {model.folder} and {base.folder} differ: an id means another token in each. Merge "
            "models of one tokenizer."
        )


def _vocabulary(folder: Path) -> Any:
    """What each id means, or None where the folder does not say."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return None
    said = json.loads(path.read_text(encoding="utf-8"))
    return said["model"].get("vocab"), [(token["id"], token["content"]) for token in said.get("added_tokens", ())]


def _deltas(base: _Weights, models: Sequence[_Weights]) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """Every tensor of the base, and what each model changed of it, in float32; nothing of those that hold no floats."""
    for name in base.names():
        origin, others = base.read(name), [model.read(name) for model in models]
        if not origin.is_floating_point():
            if not all(torch.equal(origin, other) for other in others):
                raise ConfigError(f"{name!r} holds {origin.dtype} and differs between the models: it cannot be merged.")
            yield name, origin, []
            continue
        dtype = origin.dtype
        for other in others:
            dtype = torch.promote_types(dtype, other.dtype)
        changed = [other.to(torch.float32) - origin.to(torch.float32) for other in others]
        yield name, origin.to(dtype), changed


def _shares(base: _Weights, models: Sequence[_Weights], threshold: float) -> list[Share]:
    changed, shared = [0] * len(models), [0] * len(models)
    for _, _, deltas in _deltas(base, models):
        if deltas:
            masks = torch.stack([delta.abs() > threshold for delta in deltas])
            several = masks.sum(0) > 1
            for place, mask in enumerate(masks):
                changed[place] += int(mask.sum())
                shared[place] += int((mask & several).sum())
    return [Share(str(m.folder), c, s) for m, c, s in zip(models, changed, shared, strict=True)]


def _write(
    folder: Path, base: _Weights, models: Sequence[_Weights], combine: Combine, shard_bytes: int
) -> torch.dtype | None:
    """The merged tensors, in shards; returns the widest type of their floats."""
    shard: dict[str, Tensor] = {}
    shards: list[list[str]] = []
    held = total = 0
    widest: torch.dtype | None = None

    def flush() -> None:
        nonlocal held
        save_file(shard, folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(shard))
        shard.clear()
        held = 0

    for name, origin, deltas in _deltas(base, models):
        merged = (origin.to(torch.float32) + combine(deltas)).to(origin.dtype) if deltas else origin
        if deltas:
            widest = origin.dtype if widest is None else torch.promote_types(widest, origin.dtype)
        if shard and held + merged.nbytes > shard_bytes:
            flush()
        shard[name] = merged.contiguous()
        held += merged.nbytes
        total += merged.nbytes
    flush()
    _name_shards(folder, shards, total)
    return widest


def _name_shards(folder: Path, shards: Sequence[Sequence[str]], total: int) -> None:
    """The names under which `from_pretrained` looks for one file, or for several."""
    if len(shards) == 1:
        (folder / "part-0.safetensors").rename(folder / "model.safetensors")
        return
    where: dict[str, str] = {}
    for place, names in enumerate(shards):
        file = f"model-{place + 1:05d}-of-{len(shards):05d}.safetensors"
        (folder / f"part-{place}.safetensors").rename(folder / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _write_config(folder: Path, source: Path, dtype: torch.dtype | None) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and ".safetensors" not in path.name and path.name != REPORT:
            shutil.copy(path, folder / path.name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if dtype is not None:
        config.pop("torch_dtype", None)
        config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
