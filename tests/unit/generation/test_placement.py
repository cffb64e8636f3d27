"""How a job's GPUs divide over copies of a model."""

import pytest

from bitdistiller.errors import InputError
from bitdistiller.generation.placement import Placement, place
from bitdistiller.generation.replicas import visible_devices

GB = 10**9


@pytest.mark.parametrize(
    ("gpus", "heads", "weights", "placement"),
    [
        (0, 32, 14 * GB, Placement(1, 1)),
        (1, 32, 14 * GB, Placement(1, 1)),
        (4, 32, 14 * GB, Placement(1, 4)),
        (8, 64, 140 * GB, Placement(4, 2)),
        (2, 64, 140 * GB, Placement(2, 1)),
        (6, 32, 90 * GB, Placement(2, 3)),
        (3, 32, 140 * GB, Placement(2, 1)),
        (6, 64, 180 * GB, Placement(4, 1)),
    ],
)
def test_as_few_gpus_as_hold_the_weights_share_a_copy(gpus, heads, weights, placement):
    assert place(gpus, heads, weights, 80 * GB) == placement


def test_a_given_number_is_kept_or_refused():
    assert place(8, 32, GB, 80 * GB, tensor=4) == Placement(4, 2)
    for tensor in (3, 16):
        with pytest.raises(InputError, match=rf"tensor_parallel: {tensor}: accepted: a divisor of the model's 32"):
            place(8, 32, GB, 80 * GB, tensor=tensor)


@pytest.mark.parametrize(
    ("given", "devices"), [(None, ["0,1", "2,3"]), ("4,5,6,7", ["4,5", "6,7"]), ("", [None, None])]
)
def test_every_copy_sees_its_own_gpus(monkeypatch, given, devices):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_devices(Placement(2, 2)) == devices
