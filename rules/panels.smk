"""What is checked and said at the start, after success and after a failure."""

from snakemake.exceptions import WorkflowError


def require_baselines():
    """End before the first job where a baseline is to run and its libraries are nowhere."""
    planned = any(job.rule.name == "baseline" for job in workflow.dag.needrun_jobs())
    if planned and not DEPLOYED and plan.needs_library(REPOSITORY):
        raise WorkflowError(f"error: {plan.needs_library(REPOSITORY)}")


def require_images():
    """End before the first job where a container image that is to run is not built."""
    planned = workflow.dag.needrun_jobs() if "apptainer" in DEPLOYED else []
    for path in sorted({job.container_img_url for job in planned} - {None}):
        if not exists(path):
            raise WorkflowError(
                f"error: {path}: no such image; docs/cluster.md says how to build it"
            )


def start_panel():
    """What is about to run."""
    runs, jobs = len(experiment.runs), len(expected_metrics())
    return f"bitdistiller: experiment {experiment.experiment}, {runs} runs, {jobs} evaluations -> {plan.tables}"


def show_result():
    """Print the results table and where the files are."""
    from bitdistiller.reporting.terminal import show_after_run

    show_after_run(experiment, plan.results)


def error_panel():
    """What to do after a failure."""
    return (
        "bitdistiller: some jobs failed; finished work is kept. Logs: logs/<rule>/..., attempts: work/.../attempts.jsonl. "
        "The same command goes on; `snakemake tables` shows what is finished."
    )
