"""Damaged outputs: found by size before a run, by content by whoever reads them, and whole again once made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitdistiller.errors import InputError
from bitdistiller.stages import open_stage, verify
from bitdistiller.stages.damage import damaged_file


def make(output: Path) -> Path:
    """The finished output of some stage: a file, and one in a directory."""
    with open_stage("toy", version=1, recipe={}, inputs={}, output=output) as stage:
        stage.output_file("a.txt").write_text("aaaa")
        (stage.output_directory("d") / "b.txt").write_text("bbbb")
        stage.finish()
    return output


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A whole output."""
    return make(tmp_path / "out")


def test_whole_and_unfinished_outputs_are_not_damaged(output: Path, tmp_path: Path) -> None:
    assert damaged_file(output) is None
    assert damaged_file(tmp_path / "nowhere") is None
    (output / "digest.json").unlink()
    assert damaged_file(output) is None


@pytest.mark.parametrize("name", ["a.txt", "d/b.txt"])
def test_a_truncated_and_a_missing_file_are_named(output: Path, name: str) -> None:
    (output / name).write_text("aa")
    assert damaged_file(output) == output / name
    (output / name).unlink()
    assert damaged_file(output) == output / name


@pytest.mark.parametrize("text", ["", '{"files": {"a.txt": {', "[]", '{"files": [1]}'])
def test_a_digest_that_says_nothing_is_damage(output: Path, text: str) -> None:
    (output / "digest.json").write_text(text)
    assert damaged_file(output) == output / "digest.json"


def test_what_a_reader_found_is_remembered_until_it_is_made_again(output: Path) -> None:
    (output / "a.txt").write_text("aaab")
    assert damaged_file(output) is None
    with pytest.raises(InputError, match="damaged or missing"):
        verify(output)
    assert damaged_file(output) == output / "a.txt"
    make(output)
    assert damaged_file(output) is None
    verify(output)


def test_a_mark_that_is_cut_short_is_a_mark(output: Path) -> None:
    (output / "damaged.json").write_text("")
    assert damaged_file(output) == output / "damaged.json"
