"""The tokens of the tiny model's mix, trainings on them, and one that nothing happened to."""

from pathlib import Path

import pytest
from helpers.mixes import make_recipe, tokenize_mix
from helpers.train_server import Disk, TrainServer, mounting
from helpers.trainings import saved

from bitdistiller.distillation import checkpoints


@pytest.fixture(scope="session")
def tokens(tiny_model, tmp_path_factory) -> Path:
    """Output directory of `tokenize`: 40 samples of at most 32 tokens; 8 held out, 8 steps of 4 an epoch."""
    return tokenize_mix(tmp_path_factory.mktemp("tokens") / "tokens", tiny_model)


@pytest.fixture(scope="session")
def train(tiny_model, tokens):
    """`train(output, recipe=..., ...)`: the stage in this process; its output directory."""

    def call(output, recipe=None, **changes):
        given = {name: changes.pop(name) for name in ("work", "time_budget") if name in changes}
        from bitdistiller.distillation.inputs import Inputs
        from bitdistiller.distillation.stage import run

        inputs = Inputs(**{"model": tiny_model, "teacher": tiny_model, "tokens": tokens, **changes})
        run(recipe or make_recipe(), inputs, output=output, **{"work": None, "time_budget": None, **given})
        return output

    return call


@pytest.fixture(scope="session")
def undisturbed(train, tmp_path_factory):
    """The output of a run that nothing happened to."""
    return train(tmp_path_factory.mktemp("undisturbed") / "train")


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A process that makes attempts at trainings, with a small disk of its own where the kernel allows that."""
    root = tmp_path_factory.mktemp("server")
    (root / "disk").mkdir()
    prefix = mounting(root / "disk")
    with TrainServer(root / "log", prefix) as running:
        running.disk = Disk(root / "disk", running.process.pid) if prefix else None
        yield running


@pytest.fixture(scope="session")
def inputs(tiny_model, tokens):
    """What the server's attempts read."""
    return {"model": tiny_model, "teacher": tiny_model, "tokens": tokens}


@pytest.fixture(scope="session")
def short(server, inputs, tmp_path_factory):
    """`(recipe, output)` of a short run of the server with four saves of about 1 MB, that nothing happened to."""
    recipe = make_recipe(max_steps=8, evaluate_every=2)
    output = tmp_path_factory.mktemp("short") / "train"
    answer = server(recipe, inputs, output)
    assert answer["code"] == 0, (answer, server.log.read_text())
    return recipe, output


class Cut(BaseException):
    """Ends the process's work at once, as a kill does, but for the test's own process."""


@pytest.fixture
def cut(train, monkeypatch):
    """`cut(output, step, **changes)`: train until the checkpoint of `step` is sealed, and no further."""

    def call(output, step, **changes):
        real = checkpoints.prune

        def prune(root, keep):
            real(root, keep)
            if (root / f"checkpoint-{step}").exists():
                raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(checkpoints, "prune", prune)
            with pytest.raises(Cut):
                train(output, **changes)
        assert saved(output)[-1] == step
        assert not output.exists()

    return call
