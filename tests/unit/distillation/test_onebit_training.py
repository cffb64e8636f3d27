"""Method onebit: where it starts, what trains, its loss, and that a kill costs no teacher and no checkpoint."""

import pytest
import torch
from helpers.mixes import STEPS, make_recipe
from helpers.tiny import make_model, write_model
from helpers.trainings import assert_same, state
from pydantic import ValidationError
from reference.onebit import batch_kl, hidden_loss
from safetensors.torch import load_file

from bitdistiller.config import OneBitStart, Training
from bitdistiller.data.tokens import TokenFile
from bitdistiller.distillation.clock import Clock
from bitdistiller.distillation.loop import Objective
from bitdistiller.distillation.losses import get_loss, resolve
from bitdistiller.distillation.onebit_start import start_onebit
from bitdistiller.distillation.parameters import parameter_groups
from bitdistiller.distillation.steps import Steps
from bitdistiller.distillation.student import Student
from bitdistiller.distillation.teacher import LiveTeacher
from bitdistiller.errors import InputError
from bitdistiller.layers import OneBitLinear, quantized_linear_names
from bitdistiller.stages.files import read_json

SIGNS = {"format": "sign1"}
PRESET = {
    "loss": {"forward": 0.01},
    "hidden_states": 1.0,
    "reduction": "sequence_sum",
    "schedule": "cosine",
    "weight_decay": 0.01,
    "adam_beta2": 0.98,
}


def recipe(**changes):
    return make_recipe(quantization=SIGNS, **{**PRESET, **changes})


@pytest.fixture(scope="module")
def finished(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("onebit") / "train", recipe=recipe())


def test_the_start_has_the_authors_parts_and_freezes_the_rest():
    plain, model = make_model(3), make_model(3)
    names = start_onebit(model, OneBitStart(latent=0.02))
    assert names == quantized_linear_names(plain)
    assert {name.rsplit(".", 1)[-1] for name in names} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    }
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {f"{name}.{kind}" for name in names for kind in ("weight", "weight_scale", "input_factor")}
    for name in names:
        weight, layer = plain.get_submodule(name).weight, model.get_submodule(name)
        assert torch.equal(layer.weight, 0.02 * weight.sign())
        apart = (weight - weight.sign() * torch.outer(layer.weight_scale, layer.input_factor)).norm() / weight.norm()
        assert 0.5 < apart < 0.66  # sqrt(1 - 2 / pi) of normal weights


def test_both_decompositions_start_at_one_product():
    one, other = make_model(3), make_model(3)
    start_onebit(one, OneBitStart(decomposition="nmf"))
    start_onebit(other, OneBitStart(decomposition="svd"))
    for name in quantized_linear_names(make_model(3)):
        first, second = one.get_submodule(name), other.get_submodule(name)
        products = [torch.outer(layer.weight_scale, layer.input_factor) for layer in (first, second)]
        torch.testing.assert_close(*products, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(first.weight_scale, second.weight_scale, rtol=1e-2)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_loss_of_a_step_is_the_released_one(tokens, checkpointing):
    """Rows of equal length without padding: KL over sequences, hidden states over tokens, and the same gradients."""
    teacher, model = make_model(1), make_model(1)
    start_onebit(model, OneBitStart())
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    training = Training(**PRESET, batching="padded", precision="float32", batch_size=4, micro_batch_size=2)
    student = Student(model.train(), "float32", Clock())
    steps = Steps(TokenFile(tokens), training, "padded")
    lengths = steps.file.lengths
    samples = [int(n) for n in (lengths == lengths.max()).nonzero()[0][:2]]
    if len(samples) < 2:
        samples = [samples[0], samples[0]]
    (batch,) = steps.batches(samples)
    objective = Objective(resolve(training.loss), 0.5, training, LiveTeacher(teacher), Clock())
    from bitdistiller.distillation.batches import count

    keep, signal, terms = objective.terms(batch, count(steps.file, samples, mask_prompt=False))
    found = student(batch, keep, signal, terms)
    found.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    with torch.no_grad():
        theirs = teacher(batch.input_ids, output_hidden_states=True)
    mine = model(batch.input_ids, output_hidden_states=True)
    states = {"student_hidden_states": mine.hidden_states, "teacher_hidden_states": theirs.hidden_states}
    expected = get_loss("onebit")(mine.logits, theirs.logits, batch.labels, **states)
    expected.backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    kl, apart = batch_kl(mine.logits, theirs.logits), hidden_loss(mine.hidden_states, theirs.hidden_states)
    assert found.item() == pytest.approx(0.01 * float(kl) + float(apart), rel=1e-4)
    assert gradients.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-3, atol=1e-6)


def test_biases_train_without_decay():
    layer = OneBitLinear(8, 4, bias=True)
    first, last = parameter_groups(torch.nn.Sequential(layer), Training(weight_decay=0.01))
    assert len(first["params"]) == 3
    assert "weight_decay" not in first
    assert last["params"] == [layer.bias]
    assert last["weight_decay"] == 0.0


def test_what_a_run_leaves_has_no_teacher_in_it(finished, tiny_model):
    student = finished / "student"
    assert read_json(student / "bitdistiller.json") == SIGNS
    before, after = load_file(tiny_model / "model.safetensors"), load_file(student / "model.safetensors")
    vectors = load_file(student / "vectors.safetensors")
    assert before.keys() == after.keys()
    layers = {name.removesuffix(".weight_scale") for name in vectors if name.endswith(".weight_scale")}
    assert vectors.keys() == {f"{layer}.{kind}" for layer in layers for kind in ("weight_scale", "input_factor")}
    assert len(layers) == 14
    for name in before:
        trained = name.removesuffix(".weight") in layers
        assert torch.equal(before[name], after[name]) is not trained, name
    newest = state(finished) / f"checkpoint-{STEPS}"
    kept = load_file(newest / "weights.safetensors")
    assert not [name for name in kept if "teacher" in name]
    assert sum(tensor.numel() for tensor in kept.values()) == sum(
        tensor.numel() for part in (after, vectors) for tensor in part.values()
    )


def test_a_killed_run_keeps_its_checkpoint_and_goes_on_with_its_teacher(cut, train, finished, tmp_path):
    """The released scripts remove the directory before they would resume from it, and lose the teacher at a save."""
    output = tmp_path / "train"
    cut(output, 8, recipe=recipe())
    train(output, recipe=recipe())
    assert_same(output, finished)
    one, other = (load_file(path / "student" / "vectors.safetensors") for path in (output, finished))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_it_learns(finished):
    lines = (finished / "history.jsonl").read_text().splitlines()
    import json

    losses = [event["evaluation_loss"] for event in map(json.loads, lines) if "evaluation_loss" in event]
    assert losses[-1] < losses[0]


def test_signs_need_whole_bytes(train, tmp_path):
    odd = write_model(tmp_path / "odd", hidden_size=60, num_attention_heads=2, head_dim=30)
    with pytest.raises(InputError, match="60 input features; signs need a multiple of 8"):
        train(tmp_path / "train", recipe=recipe(), model=odd, teacher=odd)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": "cached"}, "hidden_states: 1 needs teacher: live"),
        ({"train_scales": True}, "sign1 has no scales to train"),
        ({"warm_start": {}}, "warm_start: sign1 has none"),
    ],
)
def test_what_does_not_go_with_it_is_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)
