"""The reranker's networks: text tokens attend to each other and to the grid of an image, a few times."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True)
class FusionOptions:
    """The size of a reranker: ``width`` channels, ``layers``, attention ``heads``; ``dropout`` while it learns."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1


class Attention(nn.Module):
    """Multi-head attention, written out so that it exports to plain operators."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """x (n, a, width) attends to memory (n, b, width); bias (n, 1, 1, b) is added to the scores."""
        query, key, value = self._split(self.query(x)), self._split(self.key(memory)), self._split(self.value(memory))
        scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)
        y: Tensor = self.out(mixed.reshape(x.shape))
        return y

    def _split(self, y: Tensor) -> Tensor:
        return y.reshape(y.shape[0], y.shape[1], self.heads, -1).transpose(1, 2)


class FusionLayer(nn.Module):
    """Pre-norm: text to itself, text to image, each token by itself."""

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        width = options.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, options.heads), Attention(width, options.heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor, image: Tensor, bias: Tensor | None) -> Tensor:
        """x (n, length, width), image (n, tokens, width) to (n, length, width)."""
        y = self.norms[0](x)
        x = x + self.dropout(self.own(y, y, bias))
        x = x + self.dropout(self.cross(self.norms[1](x), image, None))
        changed: Tensor = self.down(functional.gelu(self.up(self.norms[2](x))))
        x = x + self.dropout(changed)
        return x


class GridTokens(nn.Module):
    """The image's part, which an index can keep: one token for each place of the grid."""

    def __init__(self, channels: int, places: int, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)
        self.positions = nn.Parameter(torch.randn(places, width) * 0.02)

    def forward(self, grid: Tensor) -> Tensor:
        """(n, channels, h, w) to (n, h · w, width)."""
        tokens: Tensor = self.project(self.norm(grid.flatten(2).transpose(1, 2))) + self.positions
        return tokens


class Fusion(nn.Module):
    """Text tokens and image tokens to the logarithm of the odds that they belong together."""

    def __init__(self, channels: int, options: FusionOptions) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, options.width)
        self.layers = nn.ModuleList(FusionLayer(options) for _ in range(options.layers))
        self.image_norm, self.last_norm = nn.LayerNorm(options.width), nn.LayerNorm(options.width)
        self.logit = nn.Linear(options.width, 1)

    def forward(self, text: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """text (n or 1, length, channels) and tokens (n, places, width) to (n,); mask (n, length), 1 for tokens."""
        x = self.project(self.norm(text))
        x = x.expand(tokens.shape[0], x.shape[1], x.shape[2])
        bias = None if mask is None else (1 - mask)[:, None, None, :] * -1e9
        image = self.image_norm(tokens)
        for layer in self.layers:
            x = layer(x, image, bias)
        x = self.last_norm(x)
        pooled = x.mean(1) if mask is None else (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        logits: Tensor = self.logit(pooled)[:, 0]
        return logits
