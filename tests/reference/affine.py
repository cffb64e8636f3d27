"""Naive double of what codes, scales and zero points stand for: one weight at a time."""

import torch


def affine_values(codes, scale, zero_point, group_size):
    """`(q - z) s` in float64, element by element."""
    values = torch.zeros(codes.shape, dtype=torch.float64)
    for row in range(codes.shape[0]):
        for column in range(codes.shape[1]):
            group = column // group_size
            steps = int(codes[row, column]) - int(zero_point[row, group])
            values[row, column] = steps * float(scale[row, group])
    return values
