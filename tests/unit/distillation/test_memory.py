"""Expected memory: what each option moves, where it lies, what is refused and which advice is given."""

import pytest
import torch
from helpers.tiny import make_model, write_model
from transformers import LlamaConfig

from bitdistiller.config import Training
from bitdistiller.distillation import fitting
from bitdistiller.distillation.activations import layer_bytes
from bitdistiller.distillation.fitting import check_fits, check_memory
from bitdistiller.distillation.limits import available
from bitdistiller.distillation.memory import Setup, estimate
from bitdistiller.distillation.shapes import Shapes
from bitdistiller.errors import InputError

GB = 1e9
LLAMA = LlamaConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=32,
    vocab_size=32000,
    tie_word_embeddings=False,
)


@pytest.fixture(scope="module")
def seven():
    """LLaMA-2-7B's shapes."""
    return Shapes.of(LLAMA)


def rows(expected):
    return {row.name: row.bytes for row in expected.rows}


def test_shapes_are_those_of_the_model(tmp_path):
    for tied in (False, True):
        model = make_model(tie_word_embeddings=tied)
        shapes = Shapes.read(write_model(tmp_path / str(tied), tie_word_embeddings=tied))
        assert shapes.parameters == sum(parameter.numel() for parameter in model.parameters())
        assert shapes.head_parameters == 128 * 64
        assert shapes.layers == 2
        assert shapes.linear_parameters == 2 * shapes.block_linear_parameters
        assert shapes.block_linear_parameters == 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128
        assert shapes.largest_linear == 64 * 128
        assert shapes.outer_parameters == (1 if tied else 2) * 128 * 64 + 64


def test_the_rows_of_seven_billion_parameters(seven):
    assert seven.parameters == 6_738_415_616
    setup = Setup(device="cuda", micro_batch_size=1)
    found = rows(estimate(seven, None, setup))
    assert found["student's weights"] == found["gradients"] == 4 * seven.parameters
    assert found["optimizer (adamw)"] == 8 * seven.parameters
    assert found["teacher (live)"] == 2 * seven.parameters
    assert found["quantised weights"] == 2 * seven.linear_parameters / 32
    assert estimate(seven, None, setup).device_bytes > 18 * seven.parameters


@pytest.mark.parametrize(
    ("options", "row", "bytes_"),
    [
        ({"optimizer": "adamw-8bit"}, "optimizer (adamw-8bit)", lambda m: 2.03125 * m.parameters),
        ({"gradient_checkpointing": False}, "quantised weights", lambda m: 2 * m.linear_parameters),
        ({"precision": "float32"}, "quantised weights", lambda m: 4 * m.block_linear_parameters),
        ({"teacher": "cached"}, "teacher (cached)", lambda m: 2 * 32000 * 4096),
        ({"engine": "ddp", "processes": 8}, "optimizer (adamw)", lambda m: 8 * m.parameters),
        ({"engine": "zero2", "processes": 8}, "optimizer (adamw)", lambda m: m.parameters),
        ({"engine": "zero2", "optimizer": "adamw-8bit"}, "optimizer (adamw-8bit)", lambda m: 8 * m.parameters),
        ({"engine": "zero2", "processes": 8}, "student's weights", lambda m: 4 * m.parameters),
        ({"engine": "zero3", "processes": 8}, "student's weights", lambda m: 4 * m.parameters / 8),
        ({"engine": "fsdp", "processes": 8}, "gradients", lambda m: 4 * m.parameters / 8),
    ],
)
def test_what_an_option_changes(seven, options, row, bytes_):
    assert rows(estimate(seven, None, Setup(**options)))[row] == bytes_(seven)


def test_no_teacher_takes_no_row(seven):
    assert not any("teacher" in name for name in rows(estimate(seven, None, Setup(teacher="none"))))


def test_a_larger_teacher_counts_with_its_own_size(seven):
    small = Shapes.of(make_model().config)
    assert rows(estimate(small, seven, Setup()))["teacher (live)"] == 2 * seven.parameters


def test_activations_grow_with_tokens_and_shrink_with_checkpointing(seven):
    def activations(**options):
        return rows(estimate(seven, None, Setup(**options)))["activations"]

    assert activations(micro_batch_size=8) == 8 * activations(micro_batch_size=1)
    assert activations(gradient_checkpointing=False) > 8 * activations()
    assert activations(precision="float32") > activations()


@pytest.mark.parametrize("product_bytes", [4, 2])
def test_a_layer_keeps_what_autograd_saves(product_bytes):
    kept = {}
    for layers in (1, 2):
        model = make_model(num_hidden_layers=layers, num_key_value_heads=2).train()
        weights = [parameter.untyped_storage().data_ptr() for parameter in model.parameters()]
        sizes = {parameter.numel() for parameter in model.parameters() if parameter.ndim == 2}
        seen, alive = {}, []

        def pack(tensor, seen=seen, alive=alive, weights=weights, sizes=sizes):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights and tensor.numel() not in sizes:
                seen[storage.data_ptr()] = storage.nbytes()
                alive.append(tensor)
            return tensor

        ids = torch.zeros(3, 50, dtype=torch.long)
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with hooks, torch.autocast("cpu", dtype=torch.bfloat16, enabled=product_bytes == 2):
            model.base_model(input_ids=ids, use_cache=False)
        kept[layers] = sum(seen.values()) / ids.numel()
    measured = kept[2] - kept[1]
    assert layer_bytes(Shapes.of(model.config), product_bytes) == pytest.approx(measured, rel=0.05)


def test_offload_moves_to_the_host(seven):
    inside = estimate(seven, None, Setup(device="cuda", engine="zero2", processes=4, local_processes=4))
    moved = inside.change(offload="optimizer")
    assert inside.host_bytes < moved.host_bytes
    away = (4 + 4 + 8) * seven.parameters / 4
    assert inside.device_bytes - moved.device_bytes == pytest.approx(away)
    assert moved.host_bytes - inside.host_bytes == pytest.approx(4 * away)
    everything = estimate(seven, None, Setup(device="cuda", engine="fsdp", processes=4, offload="parameters"))
    assert all(row.on_host for row in everything.rows if row.name in ("student's weights", "gradients"))


def test_on_a_cpu_all_processes_share_the_host(seven):
    one = estimate(seven, None, Setup(engine="ddp", processes=1))
    two = one.change(processes=2, local_processes=2)
    assert (two.device_bytes, two.host_bytes) == (2 * one.device_bytes, 0)


def test_the_table_has_every_row_and_the_total(seven):
    expected = estimate(seven, None, Setup(device="cuda", engine="zero2", processes=2, offload="optimizer"))
    lines = expected.table().splitlines()
    assert lines[0] == "expected memory in GB (zero2, 2 processes, 8 x 1024 tokens):"
    assert len(lines) == 1 + len(expected.rows) + 2
    assert lines[1].split() == ["student's", "weights", "26.95"]
    assert [line.endswith(" host") for line in lines[1:-2]] == [row.on_host for row in expected.rows]
    assert lines[-2].startswith("  total on each GPU")


def test_setup_takes_the_recipe(seven):
    setup = Setup.of(
        Training(precision="float32", micro_batch_size=4, optimizer="adamw-8bit"), engine="ddp", processes=2
    )
    assert (setup.precision, setup.tokens, setup.optimizer) == ("float32", 4 * 1024, "adamw-8bit")
    assert (setup.engine, setup.processes, setup.batch_size) == ("ddp", 2, 128)


def refusal(expected, *there):
    with pytest.raises(InputError) as caught:
        check_fits(expected, *there)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_fits_is_not_refused(seven):
    check_fits(estimate(seven, None, Setup(device="cuda")), 200 * GB, 400 * GB)


def test_one_change_is_advised_when_one_is_enough(seven):
    expected = estimate(seven, None, Setup(device="cuda", micro_batch_size=1))
    with_it = expected.change(optimizer="adamw-8bit").device_bytes
    message = refusal(expected, with_it + GB, 400 * GB)
    assert message.startswith("train: needs about ")
    assert f"set optimizer: adamw-8bit (then {with_it / GB:.1f} GB);" in message
    assert "optimizer (adamw) 53.9 GB" in message


def test_several_changes_are_advised_when_it_takes_them(seven):
    expected = estimate(seven, None, Setup(device="cuda"))
    both = expected.change(optimizer="adamw-8bit", micro_batch_size=1).device_bytes
    message = refusal(expected, both + 1, expected.host_bytes)
    assert f"set optimizer: adamw-8bit and micro_batch_size: 1 (then {both / GB:.1f} GB)" in message
    assert "set engine: fsdp and offload: parameters (then" in refusal(expected, 40 * GB, 1000 * GB)
    assert "set engine: fsdp on 4 GPUs (then" in refusal(expected, 70 * GB, 120 * GB)


def test_the_largest_micro_batch_that_fits_is_advised():
    small = Shapes.of(make_model().config)
    expected = estimate(small, None, Setup(micro_batch_size=64, optimizer="adamw-8bit", teacher="cached"))
    there = expected.change(micro_batch_size=16).device_bytes
    assert "set micro_batch_size: 16 (then" in refusal(expected, there + 1)


def test_when_nothing_helps_it_says_so(seven):
    message = refusal(estimate(seven, None, Setup()), 8 * GB)
    assert "no option makes it fit (even with optimizer: adamw-8bit, micro_batch_size: 1, teacher: cached: " in message


def test_the_host_beside_gpus_can_be_what_is_short(seven):
    expected = estimate(seven, None, Setup(device="cuda", engine="fsdp", processes=8, local_processes=8))
    assert "on the host, 64.0 GB available" in refusal(expected, 80 * GB, 64 * GB)


def test_warn_starts_it_anyway(seven, monkeypatch, caplog):
    monkeypatch.setenv(fitting.VARIABLE, "warn")
    check_fits(estimate(seven, None, Setup()), 8 * GB)
    assert "train: needs about" in caplog.text


def test_everything_from_directories_alone(tiny_model, caplog, monkeypatch):
    caplog.set_level("INFO")
    training = Training(micro_batch_size=2, batch_size=4, max_length=32)
    device = torch.device("cpu")
    expected = check_memory(training, tiny_model, tiny_model, device, engine="ddp", processes=2, local_processes=2)
    assert caplog.records[-1].getMessage() == expected.table()
    assert (expected.setup.teacher, expected.setup.device, expected.setup.engine) == ("live", "cpu", "ddp")
    assert check_memory(training, tiny_model, None, device, kind="cached").setup.teacher == "none"
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "100")
    with pytest.raises(InputError, match=r"needs about 0\.6 GB on the host, 0\.1 GB available"):
        check_memory(training, tiny_model, tiny_model, device, kind="cached")


def fake_host(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal: 99 kB\nMemAvailable:   32000000 kB\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 32_768_000_000),
        (
            {
                "proc/self/cgroup": "0::/job/step\n",
                "sys/fs/cgroup/job/memory.max": "8000000000\n",
                "sys/fs/cgroup/job/memory.current": "3000000000\n",
                "sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 1000000000\n",
                "sys/fs/cgroup/job/step/memory.max": "max\n",
            },
            6_000_000_000,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/slurm\n",
                "sys/fs/cgroup/memory/slurm/memory.limit_in_bytes": "4000000000\n",
                "sys/fs/cgroup/memory/slurm/memory.usage_in_bytes": "1000000000\n",
            },
            3_000_000_000,
        ),
    ],
)
def test_available_is_the_least_of_the_limits(tmp_path, monkeypatch, files, expected):
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    assert available("cpu", fake_host(tmp_path, MEMINFO | files)) == expected
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2000")
    assert available(torch.device("cpu"), tmp_path) == 2000 * 2**20


def test_available_here_is_a_number():
    assert 0 < available("cpu") < float("inf")
