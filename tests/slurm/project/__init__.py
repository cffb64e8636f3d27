"""A small project on the cluster: inputs, the literal command, and what it left behind."""
