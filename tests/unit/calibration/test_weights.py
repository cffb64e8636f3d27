"""Reading a model block by block gives the activations of the whole model, bit for bit, and holds one block."""

import logging

import pytest
import torch
from helpers.architectures import ARCHITECTURES, SHAPE, build
from transformers import AutoModelForCausalLM, MixtralConfig

from bitdistiller.calibration import ActivationWalk, GramOptions
from bitdistiller.calibration.weights import open_weights
from bitdistiller.layers import block_linears, decoder_blocks

TOKENS = torch.randint(0, 80, (5, 24), generator=torch.Generator().manual_seed(3))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr("bitdistiller.calibration.activations.TOKENS_AT_ONCE", 2 * TOKENS.shape[1])


@pytest.fixture
def saved(tmp_path):
    """Save a random model; `sharded` gives several files with an index."""

    def save(model, sharded=False):
        model.save_pretrained(tmp_path / "model", max_shard_size="40KB" if sharded else "5GB")
        assert len(list((tmp_path / "model").glob("*.safetensors"))) > 1 or not sharded
        return tmp_path / "model"

    return save


def walk_through(weights):
    """Hidden states and Grams after every block."""
    walk, seen = ActivationWalk(weights, TOKENS), []
    for block in walk.blocks:
        grams = walk.step([name for name, _ in block_linears(block)], GramOptions(32))
        seen.append((torch.cat(walk.hidden), {name: gram.gram() for name, gram in grams.items()}))
    return seen


@torch.no_grad()
def whole_model_states(directory):
    """Every block's output in plain forward passes of the whole model in float32."""
    model = AutoModelForCausalLM.from_pretrained(directory, dtype="auto").float().eval()
    states = [[] for _ in decoder_blocks(model)[1]]
    for seen, block in zip(states, decoder_blocks(model)[1], strict=True):
        block.register_forward_hook(lambda _, args, output, seen=seen: seen.append(output))
    for batch in TOKENS.split(2):
        model(batch)
    return [torch.cat(seen) for seen in states]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_the_whole_model_bit_for_bit(saved, caplog, architecture, tied, dtype, sharded):
    directory = saved(build(architecture, tied, dtype), sharded)
    streamed = walk_through(open_weights(directory))
    held = walk_through(AutoModelForCausalLM.from_pretrained(directory, dtype="auto"))
    for (hidden, grams), (expected, expected_grams), state in zip(
        streamed, held, whole_model_states(directory), strict=True
    ):
        assert torch.equal(hidden, expected)
        assert torch.equal(hidden, state)
        assert grams.keys() == expected_grams.keys()
        assert all(torch.equal(gram, expected_grams[name]) for name, gram in grams.items())
    assert not caplog.records


@pytest.mark.parametrize("tied", [False, True])
def test_single_tensors_have_the_files_precision(saved, tied):
    model = build("qwen2", tied, torch.bfloat16)
    weights = open_weights(saved(model))
    for name, tensor in model.state_dict().items():
        assert torch.equal(weights.tensor(name), tensor)
        assert weights.tensor(name).dtype == torch.bfloat16


def test_only_one_block_is_resident(saved, monkeypatch):
    """The network keeps no parameter, and a step reads the tensors of its own block alone."""
    weights = open_weights(saved(build("llama")))
    read, files = [], weights._files
    original = files.read
    monkeypatch.setattr(files, "read", lambda name: read.append(name) or original(name))
    walk = ActivationWalk(weights, TOKENS)
    assert read == ["model.embed_tokens.weight", "model.norm.weight"]
    for index, block in enumerate(walk.blocks):
        read.clear()
        walk.step()
        assert sorted(read) == sorted(f"model.layers.{index}.{name}" for name, _ in block.named_parameters())
        assert files._open is None
        assert all(parameter.is_meta for parameter in weights.network.parameters())
    held = [tensor for tensor in weights.network.buffers() if not tensor.is_meta]
    assert sum(tensor.numel() for tensor in held) < SHAPE["hidden_size"]


def test_precision_of_the_config_is_kept(saved):
    """float32 files of a model whose config.json says bfloat16 are rounded, as transformers does."""
    directory = saved(build("llama"))
    config = (directory / "config.json").read_text()
    (directory / "config.json").write_text(config.replace('"float32"', '"bfloat16"'))
    expected = AutoModelForCausalLM.from_pretrained(directory, dtype="auto").state_dict()
    weights = open_weights(directory)
    assert {tensor.dtype for tensor in expected.values()} == {torch.bfloat16}
    assert all(torch.equal(weights.tensor(name), tensor) for name, tensor in expected.items())


def test_without_safetensors_the_whole_model_is_loaded(saved, caplog):
    model = build("llama")
    directory = saved(model)
    (directory / "model.safetensors").unlink()
    torch.save(model.state_dict(), directory / "pytorch_model.bin")
    with caplog.at_level(logging.WARNING):
        streamed = walk_through(open_weights(directory))
    assert "the whole model is loaded, not block by block" in caplog.text
    assert "no model.safetensors" in caplog.text
    assert torch.equal(streamed[-1][0], walk_through(model)[-1][0])


def test_renamed_tensors_are_left_to_transformers(saved, caplog):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(MixtralConfig(**SHAPE, num_local_experts=2, num_experts_per_tok=1))
    directory = saved(model)
    with caplog.at_level(logging.WARNING):
        streamed = walk_through(open_weights(directory))
    assert "the whole model is loaded, not block by block: its files have no tensor model.layers.0" in caplog.text
    assert torch.equal(streamed[-1][0], whole_model_states(directory)[-1])
