"""What is checked and said at the start, after success and after a failure."""


def prepare_start():
    """End before the first job where a library is nowhere or the cluster would let the workflow hang; one line each."""
    from bitdistiller.cluster.start import prepare
    from bitdistiller.errors import InputError

    planned = {job.rule.name for job in workflow.dag.needrun_jobs()}
    missing = plan.missing_environment(REPOSITORY, planned)
    if missing and not DEPLOYED:
        raise InputError(missing)
    for path in sorted(missing_images()):
        raise InputError(f"{path}: no such image; docs/cluster.md says how to build it")
    for line in prepare(workflow):
        logger.info(line)


def missing_images():
    """Container images that jobs are to run in and that are not built."""
    planned = workflow.dag.needrun_jobs() if "apptainer" in DEPLOYED else []
    return {
        image
        for job in planned
        if (image := job.container_img_url) and not exists(image)
    }


def start_panel():
    """What is about to run, and by which executor."""
    from bitdistiller.plan import budget

    runs = len(experiment.runs)
    left = sum(job.rule.name != "all" for job in workflow.dag.needrun_jobs())
    return (
        f"bitdistiller: experiment {experiment.experiment}, {runs} runs -> {plan.tables}; {budget(plan).describe()}; "
        f"{left} jobs are left; executor {workflow.executor_plugin.name}"
    )


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
