"""The stage `pretrain-demo`: the generated corpus as files, the teacher trained on it, its training history."""

import logging
import random
import shutil
import time
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from bitdistiller.config import DemoTeacherRecipe
from bitdistiller.demo.corpus import PROBLEM_TRACKS, TRACKS, documents, full_text
from bitdistiller.demo.packing import Rows, encode_problem, pack_problems, pack_stories
from bitdistiller.demo.teacher import TeacherTraining, architecture
from bitdistiller.demo.tokenizer import train_tokenizer
from bitdistiller.distillation.checkpoints import newest_whole, seal, steps
from bitdistiller.stages import Stage, open_stage
from bitdistiller.stages.files import json_line

logger = logging.getLogger(__name__)

SAVE_SECONDS = 20.0
STATE = "state.pt"
PROMPT_WEIGHT = 0.1
"""Prompts of problems are mostly chance (who has how many of what); at full weight they hide what can be learned."""
STORY_SHARE = 0.25
"""Stories per problem: a story has about three times the tokens."""
TOKENIZER_DOCUMENTS = 2000
POOL = {"train": 4000, "test": 500}
"""Documents per track in the corpus files; `train` is drawn anew, not what the teacher has read."""
CALIBRATION = 256
"""Texts per track in the calibration file."""


def run(recipe: DemoTeacherRecipe, *, output: Path, work: Path | None, time_budget: float | None) -> None:
    """
    Write corpus/, model/ (float32, with tokenizer) and training.jsonl; resumes from the last sealed checkpoint.

    A killed run repeats at most the last 20 seconds and ends with the same bits as an undisturbed one. Raises
    InputError for a recipe that no model can be built from, and DeadlineReached.
    """
    with open_stage(
        "pretrain-demo", version=1, recipe=recipe, inputs={}, output=output, work=work, time_budget=time_budget
    ) as stage:
        tokenizer, rows = prepare(recipe)
        training = TeacherTraining(recipe, architecture(recipe, tokenizer), rows)
        seconds = _train(stage, training)
        counts = write_corpus(stage.output_directory("corpus"), recipe.seed)
        model = stage.output_directory("model")
        training.model.save_pretrained(model)
        tokenizer.save_pretrained(model)
        stage.output_file("training.jsonl").write_text("".join(map(json_line, training.history)), encoding="utf-8")
        parameters = sum(weight.numel() for weight in training.model.parameters())
        counts |= {"parameters": parameters, "rows": len(rows), "vocabulary": len(tokenizer)}
        stage.finish(counts=counts, details={"training_seconds": seconds, "loss": training.history[-1]["loss"]})


def prepare(recipe: DemoTeacherRecipe) -> tuple[PreTrainedTokenizerFast, Rows]:
    """The tokenizer and the packed training data of a recipe, the same on every call."""
    stories = documents("demo-text", "train", recipe.seed, max(1, int(STORY_SHARE * recipe.documents)))
    problems = [item for track in PROBLEM_TRACKS for item in documents(track, "train", recipe.seed, recipe.documents)]
    random.Random(recipe.seed).shuffle(problems)
    texts = [full_text(item) for item in [*stories[:TOKENIZER_DOCUMENTS], *problems[: 2 * TOKENIZER_DOCUMENTS]]]
    tokenizer = train_tokenizer(texts, recipe.vocabulary, recipe.context)
    encoded = [encode_problem(tokenizer, item["prompt"], item["completion"]) for item in problems]
    rows = pack_problems(encoded, recipe.context, tokenizer.pad_token_id, PROMPT_WEIGHT)
    return tokenizer, rows.join(
        pack_stories([item["text"] for item in stories], tokenizer, recipe.context, recipe.seed)
    )


def write_corpus(folder: Path, seed: int) -> dict[str, int]:
    """Write prompts, test items and calibration texts as JSON lines; returns the lines of each file."""
    files = {
        f"{track}.{split}.jsonl": documents(track, split, seed + 1, count)
        for track in TRACKS
        for split, count in POOL.items()
    }
    files["demo-calibration.train.jsonl"] = [
        {"text": full_text(item)} for track in TRACKS for item in documents(track, "train", seed + 2, CALIBRATION)
    ]
    for name, items in files.items():
        (folder / name).write_text("".join(map(json_line, items)), encoding="utf-8")
    return {name: len(items) for name, items in files.items()}


def _train(stage: Stage, training: TeacherTraining) -> float:
    """Take the missing steps; returns the seconds they took."""
    newest = newest_whole(stage.work)
    if newest is not None:
        training.restore(torch.load(newest / STATE, weights_only=True))
    begin = saved = time.monotonic()
    total = training.recipe.steps
    with stage.progress("demo teacher", total, training.done, "step") as bar:
        while training.done < total:
            loss = training.step()
            bar.advance(1, f"loss {loss:.3f}")
            due = stage.deadline.is_due()
            if due or training.done == total or time.monotonic() - saved >= SAVE_SECONDS:
                _save(stage, training)
                saved = time.monotonic()
            if due and training.done < total:
                raise stage.deadline.reached()
    return time.monotonic() - begin


def _save(stage: Stage, training: TeacherTraining) -> None:
    checkpoint = stage.work / f"checkpoint-{training.done}"
    shutil.rmtree(checkpoint, ignore_errors=True)
    checkpoint.mkdir()
    torch.save(training.state(), checkpoint / STATE)
    seal(checkpoint)
    stage.commit()
    for old in list(steps(stage.work).values())[:-2]:
        shutil.rmtree(old)
