"""What a user without this package gets: one fresh process with plain transformers loads everything packed here."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import pack, recipe
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from bitdistiller.export.compressed_tensors import PackQuantized
from bitdistiller.export.verify import VerificationError, verify_checkpoint
from bitdistiller.formats import get_format
from bitdistiller.layers import fake_quantized_linears, quantize_linears

TOKENS = torch.randint(200, (3, 24), generator=torch.Generator().manual_seed(11))
GRID = [("llama", f"int{b}", g, d, "bfloat16") for b in (2, 3, 4) for g in (64, 128) for d in ("bfloat16", "float32")]
OTHERS = [
    ("llama", "int3", 32, "bfloat16", "float32"),
    ("llama", "int2", 128, "float32", "float32"),
    ("llama-tied", "int2", 64, "bfloat16", "bfloat16"),
    ("qwen2", "int2", 128, "bfloat16", "bfloat16"),
    ("qwen2", "int3", 64, "float32", "bfloat16"),
    ("qwen3", "int3", 128, "bfloat16", "bfloat16"),
    ("mistral", "int4", 64, "bfloat16", "bfloat16"),
]
CASES = ["-".join(map(str, case)) for case in GRID + OTHERS]

READER = """
import json, sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
torch.set_num_threads(int(sys.argv[3]))
tokens, answers, problems = torch.tensor(json.loads(sys.argv[1])), {}, {}
for path in sys.argv[4:]:
    model, info = AutoModelForCausalLM.from_pretrained(path, output_loading_info=True)
    with torch.inference_mode():
        answers[path] = model(tokens).logits.contiguous()
    problems[path] = {key: sorted(map(str, value)) for key, value in info.items() if value}
assert "bitdistiller" not in sys.modules
assert not any(problems.values()), problems
save_file(answers, sys.argv[2])
"""


@pytest.fixture(scope="module")
def packed(model_directory, tmp_path_factory):
    root = tmp_path_factory.mktemp("packed")
    return {
        name: pack(model_directory(case[0]), recipe(*case[1:]), root / name)
        for name, case in zip(CASES, GRID + OTHERS, strict=True)
    }


@pytest.fixture(scope="module")
def logits(packed, tmp_path_factory):
    answers = tmp_path_factory.mktemp("answers") / "logits.safetensors"
    arguments = [json.dumps(TOKENS.tolist()), answers, torch.get_num_threads(), *packed.values()]
    subprocess.run([sys.executable, "-P", "-c", READER, *map(str, arguments)], check=True)
    found = load_file(answers)
    return {name: found[str(path)] for name, path in packed.items()}


def student_logits(directory, number_format, group_size, dtype, scale_dtype):
    """The student as it is trained: float32 masters, quantised in every forward, products in `dtype`."""
    masters = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    student = AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, dtype))
    quantize_linears(student, get_format(number_format, scale_dtype=scale_dtype), group_size)
    for name, layer in fake_quantized_linears(student):
        layer.weight = masters.get_submodule(name).weight
    with torch.inference_mode():
        return student.eval()(TOKENS).logits


@pytest.mark.parametrize(("name", "case"), list(zip(CASES, GRID + OTHERS, strict=True)), ids=CASES)
def test_logits_equal_the_fake_quantised_students_bit_for_bit(name, case, logits, model_directory):
    expected = student_logits(model_directory(case[0]), *case[1:])
    assert logits[name].dtype == expected.dtype
    assert torch.equal(logits[name], expected)


class UnsignedZeroPoints(PackQuantized):
    """The mistake of the unsigned convention: z where the format wants z - 2^(b-1)."""

    def encode(self, codes, scale, zero_point):
        wrong = (zero_point + 2 ** (self.format.bits - 1)) % 2**self.format.bits
        return super().encode(codes, scale, wrong)


@pytest.mark.parametrize("number_format", ["int2", "int3"])
def test_unsigned_zero_points_decode_wrong(number_format, model_directory, tmp_path):
    chosen = recipe(number_format)
    path = pack(model_directory(), chosen, tmp_path / "wrong", layout=UnsignedZeroPoints(chosen))
    with torch.inference_mode():
        loaded = AutoModelForCausalLM.from_pretrained(path)(TOKENS).logits
    expected = student_logits(model_directory(), number_format, 64, "bfloat16", "bfloat16")
    assert (loaded - expected).abs().max() > 0.1 * expected.abs().max()
    with pytest.raises(VerificationError, match="zero points"):
        verify_checkpoint(path, model_directory(), None, chosen, fresh_process=False)


@pytest.mark.parametrize("model_class", [AutoModelForCausalLM, LlamaForCausalLM])
def test_plain_transformers_refuses_a_lookup_checkpoint(model_class, model_directory, tmp_path):
    path = pack(model_directory(), recipe("nf3"), tmp_path / "nf3")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        model_class.from_pretrained(path)
