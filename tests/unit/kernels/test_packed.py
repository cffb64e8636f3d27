"""Products with packed weights: on the CPU with and without a compiler, in Triton's interpreter, compiled for GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.packed_cases import FORMATS, error, packed, signs
from reference.packed import lanes, product

from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.kernels.packed import PackedMatrix, cpu, multiply
from bitdistiller.kernels.packed import product as products
from bitdistiller.kernels.packed import values as values_of
from bitdistiller.kernels.packed.lanes import pack_lanes, unpack_lanes

HELPER = Path(__file__).resolve().parents[2] / "helpers" / "packed_interpreter.py"


@pytest.fixture(params=["compiled", "eager"])
def form(request, monkeypatch):
    """The kernels, and what replaces them where there is no compiler."""
    if request.param == "eager":
        monkeypatch.setattr(cpu, "works", lambda: False)
    elif not cpu.works():
        pytest.skip("no C++ compiler")
    return request.param


@pytest.mark.parametrize("columns", [64, 448, 512, 832])
@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_lanes_are_as_their_definition_says(bits, columns):
    codes = torch.randint(2**bits, (3, columns), dtype=torch.uint8, generator=torch.Generator().manual_seed(bits))
    found = pack_lanes(codes, bits)
    assert found.tolist() == [lanes(row, bits) for row in codes.tolist()]
    assert torch.equal(unpack_lanes(found, bits, columns), codes)


@pytest.mark.parametrize("group_size", [64, 192])
@pytest.mark.parametrize("name", FORMATS)
def test_values_are_those_of_the_format(name, group_size, form):
    weight, values = packed(name, 70, 576, group_size)
    assert torch.equal(values_of(weight).double(), values)
    assert torch.equal(values_of(weight, 3, 9).double(), values[3:9])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 11, 12, 40])
@pytest.mark.parametrize("name", FORMATS)
def test_products_are_those_of_the_values(name, count, form):
    weight, values = packed(name, 70, 576, 64)
    x = torch.randn(count, 576, generator=torch.Generator().manual_seed(0))
    assert error(multiply(x, weight), x, values) < 2e-6
    narrow = x.bfloat16()
    found = multiply(narrow, weight)
    assert found.dtype == torch.bfloat16
    assert error(found, narrow, values) < 1e-2


@pytest.mark.parametrize("columns", [64, 100, 576])
def test_signs_with_a_scale_for_every_row(columns, form):
    weight, values = signs(37, columns)
    assert torch.equal(values_of(weight).double(), values)
    for count in (1, 5):
        x = torch.randn(count, columns, generator=torch.Generator().manual_seed(0))
        assert error(multiply(x, weight), x, values) < 2e-6


@pytest.mark.parametrize("name", ["int3", "nf3"])
def test_a_product_equals_the_naive_sum(name, form):
    number_format = get_format(name, "bfloat16")
    weight = torch.randn(2, 128, generator=torch.Generator().manual_seed(4))
    codes, scale, zero = number_format.quantize(weight, 64)
    levels = number_format.level_table() or [float(q) for q in range(8)]
    x = torch.randn(1, 128, generator=torch.Generator().manual_seed(5))
    found = multiply(x, PackedMatrix.pack(codes, 3, scale, zero, levels, 64))
    zeros = [None, None] if zero is None else zero.tolist()
    for row in range(2):
        expected = product(x[0].tolist(), codes[row].tolist(), scale[row].tolist(), zeros[row], levels, 64)
        assert float(found[0, row]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_threads_divide_the_rows(form, monkeypatch):
    monkeypatch.setattr(cpu, "WORTH_THREADS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    weight, values = packed("int2", 71, 256, 64)
    x = torch.randn(2, 256)
    assert error(multiply(x, weight), x, values) < 2e-6
    assert torch.equal(values_of(weight).double(), values)


def test_infinities_and_nan_come_through(form):
    weight, _ = packed("int2", 64, 128, 64)
    x = torch.zeros(1, 128)
    x[0, 0] = float("nan")
    assert multiply(x, weight).isnan().all()


@pytest.mark.parametrize(
    ("bits", "group_size", "message"),
    [(8, 64, "8 bits; accepted: 1 to 4"), (2, 32, "groups of 32 of 128"), (2, 96, "groups of 96 of 128")],
)
def test_what_no_kernel_takes_is_refused(bits, group_size, message):
    with pytest.raises(InputError, match=message):
        PackedMatrix.pack(torch.zeros(4, 128, dtype=torch.uint8), bits, torch.ones(4, 4), None, [0.0], group_size)


def test_a_missing_compiler_is_said_once(monkeypatch, caplog):
    caplog.set_level("INFO")
    cpu.works.cache_clear()
    cpu._library.cache_clear()
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not cpu.works()
    assert not cpu.works()
    assert caplog.text.count("no C++ compiler for packed weights") == 1
    cpu.works.cache_clear()
    cpu._library.cache_clear()


def test_kernels_are_compiled_once_and_kept(monkeypatch, tmp_path):
    if not cpu.works():
        pytest.skip("no C++ compiler")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cpu._built()
    first = path.stat().st_mtime_ns
    assert cpu._built() == path
    assert path.stat().st_mtime_ns == first
    assert [found.name for found in (tmp_path / "bitdistiller").iterdir()] == [path.name]


def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    folder = cpu._folder()
    assert folder.is_dir()


def test_a_large_batch_is_multiplied_by_blocks_of_rows(form, monkeypatch):
    monkeypatch.setattr(products, "EXPANDED_ROWS", 32)
    weight, values = packed("nf3", 70, 128, 64)
    x = torch.randn(64, 128)
    assert error(multiply(x, weight), x, values) < 2e-6


def test_the_interpreter_agrees_with_the_values():
    pytest.importorskip("triton", reason="the package triton is not installed (make test installs it)")
    done = subprocess.run([sys.executable, str(HELPER)], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "32 cases equal" in done.stdout


@pytest.mark.parametrize(("name", "capability"), [("int2", 80), ("int3", 90), ("nf3", 90), ("signs", 90)])
def test_kernels_compile_for_a_gpu(name, capability):
    triton = pytest.importorskip("triton", reason="the package triton is not installed (make test installs it)")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from bitdistiller.kernels.triton import packed as module

    weight, _ = signs(8, 512) if name == "signs" else packed(name, 8, 512, 128)
    zero = "*i32" if weight.zero_point is None else "*u8"
    for kernel, more in ((module.vector_kernel, {"ROWS": 32}), (module.matrix_kernel, {"ROWS": 64, "BATCH": 16})):
        names, constants = kernel.arg_names, module.constants(weight) | more
        kinds = {
            "x_pointer": "*bf16",
            "codes_pointer": "*i32",
            "scale_pointer": "*fp32",
            "zero_pointer": zero,
            "levels_pointer": "*fp32",
            "output_pointer": "*fp32",
            "rows": "i32",
            "count": "i32",
        }
        signature = {key: kinds.get(key, "constexpr") for key in names}
        constexprs = {(names.index(key),): value for key, value in constants.items()}
        source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs)
        built = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 4})
        assert f"sm_{capability}" in built.asm["ptx"]
        assert len(built.asm["cubin"]) > 1000
