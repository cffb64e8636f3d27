"""`bitdistiller profile install slurm`: what it writes, what it refuses, what it says it could not check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from bitdistiller.cluster.profile import Wanted, install, user_profile
from bitdistiller.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
TEMPLATE = ROOT / "profiles" / "slurm" / "profile.v9+.yaml"
NAME = "profile.v9+.yaml"


def installed(wanted: Wanted, into: Path) -> dict:
    """The profile that is written for these wishes."""
    install(wanted, root=ROOT, into=into)
    return yaml.safe_load((into / NAME).read_text())


def test_without_wishes_it_is_the_template_but_for_the_heading_and_limits(
    slurm_clients: Callable[..., Path], tmp_path: Path
) -> None:
    slurm_clients()
    expected = yaml.safe_load(TEMPLATE.read_text())
    expected["default-resources"] |= {"mem_limit_mb": 8000}
    assert installed(Wanted(), tmp_path) == expected


def test_everything_that_was_asked_for(slurm_clients: Callable[..., Path], tmp_path: Path) -> None:
    slurm_clients(max_time="2-00:00:00")
    wanted = Wanted("lab", "cpu", "gpu:fake", "gpu", gpus=8, jobs=10, runtime=30, sdm="apptainer")
    profile = installed(wanted, tmp_path)
    assert profile["default-resources"] == {
        "nodes": 1,
        "mem_mb": 8000,
        "runtime": 30,
        "slurm_extra": "'--open-mode=append'",
        "slurm_account": "'lab'",
        "slurm_partition": "'cpu'",
        "gpu_gres": "'gpu:fake'",
        "gpu_partition": "'gpu'",
        "runtime_limit": 2880,
        "mem_limit_mb": 8000,
    }
    assert (profile["jobs"], profile["resources"]) == (10, {"gpu_slots": 8})
    assert profile["software-deployment-method"] == "apptainer"
    assert profile["apptainer-args"] == "--nv"


def test_comments_of_the_template_stay(slurm_clients: Callable[..., Path], tmp_path: Path) -> None:
    slurm_clients()
    install(Wanted(jobs=3), root=ROOT, into=tmp_path)
    assert "jobs: 3 # concurrent jobs\n" in (tmp_path / NAME).read_text()


@pytest.mark.parametrize(("age", "delay"), [(300, 30), (90, 30), (60, 20), (3, 1)])
def test_the_first_poll_is_a_third_of_min_job_age(
    age: int, delay: int, slurm_clients: Callable[..., Path], tmp_path: Path
) -> None:
    slurm_clients(min_job_age=age)
    lines = install(Wanted(), root=ROOT, into=tmp_path)
    assert yaml.safe_load((tmp_path / NAME).read_text())["slurm-init-seconds-before-status-checks"] == delay
    assert any(f"{delay} s" in line and f"{age} s" in line for line in lines)
    assert any("MinJobAge=300" in line for line in lines) is (age <= 180)


def test_a_cluster_that_forgets_at_once_is_refused(slurm_clients: Callable[..., Path], tmp_path: Path) -> None:
    slurm_clients(min_job_age=2)
    with pytest.raises(InputError, match=r"MinJobAge of this cluster is 2 s.*MinJobAge=300"):
        install(Wanted(), root=ROOT, into=tmp_path)
    assert not list(tmp_path.glob(NAME))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(partition="fast"), "--partition fast: no such partition; accepted: cpu, gpu, low, high"),
        (Wanted(gpu_partition="a100"), "--gpu-partition a100: no such partition"),
        (Wanted(gpu_gres="gpu:a100", gpu_partition="gpu"), "on the nodes of partition gpu; accepted: gpu:fake"),
        (Wanted(gpu_gres="gpu:fake"), "nodes of partition cpu; accepted: none"),
        (Wanted(gpu_gres="gpu:4"), "--gpu-gres gpu:4: accepted: gpu or gpu:TYPE"),
        (Wanted(gpu_gres="gpu:fake:4"), "--gpu-gres gpu:fake:4: accepted: gpu or gpu:TYPE"),
        (Wanted(account="nobody"), "--account nobody: .* accepted: lab, other"),
        (Wanted(account="a'b"), "--account .*accepted: letters"),
        (Wanted(partitions=Path("nowhere.yaml")), "nowhere.yaml: no file of partitions"),
        (Wanted(partitions=TEMPLATE), "no file of partitions; profiles/slurm/partitions.example.yaml"),
        (Wanted(partition="cpu", partitions=TEMPLATE), "leave --partition"),
    ],
)
def test_what_the_cluster_does_not_have_is_refused(
    wanted: Wanted, message: str, slurm_clients: Callable[..., Path], tmp_path: Path
) -> None:
    slurm_clients()
    with pytest.raises(InputError, match=message):
        install(wanted, root=ROOT, into=tmp_path)
    assert not list(tmp_path.glob(NAME))


def test_without_slurm_it_writes_and_says_what_is_unchecked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    lines = install(Wanted("lab", "fast", "gpu:a100"), root=ROOT, into=tmp_path)
    profile = yaml.safe_load((tmp_path / NAME).read_text())
    assert profile["default-resources"]["slurm_partition"] == "'fast'"
    assert profile["slurm-init-seconds-before-status-checks"] == 30
    assert any("scontrol: not installed here" in line and "not checked" in line for line in lines)
    assert any("account lab is not checked" in line for line in lines)


def test_without_accounting_the_account_is_not_checked(slurm_clients: Callable[..., Path], tmp_path: Path) -> None:
    slurm_clients(accounts=None)
    lines = install(Wanted("lab"), root=ROOT, into=tmp_path)
    assert any("account lab is not checked" in line for line in lines)


def test_another_profile_is_replaced_only_by_force(slurm_clients: Callable[..., Path], tmp_path: Path) -> None:
    slurm_clients()
    install(Wanted(jobs=10), root=ROOT, into=tmp_path)
    install(Wanted(jobs=10), root=ROOT, into=tmp_path)
    with pytest.raises(InputError, match=r"--force") as refused:
        install(Wanted(jobs=20), root=ROOT, into=tmp_path)
    assert "-jobs: 10 # concurrent jobs\n+jobs: 20 # concurrent jobs" in str(refused.value)
    assert yaml.safe_load((tmp_path / NAME).read_text())["jobs"] == 10
    install(Wanted(jobs=20), root=ROOT, into=tmp_path, force=True)
    assert yaml.safe_load((tmp_path / NAME).read_text())["jobs"] == 20


def test_a_file_of_partitions_is_copied_beside_the_profile(slurm_clients: Callable[..., Path], tmp_path: Path) -> None:
    slurm_clients(max_time="1-00:00:00")
    file = tmp_path / "mine.yaml"
    file.write_text("partitions: {cpu: {max_runtime: 1d}, gpu: {max_runtime: 1d, max_gpu: 2}}\n")
    profile = installed(Wanted(partitions=file, gpu_gres="gpu:fake"), tmp_path)
    assert profile["slurm-partition-config"] == "partitions.yaml"
    assert profile["default-resources"]["runtime_limit"] == 1440
    assert (tmp_path / "partitions.yaml").read_text() == file.read_text()
    file.write_text("partitions: {cpu: {}, long: {}}\n")
    with pytest.raises(InputError, match="--partitions long: no such partition; accepted: cpu, gpu"):
        install(Wanted(partitions=file), root=ROOT, into=tmp_path)


def test_it_is_written_where_snakemake_looks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert user_profile() == tmp_path / "snakemake" / "slurm"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_profile() == tmp_path / ".config" / "snakemake" / "slurm"


def test_away_from_the_repository_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run this in the repository's root"):
        install(Wanted(), root=tmp_path, into=tmp_path)
