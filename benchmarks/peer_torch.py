"""A training step of the same network in PyTorch; run by train_epoch.py with a Python that has it.

Arguments: rows, width, joints, steps, turns. Prints the seconds of the fastest turn.
"""

import sys
import time

import torch
from torch import nn

rows, width, joints, steps, turns = map(int, sys.argv[1:])


def layer(inputs: int) -> nn.Sequential:
    """Dense, batch norm, ReLU, dropout."""
    return nn.Sequential(
        nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.5)
    )


class Lifter(nn.Module):
    """Two residual blocks of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = layer(3 * joints + 2)
        self.blocks = nn.ModuleList(nn.Sequential(layer(width), layer(width)) for _ in range(2))
        self.last = nn.Linear(width, 3 * joints)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Rows of points to rows of joints."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x)
        return self.last(x)


model = Lifter()
optimizer = torch.optim.Adam(model.parameters(), 3e-4)
inputs, points = torch.randn(rows, 3 * joints + 2), torch.randn(rows, joints, 2)


def epoch() -> float:
    """Seconds of so many steps: the loss is a reprojection into the view's own image."""
    started = time.perf_counter()
    for _ in range(steps):
        found = model(inputs).reshape(rows, joints, 3)
        depth = (found[..., 2:] + 4.0).clamp(min=0.5)
        loss = (found[..., :2] / depth - points).norm(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


epoch()
print(min(epoch() for _ in range(turns)))
