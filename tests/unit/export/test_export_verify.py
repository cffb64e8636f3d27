"""Verification finds what is wrong, and says where."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import pack, recipe

from bitdistiller.export import verify
from bitdistiller.export.fresh_process import FreshProcess, fingerprints
from bitdistiller.export.load import load_model
from bitdistiller.export.verify import VerificationError, random_tokens, verify_checkpoint


def rewrite(path, change):
    file = next(path.glob("*.safetensors"))
    tensors = load_file(file)
    change(tensors)
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})


LAYER = "model.layers.1.mlp.down_proj"


@pytest.mark.parametrize(
    ("number_format", "name", "message"),
    [
        ("int3", f"{LAYER}.weight_packed", "down_proj: codes"),
        ("int3", f"{LAYER}.weight_zero_point", "down_proj: zero points"),
        ("int3", f"{LAYER}.weight_scale", "down_proj: scales"),
        ("nf3", f"{LAYER}.weight_codes", "down_proj: codes"),
        ("nf3", f"{LAYER}.weight_scale", "down_proj: scales"),
        ("nf3", "model.norm.weight", "norm.weight"),
    ],
)
def test_any_changed_tensor_is_found(number_format, name, message, model_directory, tmp_path):
    path = pack(model_directory(), recipe(number_format), tmp_path / "packed")
    assert verify_checkpoint(path, model_directory(), None, recipe(number_format), fresh_process=False)["layers"] == 14

    def damage(tensors):
        raw = tensors[name].view(torch.uint8).flatten()
        raw[len(raw) // 2] ^= 2

    rewrite(path, damage)
    with pytest.raises(VerificationError, match=message):
        verify_checkpoint(path, model_directory(), None, recipe(number_format), fresh_process=False)


def answer_from(path, change_hash="", change_logits=0.0):
    """Stands for the fresh process, and loads in this one."""

    class Here:
        def __init__(self, checkpoint):
            self.model = load_model(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def answer(self, tokens):
            with torch.inference_mode():
                logits = self.model(tokens).logits
            hashes = fingerprints(self.model)
            if change_hash:
                hashes[change_hash] = "other"
            return logits + change_logits, hashes

    return Here


def test_a_parameter_that_loads_differently_is_found(model_directory, tmp_path, monkeypatch):
    path = pack(model_directory(), recipe(), tmp_path / "packed")
    monkeypatch.setattr(verify, "FreshProcess", answer_from(path))
    found = verify_checkpoint(path, model_directory(), None, recipe())["fresh_process"]
    assert found == {"parameters": 21, "logits_equal": True, "max_difference": 0.0}
    monkeypatch.setattr(verify, "FreshProcess", answer_from(path, change_hash=f"{LAYER}.weight"))
    with pytest.raises(VerificationError, match=r"down_proj\.weight differs after loading"):
        verify_checkpoint(path, model_directory(), None, recipe())
    monkeypatch.setattr(verify, "FreshProcess", answer_from(path, change_logits=0.5))
    with pytest.raises(VerificationError, match=r"logits differ by 0\.5"):
        verify_checkpoint(path, model_directory(), None, recipe())


def test_a_checkpoint_that_cannot_be_loaded_is_reported_with_the_reason(model_directory, tmp_path):
    path = pack(model_directory(), recipe(), tmp_path / "packed")
    rewrite(path, lambda tensors: tensors.pop("model.norm.weight"))
    with FreshProcess(path) as process, pytest.raises(RuntimeError, match=r"(?s)fresh process.*model\.norm\.weight"):
        process.answer(random_tokens(load_model(model_directory()).config))


def test_negative_zero_counts_as_zero():
    layer = torch.nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[0.0, 1.0]])
    first = fingerprints(layer)
    layer.weight.data = torch.tensor([[-0.0, 1.0]])
    assert fingerprints(layer) == first
    assert fingerprints(layer.bfloat16()) != first
