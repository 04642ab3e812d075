"""Payload files and records: whole or absent, and equal after a round trip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fakes_rollout import same, trajectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrl.errors import InvalidDataError, StoreError
from agentrl.store.payloads import PayloadFile, read_payloads
from agentrl.store.records import decode, encode, read_trajectories
from agentrl.types import Status, Task, Trajectory


def test_a_trajectory_comes_back_equal_to_the_last_bit() -> None:
    original = trajectory()
    assert same(decode(encode(original)), original)
    assert decode(encode(original)).steps[0].tokens.flags.writeable


def test_branches_keep_the_ids_of_their_shared_steps() -> None:
    one, two = trajectory("g-0"), trajectory("g-1")
    assert decode(encode(one)).steps[0].id == decode(encode(two)).steps[0].id == "g-0.0"


@pytest.mark.parametrize(
    "broken",
    [
        np.zeros((2, 2), np.int32),
        np.zeros(2, np.int64),
        np.zeros(2, np.float64),
        np.array([{}], dtype=object),
    ],
)
def test_an_array_of_another_dtype_or_shape_is_refused(broken: np.ndarray) -> None:
    step = trajectory().steps[0]
    object.__setattr__(step, "prompt", broken)
    with pytest.raises(InvalidDataError, match="flat array of int32 or float32"):
        encode(Trajectory("x", Task("t", "e"), "g", (step,), Status.OK))


def test_arrays_in_the_wrong_field_are_refused_when_read() -> None:
    step = trajectory().steps[0]
    object.__setattr__(step, "prompt", np.zeros(2, np.float32))
    record = encode(Trajectory("x", Task("t", "e"), "g", (step,), Status.OK))
    with pytest.raises(InvalidDataError, match="float32 stands where"):
        decode(record)


def test_foreign_bytes_are_refused() -> None:
    with pytest.raises(InvalidDataError, match="no trajectory"):
        decode(b"\x80\x04\x95pickle")


def test_task_data_that_is_not_json_is_refused() -> None:
    bad = Trajectory("x", Task("t", "e", data={"o": object()}), "g", (), Status.OK)
    with pytest.raises(InvalidDataError, match="object is neither JSON"):
        encode(bad)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(st.binary(max_size=200), min_size=1, max_size=8), cut=st.integers(0, 10**6))
def test_a_torn_tail_is_cut_off_and_everything_before_it_is_kept(
    tmp_path: Path, records: list[bytes], cut: int
) -> None:
    path = tmp_path / "payloads.bin"
    path.unlink(missing_ok=True)
    file = PayloadFile(path)
    begin = path.stat().st_size
    offsets = file.append(records)
    file.close()
    cut = begin + cut % (path.stat().st_size - begin + 1)
    ends = [*offsets[1:], path.stat().st_size]
    with path.open("r+b") as raw:
        raw.truncate(cut)
    whole = [record for record, end in zip(records, ends, strict=True) if end <= cut]
    assert [record for _, record in read_payloads(path)] == whole
    file = PayloadFile(path)
    assert file.torn == cut - ([begin, *ends][len(whole)])
    (offset,) = file.append([b"after"])
    assert [file.read(place) for place in [*offsets[: len(whole)], offset]] == [*whole, b"after"]
    file.close()


def test_a_flipped_bit_in_the_tail_is_found(tmp_path: Path) -> None:
    path = tmp_path / "payloads.bin"
    file = PayloadFile(path)
    file.append([b"one", b"two"])
    file.close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    file = PayloadFile(path)
    assert file.torn == 8 + 3 and [record for _, record in read_payloads(path)] == [b"one"]
    file.close()


def test_acknowledged_records_are_never_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "payloads.bin"
    file = PayloadFile(path)
    first, last = file.append([b"one", b"two"])
    file.close()
    with path.open("r+b") as raw:
        raw.seek(first + 9)
        raw.write(b"X")
    file = PayloadFile(path, trusted=last)
    assert file.read(last) == b"two" and file.torn == 0
    with pytest.raises(StoreError, match=f"no whole record at {first}"):
        file.read(first)
    file.close()
    with path.open("r+b") as raw:
        raw.truncate(last + 3)
    with pytest.raises(StoreError, match=f"ledger knows of a record at {last}"):
        PayloadFile(path, trusted=last)


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "payloads.bin"
    path.write_bytes(b"something else entirely")
    with pytest.raises(StoreError, match="no payload file"):
        PayloadFile(path)
    assert path.read_bytes() == b"something else entirely"


def test_trajectories_are_read_back_in_order(tmp_path: Path) -> None:
    file = PayloadFile(tmp_path / "p")
    file.append([encode(trajectory(f"g-{index}", reward=index)) for index in range(3)])
    file.close()
    assert [(t.id, t.reward) for t in read_trajectories(tmp_path / "p")] == [("g-0", 0), ("g-1", 1), ("g-2", 2)]


_FULL = """
import resource, signal, sys
from pathlib import Path
from agentrl.errors import StoreError
from agentrl.store.payloads import PayloadFile, read_payloads
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
file = PayloadFile(path)
file.append([b"kept" * 100])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    file.append([b"lost" * 1000])
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
file.append([b"next"])
print([len(record) for _, record in read_payloads(path)])
"""


def test_a_full_disk_is_an_error_and_leaves_the_file_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / "p")], capture_output=True, text=True, timeout=60, check=True
    )
    assert "cannot be written" in done.stdout and done.stdout.splitlines()[-1] == "[400, 4]"
