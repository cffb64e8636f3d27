"""What the stage `train` reads, and what is checked before any weight is loaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from bitdistiller.config import Quantization, Training, TrainRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.tokenising import vocabulary_digest
from bitdistiller.data.tokens import read_counts
from bitdistiller.distillation.cache.reader import check_cache
from bitdistiller.distillation.fitting import check_memory
from bitdistiller.distillation.losses import resolve
from bitdistiller.distillation.world import World
from bitdistiller.errors import InputError
from bitdistiller.formats import check_whole_bytes, resolve_group_size
from bitdistiller.layers import check_cached, quantized_linear_names


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
    check_group_size(recipe.quantization, inputs.model)
    training = recipe.training
    _check_options(training, inputs)
    if inputs.cache:
        check_cache(training, inputs.cache, inputs.tokens, inputs.teacher)
    check_memory(
        training,
        inputs.model,
        inputs.teacher if asks_teacher(training) else None,
        world.device,
        kind=training.teacher,
        engine=engine,
        processes=world.size,
        local_processes=int(os.environ.get("LOCAL_WORLD_SIZE", world.size)),
        offload=training.offload,
    )


def asks_teacher(training: Training) -> bool:
    """Whether a summand of the loss compares with the teacher."""
    return training.hidden_states > 0 or any(loss.needs_teacher for loss, _ in resolve(training.loss))


def check_group_size(quantization: Quantization, model: Path) -> None:
    """Every layer that is to be quantised has input features, or a place in the model, that the format can take."""
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
    names = quantized_linear_names(plain)
    if quantization.bits:
        check_cached(names, quantization.bits, plain.config.model_type)
        return
    for name in names:
        width = plain.get_submodule(name).in_features
        if quantization.signs:
            check_whole_bytes(width, name)
        else:
            resolve_group_size(width, quantization.group_size, name, quantization.pad)


def _check_options(training: Training, inputs: Inputs) -> None:
    """The directories that a recipe asks for are there, and no others."""
    cached = training.teacher == "cached"
    if cached != bool(inputs.cache):
        wanted = (
            "give every shard of the stage cache-teacher (--cache)" if cached else "drop --cache, or set it to cached"
        )
        raise InputError(f"training.teacher: {training.teacher}; {wanted}")
    if (training.warm_start is None) != (inputs.warm_start is None):
        wanted = "takes no --warm-start" if inputs.warm_start else "needs the output of the stage (--warm-start)"
        raise InputError(f"training.warm_start: this recipe {wanted}")


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
