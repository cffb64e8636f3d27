"""The package that docs/adding-a-method.md shows, built from that page: its loss and its format work from outside."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.mixes import write_mix
from helpers.tiny import write_model

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "adding-a-method.md"


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The directory of the installed package: its modules, and the metadata that an installer makes."""
    site = tmp_path_factory.mktemp("site")
    (project,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    loss, number_format = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    modules = site / "bitdistiller_examples"
    modules.mkdir()
    (modules / "__init__.py").touch()
    (modules / "tv.py").write_text(loss)
    (modules / "power_of_two.py").write_text(number_format)
    metadata = site / "bitdistiller_examples-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bitdistiller-examples\nVersion: 1.0\n")
    groups = re.findall(r'\[project\.entry-points\."(.*?)"\]\n(\w+ = ".*?")', project)
    text = "".join(f"[{group}]\n{line.replace(chr(34), '')}\n" for group, line in groups)
    (metadata / "entry_points.txt").write_text(text)
    return site


@pytest.fixture
def call(package, tmp_path):
    """`call(*arguments)`: exit code and output of Python with the package beside the others."""

    def run(*arguments):
        paths = os.pathsep.join(filter(None, [str(ROOT), str(package), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, cwd=tmp_path)
        return done.returncode, done.stdout + done.stderr

    return run


CHECK = """
import torch
from bitdistiller.distillation.losses import get_loss
from bitdistiller.formats import format_names, get_format
from bitdistiller.layers import PackedLinear

logits, teacher = torch.randn(2, 3, 5, dtype=torch.float64), torch.randn(2, 3, 5, dtype=torch.float64)
found = get_loss("tv")(logits, teacher, torch.ones(2, 3, dtype=torch.int64), reduction="token_mean")
expected = 0.5 * (logits.softmax(-1) - teacher.softmax(-1)).abs().sum(-1).mean()
assert torch.allclose(found, expected), (found, expected)

row = logits[0].log_softmax(-1).requires_grad_()
loss = get_loss("tv")
(slope,) = torch.autograd.grad(loss.values(row, teacher[0].log_softmax(-1), 0.5).sum(), row)
assert torch.allclose(loss.derivatives(row.detach(), teacher[0].log_softmax(-1), 0.5)[1], slope)

assert format_names()[-1] == "pot3"
number_format = get_format("pot3", "bfloat16")
weight = torch.randn(8, 128)
codes, scale, zero = number_format.quantize(weight, 64)
values = number_format.fake_quantize(weight, 64)
assert zero is None and int(codes.max()) == 7
assert torch.equal(number_format.dequantize(codes, scale, zero, 64), values)
layer = PackedLinear.from_codes(codes, scale, zero, number_format, 64)
x = torch.randn(2, 128)
assert torch.allclose(layer(x), x @ values.T, atol=1e-4)
"""


def test_both_are_found_and_compute_what_they_say(call):
    code, log = call("-c", CHECK)
    assert code == 0, log


def test_a_student_is_trained_packed_and_loaded_with_both(call, tmp_path):
    model = write_model(tmp_path / "model")
    mix = write_mix(tmp_path / "mix", 40)
    code, log = call("-m", "bitdistiller", "tokenize", "--model", model, "--mix", mix, "--output", "tokens")
    assert code == 0, log
    training = {"loss": {"tv": 1.0, "ce": 0.5}, "max_steps": 2, "batch_size": 4, "micro_batch_size": 4}
    training |= {"precision": "float32", "evaluate_every": 2}
    recipe = json.dumps({"quantization": {"format": "pot3", "group_size": 64}, "training": training})
    code, log = call(
        *("-m", "bitdistiller", "train", "--recipe", recipe),
        *("--model", model, "--tokens", "tokens", "--output", "train"),
    )
    assert code == 0, log
    shape = ["--format", "pot3", "--group-size", "64", "--set", "dtype=float32"]
    code, log = call("-m", "bitdistiller", "export", "--weights", "train/student", *shape, "--output", "export")
    assert code == 0, log
    report = json.loads((tmp_path / "export" / "export.json").read_text())
    assert report["verified"]["fresh_process"]["logits_equal"]


def test_experiment_files_take_their_names(call, package, tmp_path):
    (tmp_path / "x.yaml").write_text(
        "models: {m: {demo: {}}}\n"
        "calibrations: {c: {texts: demo}}\n"
        "mixes: {x: {teacher: m, sources: [{dataset: demo-text, samples: 4}]}}\n"
        "trainings: {t: {loss: tv}}\n"
        "evaluations: {e: {kind: perplexity, dataset: demo-text}}\n"
        "runs: {a: {model: m, method: bitdistiller, format: pot3, calibration: c, mix: x, training: t}}\n"
    )
    code, log = call("-m", "bitdistiller", "check", "--config", "x.yaml")
    assert code == 0, log
    (package / "bitdistiller_examples" / "tv.py").rename(tmp_path / "tv.py")
    code, log = call("-c", "from bitdistiller.distillation.losses import get_loss; get_loss('tv')")
    (tmp_path / "tv.py").rename(package / "bitdistiller_examples" / "tv.py")
    assert code == 1
    assert "tv: the package bitdistiller-examples offers it, but bitdistiller_examples.tv fails" in log


def test_without_the_package_the_names_are_unknown():
    from bitdistiller.config import Quantization, format_names, loss_names

    assert "pot3" not in format_names()
    assert "tv" not in loss_names()
    with pytest.raises(ValueError, match="unknown 'pot3'; accepted: int2"):
        Quantization(format="pot3")


def test_our_own_names_are_those_of_the_registries():
    from bitdistiller.config.base import OWN_FORMATS, OWN_LOSSES
    from bitdistiller.distillation.losses import LOSSES
    from bitdistiller.formats.registry import FORMATS

    assert tuple(FORMATS) == OWN_FORMATS
    assert tuple(LOSSES) == OWN_LOSSES
