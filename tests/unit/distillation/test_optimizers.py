"""AdamW beside its formula; 8-bit states: how close, how large, and that a resume changes no bit."""

import io
import sys

import pytest
import torch
from reference.adamw import adamw

from bitdistiller import kernels
from bitdistiller.config import Training
from bitdistiller.distillation.optimizers import make_optimizer, set_learning_rates, state_bytes
from bitdistiller.errors import InputError

STEPS = 6
SHAPES = [(64, 128), (33, 7), (5,)]


def parameters(dtype=torch.float32, shapes=SHAPES):
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter((torch.randn(s, generator=generator) * 0.02).to(dtype)) for s in shapes]


def gradient(shape, step):
    return torch.randn(shape, generator=torch.Generator().manual_seed(100 + step))


def train(optimizer, weights, start=0, stop=STEPS):
    for step in range(start, stop):
        for weight in weights:
            weight.grad = gradient(weight.shape, step).to(weight.dtype)
        set_learning_rates(optimizer, 1 / (1 + step))
        optimizer.step()
    return [weight.detach().clone() for weight in weights]


def recipe(**changes):
    return Training(**{"learning_rate": 1e-3, "weight_decay": 0.1, "adam_beta2": 0.99, **changes})


def expected(weight, rate=1e-3, weight_decay=0.1):
    gradients = [gradient(weight.shape, step).double().flatten().tolist() for step in range(STEPS)]
    rates = [rate / (1 + step) for step in range(STEPS)]
    path = adamw(weight.double().flatten().tolist(), gradients, rates, beta2=0.99, weight_decay=weight_decay)
    return torch.tensor(path[-1], dtype=torch.float64).view(weight.shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_adamw_is_its_formula(dtype, tolerance):
    weights = parameters(dtype, SHAPES[1:])
    starts = [weight.detach().clone() for weight in weights]
    trained = train(make_optimizer([{"params": weights}], recipe()), weights)
    for start, weight in zip(starts, trained, strict=True):
        torch.testing.assert_close(weight.double(), expected(start), atol=tolerance, rtol=0)


def test_a_group_has_its_own_peak_and_decay():
    slow, fast = parameters(torch.float64, [(3,), (4,)])
    starts = [slow.detach().clone(), fast.detach().clone()]
    groups = [{"params": [slow]}, {"params": [fast], "lr": 5e-3, "weight_decay": 0.0, "name": "scales"}]
    optimizer = make_optimizer(groups, recipe())
    train(optimizer, [slow, fast])
    torch.testing.assert_close(slow.detach(), expected(starts[0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(fast.detach(), expected(starts[1], 5e-3, 0.0), atol=1e-12, rtol=0)
    assert [group["initial_lr"] for group in optimizer.param_groups] == [1e-3, 5e-3]
    assert optimizer.param_groups[1]["name"] == "scales"


def test_the_groups_given_stay_as_they_are():
    weights = parameters()
    groups = [{"params": weights}]
    make_optimizer(groups, recipe())
    assert groups == [{"params": weights}]


def eight_bit(weights, **changes):
    return make_optimizer([{"params": weights}], recipe(optimizer="adamw-8bit", **changes))


def test_eight_bits_stay_close_to_the_formula_and_small_tensors_are_exact():
    pytest.importorskip("torchao")
    weights = parameters()
    starts = [weight.detach().clone() for weight in weights]
    trained = train(eight_bit(weights), weights)
    for index, (start, weight) in enumerate(zip(starts, trained, strict=True)):
        moved = (weight - start).double()
        wanted = expected(start) - start.double()
        error = (moved - wanted).norm() / wanted.norm()
        assert error < (0.05 if index == 0 else 1e-5), SHAPES[index]


def test_bytes_of_state_per_parameter():
    pytest.importorskip("torchao")
    for name, low, high in (("adamw", 8.0, 8.001), ("adamw-8bit", 2.03, 2.3)):
        weights = parameters(shapes=[(128, 128)])
        optimizer = make_optimizer([{"params": weights}], recipe(optimizer=name))
        assert state_bytes(optimizer) == 0
        train(optimizer, weights)
        assert low <= state_bytes(optimizer) / weights[0].numel() <= high, name


@pytest.mark.parametrize("name", ["adamw", "adamw-8bit"])
def test_a_resume_from_a_file_changes_no_bit(name):
    if name == "adamw-8bit":
        pytest.importorskip("torchao")
    training = recipe(optimizer=name)
    weights = parameters()
    straight = train(make_optimizer([{"params": weights}], training), weights)

    first = parameters()
    optimizer = make_optimizer([{"params": first}], training)
    train(optimizer, first, stop=3)
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "weights": [w.detach() for w in first]}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    second = [torch.nn.Parameter(weight) for weight in saved["weights"]]
    optimizer = make_optimizer([{"params": second}], training)
    optimizer.load_state_dict(saved["optimizer"])
    resumed = train(optimizer, second, start=3)
    assert all(torch.equal(a, b) for a, b in zip(straight, resumed, strict=True))


def test_compiled_and_uncompiled_eight_bit_steps_agree(monkeypatch):
    pytest.importorskip("torchao")
    if not kernels.compiled.works():
        pytest.skip("nothing can be compiled here")
    monkeypatch.setattr(kernels.switch, "WORTH_COMPILING", 1)
    with kernels.using("auto"):
        weights = parameters(shapes=SHAPES[:1])
        optimizer = eight_bit(weights)
        assert optimizer.compiles
        compiled = train(optimizer, weights)
    with kernels.using("eager"):
        weights = parameters(shapes=SHAPES[:1])
        optimizer = eight_bit(weights)
        assert not optimizer.compiles
        plain = train(optimizer, weights)
    moved = (plain[0] - parameters()[0]).abs().max()
    assert (compiled[0] - plain[0]).norm() / (plain[0] - parameters()[0]).norm() < 1e-2
    assert moved > 1e-3


def test_without_torchao_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    monkeypatch.delitem(sys.modules, "bitdistiller.distillation.eight_bit", raising=False)
    with pytest.raises(InputError, match=r"^training\.optimizer: adamw-8bit needs the package torchao.*pip install"):
        eight_bit(parameters())
