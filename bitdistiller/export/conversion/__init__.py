"""Packed checkpoints in the layouts of other engines: the same values, where the layout can hold them."""
