"""The stage `mix` on shard directories: complete, undamaged, and the same whatever the number of shards."""

import json

import pytest

from bitdistiller.config import Mix
from bitdistiller.data import stage as mix_stage
from bitdistiller.data.prompts import Prompt, shard_prompts
from bitdistiller.errors import InputError
from bitdistiller.stages import open_stage
from bitdistiller.stages.files import json_line, read_json, read_json_lines

PROMPTS = [Prompt(f"alpaca-0-{n}", "alpaca", f"p{n}", n) for n in range(21)]
RECIPE = Mix(teacher="t", sources=[{"dataset": "alpaca", "samples": 20}])


def write_shards(root, shards, vocabulary="v", too_long=0):
    """Shard directories as `generate` leaves them, with one-token completions."""
    for shard in range(shards):
        kept = shard_prompts(PROMPTS[too_long:], shard, shards)
        with open_stage("generate", version=1, recipe={"shard": shard}, inputs={}, output=root / str(shard)) as stage:
            lines = [
                {
                    "id": prompt.id,
                    "dataset": prompt.dataset,
                    "prompt": prompt.text,
                    "completion": "ü",
                    "prompt_tokens": 2,
                    "completion_tokens": 1,
                }
                for prompt in kept
            ]
            stage.output_file("completions.jsonl").write_text("".join(map(json_line, lines)))
            stage.finish(counts={"too_long": too_long if shard == 0 else 0, "vocabulary": vocabulary})
    return [root / str(shard) for shard in range(shards)]


def mix(shards, output, recipe=RECIPE):
    mix_stage.run(recipe, shards=shards, output=output, work=None, time_budget=None)
    return output


def test_counts_and_bytes_do_not_depend_on_the_shards(tmp_path):
    outputs = [mix(write_shards(tmp_path / f"s{n}", n), tmp_path / f"mix{n}") for n in (1, 3)]
    assert len({(output / "mix.jsonl").read_bytes() for output in outputs}) == 1
    assert len({(output / "digest.json").read_bytes() for output in outputs}) == 1
    assert len(list(read_json_lines(outputs[0] / "mix.jsonl"))) == 20
    counts = read_json(outputs[0] / "digest.json")["counts"]
    source = {"dataset": "alpaca", "wanted": 20, "completed": 21, "duplicates": 0, "empty": 0, "mixed": 20}
    assert counts == {"samples": 20, "tokens": 60, "sources": [source], "prompts_too_long": 0, "vocabulary": "v"}


def test_prompts_that_were_too_long_count_as_done(tmp_path):
    output = mix(write_shards(tmp_path / "s", 2, too_long=1), tmp_path / "mix")
    assert read_json(output / "digest.json")["counts"]["prompts_too_long"] == 1


def test_missing_shards_are_one_line(tmp_path):
    shards = write_shards(tmp_path / "s", 3)
    with pytest.raises(InputError, match="give at least one shard directory"):
        mix([], tmp_path / "mix")
    with pytest.raises(InputError, match=r"shards hold 14 completions .* give every shard of this mix, and no other"):
        mix(shards[:2], tmp_path / "mix")
    with pytest.raises(InputError, match="more than one shard"):
        mix([*shards, shards[0]], tmp_path / "mix")
    with pytest.raises(InputError, match=r"nowhere.completions\.jsonl: no such file"):
        mix([*shards[:2], tmp_path / "nowhere"], tmp_path / "mix")
    assert not (tmp_path / "mix").exists()


def test_a_damaged_shard_is_one_line(tmp_path):
    shards = write_shards(tmp_path / "s", 2)
    path = shards[1] / "completions.jsonl"
    path.write_text(path.read_text()[:-10])
    with pytest.raises(InputError, match=r"s/1/completions\.jsonl: damaged or missing .* delete .* and run again"):
        mix(shards, tmp_path / "mix")
    (shards[1] / "digest.json").unlink()
    with pytest.raises(InputError, match=r"digest\.json is missing, so this output is not finished"):
        mix(shards, tmp_path / "mix")


def test_shards_of_two_vocabularies_are_one_line(tmp_path):
    shards = [write_shards(tmp_path / "a", 2)[0], write_shards(tmp_path / "b", 2, vocabulary="w")[1]]
    with pytest.raises(InputError, match="different vocabularies"):
        mix(shards, tmp_path / "mix")


def test_a_directory_of_another_stage_is_no_shard(tmp_path):
    with open_stage("toy", version=1, recipe={}, inputs={}, output=tmp_path / "toy") as stage:
        stage.output_file("completions.jsonl").write_text(json.dumps({"id": "alpaca-0-0"}))
        stage.finish()
    with pytest.raises(InputError, match=r"toy: not the output of a generate stage"):
        mix([tmp_path / "toy"], tmp_path / "mix")
