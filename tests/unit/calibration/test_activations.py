"""Block-by-block capture equals watching every layer in one forward pass of the whole model."""

import pytest
import torch
from helpers.architectures import ARCHITECTURES, build

from bitdistiller.calibration import ActivationWalk, GramOptions, gram_matrix
from bitdistiller.layers import block_linears, decoder_blocks, quantized_linear_names

LENGTH = 24
TOKENS = torch.randint(0, 80, (5, LENGTH), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def direct_grams(model, stride=1):
    inputs = {}
    handles = []
    for name in quantized_linear_names(model):
        watch = lambda _, args, name=name: inputs.update({name: args[0].flatten(0, 1)})  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_pre_hook(watch))
    model(TOKENS)
    for handle in handles:
        handle.remove()
    return {name: gram_matrix(x[::stride], 32) for name, x in inputs.items()}


def walk_through(model, names=None, stride=1):
    walk, grams = ActivationWalk(model, TOKENS), {}
    for index, block in enumerate(walk.blocks):
        watched = [name for name, _ in block_linears(block)] if names is None else names
        found = walk.step(watched, GramOptions(32, stride))
        grams |= {f"{walk.name}.{index}.{name}": gram for name, gram in found.items()}
    return grams


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("bitdistiller.calibration.activations.TOKENS_AT_ONCE", 2 * LENGTH)


@pytest.mark.parametrize("stride", [1, 7])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_the_direct_computation(architecture, stride):
    model = build(architecture)
    expected, grams = direct_grams(model, stride), walk_through(model, stride=stride)
    assert grams.keys() == expected.keys()
    for name, gram in grams.items():
        assert gram.tokens == len(range(0, TOKENS.numel(), stride))
        torch.testing.assert_close(gram.gram(), expected[name], rtol=1e-4, atol=1e-4)


def test_layers_with_one_input_share_a_gram():
    grams = walk_through(build("llama"))
    first = {name.removeprefix("model.layers.0."): gram for name, gram in grams.items() if ".0." in name}
    assert first["self_attn.q_proj"] is first["self_attn.k_proj"] is first["self_attn.v_proj"]
    assert first["mlp.gate_proj"] is first["mlp.up_proj"]
    assert len({id(gram) for gram in first.values()}) == 4


def test_only_watched_layers_are_accumulated_and_the_model_is_untouched():
    model = build("qwen3", tied=True)
    with torch.no_grad():
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        logits = model(TOKENS).logits
    grams = walk_through(model, ["self_attn.v_proj", "mlp.down_proj"])
    assert len(grams) == 6
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        assert torch.equal(model(TOKENS).logits, logits)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_low_precision_models_are_walked_in_float32():
    model = build("llama", dtype=torch.bfloat16)
    expected = direct_grams(build("llama", dtype=torch.bfloat16).float())
    for name, gram in walk_through(model).items():
        torch.testing.assert_close(gram.gram(), expected[name], rtol=1e-4, atol=1e-4)
    assert {parameter.dtype for parameter in decoder_blocks(model)[1].parameters()} == {torch.bfloat16}
