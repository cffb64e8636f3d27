"""What other engines' files hold is what the packed checkpoint holds, read by decoders of our own."""

import struct

import pytest
import torch
from reference.engine_files import GGUF, gptq_weight, q2_0, q4_1
from safetensors.torch import load_file
from tiny_models import make_model, pack, recipe
from transformers import AutoModelForCausalLM, GPTQConfig

from bitdistiller.config import ConvertRecipe
from bitdistiller.errors import InputError
from bitdistiller.export.conversion import stage
from bitdistiller.export.conversion.blocks import BLOCK_TYPES
from bitdistiller.export.conversion.gptq import GptqV2
from bitdistiller.export.conversion.source import PackedMasters
from bitdistiller.formats import get_format


def convert(checkpoint, layout, output, **options):
    stage.run(
        ConvertRecipe(layout=layout),
        checkpoint=checkpoint,
        output=output,
        work=output.parent / f"{output.name}-work",
        time_budget=None,
        **options,
    )
    return output / "checkpoint"


@pytest.mark.parametrize("group_size", [64, 128])
@pytest.mark.parametrize("number_format", ["int2", "int3", "int4"])
def test_gptq_files_hold_the_values(number_format, group_size, model_directory, tmp_path):
    packed = pack(model_directory(), recipe(number_format, group_size), tmp_path / "packed")
    tensors = load_file(convert(packed, "gptq-v2", tmp_path / "out") / "model.safetensors")
    masters, bits = PackedMasters(packed), int(number_format[-1])
    layer = "model.layers.0.mlp.gate_proj"
    parts = [tensors[f"{layer}.{suffix}"] for suffix in ("qweight", "qzeros", "scales", "g_idx")]
    assert [part.dtype for part in parts] == [torch.int32, torch.int32, torch.float16, torch.int32]
    assert parts[0].shape == (128 * bits // 32, 256)
    expected = masters.values(layer)
    assert torch.equal(torch.tensor(gptq_weight(*(part.tolist() for part in parts), bits)), expected)
    assert torch.equal(tensors["lm_head.weight"], masters.other("lm_head.weight", torch.bfloat16))


def test_gptq_files_say_how_they_are_read(model_directory, tmp_path):
    from bitdistiller.stages.files import read_json

    packed = pack(model_directory(), recipe("int3"), tmp_path / "packed")
    content = read_json(convert(packed, "gptq-v2", tmp_path / "out") / "config.json")["quantization_config"]
    assert (content["checkpoint_format"], content["sym"], content["desc_act"]) == ("gptq_v2", False, False)
    parsed = GPTQConfig(**{key: value for key, value in content.items() if key != "quant_method"})
    assert (parsed.bits, parsed.group_size) == (3, 64)


@pytest.mark.parametrize("rows", [1, 24])
def test_gptq_words_must_be_full(rows):
    weight = torch.randn(rows, 64)
    layout = GptqV2(recipe("int3"))
    with pytest.raises(InputError, match=f"{rows} output features of 3 bits do not fill 32-bit words"):
        layout.encode(*layout.format.quantize(weight, 64))


def test_scales_that_do_not_fit_float16_are_refused_with_what_to_do(stories_like, tmp_path):
    packed = pack(stories_like, recipe("int2", dtype="float32", scale_dtype="float32"), tmp_path / "packed")
    for layout in ("gptq-v2", "gguf-q4_1", "gguf-q2_0"):
        with pytest.raises(InputError, match="float16"):
            convert(packed, layout, tmp_path / layout)
        assert not (tmp_path / layout / "digest.json").exists()


def test_a_group_of_zeros_may_have_any_scale():
    weight = torch.zeros(32, 64)
    number_format = get_format("int2", "float32")
    codes, scale, zero = number_format.quantize(weight, 64)
    assert float(scale[0].half()) != float(scale[0])
    layout = GptqV2(recipe("int2", scale_dtype="float32"))
    assert not layout.dequantize(layout.encode(codes, scale, zero)).any()
    for blocks in BLOCK_TYPES.values():
        assert not blocks.decode(blocks.tensor(codes, scale, zero, "w").view(-1, blocks.bytes)).any()


DECODERS = {"gguf-q4_1": (q4_1, 20, 32), "gguf-q2_0": (q2_0, 18, 64)}


def interleaved(tensor, heads):
    """Rows as `llama` files have them: feature i of a head beside feature i + half."""
    half = len(tensor) // heads // 2
    order = [head * 2 * half + part * half + i for head in range(heads) for i in range(half) for part in (0, 1)]
    return tensor[order]


@pytest.mark.parametrize(
    ("layout", "number_format"), [("gguf-q4_1", "int2"), ("gguf-q4_1", "int3"), ("gguf-q2_0", "int2")]
)
def test_gguf_files_hold_the_values(layout, number_format, stories_like, tmp_path):
    packed = pack(stories_like, recipe(number_format), tmp_path / "packed")
    path = convert(packed, layout, tmp_path / "out") / "model.gguf"
    masters, file = PackedMasters(packed), GGUF(path.read_bytes())
    decode, size, values = DECODERS[layout]
    heads = {"attn_q": 4, "attn_k": 2}
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    for theirs, ours in names.items():
        expected = masters.values(f"model.layers.1.{ours}")
        expected = interleaved(expected, heads[theirs]) if theirs in heads else expected
        found = file.blocks(f"blk.1.{theirs}.weight", size, values, decode)
        assert torch.equal(torch.tensor(found), expected), theirs
    assert file.tensors["blk.1.attn_q.weight"][0] == {"gguf-q4_1": 3, "gguf-q2_0": 42}[layout]
    kind, shape, data = file.tensors["output_norm.weight"]
    assert (kind, shape) == (0, (128,))
    assert struct.unpack("<128f", data[:512]) == tuple(masters.other("model.norm.weight", torch.float32).tolist())
    assert file.tensors["token_embd.weight"][:2] == (30, (200, 128))
    assert file.keys["general.architecture"] == "llama"
    assert file.keys["llama.attention.head_count_kv"] == 2
    assert len(file.keys["tokenizer.ggml.tokens"]) == 200


def test_the_library_of_gguf_reads_q4_1_too(stories_like, tmp_path):
    import gguf

    packed = pack(stories_like, recipe("int3"), tmp_path / "packed")
    reader = gguf.GGUFReader(convert(packed, "gguf-q4_1", tmp_path / "out") / "model.gguf")
    (tensor,) = (tensor for tensor in reader.tensors if tensor.name == "blk.0.ffn_up.weight")
    values = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type))
    assert torch.equal(values, PackedMasters(packed).values("model.layers.0.mlp.up_proj"))


@pytest.mark.parametrize(
    ("zero", "steps", "exact"),
    [
        (1, (-1, 2), True),
        (2, (-2, 1), True),
        (0, (0, 2), True),
        (0, (0, 3), False),
        (3, (-2, 0), True),
        (3, (-3, 0), False),
    ],
)
def test_q2_0_holds_three_steps_upward_or_downward(zero, steps, exact):
    low, high = (step + zero for step in steps)
    codes = torch.tensor([low, high] * 32, dtype=torch.uint8).view(1, 64)
    scale, zeros = torch.tensor([[0.25]]), torch.tensor([[zero]], dtype=torch.int32)
    blocks = BLOCK_TYPES["gguf-q2_0"]
    if not exact:
        with pytest.raises(InputError, match=r"layer: 1 of 1 blocks are not exact in Q2_0.*take layout gguf-q4_1"):
            blocks.tensor(codes, scale, zeros, "layer")
        return
    found = q2_0(bytes(blocks.tensor(codes, scale, zeros, "layer").flatten().tolist()))
    assert found == [(code - zero) * 0.25 for code in codes[0].tolist()]


def test_groups_must_be_whole_blocks():
    number_format = get_format("int2")
    with pytest.raises(InputError, match="groups of 32 are not whole Q2_0 blocks of 64"):
        BLOCK_TYPES["gguf-q2_0"].tensor(*number_format.quantize(torch.randn(1, 64), 32), "layer")


def test_a_refused_conversion_can_be_marked_instead(model_directory, tmp_path):
    from bitdistiller.stages.files import read_json

    packed = pack(model_directory(), recipe("int3"), tmp_path / "packed")
    checkpoint = convert(packed, "gguf-q2_0", tmp_path / "out", mark=True)
    assert [path.name for path in checkpoint.iterdir()] == ["unavailable.json"]
    assert "tokenizer.json" in read_json(checkpoint / "unavailable.json")["reason"]
    assert read_json(tmp_path / "out" / "convert.json")["reason"]
    assert (tmp_path / "out" / "digest.json").exists()


def test_only_packed_integers_are_converted(model_directory, tmp_path):
    with pytest.raises(InputError, match="its weights are not packed"):
        convert(model_directory(), "gptq-v2", tmp_path / "out")
    packed = pack(model_directory(), recipe("nf3"), tmp_path / "packed")
    with pytest.raises(InputError, match="no other layout holds nf3; accepted: int2, int3 and int4"):
        convert(packed, "gptq-v2", tmp_path / "out")


@pytest.mark.parametrize(("number_format", "dtype"), [("int2", "bfloat16"), ("nf3", "float32"), ("sym4", "bfloat16")])
def test_a_dequantised_copy_is_an_ordinary_model(number_format, dtype, model_directory, tmp_path):
    import bitdistiller

    packed = pack(model_directory(), recipe(number_format, dtype=dtype), tmp_path / "packed")
    dense = convert(packed, "dense", tmp_path / "out")
    theirs, ours = AutoModelForCausalLM.from_pretrained(dense), bitdistiller.load_model(packed)
    assert not hasattr(theirs.config, "quantization_config")
    assert theirs.dtype == getattr(torch, dtype)
    state = ours.state_dict()
    assert state.keys() == theirs.state_dict().keys()
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor + 0.0, state[name] + 0.0), name
    assert (dense / "tokenizer_config.json").exists()


def test_bad_input_is_never_marked_as_a_layout_that_does_not_fit(model_directory, tmp_path):
    with pytest.raises(InputError, match="its weights are not packed"):
        convert(model_directory(), "gptq-v2", tmp_path / "out", mark=True)
    assert not (tmp_path / "out" / "digest.json").exists()


def test_a_large_model_is_written_in_shards_that_go_on(model_directory, tmp_path, monkeypatch):
    from bitdistiller.export import files

    monkeypatch.setattr(files, "MAX_SHARD_BYTES", 30_000)
    packed = pack(model_directory(), recipe("int2"), tmp_path / "packed")
    checkpoint = convert(packed, "gptq-v2", tmp_path / "out")
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 3
    assert (checkpoint / "model.safetensors.index.json").exists()
    assert not list((tmp_path / "out-work").rglob("shard-*"))


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_damage_in_a_file_is_found(name, tmp_path):
    from bitdistiller.export.conversion.gguf_file import GGUFContents
    from bitdistiller.export.verify import VerificationError

    weights = tmp_path / "base"
    make_model(name).save_pretrained(weights)
    write_tokenizer(weights)
    masters = PackedMasters(pack(weights, recipe("int2"), tmp_path / "packed"))
    contents, path = GGUFContents(masters, BLOCK_TYPES["gguf-q4_1"]), tmp_path / "model.gguf"
    contents.write(path, lambda: None)
    assert contents.verify(path, lambda: None) == len(contents)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(VerificationError, match=r"blk\.1\..*: its values differ"):
        contents.verify(path, lambda: None)


def write_tokenizer(directory):
    from helpers.tiny import make_tokenizer

    make_tokenizer(200).save_pretrained(directory)


@pytest.fixture(scope="module")
def stories_like(tmp_path_factory):
    """A tiny Llama with a tokenizer, none of whose groups is of one sign."""
    path = tmp_path_factory.mktemp("stories-like")
    model = make_model("llama")
    torch.manual_seed(3)
    model.model.layers[0].mlp.gate_proj.weight.data.normal_(std=0.02)
    model.save_pretrained(path)
    write_tokenizer(path)
    return path
