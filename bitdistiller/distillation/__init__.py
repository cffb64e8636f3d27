"""Distillation of a quantised student: losses, data, confidence, trainer, checkpoints."""
