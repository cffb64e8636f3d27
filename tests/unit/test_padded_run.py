"""A group size that divides no layer, with `pad`: clip, train, export and load agree on every weight."""

import torch
from helpers.mixes import make_recipe, tokenize_mix
from helpers.tiny import SENTENCES
from transformers import AutoModelForCausalLM

import bitdistiller
from bitdistiller.calibration import load_clip
from bitdistiller.calibration import stage as clip_stage
from bitdistiller.config import Calibration, ClipRecipe, ExportRecipe, Quantization
from bitdistiller.distillation import stage as train_stage
from bitdistiller.distillation.inputs import Inputs
from bitdistiller.export import stage as export_stage
from bitdistiller.formats import get_format

PADDED = Quantization(format="int2", group_size=48, pad=True)
PADDED_FORMAT = get_format("int2", "bfloat16", pad=True)


def test_from_the_model_to_the_packed_checkpoint(tiny_model, tmp_path):
    life = {"work": None, "time_budget": None}
    calibration = Calibration(texts="demo", block_length=48)
    clip_stage.run(
        ClipRecipe(quantization=PADDED, calibration=calibration),
        model=tiny_model,
        texts=lambda: SENTENCES * 8,
        output=tmp_path / "clip",
        **life,
    )
    ranges = load_clip(tmp_path / "clip")
    assert ranges["model.layers.0.mlp.up_proj.max"].shape == (128, 2, 1)
    assert ranges["model.layers.0.mlp.down_proj.max"].shape == (64, 3, 1)
    export = {"recipe": ExportRecipe(quantization=PADDED, dtype="float32"), "verify": False, **life}
    export_stage.run(weights=tiny_model, clip=tmp_path / "clip", output=tmp_path / "clipped", **export)
    clipped = bitdistiller.load_model(tmp_path / "clipped" / "checkpoint")
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    down = "model.layers.0.mlp.down_proj"
    high, low = ranges[f"{down}.max"], ranges[f"{down}.min"]
    padded = torch.nn.functional.pad(base.get_submodule(down).weight, (0, 16)).unflatten(1, (3, 48))
    expected = PADDED_FORMAT.fake_quantize(padded.clamp(low, high).flatten(1)[:, :128], 48)
    assert torch.equal(clipped.get_submodule(down).weight, expected)

    tokens = tokenize_mix(tmp_path / "tokens", tiny_model)
    recipe = make_recipe().model_copy(update={"quantization": PADDED})
    inputs = Inputs(tiny_model, tiny_model, tokens, clip=tmp_path / "clip")
    train_stage.run(recipe, inputs, output=tmp_path / "train", **life)
    student = tmp_path / "train" / "student"
    export_stage.run(weights=student, clip=None, output=tmp_path / "packed", **export)
    tokens = torch.arange(3, 35)[None]
    with torch.inference_mode():
        packed = bitdistiller.load_model(tmp_path / "packed" / "checkpoint")(tokens).logits
        assert torch.equal(packed, bitdistiller.load_model(student, dtype="float32")(tokens).logits)
