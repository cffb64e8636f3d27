"""Importance taken block by block equals one backward pass through the whole model."""

import pytest
import torch
from helpers.architectures import ARCHITECTURES, build
from reference.importance import weighted_grams

from bitdistiller.calibration import ActivationWalk, GramAccumulator, GramOptions
from bitdistiller.calibration.importance import loss_gradient, step_back
from bitdistiller.calibration.weights import open_weights
from bitdistiller.layers import block_linears, quantized_linear_names

TOKENS = torch.randint(0, 80, (5, 24), generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    """Batches of two sequences, logits of seven tokens at once."""
    monkeypatch.setattr("bitdistiller.calibration.activations.TOKENS_AT_ONCE", 2 * TOKENS.shape[1])
    monkeypatch.setattr("bitdistiller.calibration.importance.LOGITS_AT_ONCE", 7 * 80)


def block_by_block(weights, stride=1):
    walk = ActivationWalk(weights, TOKENS)
    inputs, grams = [], {}
    for _ in walk.blocks:
        inputs.append(list(walk.hidden))
        walk.step()
    gradients = loss_gradient(walk, TOKENS)
    for index in reversed(range(len(walk.blocks))):
        names = [name for name, _ in block_linears(walk.blocks[index])]
        found = step_back(walk, index, inputs[index], gradients, names, GramOptions(32, stride))
        grams |= {f"{walk.name}.{index}.{name}": gram for name, gram in found.items()}
    return grams


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_autograd_through_the_whole_model(architecture, tied, tmp_path):
    model = build(architecture, tied)
    model.save_pretrained(tmp_path)
    names = quantized_linear_names(model)
    expected = weighted_grams(model.double(), TOKENS, names, 32)
    grams = block_by_block(open_weights(tmp_path))
    assert grams.keys() == set(names)
    for name, gram in grams.items():
        assert gram.tokens == TOKENS.numel()
        scale = expected[name].abs().max()
        assert scale > 0
        torch.testing.assert_close(gram.gram().double() / scale, expected[name] / scale, rtol=1e-4, atol=1e-5)


def test_a_stride_keeps_the_same_tokens():
    model = build("llama")
    grams = block_by_block(model, stride=7)
    expected = weighted_grams(build("llama").double(), TOKENS, list(grams), 32, stride=7)
    for name, gram in grams.items():
        assert gram.tokens == len(range(0, TOKENS.numel(), 7))
        scale = expected[name].abs().max()
        torch.testing.assert_close(gram.gram().double() / scale, expected[name] / scale, rtol=1e-4, atol=1e-5)


def test_layers_with_one_input_have_grams_of_their_own():
    grams = block_by_block(build("llama"))
    gate, up = (grams[f"model.layers.0.mlp.{name}_proj"].gram() for name in ("gate", "up"))
    assert not torch.equal(gate, up)


def test_the_model_is_untouched():
    model = build("qwen3", tied=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    block_by_block(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_of_tokens():
    x, importance = torch.randn(4, 10, 16), torch.rand(4, 10)
    weighted, plain = GramAccumulator(8, 3), GramAccumulator(8, 3)
    for batch, some in zip(x.split(3), importance.split(3), strict=True):
        weighted.add(batch, some)
    plain.add(x * importance.sqrt().unsqueeze(-1))
    torch.testing.assert_close(weighted.gram(), plain.gram())
    assert weighted.tokens == plain.tokens == 14
