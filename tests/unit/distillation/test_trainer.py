"""The trainer: gradients of whole batches, learning rates, evaluations."""

import math
from functools import partial

import pytest
import torch
from bitdistiller.distillation.dataset import Sequences, collate
from bitdistiller.distillation.trainer import DistillationTrainer, arguments, optimizer_steps, schedule_factor
from helpers.tiny import SENTENCES, make_model, make_tokenizer

from bitdistiller.config import Training
from bitdistiller.data.tokenising import encode_records
from bitdistiller.distillation.losses import LOSSES, get_loss
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_linears

GAMMA = 0.4
COLLATE = partial(collate, pad=0)


def make_sequences(count):
    tokenizer = make_tokenizer()
    texts = [sentence[: 6 + 3 * n] for n in range(8) for sentence in SENTENCES][:count]
    return encode_records(tokenizer, [{"prompt": text[:4], "completion": text[4:]} for text in texts], 40)


def make_student():
    student = make_model(seed=1)
    quantize_linears(student, get_format("int3"), 32)
    return student


def make_trainer(root, samples=8, kind=DistillationTrainer, **changes):
    settings = {"batch_size": 8, "micro_batch_size": 8, "precision": "float32", "gradient_checkpointing": False}
    training = Training(**{**settings, "learning_rate": 1e-3, "epochs": 1, "evaluate_every": 100, **changes})
    sequences = make_sequences(samples)
    return kind(
        training=training,
        teacher=make_model(seed=0),
        gamma=GAMMA,
        model=make_student(),
        args=arguments(training, root, optimizer_steps(training, samples), evaluates=False),
        train_dataset=Sequences(sequences),
        data_collator=COLLATE,
    )


def gradient_norms(trainer):
    """Norm of the gradient of every step, before it is clipped."""
    trainer.train()
    return [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]


def whole_batch_norm(name, reduction):
    """The gradient norm of one batch, without the trainer."""
    batch, student, teacher = COLLATE(make_sequences(8)), make_student(), make_model(seed=0)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        wanted = teacher(**inputs).logits
    get_loss(name)(student(**inputs).logits, wanted, batch["labels"], gamma=GAMMA, reduction=reduction).backward()
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in student.parameters() if p.grad is not None))


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_whole_batch_whatever_the_micro_batch(tmp_path, name, reduction):
    expected = whole_batch_norm(name, reduction)
    for micro in (8, 4, 2):
        trainer = make_trainer(tmp_path / str(micro), micro_batch_size=micro, loss=name, reduction=reduction)
        assert gradient_norms(trainer) == [pytest.approx(expected, rel=1e-4)]


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
def test_the_last_batch_of_an_epoch_may_be_smaller(tmp_path, reduction):
    """11 samples in batches of 8: the second step has 3, at micro batches of 4 or 2 and 1 of them."""
    found = [
        gradient_norms(make_trainer(tmp_path / str(micro), samples=11, micro_batch_size=micro, reduction=reduction))
        for micro in (8, 4, 2)
    ]
    assert all(len(norms) == 2 for norms in found)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


class Trap(DistillationTrainer):
    """What the Trainer does when it believes that the loss still has to be divided by the accumulation steps."""

    loss_is_scaled_for_ga = False


def test_the_trap_of_gradient_accumulation_is_there_and_avoided(tmp_path):
    right = gradient_norms(make_trainer(tmp_path / "right", micro_batch_size=2))
    trapped = gradient_norms(make_trainer(tmp_path / "trap", kind=Trap, micro_batch_size=2))
    assert trapped[0] == pytest.approx(right[0] / 4, rel=1e-3)


def test_the_logged_loss_is_that_of_the_whole_batch(tmp_path):
    losses = []
    for micro in (8, 2):
        trainer = make_trainer(tmp_path / str(micro), micro_batch_size=micro)
        trainer.train()
        losses.append(next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_teacher_does_not_change_and_is_in_no_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.train()
    assert all(torch.equal(a, b) for a, b in zip(trainer.teacher.parameters(), make_model().parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in trainer.teacher.parameters())
    assert not any("teacher" in name for name in trainer.model.state_dict())


@pytest.mark.parametrize(
    ("samples", "changes", "steps"),
    [
        (6400, {"epochs": 4, "batch_size": 128, "micro_batch_size": 8}, 200),
        (11, {"epochs": 1, "batch_size": 8, "micro_batch_size": 4}, 2),
        (11, {"epochs": 2.5, "batch_size": 8, "micro_batch_size": 8}, 5),
        (1, {"epochs": 1, "batch_size": 128, "micro_batch_size": 8}, 1),
        (6400, {"max_steps": 7}, 7),
    ],
)
def test_optimizer_steps(samples, changes, steps):
    assert optimizer_steps(Training(**changes), samples) == steps


def factors(schedule, warmup=0.0, total=10):
    return [schedule_factor(schedule, warmup, total, step) for step in range(total)]


def test_schedules():
    assert factors("constant") == [1.0] * 10
    assert factors("constant", warmup=0.3) == pytest.approx([0.25, 0.5, 0.75] + [1.0] * 7)
    assert factors("linear") == pytest.approx([1 - step / 10 for step in range(10)])
    assert factors("cosine") == pytest.approx([0.5 * (1 + math.cos(math.pi * step / 10)) for step in range(10)])
    one = factors("one-cycle")
    assert one == factors("cosine", warmup=0.3)
    assert max(one) == one[3] == 1.0
    assert one[:4] == sorted(one[:4])
    assert one[3:] == sorted(one[3:], reverse=True)
    assert factors("one-cycle", warmup=0.5).index(1.0) == 5


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "one-cycle"])
@pytest.mark.parametrize("total", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_every_learning_rate_is_positive_and_at_most_the_peak(schedule, total, warmup):
    assert all(0.0 < factor <= 1.0 for factor in factors(schedule, warmup, total))


def test_the_schedule_is_that_of_the_recipe(tmp_path):
    trainer = make_trainer(tmp_path, samples=32, schedule="one-cycle", learning_rate=4e-3, epochs=2)
    trainer.train()
    rates = [entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry]
    assert rates == pytest.approx([4e-3 * factor for factor in factors("one-cycle", total=8)])
