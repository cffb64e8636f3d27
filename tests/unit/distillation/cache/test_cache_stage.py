"""The stage `cache-teacher`: resumable by batch, the same bytes after a kill, one line for what does not fit."""

import signal

import pytest
from helpers.processes import run as run_process
from helpers.tiny import write_model
from helpers.tokens import write_token_file

from bitdistiller.config import CacheRecipe, Training
from bitdistiller.distillation.cache import stage
from bitdistiller.distillation.cache.chunks import plan_batches, shard_samples, write_chunk
from bitdistiller.distillation.cache.reader import Cache, check_cache
from bitdistiller.errors import DeadlineReached, InputError
from bitdistiller.stages import verify
from bitdistiller.stages.files import read_json

DOOMED = "tests/helpers/doomed_cache.py"
TRAINING = Training(precision="float32", teacher="cached", max_length=32)


def test_shards_are_contiguous_and_complete():
    parts = [shard_samples(11, shard, 4) for shard in range(4)]
    assert [sample for part in parts for sample in part] == list(range(11))
    assert {len(part) for part in parts} == {2, 3}


def test_batches_are_fixed_and_within_the_limit(tmp_path):
    file = write_token_file(tmp_path / "t", [5, 9, 2, 40, 9, 1])
    assert plan_batches(file, range(6), 18) == [(3,), (1, 4), (0, 2, 5)]
    assert plan_batches(file, range(1, 3), 18) == [(1, 2)]


def test_a_killed_shard_goes_on_and_ends_with_the_same_bytes(tiny_model, tokens, cache, tmp_path, monkeypatch):
    (expected,) = cache("whole")
    code, text = run_process(DOOMED, 5, tiny_model, tokens, tmp_path / "killed" / "00000")
    assert code == -signal.SIGKILL, text
    state = tmp_path / "killed" / "00000.work"
    assert len(list(state.rglob("0*.safetensors"))) == 5
    written = []
    monkeypatch.setattr(stage, "write_chunk", lambda path, *rest: written.append(path) or write_chunk(path, *rest))
    (output,) = cache("killed")
    assert len(written) == len(list(output.rglob("*.safetensors"))) - 5 > 0
    assert read_json(output / "digest.json") == read_json(expected / "digest.json")
    verify(output)
    assert not list(state.rglob("*.safetensors"))
    assert not list(output.rglob(".*"))


def test_the_deadline_stops_between_batches(cache, monkeypatch):
    monkeypatch.setattr("bitdistiller.stages.deadline.Deadline.is_due", lambda *_: True)
    with pytest.raises(DeadlineReached):
        cache("late")


def test_what_the_digest_says(cache, file):
    first, second = (read_json(path / "digest.json")["counts"] for path in cache(shards=2, kind="topk", k=4))
    assert (first["kind"], first["k"], first["shard"], first["shards"]) == ("topk", 4, 0, 2)
    assert first["samples"] + second["samples"] == len(file)
    assert first["token_count"] + second["token_count"] == file.counts["tokens"]
    assert first["vocabulary"] == file.counts["vocabulary"]
    assert first["teacher"] == second["teacher"]


def test_arguments_that_fit_nothing(tiny_model, tokens, tmp_path):
    common = {"model": tiny_model, "output": tmp_path / "o", "work": None, "time_budget": None}
    with pytest.raises(InputError, match="--shard 2: must be from 0 to 1"):
        stage.run(CacheRecipe(), tokens=tokens, shard=2, shards=2, **common)
    with pytest.raises(InputError, match=r"--num-shards 41: .* has only 40 samples; give fewer shards"):
        stage.run(CacheRecipe(), tokens=tokens, shard=0, shards=41, **common)
    with pytest.raises(InputError, match="not a finished token file"):
        stage.run(CacheRecipe(), tokens=tmp_path, shard=0, shards=1, **common)


@pytest.mark.parametrize("vocabulary", [64, 300])
def test_another_vocabulary_is_refused_before_weights_are_loaded(tokens, tmp_path, monkeypatch, vocabulary):
    other = write_model(tmp_path / "other", vocab_size=vocabulary)
    monkeypatch.setattr(stage, "load_teacher", lambda *_: pytest.fail("loaded"))
    common = {"output": tmp_path / "o", "work": None, "time_budget": None}
    with pytest.raises(InputError) as error:
        stage.run(CacheRecipe(), model=other, tokens=tokens, shard=0, shards=1, **common)
    assert str(error.value) == (
        f"cache-teacher: the tokens {tokens} were written with another vocabulary than that of {other}"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cache": {"kind": "topk"}}, "has kind hidden, not topk"),
        ({"precision": "bfloat16"}, "has precision float32, not bfloat16"),
    ],
)
def test_a_cache_of_something_else(cache, tokens, tiny_model, changes, message):
    made = cache()
    check_cache(TRAINING, made, tokens, tiny_model)
    with pytest.raises(InputError) as error:
        check_cache(Training(**{**TRAINING.model_dump(), **changes}), made, tokens, tiny_model)
    expected = f"{made[0]}: this cached teacher {message}; run cache-teacher for this training"
    assert str(error.value) == expected


def test_a_cache_of_another_k_file_teacher_or_with_shards_missing(cache, tokens, tiny_model, tmp_path):
    made = cache("three", shards=3)
    other = write_token_file(tmp_path / "other", [3, 4]).directory
    with pytest.raises(InputError, match=f"is not of the token file {other}; "):
        check_cache(TRAINING, made, other, tiny_model)
    teacher = write_model(tmp_path / "teacher", seed=3)
    with pytest.raises(InputError, match=f"is not of the teacher {teacher}; "):
        check_cache(TRAINING, made, tokens, teacher)
    with pytest.raises(InputError, match=r"give every shard .* once \(found 0 of 3, 2 of 3\)"):
        check_cache(TRAINING, [made[2], made[0]], tokens, tiny_model)
    check_cache(TRAINING, made[::-1], tokens, tiny_model)
    topk = Training(**{**TRAINING.model_dump(), "cache": {"kind": "topk", "k": 3}})
    with pytest.raises(InputError, match="has k 4, not 3"):
        check_cache(topk, cache("topk", kind="topk", k=4), tokens, tiny_model)
    with pytest.raises(InputError, match="not a finished shard of the stage cache-teacher"):
        Cache([tokens])
