"""What is read from the answers of SLURM's clients: captured from 22.05, and lines as newer releases write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bitdistiller.cluster.slurm import (
    ClusterFacts,
    Gres,
    SlurmUnavailable,
    ask,
    cluster_facts,
    parse_gres,
    parse_nodes,
    parse_partitions,
)
from bitdistiller.cluster.slurm_text import parse_config, parse_memory_mb, parse_minutes

CAPTURED = Path(__file__).parent / "captured"


def facts(version: str) -> ClusterFacts:
    """The facts in the captured answers of one release."""
    config = (CAPTURED / "config-22.05.txt").read_text()
    partitions = parse_partitions((CAPTURED / f"partition-{version}.txt").read_text())
    nodes = parse_nodes((CAPTURED / f"node-{version}.txt").read_text())
    return ClusterFacts(parse_config(config), {p.name: p for p in partitions}, {n.name: n for n in nodes})


def test_configuration_of_22_05() -> None:
    found = facts("22.05")
    assert found.config["SLURM_VERSION"] == "22.05.8"
    assert found.config["AuthInfo"] == "socket=/run/rig/munge/munge.sock,cred_expire=5"
    assert found.number("MinJobAge") == 300
    assert found.number("KillWait") == 2
    assert found.number("SuspendTime") is None
    assert found.number("NoSuchKey") is None


def test_the_first_of_a_repeated_key_counts() -> None:
    assert parse_config("A = 1\n\nCgroup Support Configuration:\nA = 2\nEmpty =\n") == {"A": "1", "Empty": ""}


def test_partitions_of_22_05() -> None:
    found = facts("22.05")
    assert list(found.partitions) == ["cpu", "gpu", "low", "high"]
    assert found.default_partition is found.partitions["cpu"]
    assert found.partitions["low"].nodes == "c[1-2],g1"
    assert found.partitions["low"].max_time is None
    assert found.partitions["high"].preempt_mode == "OFF"
    assert found.partitions["gpu"].tres["gres/gpu"] == "2"
    assert [node.name for node in found.nodes_of("gpu")] == ["g1"]
    assert [node.name for node in found.nodes_of("cpu")] == ["c1", "c2"]


def test_nodes_of_22_05() -> None:
    node = facts("22.05").nodes["g1"]
    assert (node.cpus, node.memory_mb, node.state) == (4, 8000, "IDLE")
    assert node.gres == (Gres("gpu", "fake", 2),)
    assert node.partitions == ("gpu", "low", "high")
    assert facts("22.05").nodes["c1"].gres == ()


def test_partitions_of_24_05() -> None:
    found = facts("24.05")
    long, short = found.partitions["long"], found.partitions["short"]
    assert long.max_time == 7 * 24 * 60
    assert long.preempt_mode == "CANCEL"
    assert long.tres["gres/gpu:a100"] == "4"
    assert long.record["JobDefaults"] == "DefMemPerGPU=29440"
    assert (short.max_time, dict(short.tres), short.default) == (240, {}, True)


def test_nodes_of_24_05() -> None:
    node = facts("24.05").nodes["g384"]
    assert (node.cpus, node.memory_mb) == (126, 1031000)
    assert node.gres == (Gres("gpu", "a100", 4), Gres("nvme", "", 2048))
    assert node.state == "MIXED+DRAIN+MAINTENANCE"
    assert node.record["OS"].startswith("Linux 5.14.0-427.el9.x86_64 #1 SMP")
    assert facts("24.05").nodes["cloud1"].gres == (Gres("gpu", "", 2),)


@pytest.mark.parametrize(
    ("text", "gres"),
    [
        ("(null)", ()),
        ("", ()),
        ("gpu", (Gres("gpu", "", 1),)),
        ("gpu:a100", (Gres("gpu", "a100", 1),)),
        ("gpu:a100:2(IDX:0,2),gpu:1g.5gb:7(S:0)", (Gres("gpu", "a100", 2), Gres("gpu", "1g.5gb", 7))),
    ],
)
def test_gres(text: str, gres: tuple[Gres, ...]) -> None:
    assert parse_gres(text) == gres


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("UNLIMITED", None), ("INFINITE", None), ("30:00", 30), ("1-00:00:00", 1440), ("2-12", 3600), ("00:00:30", 0.5)],
)
def test_times(text: str, minutes: float | None) -> None:
    assert parse_minutes(text) == minutes


@pytest.mark.parametrize(
    ("text", "megabytes"), [("16000M", 16000), ("1.5T", 1572864), ("4096", 4096), ("UNLIMITED", None), ("2048K", 2)]
)
def test_memory(text: str, megabytes: int | None) -> None:
    assert parse_memory_mb(text) == megabytes


def test_a_client_that_is_not_there_fails_or_hangs_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "scontrol"
    broken.write_text("#!/bin/sh\necho 'slurm_load_ctl_conf error: Unable to contact slurm controller' >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(SlurmUnavailable, match="exit code 1: slurm_load_ctl_conf error: Unable to contact"):
        ask([str(broken), "show", "config"])
    with pytest.raises(SlurmUnavailable, match=r"no answer within 0\.1 s"):
        ask(["sleep", "5"], timeout=0.1)


def test_without_clients_the_facts_are_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmUnavailable, match="scontrol: not installed here"):
        cluster_facts()
