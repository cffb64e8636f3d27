"""The tokens of the tiny model's mix, trainings on them, and one that nothing happened to."""

from pathlib import Path

import pytest
from helpers.mixes import make_recipe, tokenize_mix


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
