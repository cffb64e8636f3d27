"""OneBit checkpoints as released (int8 signs, fp32 rest, their own classes) become packed ones that answer alike."""

import json

import pytest
import torch
from helpers.tiny import make_model, make_tokenizer
from safetensors.torch import load_file

from bitdistiller import load_model
from bitdistiller.config import OneBitStart
from bitdistiller.distillation.onebit_start import start_onebit
from bitdistiller.errors import InputError
from bitdistiller.export.released import run
from bitdistiller.formats import pack_signs
from bitdistiller.layers import OneBitLinear

TOKENS = torch.arange(24).view(2, 12) % 100


def release(directory, spoil=None):
    """A directory as the released packaging writes it: bits of consecutive columns as int8 under the layer's name."""
    directory.mkdir()
    model = make_model(4)
    start_onebit(model, OneBitStart())
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, layer in model.named_modules():
        if isinstance(layer, OneBitLinear):
            state[f"{name}.weight"] = pack_signs(layer.weight.detach()).view(torch.int8)
    if spoil is not None:
        spoil(state)
    torch.save(state, directory / "pytorch_model.bin")
    config = model.config.to_dict() | {"model_type": "bitllama", "architectures": ["BitLlamaForCausalLMInf"]}
    (directory / "config.json").write_text(json.dumps(config))
    make_tokenizer().save_pretrained(directory)
    return model.eval()


def test_the_answers_are_those_of_the_model(tmp_path):
    model = release(tmp_path / "released")
    run(tmp_path / "released", output=tmp_path / "out", dtype="float32", work=None, time_budget=None)
    with torch.inference_mode():
        expected = model(TOKENS).logits
        assert torch.equal(load_model(tmp_path / "out" / "checkpoint")(TOKENS).logits, expected)
    tensors = load_file(tmp_path / "out" / "checkpoint" / "signs.safetensors")
    name = "model.layers.0.mlp.up_proj"
    assert torch.equal(tensors[f"{name}.weight_signs"], pack_signs(model.get_submodule(name).weight.detach()))
    config = json.loads((tmp_path / "out" / "checkpoint" / "config.json").read_text())
    assert (config["model_type"], config["quantization_config"]["format"]) == ("llama", "sign1")
    assert (tmp_path / "out" / "checkpoint" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state.pop("model.layers.1.mlp.up_proj.weight_scale"), "up_proj.weight_scale is missing"),
        (
            lambda state: state.update({"model.layers.0.mlp.up_proj.weight": torch.zeros(128, 64)}),
            r"up_proj.weight is torch.float32 \(128, 64\); accepted: a packed OneBit checkpoint \(128, 8\)",
        ),
    ],
)
def test_other_directories_are_refused(tmp_path, spoil, message):
    release(tmp_path / "released", spoil)
    with pytest.raises(InputError, match=message):
        run(tmp_path / "released", output=tmp_path / "out", dtype="float32", work=None, time_budget=None)
