"""Grams of several shards add up to the unsharded ones; shards that do not belong together are refused."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.calibration import Stages, clip_recipe, gram_recipe
from helpers.processes import run
from helpers.tiny import SENTENCES, write_model
from safetensors import safe_open
from safetensors.torch import load_file

from bitdistiller.calibration import load_clip, ranges
from bitdistiller.errors import InputError
from bitdistiller.stages import verify

TESTS = Path(__file__).parents[2]
RESULTS = ("clip.safetensors", "clip.json")


@pytest.fixture
def stages(tmp_path, tiny_model):
    return Stages(tmp_path, tiny_model)


def content(directory):
    """Bytes of every file but the provenance."""
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "provenance.json"]
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_outputs_of_a_shard(stages):
    output = stages.shard(0, 2)
    verify(output)
    assert sorted(content(output)) == [
        "digest.json",
        "grams.json",
        "grams/block-0000.safetensors",
        "grams/block-0001.safetensors",
    ]
    with safe_open(output / "grams" / "block-0001.safetensors", "pt") as file:
        shared = file.metadata()
    layers = [f"model.layers.1.{name}" for name in ("self_attn.v_proj", "self_attn.o_proj")]
    layers += [f"model.layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert set(shared) == set(layers)
    assert shared["model.layers.1.mlp.up_proj"] == shared["model.layers.1.mlp.gate_proj"] == layers[2]
    tensors = load_file(output / "grams" / "block-0001.safetensors")
    assert set(tensors) == {f"{name}.{kind}" for name in set(shared.values()) for kind in ("gram", "tokens")}
    assert tensors["model.layers.1.mlp.down_proj.gram"].shape == (4, 32, 32)
    assert tensors["model.layers.1.mlp.down_proj.gram"].dtype == torch.float32
    counts = json.loads((output / "digest.json").read_text())["counts"]
    assert tensors["model.layers.1.mlp.down_proj.tokens"].item() == counts["tokens"] == 48 * counts["sequences"]


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("tokens", [None, 100])
def test_merged_shards_equal_the_unsharded_stage(stages, number, tokens):
    whole = stages.clip("whole", clip_recipe(tokens=tokens))
    grams = [stages.shard(shard, number, gram_recipe(tokens=tokens)) for shard in range(number)]
    merged = stages.clip("merged", clip_recipe(tokens=tokens), grams[::-1])
    verify(merged)
    expected, found = load_clip(whole), load_clip(merged)
    assert found.keys() == expected.keys()
    same = sum((found[name] == expected[name]).sum().item() for name in expected)
    assert same / sum(tensor.numel() for tensor in expected.values()) >= (1 if number == 1 else 0.999)
    reports = [json.loads((output / "clip.json").read_text()) for output in (whole, merged)]
    assert reports[0]["tokens"] == reports[1]["tokens"]
    for before, after in zip(reports[0]["layers"], reports[1]["layers"], strict=True):
        assert after["error_after"] == pytest.approx(before["error_after"], rel=1e-4)
    if number == 1:
        assert all((whole / name).read_bytes() == (merged / name).read_bytes() for name in RESULTS)


def test_importance_adds_up_too(stages):
    whole = stages.clip("whole", clip_recipe(importance=True))
    grams = [stages.shard(shard, 2, gram_recipe(importance=True)) for shard in range(2)]
    expected, found = load_clip(whole), load_clip(stages.clip("merged", clip_recipe(importance=True), grams))
    same = sum((found[name] == expected[name]).sum().item() for name in expected)
    assert same / sum(tensor.numel() for tensor in expected.values()) >= 0.999
    plain = load_clip(stages.clip("plain"))
    assert any(not torch.equal(plain[name], tensor) for name, tensor in expected.items())


def test_one_set_of_grams_serves_every_format(stages):
    grams = [stages.shard(0, 1)]
    for number_format in ("int3", "nf3"):
        expected = stages.clip(f"{number_format}-whole", clip_recipe(number_format))
        found = stages.clip(number_format, clip_recipe(number_format), grams)
        assert all((expected / name).read_bytes() == (found / name).read_bytes() for name in RESULTS)


def test_padded_groups(stages):
    with pytest.raises(InputError, match="group_size 48 does not divide its 64 input features"):
        stages.shard(0, 1, gram_recipe(48))
    grams = [stages.shard(0, 1, gram_recipe(48, pad=True), "padded")]
    expected, found = (
        stages.clip(f"clip-{len(given)}", clip_recipe(group_size=48, pad=True), given) for given in ([], grams)
    )
    assert load_clip(found)["model.layers.0.self_attn.v_proj.max"].shape[1:] == (2, 1)
    assert all((expected / name).read_bytes() == (found / name).read_bytes() for name in RESULTS)


def interrupted(monkeypatch, attempt, rename):
    """Whether `attempt` was interrupted just before it gave its n-th tensor file its name."""
    renamed, original = [], ranges.replace

    def replacing(source, target):
        renamed.append(target)
        if len(renamed) == rename:
            raise KeyboardInterrupt
        original(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(ranges, "replace", replacing)
        try:
            attempt()
        except KeyboardInterrupt:
            return True
    return False


@pytest.mark.parametrize(("importance", "files"), [(False, 3), (True, 8)])
def test_a_shard_interrupted_before_any_of_its_files(stages, monkeypatch, importance, files):
    chosen = gram_recipe(importance=importance)
    expected = content(stages.shard(1, 2, chosen, "undisturbed"))
    for rename in range(1, files + 1):
        attempt = partial(stages.shard, 1, 2, chosen, f"killed-{rename}")
        assert interrupted(monkeypatch, attempt, rename)
        assert content(attempt()) == expected
        assert not (stages.root / f"killed-{rename}.work" / "state" / "importance").exists()
    assert not interrupted(monkeypatch, partial(stages.shard, 1, 2, chosen, "all"), files + 1)


KILLED = """
import os, signal, sys
from pathlib import Path
from helpers.calibration import Stages, gram_recipe
from bitdistiller.calibration import ranges

renamed, original = [], ranges.replace

def replacing(source, target):
    renamed.append(target)
    if len(renamed) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    original(source, target)

ranges.replace = replacing
Stages(Path(sys.argv[1]), Path(sys.argv[2])).shard(0, 1, gram_recipe(importance=True), "killed")
"""


def test_a_shard_killed_in_its_forward_and_in_its_backward_pass(stages):
    chosen = gram_recipe(importance=True)
    expected = content(stages.shard(0, 1, chosen, "undisturbed"))
    paths = os.pathsep.join((str(TESTS), os.environ.get("PYTHONPATH", "")))
    for rename in (4, 3):
        code, output = run("-c", KILLED, stages.root, stages.model, rename, PYTHONPATH=paths)
        assert code == -signal.SIGKILL, output
    left = {path.name for path in (stages.root / "killed.work" / "state").rglob("*.safetensors")}
    assert "gradient-0001.safetensors" in left
    assert not any(name.startswith("block") for name in left)
    assert content(stages.shard(0, 1, chosen, "killed")) == expected


@pytest.mark.parametrize("importance", [False, True])
def test_a_merge_and_a_weighted_search_interrupted_before_any_of_their_files(stages, monkeypatch, importance):
    chosen = clip_recipe(importance=importance)
    grams = () if importance else [stages.shard(shard, 2) for shard in range(2)]
    expected = content(stages.clip("undisturbed", chosen, grams))
    for rename in range(1, 12 if importance else 4):
        attempt = partial(stages.clip, f"killed-{rename}", chosen, grams)
        assert interrupted(monkeypatch, attempt, rename)
        assert content(attempt()) == expected


def test_finished_blocks_of_a_shard_are_not_taken_again(stages, monkeypatch):
    taken = []
    original = ranges.replace
    monkeypatch.setattr(ranges, "replace", lambda source, target: (taken.append(target.name), original(source, target)))
    assert interrupted(monkeypatch, partial(stages.shard, 0, 1), 3)
    taken.clear()
    stages.shard(0, 1)
    assert taken == ["block-0001.safetensors"]


def refused(stages, grams, recipe=None, **common):
    with pytest.raises(InputError) as error:
        stages.clip("refused", recipe, grams, **common)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_shards_that_are_missing_or_doubled(stages):
    first, second, third = (stages.shard(shard, 3) for shard in range(3))
    assert refused(stages, [first, third]) == "--grams: shards 1 of 3 are missing; give each shard once"
    assert refused(stages, [first]) == "--grams: shards 1, 2 of 3 are missing; give each shard once"
    assert refused(stages, [first, second, third, first]) == "--grams: a shard is given twice; give each shard once"
    copy = shutil.copytree(first, stages.root / "copy")
    assert refused(stages, [first, second, third, copy]).endswith("are both shard 0; give each shard once")
    half = stages.shard(0, 2)
    assert refused(stages, [first, second, half]).endswith(
        "its shards is 2 and not 3; give the shards of one calibration"
    )


def test_shards_of_something_else(stages, tmp_path):
    grams = [stages.shard(shard, 2) for shard in range(2)]
    message = refused(stages, grams, clip_recipe(tokens=100))
    assert 'its calibration is {"block_length": 48, "texts": "demo"} and not {"block_length": 48, "texts"' in message
    assert "its group_size is 32 and not 16" in refused(stages, grams, clip_recipe(group_size=16))
    other = write_model(tmp_path / "other", seed=1)
    assert "its Grams are of another model" in refused(stages, grams, model=other)
    texts = stages.shard(1, 2, output="texts", texts=SENTENCES[::-1] * 8)
    assert "its Grams are of other calibration tokens" in refused(stages, [grams[0], texts])


def test_shards_that_are_not_finished(stages, tmp_path):
    grams = stages.shard(0, 1)
    (grams / "grams" / "block-0001.safetensors").unlink()
    assert "block-0001.safetensors: damaged or missing" in refused(stages, [grams])
    (grams / "digest.json").unlink()
    assert "digest.json is missing, so this output is not finished" in refused(stages, [grams])
    clip = stages.clip("other")
    assert refused(stages, [clip]).endswith("no grams.json in it; accepted: the output directory of clip --shard")


def test_a_damaged_shard(stages):
    grams = stages.shard(0, 1)
    path = grams / "grams" / "block-0001.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(bytes(content))
    assert "block-0001.safetensors: damaged or missing" in refused(stages, [grams])


def test_more_shards_than_sequences(stages):
    with pytest.raises(InputError, match=r"--num-shards: 99 shards for \d+ calibration sequences; accepted: at most"):
        stages.shard(0, 99)
    with pytest.raises(InputError, match="--shard 2: must be from 0 to 1"):
        stages.shard(2, 2)
