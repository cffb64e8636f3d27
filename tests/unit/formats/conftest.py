"""The golden figures of the number formats: w[r,c] = sin(1+3r+7c) (1 + 0.5 cos(r + 0.3c)), groups of 8, float64."""

import pytest
import torch

VALUES = {
    "int2": "1.6592000 1.6592000 0.8296000 0 -0.8296000 -0.8296000 -0.8296000 0 "
    "0.4194706 0.4194706 0.4194706 0.4194706 0 -0.4194706 -0.8389413 -0.8389413",
    "int3": "1.4221714 1.4221714 1.0666285 0 -0.7110857 -1.0666285 -0.7110857 -0.3555428 "
    "0.3595463 0.5393194 0.5393194 0.1797731 -0.1797731 -0.5393194 -0.7190925 -0.7190925",
}
GRADIENTS = {
    "int2": "0.5646425 0.9659340 0.9320391 0.9974950 0.9738476 0.6806023 0.6754632 0.4273799 "
    "0.1411200 -0.1181105 -0.4425204 -0.6877662 -0.8715758 -0.9775301 -1.0357998 -0.9258147",
}


def _numbers(table):
    return {name: [float(number) for number in row.split()] for name, row in table.items()}


@pytest.fixture
def golden():
    """First rows: `values` by format, `gradients` by format for the upstream gradient."""
    return {"values": _numbers(VALUES), "gradients": _numbers(GRADIENTS)}


@pytest.fixture
def indices():
    return torch.meshgrid(torch.arange(2.0), torch.arange(16.0), indexing="ij")


@pytest.fixture
def golden_weight(indices):
    r, c = (index.double() for index in indices)
    return torch.sin(1 + 3 * r + 7 * c) * (1 + 0.5 * torch.cos(r + 0.3 * c))


@pytest.fixture
def golden_upstream(indices):
    r, c = (index.double() for index in indices)
    return torch.sin(0.3 * (r + 1) * (c + 2))
