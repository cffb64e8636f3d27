"""The Triton kernels without a GPU: in the interpreter against the eager form, and compiled ahead of time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitdistiller.formats import get_format

triton = pytest.importorskip("triton", reason="the package triton is not installed (make test installs it)")

HELPER = Path(__file__).resolve().parents[2] / "helpers" / "triton_interpreter.py"
POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}


def test_the_interpreter_agrees_with_the_eager_form():
    done = subprocess.run([sys.executable, str(HELPER)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "342 cases equal" in done.stdout


def compile_ahead(kernel, pointers, constants, options, capability):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    tensors = dict(zip([name for name in names if name.endswith("_pointer")], pointers, strict=True))
    signature = {name: tensors.get(name, "i32" if name == "count" else "constexpr") for name in names}
    constexprs = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("name", ["int2", "int3", "nf3", "nf4", "sym8"])
def test_kernels_compile_for_a_gpu(name, capability):
    from bitdistiller.kernels.triton.launch import tile

    kernels = get_format(name, "bfloat16").triton_kernels()
    options = tile(128)
    warps = {"num_warps": options.pop("num_warps")}
    for weight, value in ((torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)):
        forward = (POINTERS[weight], POINTERS[value], "*fp32")
        backward = (POINTERS[weight], POINTERS[value], POINTERS[weight])
        constants = {**kernels.constants, **options}
        for kernel, pointers, more in (
            (kernels.forward, forward, {}),
            (kernels.backward, backward, {"SCALE_GRAD": True}),
        ):
            built = compile_ahead(kernel, pointers, constants | more, warps, capability)
            assert f"sm_{capability}" in built.asm["ptx"]
            assert len(built.asm["cubin"]) > 1000
