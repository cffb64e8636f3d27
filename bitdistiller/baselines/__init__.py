"""Quantisation libraries as baselines: what GPTQ, AWQ and AutoRound choose for the same texts and groups."""
