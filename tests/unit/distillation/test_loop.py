"""The loop: losses and gradients of whole steps whatever the layout, learning rates, a teacher that stays as it is."""

from functools import partial

import pytest
import torch
from helpers.tiny import SENTENCES, make_model, make_tokenizer
from helpers.tokens import write_sequences, write_token_file
from safetensors import safe_open

from bitdistiller.config import Training
from bitdistiller.data.tokenising import encode_records
from bitdistiller.distillation.clock import Clock
from bitdistiller.distillation.engines import engine_class
from bitdistiller.distillation.loop import Loop, Objective
from bitdistiller.distillation.losses import LOSSES, resolve
from bitdistiller.distillation.parameters import parameter_groups
from bitdistiller.distillation.schedules import schedule_factor
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.student import Student
from bitdistiller.distillation.teacher import LiveTeacher
from bitdistiller.distillation.world import World
from bitdistiller.formats import get_format
from bitdistiller.layers import quantize_linears

GAMMA = 0.4
WAYS = [(8, "padded"), (2, "padded"), (4, "grouped"), (8, "packed"), (1, "packed")]
"""Micro-batch size and layout."""


def make_sequences(count):
    texts = [sentence[: 6 + 3 * n] for n in range(8) for sentence in SENTENCES][:count]
    return encode_records(make_tokenizer(), [{"prompt": text[:4], "completion": text[4:]} for text in texts], 40)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """`files(n)`: a token file of n samples."""
    root, made = tmp_path_factory.mktemp("files"), {}

    def get(count):
        if count not in made:
            made[count] = write_sequences(root / str(count), make_sequences(count))
        return made[count]

    return get


def make_student():
    student = make_model(seed=1)
    quantize_linears(student, get_format("int3"), 32)
    return student


def make_loop(file, layout="padded", **changes):
    settings = {"batch_size": 8, "micro_batch_size": 8, "precision": "float32", "gradient_checkpointing": False}
    settings |= {"max_length": 40, "evaluation_fraction": 0.0, "evaluate_every": 100, "epochs": 1}
    training = Training(**{**settings, "learning_rate": 1e-3, **changes})
    clock, world = Clock(torch.device("cpu")), World()
    student = Student(make_student(), training.precision, clock)
    engine = engine_class("single")(student, training, world, partial(parameter_groups, rates=training))
    objective = Objective(resolve(training.loss), GAMMA, training, LiveTeacher(make_model(seed=0)), clock)
    return Loop(training, engine, Steps(file, training, layout), objective, world, clock)


def history(loop):
    """Every event of the whole run."""
    stopped = loop.run(stop=lambda: False, save=lambda _: None, watch=lambda **_: None)
    assert not stopped
    return loop.state.history


def told(loop, name):
    return [event[name] for event in history(loop) if name in event]


def whole_batch(name, reduction):
    """Loss and gradient norm of one batch from full logits, position by position, without anything of the loop."""
    student, teacher, total, counted = make_student(), make_model(seed=0), 0.0, 0
    sequences = make_sequences(8)
    for sequence in sequences:
        ids = torch.tensor([sequence.input_ids])
        s = student(ids).logits[0].log_softmax(-1)
        with torch.no_grad():
            t = teacher(ids).logits[0].log_softmax(-1)
        value, positions = of_a_sequence(name, s, t, ids[0])
        total, counted = total + value, counted + positions
    divisor = len(sequences) if reduction == "sequence_sum" else counted
    loss = total / (1 if name == "tlsd" else divisor)
    loss.backward()
    squares = [p.grad.double().square().sum() for p in student.parameters() if p.grad is not None]
    return loss.item(), torch.stack(squares).sum().sqrt().item()


def of_a_sequence(name, s, t, ids):
    """Sum of the loss over the positions of one sequence, and how many these are."""
    if name in ("ce", "tlsd"):
        s, t, label = s[:-1], t[:-1], ids[1:, None]
        if name == "ce":
            return -s.gather(1, label).sum(), len(label)
        weights = (-t.gather(1, label)[:, 0] / 10).softmax(0)
        return -(weights * (t.exp() * s).sum(-1)).sum(), len(label)
    centre = (GAMMA * t.exp() + (1 - GAMMA) * s.exp()).log()
    terms = {
        "forward": kl(t, s),
        "reverse": kl(s, t),
        "cakld": GAMMA * kl(s, t) + (1 - GAMMA) * kl(t, s),
        "jsd": GAMMA * kl(t, centre) + (1 - GAMMA) * kl(s, centre),
    }
    return terms[name], len(ids)


def kl(p, q):
    return (p.exp() * (p - q)).sum()


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_whole_batch_whatever_the_layout(files, name, reduction):
    loss, norm = whole_batch(name, reduction)
    for micro, layout in WAYS:
        run = make_loop(files(8), layout, micro_batch_size=micro, loss=name, reduction=reduction)
        (event,) = history(run)
        assert event["loss"] == pytest.approx(loss, rel=1e-5), (micro, layout)
        assert event["gradient_norm"] == pytest.approx(norm, rel=1e-5), (micro, layout)


def test_a_weighted_sum_is_the_sum(files):
    parts = {name: told(make_loop(files(8), loss=name), "loss")[0] for name in ("cakld", "ce")}
    found = told(make_loop(files(8), "packed", loss={"cakld": 0.5, "ce": 2.0}, micro_batch_size=2), "loss")[0]
    assert found == pytest.approx(0.5 * parts["cakld"] + 2.0 * parts["ce"], rel=1e-5)


@pytest.mark.parametrize("reduction", ["sequence_sum", "token_mean"])
def test_the_last_batch_of_an_epoch_may_be_smaller(files, reduction):
    """11 samples in batches of 8: the second step has 3, at micro batches of 4 or 2 and 1 of them."""
    found = [
        history(make_loop(files(11), layout, micro_batch_size=micro, reduction=reduction)) for micro, layout in WAYS
    ]
    assert all(len(events) == 2 for events in found)
    for name in ("loss", "gradient_norm"):
        expected = [event[name] for event in found[0]]
        assert all([event[name] for event in events] == pytest.approx(expected, rel=1e-4) for events in found[1:])


@pytest.mark.parametrize("name", ["cakld", "tlsd"])
def test_the_evaluation_loss_is_that_of_the_whole_split_whatever_the_layout(files, name):
    found = []
    for micro, layout in WAYS:
        run = make_loop(files(11), layout, micro_batch_size=micro, loss=name, evaluation_fraction=0.3)
        found += told(run, "evaluation_loss")
    assert len(found) == len(WAYS)
    assert found == pytest.approx([found[0]] * len(WAYS), rel=1e-4)


def test_the_teacher_does_not_change_and_is_no_part_of_what_is_saved(files, tmp_path):
    run = make_loop(files(8))
    teacher = run.objective.teacher.model
    before = {name: parameter.clone() for name, parameter in teacher.named_parameters()}
    history(run)
    assert all(torch.equal(before[name], parameter) for name, parameter in teacher.named_parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    taught = {parameter.data_ptr() for parameter in teacher.parameters()}
    trained = [parameter for group in run.engine.optimizer.param_groups for parameter in group["params"]]
    assert not taught & {parameter.data_ptr() for parameter in trained}
    run.engine.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"weights.safetensors", "optimizer.pt"}
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name, _ in run.engine.model.named_parameters()}


def test_the_schedule_is_that_of_the_recipe(files):
    run = make_loop(files(32), schedule="one-cycle", learning_rate=4e-3, epochs=2)
    factors = [schedule_factor("one-cycle", 0.0, 8, step) for step in range(8)]
    assert told(run, "learning_rate") == pytest.approx([4e-3 * factor for factor in factors])
    (group,) = run.engine.optimizer.param_groups
    assert group["lr"] == pytest.approx(4e-3 * factors[-1])


@pytest.mark.parametrize(
    ("samples", "changes", "steps"),
    [
        (64, {"epochs": 4, "batch_size": 16, "micro_batch_size": 8}, 16),
        (11, {"epochs": 1, "batch_size": 8, "micro_batch_size": 4}, 2),
        (11, {"epochs": 2.5, "batch_size": 8, "micro_batch_size": 8}, 5),
        (1, {"epochs": 1, "batch_size": 128, "micro_batch_size": 8}, 1),
        (64, {"max_steps": 7}, 7),
    ],
)
def test_optimizer_steps(tmp_path, samples, changes, steps):
    file = write_token_file(tmp_path / "tokens", [4] * samples)
    assert Steps(file, Training(**{"evaluation_fraction": 0.0, **changes}), "padded").total == steps
