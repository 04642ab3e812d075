"""Trajectories as bytes and back, without loss.

MessagePack of the dataclasses of `agentrl.types`; arrays are raw little-endian bytes whose dtype is checked both
ways. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec
import numpy as np
import numpy.typing as npt

from agentrl.errors import InvalidDataError
from agentrl.store.payloads import read_payloads
from agentrl.types import Floats, Step, Trajectory

T = TypeVar("T")
_CODES = {np.dtype("<i4"): 1, np.dtype("<f4"): 2}
_DTYPES = {code: dtype for dtype, code in _CODES.items()}


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What one batch taught of one trajectory: one entry per sampled token, in the order of its steps."""

    trajectory: str
    batch: int
    "Batches done before it."
    advantage: Floats
    "As the loss was given it: after every stage of the method."
    coefficient: Floats
    "What the token's loss was multiplied with (weight over denominator); 0 where it was not trained on."
    logprobs: Floats
    "The learner's, in nats, when the gradient was taken; NaN where it was not computed."


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One step of an episode that has not ended."""

    trajectory: str
    step: Step


def encode(trajectory: Trajectory) -> bytes:
    """Raises `InvalidDataError` for what would not come back equal: another dtype, data that is not JSON."""
    try:
        return _ENCODER.encode(trajectory)
    except (TypeError, OverflowError) as error:
        raise InvalidDataError(f"trajectory {trajectory.id} cannot be stored: {error}") from error


def decode(record: bytes) -> Trajectory:
    """Raises `InvalidDataError` where the bytes are no trajectory of this version."""
    return _decoded(_DECODER, record, "is no trajectory")


def encode_trained(trained: Trained) -> bytes:
    return _ENCODER.encode(trained)


def decode_trained(record: bytes) -> Trained:
    """Raises `InvalidDataError`, as `decode` does."""
    return _decoded(_TRAINED, record, "says nothing of an update")


def encode_answer(answer: Answer) -> bytes:
    return _ENCODER.encode(answer)


def decode_answer(record: bytes) -> Answer:
    """Raises `InvalidDataError`, as `decode` does."""
    return _decoded(_ANSWER, record, "is no answer")


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """Every trajectory of a payload file, in the order of writing; for viewers, replay and export."""
    for _, record in read_payloads(path):
        yield decode(record)


def _decoded(decoder: msgspec.msgpack.Decoder[T], record: bytes, otherwise: str) -> T:
    try:
        return decoder.decode(record)
    except msgspec.MsgspecError as error:
        raise InvalidDataError(f"a record of {len(record)} bytes {otherwise}: {error}") from error


def _from_array(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype in _CODES:
        return msgspec.msgpack.Ext(_CODES[value.dtype], value.tobytes())
    if isinstance(value, np.generic):
        return value.item()
    shown = f"an array of {value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(f"{shown} is neither JSON nor a flat array of int32 or float32")


def _to_array(code: int, data: memoryview) -> npt.NDArray[Any]:
    dtype = _DTYPES.get(code)
    if dtype is None or len(data) % dtype.itemsize:
        raise msgspec.ValidationError(f"an array of {len(data)} bytes has type code {code}")
    return np.frombuffer(data, dtype).copy()


def _checked(kind: Any, value: Any) -> Any:
    """`kind` is `ndarray[shape, dtype[int32]]`: the array read must be of that dtype."""
    scalar = get_args(get_args(kind)[1])[0]
    if not isinstance(value, np.ndarray) or value.dtype != np.dtype(scalar):
        raise msgspec.ValidationError(f"{getattr(value, 'dtype', type(value).__name__)} stands where {scalar} belongs")
    return value


# Made here and not at first use: a thread that meets a type which another one is still preparing ends the process.
_ENCODER = msgspec.msgpack.Encoder(enc_hook=_from_array)
_DECODER = msgspec.msgpack.Decoder(Trajectory, dec_hook=_checked, ext_hook=_to_array)
_TRAINED = msgspec.msgpack.Decoder(Trained, dec_hook=_checked, ext_hook=_to_array)
_ANSWER = msgspec.msgpack.Decoder(Answer, dec_hook=_checked, ext_hook=_to_array)
