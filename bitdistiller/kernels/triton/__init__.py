"""The Triton form of the formulas: one kernel forward, one backward, every weight read once in each."""
