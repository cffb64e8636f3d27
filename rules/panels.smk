"""What is checked and said at the start, after success and after a failure."""

from snakemake.exceptions import WorkflowError


def require_environments():
    """End before the first job where one is to run whose libraries are nowhere."""
    planned = {job.rule.name for job in workflow.dag.needrun_jobs()}
    missing = plan.missing_environment(REPOSITORY, planned)
    if missing and not CONDA:
        raise WorkflowError(f"error: {missing}")


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
