"""The clock on a GPU: borders are events in the stream, read when the shares are."""

import pytest
import torch

from bitdistiller.distillation.clock import PENDING, Clock

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def test_seconds_are_those_of_the_stream():
    clock = Clock("cuda")
    a = torch.randn(4096, 4096, device="cuda")
    for _ in range(PENDING):
        with clock("student"):
            b = a @ a
            with clock("quantiser"):
                b.round_()
    seconds = clock.seconds()
    assert seconds["student"] > seconds["quantiser"] > 0
    assert seconds["teacher"] == 0
    assert sum(clock.shares().values()) == pytest.approx(1)
