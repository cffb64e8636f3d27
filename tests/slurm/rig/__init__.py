"""A real SLURM cluster on this machine: several nodes, made-up GPUs, accounting, and the means to break it."""
