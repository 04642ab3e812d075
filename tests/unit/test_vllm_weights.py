"""Weights on their way to vLLM, without vLLM: the buffer that both sides map, the fingerprints that they compare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed (extra `train`)")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed (extra `train`)")

from agentrl.engines.vllm_buffer import WeightBuffer, header_of, new_buffer  # noqa: E402
from agentrl.engines.vllm_fingerprint import (  # noqa: E402
    COLUMNS,
    checksum,
    column_checksum,
    fingerprints,
    one_hot,
    probe_columns,
)
from agentrl.engines.vllm_proof import Expected, Probe, check_fingerprints, check_probe, expect  # noqa: E402
from agentrl.errors import InfrastructureFault  # noqa: E402

SHAPES = {"model.embed_tokens.weight": (11, 6), "model.norm.weight": (7,), "model.q_proj.weight": (5, 6)}


def weights(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def layout(dtype: torch.dtype = torch.float32) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (torch.Size(shape), dtype) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_is_a_safetensors_file_of_the_weights(tmp_path: Path, dtype: torch.dtype) -> None:
    buffer = new_buffer([tmp_path], layout(dtype))
    buffer.fill(weights(1))
    read = safetensors.load_file(buffer.path)
    assert read.keys() == SHAPES.keys()
    for name, tensor in weights(1).items():
        assert torch.equal(read[name], tensor.to(dtype))
        assert torch.equal(buffer.tensors[name], tensor.to(dtype))


def test_what_one_side_writes_the_other_reads(tmp_path: Path) -> None:
    buffer = new_buffer([tmp_path], layout())
    other = WeightBuffer(buffer.path)
    for seed in (1, 2):
        buffer.fill(weights(seed))
        assert all(torch.equal(other.tensors[name], tensor) for name, tensor in weights(seed).items())
    assert other.is_current()


def test_filling_tells_what_changed(tmp_path: Path) -> None:
    buffer = new_buffer([tmp_path], layout(torch.bfloat16))
    tensors = weights(1)
    assert buffer.fill(tensors) == set(SHAPES)
    assert buffer.fill({name: tensor.clone() for name, tensor in tensors.items()}) == set()
    tensors["model.norm.weight"][6] += 1
    # Too small a change for the dtype of the engine.
    tensors["model.q_proj.weight"][0, 0] *= 1 + 2**-20
    assert buffer.fill(tensors) == {"model.norm.weight"}
    assert buffer.tensors["model.norm.weight"][6] == tensors["model.norm.weight"][6].to(torch.bfloat16)


def test_another_layout_is_another_file(tmp_path: Path) -> None:
    buffer = new_buffer([tmp_path], layout())
    assert buffer.header == header_of(layout())
    more = layout() | {"more.bias": (torch.Size((3,)), torch.int64)}
    assert buffer.header != header_of(more)
    newer = new_buffer([tmp_path], more)
    assert not buffer.is_current()
    assert newer.is_current()
    assert [path.name for path in tmp_path.iterdir()] == [newer.path.name]


def test_a_folder_without_room_is_passed_over_and_none_with_room_is_a_fault(tmp_path: Path) -> None:
    huge = {"w": (torch.Size((1 << 50,)), torch.float32)}
    with pytest.raises(InfrastructureFault, match=r"need 4,294,967,296 MiB, and no folder has room .*one: .*two: "):
        new_buffer([tmp_path / "one", tmp_path / "two"], huge)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
@pytest.mark.parametrize("shape", [(3,), (4096,), (130, 97)])
def test_a_checksum_tells_every_bit_and_place(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tensor = (100 * torch.randn(shape, generator=torch.Generator().manual_seed(0))).to(dtype)
    assert checksum(tensor) == checksum(tensor.clone())
    for place in (0, tensor.numel() // 2, tensor.numel() - 1):
        changed = tensor.clone()
        flat = changed.view(-1)
        flat[place] = flat[place] + (1 if dtype == torch.int64 else abs(flat[place]) / 64 + 1e-3)
        assert checksum(changed) != checksum(tensor)


def test_rows_of_a_fused_layer_have_the_checksum_of_their_own_tensor() -> None:
    first, second = torch.randn(5, 9), torch.randn(3, 9)
    fused = torch.cat([first, second])
    assert checksum(fused[5:]) == checksum(second)
    columns = probe_columns(4, 9)
    computed = torch.nn.functional.linear(one_hot(columns, 9, fused.dtype, fused.device), fused).T
    assert column_checksum(computed[:5]) == column_checksum(first[:, columns])
    assert column_checksum(computed[5:]) == column_checksum(second[:, columns])


def test_every_version_looks_at_columns_inside_the_layer() -> None:
    for width in (1, 3, 4, 64):
        found = {(columns.start, columns.stop) for columns in (probe_columns(version, width) for version in range(60))}
        assert all(0 <= start < stop <= width and stop - start == min(COLUMNS, width) for start, stop in found)
        assert len(found) > 20 or width < 64


def test_the_output_head_is_the_embedding_unless_it_has_weights_of_its_own() -> None:
    tied = weights(3)
    held, computed = fingerprints(tied, 1)
    columns = probe_columns(1, 6)
    assert held == {name: checksum(tensor) for name, tensor in tied.items()}
    assert computed == {
        "model.q_proj.weight": column_checksum(tied["model.q_proj.weight"][:, columns]),
        "output head": column_checksum(tied["model.embed_tokens.weight"][:, columns]),
    }
    head = torch.randn(11, 6)
    for order in ({"lm_head.weight": head, **tied}, {**tied, "lm_head.weight": head}):
        assert fingerprints(order, 1)[1]["output head"] == column_checksum(head[:, columns])


def test_a_probe_is_compared_in_the_mean_and_nan_never_passes() -> None:
    learner = np.array([0, -1, -2, -3], np.float32)
    probe = Probe(np.arange(4, dtype=np.int32), lambda tokens: learner, tolerance=1e-3)
    expected = expect(7, weights(1), probe)
    assert check_probe(learner + np.float32([0, 3e-4, 0, -3e-4]), expected, probe) == pytest.approx(2e-4, rel=1e-2)
    for wrong in ([0, 3e-3, 0, 6e-3], [0, np.nan, 0, 0]):
        with pytest.raises(InfrastructureFault, match=r"version 7: over 3 probe tokens .*allowed: 0\.001"):
            check_probe(learner + np.float32(wrong), expected, probe)
    for bad in (learner[:3], learner + np.inf):
        with pytest.raises(InfrastructureFault, match="version 8 cannot be verified"):
            expect(8, weights(1), Probe(probe.tokens, lambda tokens, bad=bad: bad, tolerance=1e-3))


def test_one_tensor_that_differs_or_is_absent_is_named() -> None:
    expected = Expected(3, {"a": "1", "b": "2"}, {"output head": "5"}, np.zeros(1, np.float32))
    check_fingerprints({"held": {"b": "2", "a": "1"}, "computed": {"output head": "5"}, "unmapped": []}, expected)
    with pytest.raises(InfrastructureFault, match=r"does not hold the published b \(1 of 2; checksum of b: None"):
        check_fingerprints({"held": {"a": "1"}, "computed": {"output head": "5"}, "unmapped": []}, expected)
    with pytest.raises(InfrastructureFault, match=r"does not compute with the published output head \(1 of 1"):
        check_fingerprints({"held": {"a": "1", "b": "2"}, "computed": {"output head": "4"}, "unmapped": []}, expected)
    with pytest.raises(InfrastructureFault, match=r"where vLLM keeps 1 of the published tensors is not known.*: x"):
        check_fingerprints({"held": {"a": "1"}, "computed": {"output head": "5"}, "unmapped": ["x"]}, expected)
