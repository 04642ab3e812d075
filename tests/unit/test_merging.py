"""Merging trained agents: the rules on numbers worked by hand, and whole folders that load again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from agentrl.cli.main import run
from agentrl.errors import ConfigError, StoreError
from agentrl.merging import Average, Reinforced, Rule, Share, Ties, merge
from agentrl.models import load_model, make_tiny

WORDS = ["go north south east west", "a red door"]


def combined(rule: Rule, deltas: Sequence[Sequence[float]], shares: Sequence[Share] = ()) -> list[float]:
    given = shares or [Share(str(place), 0, 0) for place in range(len(deltas))]
    _, combine = rule.prepare(given)
    return combine([torch.tensor(delta) for delta in deltas]).tolist()


def test_a_shared_change_is_averaged_over_those_that_made_it_and_a_unique_one_is_kept_whole() -> None:
    # untouched | first only | last only | all three | first and second
    deltas = [[0.0, 0.3, 0.0, 0.6, 0.2], [0.0, 0.0, 0.0, 0.3, 0.4], [0.0, 0.0, -0.5, 0.3, 0.0]]
    assert combined(Reinforced(), deltas) == pytest.approx([0.0, 0.3, -0.5, 0.4, 0.3])
    # The plain mean dilutes what one model alone has learned.
    assert combined(Average(), deltas) == pytest.approx([0.0, 0.1, -0.5 / 3, 0.4, 0.2])


def test_a_change_at_the_threshold_does_not_count() -> None:
    deltas = [[0.25, 1.0], [0.125, 0.25]]
    assert combined(Reinforced(threshold=0.25), deltas) == [0.0, 1.0]


def test_ram_plus_raises_unique_changes_by_how_much_is_shared() -> None:
    rule = Reinforced(rescale=0.2, cap=0.5)
    shares = [Share("a", changed=10, shared=2), Share("b", changed=3, shared=2), Share("c", changed=4, shared=4)]
    scaled, _ = rule.prepare(shares)
    # 1 + 0.2 * 2/8; 1 + 0.2 * the cap, as 2/1 is above it; nothing unique to scale.
    assert [share.scale for share in scaled] == pytest.approx([1.05, 1.1, 1.0])
    deltas = [[1.0, 0.0, 1.0], [0.0, 1.0, 3.0], [0.0, 0.0, 2.0]]
    assert combined(rule, deltas, shares) == pytest.approx([1.05, 1.1, 2.0])


def test_ties_keeps_large_changes_and_the_stronger_sign() -> None:
    deltas = [[0.9, 0.1, 0.5, 0.0], [-0.4, 0.2, 0.7, 0.0]]
    # Two of four are kept of each; at the first element +0.9 outweighs -0.4, at the third both agree.
    assert combined(Ties(density=0.5), deltas) == pytest.approx([0.9, 0.0, 0.6, 0.0])


def test_equal_models_merge_to_themselves_under_every_rule() -> None:
    delta = torch.randn(50, generator=torch.Generator().manual_seed(0)).tolist()
    for rule in (Average(), Reinforced(), Reinforced(rescale=0.2), Ties(density=1.0)):
        assert combined(rule, [delta, delta]) == pytest.approx(delta), rule


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models") / "base", WORDS, hidden=64, layers=1, heads=2, context=64)


def changed(base: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def raised(name: str, row: int, by: float) -> Callable[[dict[str, torch.Tensor]], None]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name][row] += by

    return change


EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_a_merged_folder_loads_and_holds_what_each_model_learned(base: Path, tmp_path: Path, shard_bytes: int) -> None:
    models = [
        changed(base, tmp_path / "a", raised(EMBEDDING, 3, 0.5)),
        changed(base, tmp_path / "b", raised(NORM, 0, 0.25)),
    ]
    shares = merge(tmp_path / "out", base, models, Reinforced(), shard_bytes=shard_bytes)
    before, after = load_model(base).state_dict(), load_model(tmp_path / "out").state_dict()
    moved = {name: (after[name] - before[name]).abs() for name in before}
    assert torch.allclose(moved[EMBEDDING][3], torch.tensor(0.5))
    assert moved[NORM][0] == 0.25
    assert sum(int((change > 0).sum()) for name, change in moved.items() if name != "lm_head.weight") == 64 + 1
    assert [(share.changed, share.shared) for share in shares] == [(64, 0), (1, 0)]
    said = json.loads((tmp_path / "out" / "merge.json").read_text())
    assert said["rule"]["name"] == "ram"
    assert [model["unique"] for model in said["models"]] == [64, 1]
    several = len(list((tmp_path / "out").glob("model-*.safetensors")))
    assert (several > 1) == (shard_bytes == 20_000)
    # And what was written in shards can be merged again.
    again = merge(tmp_path / "again", base, [tmp_path / "out", models[0]], Average())
    assert again[0].shared == 64


def test_small_updates_survive_a_base_of_half_precision(base: Path, tmp_path: Path) -> None:
    def halve(tensors: dict[str, torch.Tensor]) -> None:
        for name in tensors:
            tensors[name] = tensors[name].to(torch.bfloat16)

    half = changed(base, tmp_path / "half", halve)
    exact = {name: tensor.to(torch.float32) for name, tensor in load_file(half / "model.safetensors").items()}

    def nudged(by: float) -> Callable[[dict[str, torch.Tensor]], None]:
        def change(tensors: dict[str, torch.Tensor]) -> None:
            for name in tensors:
                tensors[name] = exact[name].clone()
            tensors[NORM] += by

        return change

    models = [changed(base, tmp_path / "a", nudged(2e-5)), changed(base, tmp_path / "b", nudged(4e-5))]
    merge(tmp_path / "out", half, models, Reinforced())
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    merged = load_file(tmp_path / "out" / "model.safetensors")
    assert config["dtype"] == "float32"
    assert merged[NORM].dtype == torch.float32
    assert torch.allclose(merged[NORM] - exact[NORM], torch.full((64,), 3e-5), atol=1e-6)


def test_models_that_do_not_belong_together_are_refused(base: Path, tmp_path: Path) -> None:
    good = changed(base, tmp_path / "good", raised(NORM, 0, 1.0))
    wider = make_tiny(tmp_path / "wider", WORDS, hidden=128, layers=1, heads=2, context=64)
    deeper = make_tiny(tmp_path / "deeper", WORDS, hidden=64, layers=2, heads=2, context=64)
    others = make_tiny(tmp_path / "others", ["go north south east west", "a blue door"], hidden=64, layers=1, heads=2)
    for wrong, why in ((wider, "has shape"), (deeper, "another architecture"), (others, "vocabularies")):
        with pytest.raises(ConfigError, match=why):
            merge(tmp_path / "out", base, [good, wrong], Reinforced())
    with pytest.raises(ConfigError, match="at least two"):
        merge(tmp_path / "out", base, [good], Reinforced())
    with pytest.raises(StoreError, match="there already"):
        merge(good, base, [good, good], Reinforced())
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_the_command_merges_and_says_what_it_did(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [changed(base, tmp_path / name, raised(NORM, row, 1.0)) for row, name in enumerate("ab")]
    with pytest.raises(SystemExit) as ended:
        run(["models", "merge", str(tmp_path / "out"), *map(str, models), "--base", str(base), "--rule", "ram+"])
    assert not ended.value.code
    told = capsys.readouterr().out
    assert f"{models[0]}: changed 1 weights, 0 of them shared" in told
    assert "merged 2 models by ram+" in told
    with pytest.raises(SystemExit):
        run(["models", "merge", str(tmp_path / "no"), *map(str, models), "--base", str(base), "--rule", "mean"])
    assert "no rule is called 'mean'" in capsys.readouterr().err
