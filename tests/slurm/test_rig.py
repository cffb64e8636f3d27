"""The rig itself: it schedules, limits GPUs, loses nodes and gets them back."""

from slurm.rig.cluster import Cluster
from slurm.rig.daemons import wait_until


def test_runs_a_job_on_another_node(cluster: Cluster) -> None:
    assert cluster.run(["srun", "-w", "c2", "hostname"]).stdout
    assert cluster.run(["srun", "-w", "c2", "printenv", "SLURMD_NODENAME"]).stdout.strip() == "c2"


def test_gives_each_job_its_gpus(cluster: Cluster) -> None:
    visible = cluster.run(["srun", "-p", "gpu", "--gpus=1", "printenv", "CUDA_VISIBLE_DEVICES"]).stdout.strip()
    assert visible in ("0", "1")
    assert cluster.run(["srun", "-p", "gpu", "--gpus=3", "true"], check=False).returncode != 0


def test_a_crashed_node_requeues_its_job_and_comes_back(cluster: Cluster) -> None:
    job = cluster.run(["sbatch", "--parsable", "-w", "c1,c2", "-N", "2", "--wrap", "sleep 300"]).stdout.strip()
    cluster.wait_for_jobs(1)
    cluster.crash("c1")
    wait_until(lambda: cluster.jobs()[0]["state"] == "PENDING", 60, "the job to be requeued")
    cluster.start_node("c1")
    cluster.run(["scancel", job])
    cluster.wait_until_idle()
    assert cluster.jobs() == []


def test_accounting_remembers_jobs(cluster: Cluster) -> None:
    job = cluster.run(["sbatch", "--parsable", "--wait", "-o", "/dev/null", "--wrap", "exit 3"], check=False).stdout
    state = ["sacct", "-n", "-X", "-j", job.strip(), "-o", "State"]
    wait_until(lambda: "FAILED" in cluster.run(state).stdout, 30, "sacct")
