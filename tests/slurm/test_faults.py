"""Faults with a real scheduler: the same command finishes the DAG by itself, with the same bytes."""

from slurm.project.project import Project


def test_the_undisturbed_run_finishes(undisturbed: Project) -> None:
    results = undisturbed.results()
    assert "tables/faults/main.md" in results
    assert "tiny/int2/evaluation/questions/predictions.jsonl" in results
