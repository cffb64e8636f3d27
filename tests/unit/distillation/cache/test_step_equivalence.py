"""A step's loss and gradient are the same for every layout, number of processes, and for a cached teacher."""

import pytest
import torch
from helpers.tiny import make_model

from bitdistiller.config import Training
from bitdistiller.distillation.chunked import Term, chunked_loss
from bitdistiller.distillation.heads import Head
from bitdistiller.distillation.losses import get_loss
from bitdistiller.distillation.losses.base import IGNORE
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.teacher import open_teacher

LOSSES = ("cakld", "tlsd", "ce")
STEP = 1


def recipe(**changes):
    settings = {"batch_size": 9, "micro_batch_size": 3, "max_length": 32, "precision": "float32"}
    return Training(**{**settings, **changes})


def step(student, teacher, training, file, loss, layout="grouped", processes=1):
    """(loss, gradients) of one step, summed over the micro-batches of all processes."""
    steps, chosen = Steps(file, training, layout), get_loss(loss)
    counts, total = steps.counts(STEP), 0.0
    student.zero_grad()
    for rank in range(processes):
        for batch in steps.micro_batches(STEP, rank, processes):
            keep = (batch.labels != IGNORE) | (batch.targets != IGNORE)
            signal = teacher.signal(batch, keep)
            known = torch.zeros(keep.shape).masked_scatter(keep, signal.label_log_probability(batch.targets[keep]))
            weights = chosen.weights(batch, counts, training.reduction, known)[keep]
            hidden = student.base_model(**batch.model_inputs).last_hidden_state[keep]
            terms = [Term(chosen, 1.0, weights, 0.4)]
            part = chunked_loss(hidden, Head.of(student), signal, batch.targets[keep], terms)
            part.backward()
            total += part.item()
    return total, torch.cat([p.grad.flatten() for p in student.parameters() if p.grad is not None])


def assert_same(found, expected, tolerance):
    assert found[0] == pytest.approx(expected[0], rel=tolerance)
    assert (found[1] - expected[1]).norm() <= 10 * tolerance * expected[1].norm()


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("loss", LOSSES)
def test_layouts_and_processes(tiny_model, file, loss, reduction):
    for mask_prompt in (False, True):
        training = recipe(reduction=reduction, mask_prompt=mask_prompt)
        student, teacher = make_model(seed=5), open_teacher(training, tiny_model)
        expected = step(student, teacher, training, file, loss, "padded")
        assert expected[0] > 0
        for layout, processes in (("packed", 1), ("grouped", 1), ("packed", 4), ("grouped", 2), ("padded", 12)):
            assert_same(step(student, teacher, training, file, loss, layout, processes), expected, 1e-5)


def test_packed_rows_with_recomputed_activations(tiny_model, file):
    training, student = recipe(), make_model(seed=5).train()
    teacher = open_teacher(training, tiny_model)
    expected = step(student, teacher, training, file, "cakld", "padded")
    enable = getattr(student, "activation_checkpointing_enable", None) or student.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert_same(step(student, teacher, training, file, "cakld", "packed", 2), expected, 1e-5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_cached_teacher(tiny_model, file, cache, loss):
    student, live = make_model(seed=5), recipe()
    expected = step(student, open_teacher(live, tiny_model), live, file, loss)
    hidden = recipe(teacher="cached")
    assert_same(step(student, open_teacher(hidden, tiny_model, cache("h", 2)), hidden, file, loss), expected, 1e-5)
    everything = recipe(teacher="cached", cache={"kind": "topk", "k": 128})
    teacher = open_teacher(everything, tiny_model, cache("t", kind="topk", k=128))
    assert_same(step(student, teacher, everything, file, loss), expected, 2e-3)
