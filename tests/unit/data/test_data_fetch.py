"""`fetch`: a checked model directory, linked or downloaded once."""

import huggingface_hub
import pytest

from bitdistiller.config import Model
from bitdistiller.data import fetch
from bitdistiller.errors import InputError
from bitdistiller.stages.digest import input_digest
from bitdistiller.stages.files import read_json


def run(recipe, tmp_path, name="base"):
    fetch.run(Model(**recipe), output=tmp_path / name, work=None, time_budget=None)
    return tmp_path / name


def test_a_local_model_is_linked_and_hashed(tiny_model, tmp_path):
    output = run({"path": tiny_model}, tmp_path)
    linked = output / "model" / "model.safetensors"
    assert linked.is_symlink()
    assert linked.read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    digest = read_json(output / "digest.json")
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json"} <= digest["files"].keys()
    assert digest["counts"]["origin"] == "local"
    assert input_digest(output / "model") == input_digest(run({"path": tiny_model}, tmp_path, "again") / "model")


@pytest.mark.parametrize(
    ("missing", "named"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "a tokenizer")],
)
def test_a_directory_that_is_no_model_is_one_line(tiny_model, tmp_path, missing, named):
    (tmp_path / "model").mkdir()
    for path in tiny_model.iterdir():
        if path.name != missing:
            (tmp_path / "model" / path.name).symlink_to(path)
    with pytest.raises(InputError, match=f"model: no {named}.* there; a model directory in Hugging Face layout"):
        run({"path": tmp_path / "model"}, tmp_path)


def test_a_hub_model_is_downloaded_into_the_state_and_moved(tiny_model, tmp_path, monkeypatch):
    asked = []

    def download(hub, *, revision, local_dir, allow_patterns):
        asked.append((hub, revision))
        (local_dir / ".cache").mkdir(parents=True)
        for path in tiny_model.iterdir():
            (local_dir / path.name).write_bytes(path.read_bytes())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    output = run({"hub": "a/b", "revision": "1234567"}, tmp_path)
    assert asked == [("a/b", "1234567")]
    assert (output / "model" / "config.json").is_file()
    assert not (output / "model" / ".cache").exists()
    assert read_json(output / "digest.json")["counts"] == {"origin": "a/b", "revision": "1234567"}


@pytest.mark.parametrize("error", [OSError("offline\nsecond line"), ValueError()])
def test_a_failed_download_is_one_line(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(InputError, match=r"a/b cannot be downloaded \(\w+\); check id, revision, login and network$"):
        run({"hub": "a/b"}, tmp_path)


def test_the_demo_teacher_is_not_fetched(tmp_path):
    with pytest.raises(InputError, match="made by pretrain-demo"):
        run({"demo": {}}, tmp_path)
