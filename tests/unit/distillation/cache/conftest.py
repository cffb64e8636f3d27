"""Caches of the token file of the tiny model's mix."""

import pytest

from bitdistiller.config import CacheRecipe
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.cache import stage

COMMON = {"work": None, "time_budget": None}


@pytest.fixture(scope="session")
def file(tokens):
    return TokenFile(tokens)


@pytest.fixture
def cache(tiny_model, tokens, tmp_path):
    """`cache(name, shards=.., **recipe)`: output directories of all shards."""

    def make(name="cache", shards=1, model=tiny_model, **recipe):
        recipe = CacheRecipe(**{"precision": "float32", "batch_tokens": 64, **recipe})
        outputs = [tmp_path / name / f"{shard:05d}" for shard in range(shards)]
        for shard, output in enumerate(outputs):
            stage.run(recipe, model=model, tokens=tokens, shard=shard, shards=shards, output=output, **COMMON)
        return outputs

    return make
