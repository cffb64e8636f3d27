"""Two processes over gloo: the loss curve of one, bit-identical after a stop, and what another number may resume."""

import importlib.util
import json
import os
import shutil
import signal

import psutil
import pytest
from helpers import ranks
from helpers.engine_patches import STOPPED, check_kind, fill_the_last_disk, spoil_a_gradient, stop_the_last_rank
from helpers.mixes import make_recipe
from helpers.processes import finish, start, wait_for
from helpers.tiny import write_model
from pydantic import ValidationError
from safetensors.torch import load_file

from bitdistiller.config import Training
from bitdistiller.distillation import checkpoints
from bitdistiller.distillation.engines import zero
from bitdistiller.distillation.processes import free_port
from bitdistiller.distillation.world import World
from bitdistiller.recipes import as_text
from bitdistiller.stages import verify
from bitdistiller.stages.files import read_json, read_json_lines, write_json

NEEDS_DEEPSPEED = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed")
NEEDS_TORCHAO = pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
ZERO2 = pytest.param("zero2", marks=NEEDS_DEEPSPEED)
ZERO3 = pytest.param("zero3", marks=[NEEDS_DEEPSPEED, pytest.mark.slow])
SAME = ("student/model.safetensors", "gamma.json", "history.jsonl")
STEPS = 4


@pytest.fixture(scope="module")
def command(tiny_model, tokens):
    """`command(output, model=..., **training)`: 3 micro-batches a step, so one of two processes has an empty one."""
    usual = {"max_steps": STEPS, "batch_size": 6, "evaluate_every": 2, "batching": "padded"}

    def make(output, model=tiny_model, **training):
        recipe = as_text(make_recipe(**{**usual, **training}))
        return ["train", "--model", model, "--tokens", tokens, "--output", output, "--recipe", recipe, "--clip", "none"]

    return make


@pytest.fixture(scope="module")
def train(command):
    """`train(output, count, **options)`: to the end, by `count` processes; the output directory."""

    def call(output, count, **options):
        codes, text = ranks.run(command(output, **options), count, output.with_suffix(".log"), check_kind)
        assert codes == [0] * count, text
        verify(output)
        return output

    return call


@pytest.fixture(scope="module")
def stop(command):
    """As `train`, but one of the processes is told to stop after a step; its output has no files then."""

    def call(output, count, **options):
        log = output.with_suffix(".log")
        codes, text = ranks.run(command(output, **options), count, log, stop_the_last_rank)
        assert codes == [75] * count, text
        told = [line for line in text.splitlines() if line.startswith("stopped:")]
        assert len(told) == 1
        assert "asked to stop by" in told[0]
        assert list(checkpoints.steps(state(output))) == [STOPPED]
        assert checkpoints.is_whole(state(output) / f"checkpoint-{STOPPED}")
        assert not output.exists()
        return output

    return call


@pytest.fixture(scope="module")
def alone(train, tmp_path_factory):
    """The output of one process."""
    return train(tmp_path_factory.mktemp("alone") / "train", 1)


def state(output):
    return output.with_name(f"{output.name}.work") / "state"


def copy(output, to):
    """A stopped training, to be gone on with from `to`."""
    shutil.copytree(output.with_name(f"{output.name}.work"), to.with_name(f"{to.name}.work"))
    return to


def assert_same_curve(output, expected, tolerance=1e-6):
    found, wanted = (list(read_json_lines(path / "history.jsonl")) for path in (output, expected))
    assert [event.keys() for event in found] == [event.keys() for event in wanted]
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)


def assert_identical(output, expected):
    for name in SAME:
        assert (output / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.parametrize("engine", ["ddp", "fsdp", ZERO2, ZERO3])
def test_two_processes_train_as_one_and_go_on_bit_identically(engine, train, stop, alone, tmp_path):
    whole = train(tmp_path / "whole", 2, engine=engine)
    assert_same_curve(whole, alone)
    ours, one = (load_file(output / "student" / "model.safetensors") for output in (whole, alone))
    assert ours.keys() == one.keys()
    assert all((ours[name] - one[name]).abs().max() < 1e-4 for name in one)
    assert not list(state(whole).glob("checkpoint-*/*optim*"))
    assert {path.name for path in (whole / "student").iterdir()} == {
        path.name for path in (alone / "student").iterdir()
    }
    resumed = stop(tmp_path / "stopped", 2, engine=engine)
    assert_identical(train(resumed, 2, engine=engine), whole)


def test_another_number_of_processes_goes_on(train, stop, alone, tmp_path):
    for engine in ("auto", "ddp", "fsdp"):
        stopped = stop(tmp_path / engine, 2, engine=engine)
        assert_same_curve(train(stopped, 1, engine=engine), alone)
    stopped = stop(tmp_path / "one", 1, engine="fsdp")
    assert_same_curve(train(stopped, 2, engine="fsdp"), alone)


@NEEDS_DEEPSPEED
def test_zero_says_what_to_do_about_another_number(command, stop, tmp_path):
    output = stop(tmp_path / "train", 2, engine="zero2")
    for count, wrote in ((1, 2), (2, 4)):
        checkpoint = state(output) / f"checkpoint-{STOPPED}"
        write_json(checkpoint / checkpoints.STATE, checkpoints.read_state(checkpoint) | {"processes": wrote})
        (checkpoint / checkpoints.MARKER).unlink()
        checkpoints.seal(checkpoint)
        log = tmp_path / f"{count}.log"
        codes, text = ranks.run(command(output, engine="zero2"), count, log)
        assert codes == [2] * count, text
        (line,) = [line for line in text.splitlines() if line.startswith("error:")]
        assert f"written by {wrote} processes of zero2, and this job has {count}" in line
        assert f"start {wrote} again, or delete {state(output)} to start anew (engine: fsdp with" in line
        assert "Traceback" not in text


@NEEDS_DEEPSPEED
def test_one_of_zero_without_room_stops_all_and_loses_nothing(command, tmp_path):
    output = tmp_path / "train"
    codes, text = ranks.run(command(output, engine="zero2"), 2, tmp_path / "log", fill_the_last_disk)
    assert codes == [1, 1], text
    (line,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert f"checkpoint-{STEPS}: the disk is full; the checkpoint of step {STOPPED} is whole" in line
    assert "Traceback" not in text
    assert list(checkpoints.steps(state(output))) == [STOPPED]


@NEEDS_DEEPSPEED
def test_zero_which_cannot_skip_a_step_stops_at_a_gradient_that_is_no_number(command, tmp_path):
    output = tmp_path / "train"
    codes, text = ranks.run(command(output, engine="zero2"), 2, tmp_path / "log", spoil_a_gradient)
    assert codes == [1, 1], text
    (line,) = [line for line in text.splitlines() if line.startswith("error:")]
    assert f"train: diverged at step {STOPPED + 1}: loss or gradient not finite for 1 step" in line
    assert list(checkpoints.steps(state(output))) == [STOPPED]


def test_the_engine_single_is_refused_on_all_of_several(command, tmp_path):
    codes, text = ranks.run(command(tmp_path / "train", engine="single"), 2, tmp_path / "log")
    assert codes == [2, 2]
    (line,) = text.splitlines()
    assert line == "error: training.engine: single is one process, 2 were started; accepted: ddp, fsdp, zero2, zero3"


def test_one_is_killed_then_all_end_and_the_next_start_is_bit_identical(command, train, tmp_path):
    whole, output = train(tmp_path / "whole", 2, engine="auto"), tmp_path / "train"
    launcher = start("-m", "bitdistiller", *command(output), "--processes", "2", CUDA_VISIBLE_DEVICES="")
    wait_for((state(output) / f"checkpoint-{STOPPED}" / checkpoints.MARKER).exists, launcher, 120)
    last = next(child for child in psutil.Process(launcher.pid).children() if child.environ()["RANK"] == "1")
    os.kill(last.pid, signal.SIGKILL)
    code, text = finish(launcher)
    assert code not in (0, 2, 75), text
    assert_identical(train(output, 2), whole)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp", ZERO2, pytest.param("zero3", marks=NEEDS_DEEPSPEED)])
@pytest.mark.parametrize(
    "options",
    [
        {"train_scales": True, "gradient_checkpointing": True, "scale_learning_rate": 1e-4},
        {"tie_word_embeddings": True, "batch_size": 4},
        {"loss": "ce", "mask_prompt": True, "batching": "packed"},
        {"hidden_states": 1.0, "quantization": {"format": "sign1"}, "loss": "forward", "gradient_checkpointing": True},
        {"quantization": {"format": "4-8-4"}, "loss": "forward"},
        pytest.param({"optimizer": "adamw-8bit"}, marks=NEEDS_TORCHAO),
    ],
    ids=lambda options: next(iter(options)),
)
def test_every_kind_of_training_on_every_engine(engine, options, train, stop, tmp_path):
    """8-bit moments: a block of 256 values lies elsewhere in a shard, so the curves agree but roughly."""
    if options.pop("tie_word_embeddings", False):
        options["model"] = write_model(tmp_path / "model", tie_word_embeddings=True)
    exact = options.get("optimizer") != "adamw-8bit" or engine == "ddp"
    whole = train(tmp_path / "whole", 2, engine=engine, **options)
    assert_same_curve(whole, train(tmp_path / "alone", 1, **options), 1e-6 if exact else 3e-2)
    resumed = stop(tmp_path / "stopped", 2, engine=engine, **options)
    assert_identical(train(resumed, 2, engine=engine, **options), whole)


@pytest.mark.slow
@NEEDS_TORCHAO
def test_eight_bit_shards_are_not_cut_anew(command, stop, tmp_path):
    output = stop(tmp_path / "train", 2, engine="fsdp", optimizer="adamw-8bit")
    codes, text = ranks.run(command(output, engine="fsdp", optimizer="adamw-8bit"), 1, tmp_path / "log")
    assert codes == [2]
    assert "start 2 again" in text


def test_eight_bit_moments_are_not_offloaded():
    with pytest.raises(ValidationError, match="offload: optimizer takes no optimizer: adamw-8bit; accepted: adamw"):
        Training(engine="zero2", offload="optimizer", optimizer="adamw-8bit")


@pytest.mark.slow
@NEEDS_DEEPSPEED
@pytest.mark.parametrize(
    ("engine", "offload"), [("zero2", "optimizer"), ("zero3", "parameters"), ("fsdp", "parameters")]
)
def test_offload_changes_nothing(engine, offload, train, stop, alone, tmp_path):
    whole = train(tmp_path / "whole", 2, engine=engine, offload=offload)
    assert_same_curve(whole, alone)
    resumed = stop(tmp_path / "stopped", 2, engine=engine, offload=offload)
    assert_identical(train(resumed, 2, engine=engine, offload=offload), whole)


@pytest.mark.slow
def test_torchrun_starts_it(command, train, alone, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port(), "-m"]
    code, text = finish(start(*torchrun, "bitdistiller", *command(tmp_path / "train"), CUDA_VISIBLE_DEVICES=""), 300)
    assert code == 0, text
    assert_same_curve(tmp_path / "train", alone)
    assert read_json(tmp_path / "train" / "provenance.json")["details"]["engine"] == "ddp"


@pytest.mark.parametrize("stage", [2, 3])
@pytest.mark.parametrize("offload", ["none", "optimizer", "parameters"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_deepspeed_configuration(stage, offload, device):
    import torch

    engine = f"zero{stage}" if offload != "parameters" else "zero3"
    training = Training(engine=engine, offload=offload, max_gradient_norm=0.5)
    found = zero.zero_config(training, World(1, 4, torch.device(device)), stage)
    json.dumps(found)
    assert found["train_batch_size"] == 4
    assert found["gradient_clipping"] == 0.5
    assert not found["bf16"]["enabled"]
    assert not found["fp16"]["enabled"]
    host = {"device": "cpu", "pin_memory": device == "cuda"}
    expected = {"stage": stage, "overlap_comm": device == "cuda", "contiguous_gradients": True}
    expected |= {"offload_optimizer": host} if offload != "none" else {}
    expected |= {"offload_param": host} if offload == "parameters" and stage == 3 else {}
    assert found["zero_optimization"] == expected
