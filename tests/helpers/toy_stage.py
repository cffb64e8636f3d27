"""A stage that counts to `--steps`, one file per step, to be run and killed as a process."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

from bitdistiller.errors import BitDistillerError
from bitdistiller.stages import open_stage


def main() -> None:
    """Count; `--die` kills the process without a chance to clean up, at the named moment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--sleep", type=float, default=0.0)
    parser.add_argument("--until", type=Path, help="work on only when this file is there")
    parser.add_argument("--die", choices=["after-step-1", "before-finish", "between-renames"])
    parser.add_argument("--time-budget", type=float)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        count(options)
    except BitDistillerError as error:
        sys.exit(error.exit_code)


def count(options: argparse.Namespace) -> None:
    """The stage itself."""
    recipe = {"steps": options.steps}
    with open_stage(
        "toy", version=1, recipe=recipe, inputs={}, output=options.output, time_budget=options.time_budget
    ) as stage:
        done = len(list(stage.work.glob("step-*")))
        with stage.progress("count", options.steps, done) as bar:
            for step in range(done, options.steps):
                stage.deadline.check()
                time.sleep(options.sleep)
                while options.until and not options.until.exists():
                    time.sleep(0.01)
                (stage.work / f"step-{step}").write_text(str(step))
                stage.commit()
                bar.advance(1)
                if options.die == "after-step-1" and step == 1:
                    die()
        (stage.output_directory("numbers") / "a.txt").write_text("0\n" * options.steps)
        stage.output_file("total.txt").write_text(str(options.steps))
        if options.die == "before-finish":
            die()
        if options.die == "between-renames":
            kill_after_first_rename()
        stage.finish(counts={"steps": options.steps})


def kill_after_first_rename() -> None:
    """Let `finish` rename one output and no more."""
    from bitdistiller.stages import run

    real = run.replace

    def replace(source: Path, target: Path) -> None:
        real(source, target)
        die()

    run.replace = replace


def die() -> None:
    """What the kernel or a node failure does."""
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
