"""The stage `train`: clip, fake-quantise, distil; the best checkpoint's master weights are the result."""

from __future__ import annotations

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from bitdistiller.calibration import apply_clip, load_clip
from bitdistiller.config import TrainRecipe
from bitdistiller.data.fetch import check_layout
from bitdistiller.data.stage import MIX
from bitdistiller.data.tokenising import encode_records, vocabulary_digest
from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.confidence import paper_gamma, reference_gamma
from bitdistiller.distillation.dataset import Sequences, collate, split
from bitdistiller.distillation.losses import get_loss
from bitdistiller.distillation.trainer import DistillationTrainer, Lifecycle, arguments, optimizer_steps
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_linears
from bitdistiller.stages import DIGEST, Stage, open_stage, verify
from bitdistiller.stages.files import json_line, read_json, read_json_lines, write_json

logger = logging.getLogger(__name__)

STUDENT = "student"
GAMMA = "gamma.json"


def run(
    recipe: TrainRecipe,
    *,
    model: Path,
    teacher: Path | None,
    mix: Path,
    clip: Path | None,
    output: Path,
    work: Path | None,
    time_budget: float | None,
) -> None:
    """Distil `teacher` (default: the model itself) into the quantised `model` on the mix; resumes from checkpoints."""
    teacher = teacher or model
    inputs = {"model": model, "teacher": teacher, "mix": mix} | ({"clip": clip} if clip else {})
    for directory in dict.fromkeys((model, teacher)):
        check_layout(directory)
    tokenizer = AutoTokenizer.from_pretrained(model)
    check_vocabularies(tokenizer, model, teacher, mix)
    with open_stage(
        "train", version=1, recipe=recipe, inputs=inputs, output=output, work=work, time_budget=time_budget
    ) as stage:
        for finished in (mix, clip):
            if finished is not None and finished.is_dir():
                verify(finished)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        sequences = encode_records(tokenizer, read_json_lines(mix / MIX), recipe.training.max_length)
        trainer = _trainer(recipe, stage, model, teacher, clip, sequences, partial(collate, pad=pad))
        _train(recipe, stage, trainer)
        _finish(recipe, stage, trainer, tokenizer)


def check_vocabularies(tokenizer: Any, model: Path, teacher: Path, mix: Path) -> None:
    """Student, teacher and the writer of the mix must share one vocabulary; checked before any weight is loaded."""
    own = vocabulary_digest(tokenizer)
    sizes = [AutoConfig.from_pretrained(path).vocab_size for path in (model, teacher)]
    if teacher != model and (own != vocabulary_digest(AutoTokenizer.from_pretrained(teacher)) or sizes[0] != sizes[1]):
        raise InputError(f"train: the vocabularies of student {model} and teacher {teacher} differ; take models of one")
    if not (mix / DIGEST).exists():
        raise InputError(f"train: {mix / DIGEST} is missing; --mix takes the output directory of the stage mix")
    if read_json(mix / DIGEST)["counts"].get("vocabulary") != own:
        raise InputError(f"train: the mix {mix} was written with another vocabulary than that of {model}")


def _trainer(
    recipe: TrainRecipe,
    stage: Stage,
    model: Path,
    teacher: Path,
    clip: Path | None,
    sequences: list[Any],
    collator: Any,
) -> DistillationTrainer:
    training = recipe.training
    train, held_out = split(sequences, training.evaluation_fraction)
    student = _student(recipe, model, clip)
    frozen = AutoModelForCausalLM.from_pretrained(teacher, dtype=getattr(torch, training.precision))
    settings = arguments(training, stage.work, optimizer_steps(training, len(train)), evaluates=bool(held_out))
    gamma = _gamma(recipe, stage, frozen.to(settings.device), train, collator)
    trainer = DistillationTrainer(
        training=training,
        teacher=frozen,
        gamma=gamma["gamma"],
        model=student,
        args=settings,
        train_dataset=Sequences(train),
        eval_dataset=Sequences(held_out) if held_out else None,
        data_collator=collator,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _student(recipe: TrainRecipe, model: Path, clip: Path | None) -> Any:
    quantization = recipe.quantization
    student = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if clip is not None:
        apply_clip(student, load_clip(clip), quantization.group_size)
    number_format = get_format(quantization.format, quantization.scale_dtype, pad=quantization.pad)
    if recipe.training.gradient_checkpointing:
        enable = getattr(student, "activation_checkpointing_enable", None) or student.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    quantize_linears(student, number_format, quantization.group_size, scale_grad=recipe.training.scale_grad)
    return student


def _gamma(recipe: TrainRecipe, stage: Stage, teacher: Any, train: list[Any], collator: Any) -> dict[str, Any]:
    training, path = recipe.training, stage.work / GAMMA
    if path.exists():
        return read_json(path)
    value: dict[str, Any] = {"gamma": training.gamma, "definition": "fixed"}
    if not get_loss(training.loss).needs_gamma:
        value = {"gamma": 0.5, "definition": f"not used by the loss {training.loss}"}
    elif isinstance(training.gamma, str):
        teacher.eval()
        chosen = train[: training.gamma_samples]
        batches = DataLoader(Sequences(chosen), training.micro_batch_size, collate_fn=collator)
        moved = ({key: tensor.to(teacher.device) for key, tensor in batch.items()} for batch in batches)
        if training.gamma == "paper":
            value = {"gamma": paper_gamma(teacher, moved), "samples": len(chosen)}
        else:
            sums = training.gamma_reference_sum
            value = {"gamma": reference_gamma(teacher, moved, training.gamma_batches, sums)}
        value["definition"] = training.gamma
    write_json(path, value)
    stage.commit()
    logger.info("gamma %.4f (%s)", value["gamma"], value["definition"])
    return value


def _train(recipe: TrainRecipe, stage: Stage, trainer: DistillationTrainer) -> None:
    newest = checkpoints.newest_whole(stage.work)
    done = read_json(newest / checkpoints.STATE)["global_step"] if newest else 0
    with stage.progress("train", trainer.args.max_steps, done) as bar:
        keep = recipe.training.keep_checkpoints
        lifecycle = Lifecycle(stage, bar, stage.work, keep, read_json(stage.work / GAMMA))
        trainer.add_callback(lifecycle)
        if done < trainer.args.max_steps:
            trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    if lifecycle.stopped:
        raise stage.deadline.reached()


def _finish(recipe: TrainRecipe, stage: Stage, trainer: DistillationTrainer, tokenizer: Any) -> None:
    last = checkpoints.newest_whole(stage.work)
    assert last is not None
    best = checkpoints.best_whole(stage.work, last)
    step = read_json(best / checkpoints.STATE)["global_step"]
    student = stage.output_directory(STUDENT)
    for path in sorted(best.iterdir()):
        if path.name in ("config.json", "generation_config.json") or path.name.startswith("model"):
            shutil.copyfile(path, student / path.name)
    tokenizer.save_pretrained(student)
    write_json(student / "bitdistiller.json", recipe.quantization.model_dump(mode="json"))
    shutil.copyfile(stage.work / GAMMA, stage.output_file(GAMMA))
    end = read_json(last / checkpoints.STATE)
    history = [_event(entry) for entry in end["log_history"]]
    with stage.output_file("history.jsonl").open("w", encoding="utf-8") as handle:
        handle.writelines(json_line(event) for event in history if event)
    losses = checkpoints.evaluation_losses(last)
    counts = {"best_step": step, "steps": end["global_step"], "evaluation_loss": losses.get(step)}
    stage.finish(counts=counts, details={"tokens_this_attempt": trainer.tokens_seen})


def _event(entry: dict[str, Any]) -> dict[str, Any] | None:
    step = {"step": entry["step"], "epoch": entry["epoch"]}
    if "eval_loss" in entry:
        return step | {"evaluation_loss": entry["eval_loss"]}
    if "loss" in entry:
        gradient = {"gradient_norm": entry["grad_norm"]} if "grad_norm" in entry else {}
        return step | gradient | {"loss": entry["loss"], "learning_rate": entry["learning_rate"]}
    return None
