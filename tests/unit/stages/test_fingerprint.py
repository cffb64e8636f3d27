"""What a work directory belongs to, and what happens to state that belongs to something else."""

import contextlib
import json

import pytest
from pydantic import BaseModel

from bitdistiller.config import Generation, Quantization, Training, TrainRecipe
from bitdistiller.errors import InputError
from bitdistiller.stages.fingerprint import describe


class Before(BaseModel):
    size: int = 1


class After(BaseModel):
    size: int = 1
    added: str = "as before"
    nested: Generation = Generation()


def fingerprint(recipe, **inputs):
    return describe("toy", 1, recipe, inputs)["fingerprint"]


def test_default_valued_options_do_not_change_it():
    assert fingerprint(Before(size=2)) == fingerprint(After(size=2))
    assert fingerprint(Before()) == fingerprint(After(added="as before", nested=Generation(temperature=0.7)))
    assert fingerprint(Before()) != fingerprint(After(nested=Generation(temperature=0.8)))


def test_default_valued_options_of_a_nested_recipe_do_not_change_it():
    plain = TrainRecipe(quantization=Quantization(format="int2"))
    spelled = TrainRecipe(
        quantization=Quantization(format="int2", group_size=128), training=Training(epochs=4, loss="cakld")
    )
    assert fingerprint(plain) == fingerprint(spelled)
    other = TrainRecipe(quantization=Quantization(format="int2"), training=Training(epochs=3))
    assert fingerprint(plain) != fingerprint(other)


def test_stage_version_and_recipe_change_it():
    base = describe("toy", 1, {"size": 1}, {})["fingerprint"]
    assert base != describe("toy", 2, {"size": 1}, {})["fingerprint"]
    assert base != describe("other", 1, {"size": 1}, {})["fingerprint"]
    assert base != describe("toy", 1, {"size": 2}, {})["fingerprint"]


def test_inputs_count_by_content_not_by_name_or_time(tmp_path):
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.txt").write_text(text)
    found = {name: fingerprint({}, data=tmp_path / name) for name in "abc"}
    assert found["a"] == found["b"] != found["c"]
    files = {name: fingerprint({}, data=tmp_path / name / "data.txt") for name in "abc"}
    assert files["a"] == files["b"] != files["c"]


def test_inputs_of_another_stage_are_known_by_its_digest(toy, tmp_path):
    def make(text):
        with toy() as stage:
            (stage.output_directory("model") / "weights").write_text(text)
            stage.finish()
        out = tmp_path / "out"
        return (
            fingerprint({}, data=out),
            fingerprint({}, data=out / "model"),
            fingerprint({}, data=out / "model/weights"),
        )

    first = make("one")
    assert make("one") == first
    assert all(new != old for new, old in zip(make("two"), first, strict=True))


def test_a_missing_input_is_one_line(tmp_path, toy):
    with pytest.raises(InputError, match="nowhere: no such file or directory"), toy(inputs={"x": tmp_path / "nowhere"}):
        pass
    assert not (tmp_path / "out.work").exists()


def leave_half_done(toy):
    with contextlib.suppress(KeyboardInterrupt), toy() as stage:
        (stage.work / "half").write_text("done")
        stage.commit()
        raise KeyboardInterrupt


def test_state_of_another_fingerprint_is_moved_aside(toy, work):
    leave_half_done(toy)
    old = json.loads((work / "fingerprint.json").read_text())["fingerprint"]
    with toy(recipe={"size": 2}) as stage:
        assert list(stage.work.iterdir()) == []
        assert (work / f"stale-{old[:12]}" / "half").read_text() == "done"
        assert stage.attempts.commits == 0
        assert len(stage.attempts.history()) == 1
        stage.output_file("result").write_text("2")
        stage.finish()


def test_state_of_the_same_fingerprint_is_kept(toy):
    leave_half_done(toy)
    with toy() as stage:
        assert (stage.work / "half").read_text() == "done"
        assert stage.attempts.commits == 1
        stage.output_file("result").write_text("1")
        stage.finish()
