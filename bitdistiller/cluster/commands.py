"""The commands of a cluster, part of the command line: nothing but argument parsing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from bitdistiller.errors import InputError
from bitdistiller.recipes import load_experiment

commands = typer.Typer()
profiles = typer.Typer(no_args_is_help=True, help="Snakemake profiles for the cluster this runs on.")
commands.add_typer(profiles, name="profile")


@commands.command()
def unlock(
    work: Annotated[
        Path | None,
        typer.Argument(help="Work directory of a stage, as its message names it."),
    ] = None,
    cancel_jobs: Annotated[bool, typer.Option("--cancel-jobs", help="End the jobs that a killed run left.")] = False,
) -> None:
    """After snakemake was killed: remove its locks here. With WORK: clear what closed a stage's progress gate."""
    if work is None:
        from bitdistiller.cluster.unlock import unlock as unlock_directory
        from bitdistiller.plan import RESULTS

        for line in unlock_directory(RESULTS, Path("work"), cancel_jobs):
            typer.echo(line)
        return
    from bitdistiller.stages.attempts import Attempts

    if not (work / "attempts.jsonl").exists():
        raise InputError(f"{work}: not a work directory (no attempts.jsonl in it)")
    Attempts(work).clear()
    typer.echo(f"{work}: the next attempt may start")


@commands.command()
def jobs(as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False) -> None:
    """Show your SLURM jobs by rule and wildcards: their names in squeue are ids that Snakemake asks by."""
    from bitdistiller.cluster.queue_view import show_jobs

    show_jobs(as_json)


@profiles.command("install")
def install_profile(
    scheduler: Annotated[Literal["slurm"], typer.Argument(help="The scheduler: slurm.")],
    account: Annotated[str, typer.Option(help="SLURM account; by default your default account.")] = "",
    partition: Annotated[str, typer.Option(help="Partition of the jobs; by default the cluster's.")] = "",
    gpu_gres: Annotated[
        str, typer.Option(help="A GPU's generic resource, gpu or gpu:TYPE; by default --gpus is asked for.")
    ] = "",
    gpu_partition: Annotated[str, typer.Option(help="Partition of GPU jobs, if another.")] = "",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs in flight at most.")] = 32,
    jobs: Annotated[int, typer.Option(min=1, help="Concurrent jobs at most.")] = 64,
    runtime: Annotated[int, typer.Option(min=1, help="Minutes of a job whose stage names none.")] = 60,
    sdm: Annotated[Literal["", "conda", "apptainer"], typer.Option(help="Where jobs find their software.")] = "",
    partitions: Annotated[Path | None, typer.Option(help="File of partitions to choose from, by limits.")] = None,
    into: Annotated[Path | None, typer.Option(help="Directory to write to; by default the user's profile.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a profile that differs.")] = False,
) -> None:
    """Write the profile of `snakemake --profile slurm`, fitted to the cluster."""
    from bitdistiller.cluster.profile import Wanted, install

    wanted = Wanted(account, partition, gpu_gres, gpu_partition, gpus, jobs, runtime, sdm, partitions)
    for line in install(wanted, root=Path(), into=into, force=force):
        typer.echo(line)


@commands.command()
def submit(
    context: typer.Context,
    command: Annotated[list[str] | None, typer.Argument(help="Any bitdistiller command, after `--`.")] = None,
    executor: Annotated[
        str | None, typer.Option(help="slurm, local or debug; by default slurm where sbatch is, else local.")
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Account.")] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs on each node.", min=0)] = None,
    cpus: Annotated[int, typer.Option(help="CPU cores for each task.", min=1)] = 1,
    mem_mb: Annotated[int | None, typer.Option(help="Memory in MB on each node.", min=1)] = None,
    minutes: Annotated[
        int | None, typer.Option(help="Walltime of one attempt; by default 60 under SLURM, else none.", min=1)
    ] = None,
    nodes: Annotated[int, typer.Option(help="Nodes.", min=1)] = 1,
    tasks_per_node: Annotated[int, typer.Option(help="Processes on each node, all with this command.", min=1)] = 1,
    name: Annotated[str | None, typer.Option(help="Name of the job; by default bitdistiller-COMMAND.")] = None,
    requeues: Annotated[int, typer.Option(help="Times the job may come back after its walltime.", min=0)] = 20,
    warning: Annotated[int, typer.Option(help="Seconds before the walltime to ask for saving.", min=1)] = 120,
    sbatch: Annotated[list[str], typer.Option(help="Another option of sbatch, key=value; repeatable.")] = [],  # noqa: B006
    folder: Annotated[Path, typer.Option(help="Where jobs keep their files; on a shared disk.")] = Path("work/submit"),
    wait: Annotated[bool, typer.Option("--wait", help="Follow the log; the exit code is the command's.")] = False,
    attach: Annotated[str | None, typer.Option(help="Follow this job, submitted before.", metavar="JOB")] = None,
) -> None:
    """Run a command as a job that comes back under its id after timeouts and preemptions; or attach to one."""
    from bitdistiller.cluster.request import Request
    from bitdistiller.cluster.terminal import attach_to, checked, submit_and_show

    if attach is not None:
        sys.exit(attach_to(attach, folder))
    arguments = checked(command, set(context.find_root().command.commands))  # type: ignore[attr-defined]
    request = Request(
        partition=partition,
        account=account,
        gpus=gpus,
        cpus=cpus,
        mem_mb=mem_mb,
        minutes=minutes,
        nodes=nodes,
        tasks_per_node=tasks_per_node,
        name=name,
        requeues=requeues,
        warning_seconds=warning,
        extra=tuple(sbatch),
    )
    sys.exit(submit_and_show(arguments, request, folder, executor, wait=wait))


@commands.command()
def doctor(
    config: Annotated[Path, typer.Option(help="Experiment file.")] = Path("config.yaml"),
    profile: Annotated[str, typer.Option(help="Snakemake profile: its name, or the path of its file.")] = "slurm",
    partition: Annotated[str | None, typer.Option(help="Partition of all jobs, in place of the profile's.")] = None,
    account: Annotated[str | None, typer.Option(help="Account of the probes; by default the profile's.")] = None,
    python: Annotated[str | None, typer.Option(help="The Python that runs Snakemake; by default this one.")] = None,
    jobs: Annotated[bool, typer.Option("--jobs/--no-jobs", help="Submit a small job to each partition.")] = True,
    patience: Annotated[float, typer.Option(help="Minutes such a job may wait for its start.", min=0.0)] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the table.")] = False,
) -> None:
    """Check cluster, profile and experiment before the first job, and say what to change; exit code 1 for errors."""
    from bitdistiller.cluster.doctor.diagnose import Options, diagnose, exit_code
    from bitdistiller.cluster.doctor.profile_file import find_profile
    from bitdistiller.cluster.doctor.show import as_json as to_json
    from bitdistiller.cluster.doctor.show import show as show_findings
    from bitdistiller.plan import Plan

    asked = Options(partition, account, python, jobs, patience)
    findings = diagnose(Plan(load_experiment(config)), find_profile(profile), asked)
    code = exit_code(findings)
    typer.echo(to_json(findings, code)) if as_json else show_findings(findings)
    sys.exit(code)


@commands.command(hidden=True)
def probe(folder: Annotated[Path, typer.Argument(help="Where `doctor` put its questions.")]) -> None:
    """Look around on a compute node; `doctor` submits this."""
    from bitdistiller.cluster.doctor.probe import run_probe

    run_probe(folder)
