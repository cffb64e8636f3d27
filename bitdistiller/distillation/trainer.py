"""The Hugging Face Trainer with a distillation loss, exact gradient accumulation and sealed checkpoints."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainingArguments

from bitdistiller.config import Training
from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.losses import get_loss
from bitdistiller.stages import Stage
from bitdistiller.stages.files import write_json
from bitdistiller.stages.progress import Progress

ONE_CYCLE_WARMUP = 0.3


def schedule_factor(schedule: str, warmup: float, total: int, step: int) -> float:
    """The learning rate at `step` (from 0) of `total` as a share of its peak."""
    rise = (warmup or ONE_CYCLE_WARMUP if schedule == "one-cycle" else warmup) * total
    if step < rise:
        return (step + 1) / (rise + 1)
    if schedule == "constant":
        return 1.0
    done = (step - rise) / max(total - rise, 1)
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


class DistillationTrainer(Trainer):
    """
    Trains a fake-quantised student on the logits of a frozen teacher, which enters no checkpoint.

    A step's loss is the loss of its whole batch: every micro-batch is weighted by its share of what the loss divides by
    (sequences or tokens), so that the gradient does not depend on the micro-batch size.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *, training: Training, teacher: Any, gamma: float, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.training = training
        self.teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self.gamma = gamma
        self.loss_function = get_loss(training.loss)
        self.model_accepts_loss_kwargs = False
        self.tokens_seen = 0

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """The schedule of the recipe over `num_training_steps` optimizer steps."""
        if self.lr_scheduler is None:
            chosen = self.training
            factor = partial(schedule_factor, chosen.schedule, chosen.warmup, num_training_steps)
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
        return self.lr_scheduler

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """The micro-batches of one step, with the step's divisor in place of the Trainer's count of items."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, sum(self._divisor(batch) for batch in batches)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of one micro-batch, scaled to its share of the step when `num_items_in_batch` is given."""
        tokens = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        with torch.no_grad(), self.autocast_smart_context_manager():
            teacher_logits = self.teacher(**tokens, use_cache=False).logits
        outputs = model(**tokens, use_cache=False)
        loss = self.loss_function(
            outputs.logits, teacher_logits, inputs["labels"], gamma=self.gamma, reduction=self.training.reduction
        )
        if num_items_in_batch is not None:
            self.tokens_seen += int(inputs["attention_mask"].sum())
            loss = loss * self._share(inputs, num_items_in_batch)
        return (loss, outputs) if return_outputs else loss

    def _divisor(self, batch: dict[str, Any]) -> int:
        return self.loss_function.divisor(batch["labels"], self.training.reduction)

    def _share(self, batch: dict[str, Any], step_divisor: int) -> float:
        return self._divisor(batch) / step_divisor if step_divisor else 1.0


class Lifecycle(TrainerCallback):
    """Evaluates, saves and stops in step with the stage: seal, prune, commit, progress, deadline."""

    def __init__(self, stage: Stage, bar: Progress, root: Path, keep: int, gamma: dict[str, Any]) -> None:
        self.stage, self.bar, self.root, self.keep, self.gamma = stage, bar, root, keep, gamma
        self.stopped = False

    def on_step_end(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Show progress; save at the last step and when the deadline is due."""
        self.bar.advance(1, self._note(state))
        if state.global_step >= state.max_steps:
            control.should_evaluate, control.should_save = args.eval_strategy != "no", True
        elif self.stage.deadline.is_due():
            self.stopped = control.should_training_stop = control.should_save = True

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **_: Any) -> None:
        """Seal the checkpoint, then remove those no longer needed."""
        checkpoint = self.root / f"checkpoint-{state.global_step}"
        write_json(checkpoint / "gamma.json", self.gamma)
        checkpoints.seal(checkpoint)
        self.stage.commit()
        checkpoints.prune(self.root, self.keep)

    @staticmethod
    def _note(state: Any) -> str:
        losses = [entry["loss"] for entry in state.log_history[-3:] if "loss" in entry]
        return f"loss {losses[-1]:.4g}" if losses else ""


def optimizer_steps(training: Training, samples: int) -> int:
    """Optimizer steps of a recipe on `samples` training sequences; the last batch of an epoch may be smaller."""
    micro_batches = math.ceil(samples / training.micro_batch_size)
    per_epoch = math.ceil(micro_batches / (training.batch_size // training.micro_batch_size))
    return training.max_steps or math.ceil(training.epochs * per_epoch)


def arguments(training: Training, root: Path, steps: int, evaluates: bool) -> TrainingArguments:
    """Trainer settings of a recipe for `steps` optimizer steps in one process, on the CPU or on one GPU."""
    on_cpu = not torch.cuda.is_available()
    settings = TrainingArguments(
        output_dir=str(root),
        seed=training.seed,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        max_grad_norm=training.max_gradient_norm,
        max_steps=steps,
        per_device_train_batch_size=training.micro_batch_size,
        per_device_eval_batch_size=training.micro_batch_size,
        gradient_accumulation_steps=training.batch_size // training.micro_batch_size,
        bf16=training.precision == "bfloat16",
        use_cpu=on_cpu,
        optim="adamw_torch_fused",
        eval_strategy="steps" if evaluates else "no",
        eval_steps=training.evaluate_every,
        save_steps=training.evaluate_every,
        prediction_loss_only=True,
        logging_steps=1,
        logging_nan_inf_filter=False,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=not on_cpu,
    )
    settings._n_gpu = min(settings.n_gpu, 1)
    return settings
