"""Jobs of a killed main process: found in the queue, and waited for by their successors."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from bitdistiller.cluster.left_jobs import LeftJob, comment_of, hold_back, parse_left_jobs


class Resources(SimpleNamespace):
    """Named values, as Snakemake's resources are."""

    def get(self, name: str) -> object:
        return getattr(self, name, None)


class Job:
    """As much of Snakemake's job as is looked at; its resources are evaluated anew when it becomes ready."""

    def __init__(self, name: str, *wildcards: str, **resources: str) -> None:
        self.name, self.wildcards, self.ready = name, wildcards, False
        self.evaluated, self.resources = resources, Resources(**resources)

    def reset_params_and_resources(self) -> None:
        if not self.ready:
            self.resources, self.ready = Resources(**self.evaluated), True


def test_only_jobs_of_this_directory_that_a_workflow_submitted_count(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    lines = [
        f"11|RUNNING|ada|rule_train_wildcards_m_r|{tmp_path}",
        f"12|PENDING|bob|rule_tabulate|{link}",
        f"13|RUNNING|ada|(null)|{tmp_path}",
        "14|RUNNING|ada|rule_train_wildcards_m_r|/elsewhere",
        "",
    ]
    assert parse_left_jobs("\n".join(lines), tmp_path) == [
        LeftJob("11", "RUNNING", "ada", "rule_train_wildcards_m_r"),
        LeftJob("12", "PENDING", "bob", "rule_tabulate"),
    ]


def test_a_job_is_named_as_the_plugin_names_it() -> None:
    assert comment_of(Job("tabulate")) == "rule_tabulate"
    assert comment_of(Job("generate", "a/b", "00001")) == "rule_generate_wildcards_a_b_00001"


def test_a_job_that_still_runs_is_waited_for_and_no_other() -> None:
    train = Job("train", "m", "r", slurm_extra="--open-mode=append")
    other = Job("train", "m", "s")
    left = [LeftJob("11", "RUNNING", "ada", comment_of(train)), LeftJob("12", "RUNNING", "ada", "rule_gone")]
    assert hold_back([train, other], left) == left[:1]
    for job in (train, other):
        job.reset_params_and_resources()
    assert train.resources.slurm_extra == "--open-mode=append --dependency=afterany:11"
    assert other.resources.get("slurm_extra") is None
