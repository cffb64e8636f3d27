"""Running the stage `clip`, its shards and their merge."""

from helpers.tiny import SENTENCES

from bitdistiller.calibration import shards, stage
from bitdistiller.config import Calibration, ClipRecipe, GramRecipe, Quantization

CALIBRATION = {"texts": "demo", "block_length": 48}


def clip_recipe(number_format="int2", group_size=32, pad=False, **calibration):
    quantization = Quantization(format=number_format, group_size=group_size, pad=pad)
    return ClipRecipe(quantization=quantization, calibration=Calibration(**CALIBRATION | calibration))


def gram_recipe(group_size=32, pad=False, **calibration):
    return GramRecipe(group_size=group_size, pad=pad, calibration=Calibration(**CALIBRATION | calibration))


class Stages:
    """The commands on the tiny model; outputs are directories below `root`."""

    def __init__(self, root, model):
        self.root, self.model = root, model
        self.common = {"model": model, "work": None, "time_budget": None}

    def shard(self, shard, shards_, recipe=None, output=None, texts=SENTENCES * 8, **common):
        output = self.root / (output or f"shard-{shard}-of-{shards_}")
        options = self.common | common | {"texts": lambda: texts, "output": output}
        shards.run_shard(recipe or gram_recipe(), shard=shard, shards=shards_, **options)
        return output

    def clip(self, output="clip", recipe=None, grams=(), **common):
        output = self.root / output
        options = self.common | common | {"texts": lambda: SENTENCES * 8, "output": output}
        stage.run(recipe or clip_recipe(), grams=grams, **options)
        return output
