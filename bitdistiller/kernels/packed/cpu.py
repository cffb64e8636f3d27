"""The C++ kernels of packed weights: compiled on first use for this very processor, kept, called from threads."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from bitdistiller.kernels.packed.matrix import PackedMatrix

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("packed.cpp")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC")
WORTH_THREADS = 1 << 20
"""Weights from which on the rows are divided among threads."""


class Matrix(ctypes.Structure):
    """The struct of the same name in packed.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("codes", "scale", "zero_point", "levels")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "group_size", "scales_per_group")),
    ]


def multiply(x: Tensor, weight: PackedMatrix) -> Tensor:
    """`x @ weight.T`, float32 (n, rows), for x (n, filled columns) of any dtype."""
    x = x.float().contiguous()
    output = torch.empty(len(x), weight.rows)
    arguments = (_pointer(x), _pointer(output), len(x))
    _over_rows(_library().packed_multiply, weight, slice(0, weight.rows), lambda first, last: (*arguments, first, last))
    return output


def expand(weight: PackedMatrix, rows: slice) -> Tensor:
    """Values, float32 (rows, filled columns), of some rows of the weight."""
    output = torch.empty(rows.stop - rows.start, weight.filled)

    def arguments(first: int, last: int) -> tuple[Any, ...]:
        return _pointer(output[first - rows.start :]), first, last

    _over_rows(_library().packed_expand, weight, rows, arguments)
    return output


@cache
def works() -> bool:
    """Whether this machine has a compiler for the kernels; tried once."""
    try:
        _library()
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        reason = said.strip().splitlines()[0][:120]
        logger.info("no C++ compiler for packed weights, they are dequantised at every use instead (%s)", reason)
        return False
    return True


def _over_rows(function: Any, weight: PackedMatrix, rows: slice, arguments: Any) -> None:
    """Call the function for parts of the rows, in as many threads as torch has."""
    matrix = Matrix(
        *(_pointer(tensor) for tensor in (weight.codes, weight.scale, weight.zero_point, weight.levels)),
        weight.rows,
        weight.filled,
        weight.group_size,
        weight.scale.shape[-1],
    )
    count = rows.stop - rows.start
    threads = torch.get_num_threads() if count * weight.filled >= WORTH_THREADS else 1
    bounds = [rows.start + count * i // threads for i in range(threads + 1)]
    calls = [(weight.bits, ctypes.byref(matrix), *arguments(*bounds[i : i + 2])) for i in range(threads)]
    others = [_pool(threads).submit(function, *call) for call in calls[1:]]
    function(*calls[0])
    for other in others:
        other.result()


def _pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads - 1, thread_name_prefix="packed")


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(_built()))
    size, pointer = ctypes.c_int64, ctypes.c_void_p
    library.packed_multiply.argtypes = [ctypes.c_int, pointer, pointer, pointer, size, size, size]
    library.packed_expand.argtypes = [ctypes.c_int, pointer, pointer, size, size]
    library.packed_multiply.restype = library.packed_expand.restype = None
    return library


def _built() -> Path:
    """The compiled kernels of this source, compiler and kind of processor; compiled where they are not there yet."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise OSError(f"{os.environ.get('CXX', 'g++')}: not found")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True).stdout
    identity = "\n".join((SOURCE.read_text(encoding="utf-8"), *FLAGS, version, _processor()))
    name = f"packed-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    folder = _folder()
    path = folder / name
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=folder, suffix=".so")
        os.close(handle)
        try:
            command = [compiler, *FLAGS, str(SOURCE), "-o", temporary]
            subprocess.run(command, capture_output=True, text=True, check=True)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return path


def _folder() -> Path:
    """Where compiled kernels are kept: the user's cache, or a temporary folder where that cannot be written."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "bitdistiller"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    return folder if os.access(folder, os.W_OK) else Path(tempfile.mkdtemp(prefix="bitdistiller-"))


def _processor() -> str:
    """What tells kinds of processors apart: a cluster's nodes may share one home."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    told = [line for line in lines if line.partition(":")[0].strip() in ("flags", "Features", "model name")]
    return "\n".join([platform.machine(), *sorted(set(told))])
