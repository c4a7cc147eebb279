"""What training makes small: three losses over the vectors of a batch of pairs.

Row i of ``images`` and row i of ``texts`` are a pair; both are (n, dim) of length 1. ``groups`` (n,) names the
image of each pair: two captions of one image are right for each other's pair, so they are never its negatives.
Everything is computed in float32, whatever the encoders computed in.

    info_nce          CLIP (Radford et al., 2021, https://arxiv.org/abs/2103.00020), figure 3
    hardest_triplet   VSE++ (Faghri et al., 2018, https://arxiv.org/abs/1707.05612), equation 6
    sigmoid           SigLIP (Zhai et al., 2023, https://arxiv.org/abs/2303.15343), algorithm 1
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.training.options import LossOptions

LARGEST_SCALE = 100.0
"""CLIP clips its learned scale (1 / temperature) here, because training became unstable above."""


def info_nce(images: Tensor, texts: Tensor, scale: Tensor, groups: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean of two cross-entropies: which text belongs to each image, and which image to each text."""
    scores = scale * (images.float() @ texts.float().T)
    scores = scores.masked_fill(_other_captions(groups), -math.inf)
    own = torch.arange(len(scores), device=scores.device)
    return (_cross_entropy(scores, own, label_smoothing) + _cross_entropy(scores.T, own, label_smoothing)) / 2


def hardest_triplet(images: Tensor, texts: Tensor, margin: float, groups: Tensor) -> Tensor:
    """Mean over pairs of how far the hardest wrong text and the hardest wrong image reach into the margin."""
    scores = images.float() @ texts.float().T
    own = scores.diagonal()
    wrong = scores.masked_fill(groups[:, None] == groups[None, :], -math.inf)
    wrong_text = (margin + wrong.amax(1) - own).clamp(min=0)
    wrong_image = (margin + wrong.amax(0) - own).clamp(min=0)
    return (wrong_text + wrong_image).mean()


def sigmoid(images: Tensor, texts: Tensor, scale: Tensor, bias: Tensor, groups: Tensor) -> Tensor:
    """Sum over all image–text combinations of -log σ(±(scale · cosine + bias)), divided by the number of pairs."""
    scores = scale * (images.float() @ texts.float().T) + bias
    right = groups[:, None] == groups[None, :]
    return -functional.logsigmoid(torch.where(right, scores, -scores)).sum() / len(scores)


class Objective(nn.Module):
    """One loss with its learned constants: the logarithm of the scale, and SigLIP's bias."""

    def __init__(self, options: LossOptions) -> None:
        super().__init__()
        self.options = options
        first_scale = options.scale or (10.0 if options.name == "sigmoid" else 1 / 0.07)
        first_bias = -10.0 if options.bias is None else options.bias
        learns_scale = options.name != "triplet"
        self.log_scale = nn.Parameter(torch.tensor(math.log(first_scale)), requires_grad=learns_scale)
        self.bias = nn.Parameter(torch.tensor(first_bias), requires_grad=options.name == "sigmoid")

    @property
    def scale(self) -> Tensor:
        """1 / temperature as it is now."""
        return self.log_scale.exp().clamp(max=LARGEST_SCALE)

    def forward(self, images: Tensor, texts: Tensor, groups: Tensor) -> Tensor:
        """The loss of a batch; see the top of this file for the shapes."""
        options = self.options
        if options.name == "infonce":
            return info_nce(images, texts, self.scale, groups, options.label_smoothing)
        if options.name == "triplet":
            return hardest_triplet(images, texts, options.margin, groups)
        return sigmoid(images, texts, self.scale, self.bias, groups)


def _other_captions(groups: Tensor) -> Tensor:
    """(n, n) bool: the same image in another pair. In InfoNCE such a column is neither right nor wrong."""
    same = groups[:, None] == groups[None, :]
    return same & ~torch.eye(len(groups), dtype=torch.bool, device=groups.device)


def _cross_entropy(scores: Tensor, own: Tensor, label_smoothing: float) -> Tensor:
    if label_smoothing == 0:
        return functional.cross_entropy(scores, own)
    # functional.cross_entropy would smooth onto the columns that were taken away, whose logarithm is -inf.
    logs = scores.log_softmax(1)
    kept = logs.isfinite()
    spread = torch.where(kept, logs, 0.0).sum(1) / kept.sum(1)
    return -((1 - label_smoothing) * logs[own, own] + label_smoothing * spread).mean()
