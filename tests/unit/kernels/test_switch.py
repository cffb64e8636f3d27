"""The switch between the forms of a formula."""

import logging

import pytest
import torch

from bitdistiller import kernels
from bitdistiller.errors import InputError
from bitdistiller.formats import get_format
from bitdistiller.kernels import compiled, switch

FORMAT = get_format("int2")
SMALL, LARGE = torch.zeros(4, 128), torch.zeros(1 << 14, 128)


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch):
    monkeypatch.delenv(switch.VARIABLE, raising=False)


def test_auto_compiles_large_weights_only_and_only_where_it_can(monkeypatch):
    monkeypatch.setattr(compiled, "works", lambda: True)
    assert kernels.choose(FORMAT, SMALL) == "eager"
    assert kernels.choose(FORMAT, LARGE) == "compiled"
    monkeypatch.setattr(compiled, "works", lambda: False)
    assert kernels.choose(FORMAT, LARGE) == "eager"


def test_the_setting_rules(monkeypatch):
    monkeypatch.setattr(compiled, "works", lambda: True)
    with kernels.using("eager"):
        assert kernels.choose(FORMAT, LARGE) == "eager"
        assert not kernels.worth_compiling(LARGE)
    with kernels.using("compiled"):
        assert kernels.choose(FORMAT, SMALL) == "compiled"
    assert kernels.choose(FORMAT, SMALL) == "eager"


def test_what_cannot_run_here_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(compiled, "works", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for choice, message in [
        ("fast", "BITDISTILLER_KERNELS: 'fast'; accepted: auto, eager, compiled, triton"),
        ("compiled", "compiled runs on a CPU and needs a C\\+\\+ compiler"),
        ("triton", "triton needs the package triton, a CUDA device"),
    ]:
        with kernels.using(choice), pytest.raises(InputError, match=message):
            kernels.choose(FORMAT, SMALL)


def test_without_a_compiler_eager_is_chosen_by_itself(monkeypatch, caplog, tmp_path):
    def broken(function):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found")

    compiled.works.cache_clear()
    monkeypatch.setattr(compiled, "compile_function", broken)
    try:
        with caplog.at_level(logging.INFO, "bitdistiller"):
            assert kernels.choose(FORMAT, LARGE) == "eager"
        assert "eager kernels instead (InvalidCxxCompiler" in caplog.text
    finally:
        compiled.works.cache_clear()
