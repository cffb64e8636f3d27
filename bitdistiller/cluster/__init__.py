"""The workflow on a SLURM cluster: what the cluster is like, and the profile that suits it."""
