"""Layout compressed-tensors: LLM-QAT's integers, read by compressed-tensors itself and by a decoder of ours."""

import json

import pytest
import torch
from reference.onebit import symmetric, symmetric_integers
from safetensors.torch import load_file
from tiny_models import make_model, pack, recipe
from transformers import AutoModelForCausalLM

from bitdistiller import load_model
from bitdistiller.config import ConvertRecipe, ExportRecipe
from bitdistiller.errors import InputError
from bitdistiller.export.conversion.stage import run
from bitdistiller.export.conversion.unfit import Unfit
from bitdistiller.export.stage import run as export
from bitdistiller.export.verify import VerificationError
from bitdistiller.stages.files import read_json

NONE = {"work": None, "time_budget": None}
LAYER = "model.layers.1.self_attn.k_proj"


@pytest.fixture
def packed(tmp_path):
    """What makes a packed checkpoint of method llm-qat with these bits, in float32."""

    def make(bits, name="qwen2"):
        student = tmp_path / "student"
        make_model(name).save_pretrained(student)
        (student / "bitdistiller.json").write_text(json.dumps({"format": bits}))
        chosen = ExportRecipe(quantization={"format": bits}, dtype="float32")
        export(chosen, weights=student, clip=None, output=tmp_path / "export", verify=False, **NONE)
        return tmp_path / "export" / "checkpoint"

    return make


def convert(checkpoint, output, layout="compressed-tensors", **options):
    run(ConvertRecipe(layout=layout), checkpoint=checkpoint, output=output, **NONE, **options)
    return output / "checkpoint"


def largest(tensor):
    return float(tensor.abs().max())


@pytest.mark.parametrize(
    ("bits", "stored", "differs"),
    [
        ("8-8-16", 8, 2),
        ("4-8-32", 8, 1),
        ("3-8-16", 8, 2),
        ("8-16-16", 8, 2),
        ("4-32-32", 4, 0),
        ("3-32-16", 3, 1),
    ],
)
def test_it_holds_the_integers_that_were_trained(bits, stored, differs, packed, tmp_path):
    checkpoint = packed(bits)
    weight = make_model("qwen2").get_submodule(LAYER).weight.detach()
    width, inputs, _ = map(int, bits.split("-"))
    written = convert(checkpoint, tmp_path / "out")
    tensors = load_file(written / "model.safetensors")
    scale = tensors[f"{LAYER}.weight_scale"]
    assert (scale.dtype, scale.shape) == (torch.float32, (64, 1))
    if inputs == 8:
        codes = tensors[f"{LAYER}.weight"]
        assert codes.dtype == torch.int8
        assert codes.tolist() == [symmetric_integers(row, width) for row in weight.tolist()]
    else:
        assert tensors[f"{LAYER}.weight_packed"].dtype == torch.int32
        assert tensors[f"{LAYER}.weight_shape"].tolist() == [64, 128]
    report = read_json(tmp_path / "out" / "convert.json")
    assert stored < report["bits_per_weight"] < stored + 1
    assert (report["engine"], len(report["differs"])) == ("vLLM, transformers", differs)
    theirs = AutoModelForCausalLM.from_pretrained(written, dtype="float32")
    theirs(torch.zeros(1, 1, dtype=torch.int64))  # unpacks
    values = torch.tensor([symmetric(row, width) for row in weight.tolist()])
    torch.testing.assert_close(theirs.get_submodule(LAYER).weight.detach(), values, rtol=1e-6, atol=1e-9)
    ours = load_model(checkpoint).get_submodule(LAYER).weight
    assert bool(((theirs.get_submodule(LAYER).weight - ours).abs() <= 2**-22 * ours.abs()).all())
    assert torch.equal(theirs.get_submodule(LAYER).bias, load_model(checkpoint).get_submodule(LAYER).bias)


@pytest.mark.parametrize("bits", ["4-32-32", "8-8-32", "4-8-16"])
def test_transformers_answers_as_the_checkpoint(bits, packed, tmp_path):
    """To rounding without activations; with them their step is 127 to 127.5."""
    checkpoint = packed(bits, "llama")
    tokens = torch.arange(40).view(2, 20)
    theirs = AutoModelForCausalLM.from_pretrained(convert(checkpoint, tmp_path / "out"), dtype="float32").eval()
    with torch.inference_mode():
        ours, found = load_model(checkpoint)(tokens).logits, theirs(tokens).logits
    rate = 1e-5 if "-8-" not in bits else 0.03
    assert largest(found - ours) < rate * largest(ours)
    assert "-8-" not in bits or largest(found - ours) > 1e-6


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        (
            "4-8-8",
            "does not hold 4-8-8; accepted: weights of 3 to 8 bits, activations of 8, 16 or 32, a KV cache of 16",
        ),
        ("2-8-16", "does not hold 2-8-16"),
        ("8-6-16", "does not hold 8-6-16"),
    ],
)
def test_what_it_does_not_hold(bits, message, packed, tmp_path):
    checkpoint = packed(bits)
    with pytest.raises(Unfit, match=message):
        convert(checkpoint, tmp_path / "out")
    assert message in read_json(convert(checkpoint, tmp_path / "marked", mark=True).parent / "convert.json")["reason"]


def test_it_is_for_llm_qat_alone(packed, model_directory, tmp_path):
    with pytest.raises(Unfit, match="layout compressed-tensors is for method llm-qat; int2 is none of its formats"):
        convert(pack(model_directory(), recipe(), tmp_path / "int2"), tmp_path / "out")
    with pytest.raises(Unfit, match="no other layout holds 8-8-16"):
        convert(packed("8-8-16"), tmp_path / "dense", layout="dense")
    with pytest.raises(InputError, match="its weights are not packed"):
        convert(model_directory(), tmp_path / "base", mark=True)


def test_damage_in_the_file_is_found(packed, tmp_path, monkeypatch):
    from bitdistiller.export.conversion.channel_integers import ChannelIntegers

    copy = ChannelIntegers(packed("8-8-32"))
    directory = convert(copy.checkpoint, tmp_path / "out")
    assert copy.verify(directory) == len(copy)
    path = directory / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError, match="differs from the checkpoint's"):
        copy.verify(directory)
