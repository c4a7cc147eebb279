"""Low-rank adaptation (Hu et al., 2021, https://arxiv.org/abs/2106.09685): a weight matrix W stays as it is and learns
W + (alpha / rank) · up · down beside it, where ``up`` (rows, rank) starts as 0 and ``down`` is (rank, columns).

Far fewer numbers learn, and after training the sum takes W's place, so that the model is one like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

ALPHA = 2.0
"""alpha / rank: how far a step of the learning rate moves the sum; twice what ``down`` and ``up`` alone give."""


class LowRank(nn.Module):
    """What is added to one weight matrix, as a parametrization of it."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """(rows, columns) to the same."""
        return weight + ALPHA * (self.up @ self.down)


def add_low_rank(model: nn.Module, rank: int, wanted: Callable[[str], bool]) -> int:
    """Lets the matrices of linear and attention layers learn by low-rank updates; returns how many those are.

    ``wanted`` is asked with the full name of each matrix. Those that are taken no longer learn themselves.
    """
    found = [
        (module, name)
        for path, module in model.named_modules()
        for name in ("weight", "in_proj_weight")
        if _is_matrix(module, name) and wanted(f"{path}.{name}")
    ]
    for module, name in found:
        weight = getattr(module, name)
        weight.requires_grad_(False)
        parametrize.register_parametrization(module, name, LowRank(weight, rank))
    return len(found)


def merge_low_rank(model: nn.Module) -> None:
    """Puts the sums in the place of the matrices: the same function, with the parameters of the original model."""
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        for name in list(module.parametrizations):  # type: ignore[arg-type]
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _is_matrix(module: nn.Module, name: str) -> bool:
    is_layer = isinstance(module, nn.Linear if name == "weight" else nn.MultiheadAttention)
    weight = getattr(module, name, None) if is_layer else None
    return isinstance(weight, Tensor) and weight.ndim == 2
