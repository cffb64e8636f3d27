"""Declared outputs exist only whole, and their digest says what they hold."""

import contextlib
import json
import os

import pytest
from helpers.processes import TOY_STAGE, run

from bitdistiller.errors import InputError
from bitdistiller.stages import verify
from bitdistiller.stages.files import read_json, read_json_lines, replace, write_json, write_text
from bitdistiller.stages.run import default_work


def visible(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def hidden(folder):
    return list(folder.rglob(".*"))


def make(toy, text="content", note=1):
    with toy() as stage:
        stage.output_file("a.txt").write_text(text)
        (stage.output_directory("model") / "b.bin").write_bytes(b"\0" * 10)
        stage.finish(counts={"rows": 1}, details={"note": note})


def test_a_finished_stage_leaves_outputs_digest_and_provenance(toy, tmp_path):
    make(toy)
    out = tmp_path / "out"
    assert visible(out) == ["a.txt", "digest.json", "model/b.bin", "provenance.json"]
    digest = read_json(out / "digest.json")
    assert digest["counts"] == {"rows": 1}
    assert {name: entry["bytes"] for name, entry in digest["files"].items()} == {"a.txt": 7, "model/b.bin": 10}
    provenance = read_json(out / "provenance.json")
    assert provenance["details"] == {"note": 1}
    assert provenance["recipe"] == {"size": 1}
    assert provenance["attempts"][-1]["outcome"] == "finished"
    assert {"versions", "device", "wall_seconds", "peak_memory", "fingerprint"} <= provenance.keys()
    assert not hidden(tmp_path)
    verify(out)


def test_nothing_is_visible_before_the_end(toy, tmp_path):
    with toy() as stage:
        stage.output_file("a.txt").write_text("half")
        assert not (tmp_path / "out").exists()
        stage.output_file("a.txt").write_text("whole")
        stage.finish()
    assert (tmp_path / "out" / "a.txt").read_text() == "whole"


def test_an_error_leaves_no_output_and_no_leftovers(toy, tmp_path):
    with contextlib.suppress(KeyError), toy() as stage:
        stage.output_file("a.txt").write_text("half")
        raise KeyError
    assert not (tmp_path / "out").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.work"]


def test_a_stage_must_finish(toy):
    with pytest.raises(RuntimeError, match="without finish"), toy():
        pass


def test_kill_between_write_and_finish_leaves_no_declared_output(tmp_path):
    out = tmp_path / "out"
    assert run(TOY_STAGE, out, "--die", "before-finish")[0] == -9
    assert not out.exists()
    assert len(hidden(tmp_path)) >= 1
    assert run(TOY_STAGE, out)[0] == 0
    assert visible(out) == ["digest.json", "numbers/a.txt", "provenance.json", "total.txt"]
    assert not hidden(tmp_path)


def test_kill_between_two_renames_leaves_an_output_without_digest(tmp_path):
    out = tmp_path / "out"
    assert run(TOY_STAGE, out, "--die", "between-renames")[0] == -9
    assert visible(out) == ["numbers/a.txt"]
    with pytest.raises(InputError, match=r"digest\.json is missing, so this output is not finished"):
        verify(out)
    code, output = run(TOY_STAGE, out)
    assert code == 0
    assert "going on after" not in output  # all steps were done
    verify(out)
    assert not hidden(tmp_path)


def test_a_rerun_over_a_finished_output_is_unfinished_until_its_end(tmp_path):
    out = tmp_path / "out"
    assert run(TOY_STAGE, out)[0] == 0
    first = (out / "digest.json").read_bytes()
    assert run(TOY_STAGE, out, "--die", "between-renames")[0] == -9
    assert not (out / "digest.json").exists()
    assert run(TOY_STAGE, out)[0] == 0
    assert (out / "digest.json").read_bytes() == first
    assert not hidden(tmp_path)


def test_leftovers_inside_the_output_directory_are_removed(toy, tmp_path):
    """A kill inside a rename of a directory, or inside the writing of a digest, leaves these."""
    out = tmp_path / "out"
    (out / ".model.tmp-1-abc").mkdir(parents=True)
    (out / ".model.tmp-1-abc" / "b.bin").write_bytes(b"old")
    (out / ".digest.json.tmp-1-abc").write_text("{")
    make(toy)
    assert not hidden(tmp_path)
    verify(out)


def test_kill_goes_on_where_it_was(tmp_path):
    out = tmp_path / "out"
    assert run(TOY_STAGE, out, "--steps", "5", "--die", "after-step-1")[0] == -9
    code, output = run(TOY_STAGE, out, "--steps", "5")
    assert code == 0
    assert "going on after 2" in output
    assert len(read_json(out / "provenance.json")["attempts"]) == 2


def test_identical_regenerated_content_has_an_identical_digest(toy, tmp_path):
    make(toy, note=1)
    first = (tmp_path / "out" / "digest.json").read_bytes()
    make(toy, note=2)
    assert (tmp_path / "out" / "digest.json").read_bytes() == first
    make(toy, text="changed")
    assert (tmp_path / "out" / "digest.json").read_bytes() != first


def test_verify_detects_truncation_change_and_loss(toy, tmp_path):
    make(toy)
    path = tmp_path / "out" / "model" / "b.bin"
    for damage in (b"\0" * 9, b"\0" * 9 + b"\1"):
        path.write_bytes(damage)
        with pytest.raises(InputError, match=r"b\.bin: damaged or missing .* delete .*out and run again"):
            verify(tmp_path / "out")
    verify(tmp_path / "out", deep=False)
    path.unlink()
    with pytest.raises(InputError, match=r"b\.bin: damaged or missing"):
        verify(tmp_path / "out", deep=False)


def test_outputs_are_readable_as_the_umask_says(toy, tmp_path):
    with toy() as stage:
        path = stage.output_file("weights")
        path.write_text("0600, as safetensors does")
        path.chmod(0o600)
        before = os.umask(0o027)
        try:
            stage.finish()
        finally:
            os.umask(before)
    assert (tmp_path / "out" / "weights").stat().st_mode & 0o777 == 0o640


def test_state_goes_to_work_for_results(tmp_path):
    assert default_work(tmp_path / "results/model/run/train") == tmp_path / "work/model/run/train"
    assert default_work(tmp_path / "elsewhere/train") == tmp_path / "elsewhere/train.work"


def test_replace_swaps_directories_whole(tmp_path):
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
    replace(tmp_path / "new", tmp_path / "old")
    assert visible(tmp_path) == ["old/new"]


def test_write_text_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert path.read_text() == "old"
    assert visible(tmp_path) == ["file.txt"]


def test_json_is_canonical(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": "ü"})
    write_json(tmp_path / "b", {"a": "ü", "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_torn_lines_are_an_error_unless_expected(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a": ')
    assert list(read_json_lines(path, torn=True)) == [{"a": 1}]
    with pytest.raises(json.JSONDecodeError):
        list(read_json_lines(path))
