"""The doctor: what would go wrong on this cluster, said before the first job and with what to change."""
