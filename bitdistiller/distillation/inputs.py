"""What the stage `train` reads, and what is checked before any weight is loaded."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from bitdistiller.config import Training, TrainRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.tokenising import vocabulary_digest
from bitdistiller.data.tokens import read_counts
from bitdistiller.distillation.cache.reader import check_cache
from bitdistiller.distillation.fitting import available, check_fits
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.memory import Setup, estimate
from bitdistiller.distillation.shapes import Shapes
from bitdistiller.distillation.world import World
from bitdistiller.errors import InputError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inputs:
    """Directories: the student's model, its teacher, the token file, and what a recipe may need beside them."""

    model: Path
    teacher: Path
    tokens: Path
    cache: tuple[Path, ...] = ()
    """Shards of the stage `cache-teacher`, in order."""
    clip: Path | None = None
    warm_start: Path | None = None

    @property
    def paths(self) -> dict[str, Path]:
        """Everything that the result depends on, by name."""
        named = {"model": self.model, "teacher": self.teacher, "tokens": self.tokens}
        named |= {f"cache-{number:05d}": path for number, path in enumerate(self.cache)}
        optional = {"clip": self.clip, "warm-start": self.warm_start}
        return named | {name: path for name, path in optional.items() if path is not None}


def check_inputs(recipe: TrainRecipe, inputs: Inputs, engine: str, world: World) -> None:
    """
    Raises InputError, before any weight is loaded, where the directories do not fit each other or the recipe, or where
    the training is not expected to fit the memory that there is.
    """
    for directory in dict.fromkeys((inputs.model, inputs.teacher)):
        check_layout(directory)
    check_vocabularies(inputs)
    cached = recipe.training.teacher == "cached"
    if cached != bool(inputs.cache):
        wrong = (
            "give every shard of the stage cache-teacher (--cache)" if cached else "drop --cache, or set it to cached"
        )
        raise InputError(f"training.teacher: {recipe.training.teacher}; {wrong}")
    if cached:
        check_cache(recipe.training, inputs.cache, inputs.tokens, inputs.teacher)
    if (recipe.training.warm_start is None) != (inputs.warm_start is None):
        wrong = (
            "takes no --warm-start" if inputs.warm_start else "needs the output directory of the stage (--warm-start)"
        )
        raise InputError(f"training.warm_start: this recipe {wrong}")
    check_memory(recipe.training, inputs, engine, world)


def check_memory(training: Training, inputs: Inputs, engine: str, world: World) -> None:
    """Say what the training is expected to need, and refuse it where that is more than there is."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    asked = any(loss.needs_teacher for loss, _ in resolve(training.loss))
    setup = Setup.of(
        training,
        engine=engine,
        processes=world.size,
        local_processes=local,
        device=world.device.type,
        offload=training.offload,
        teacher=training.teacher if asked else "none",
    )
    shapes = [Shapes.read(path) for path in dict.fromkeys((inputs.model, inputs.teacher))]
    expected = estimate(shapes[0], shapes[-1], setup)
    logger.info("%s", expected.table())
    host = available("cpu") if world.device.type == "cuda" else None
    check_fits(expected, available(world.device), host)


def check_vocabularies(inputs: Inputs) -> None:
    """Student, teacher and token file must share one vocabulary; heads padded differently are none of its business."""
    model, teacher = inputs.model, inputs.teacher
    tokenizer = AutoTokenizer.from_pretrained(model)
    own = vocabulary_digest(tokenizer)
    rows = [AutoConfig.from_pretrained(path).get_text_config().vocab_size for path in (model, teacher)]
    short = min(rows) < len(tokenizer) and rows[0] != rows[1]
    if teacher != model and (short or own != vocabulary_digest(AutoTokenizer.from_pretrained(teacher))):
        raise InputError(f"train: the vocabularies of student {model} and teacher {teacher} differ; take models of one")
    if read_counts(inputs.tokens).get("vocabulary") != own:
        raise InputError(f"train: the tokens {inputs.tokens} were written with another vocabulary than that of {model}")
