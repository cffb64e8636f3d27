"""The error of a layout that cannot hold a checkpoint."""

from bitdistiller.errors import InputError


class Unfit(InputError):
    """A sound checkpoint that a layout cannot hold with the same values, as one line; the DAG goes on without it."""
