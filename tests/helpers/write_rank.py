"""Write a file named after this process's rank in a SLURM step: `python -m helpers.write_rank DIRECTORY`."""

import os
import sys
from pathlib import Path

if __name__ == "__main__":
    rank, tasks, node = (os.environ[name] for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURMD_NODENAME"))
    Path(sys.argv[1], rank).write_text(f"{tasks} {node}")
