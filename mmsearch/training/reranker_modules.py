"""The reranker's networks: every word looks for its places in the grid of an image, then the words confer.

Two parts are added. The first compares each word with what it attends to, as stacked cross attention does (Lee et al.,
2018, "Stacked Cross Attention for Image-Text Matching", https://arxiv.org/abs/1803.08024), here in several heads; it is
cheap enough to learn from all pairs of a batch. The second is a transformer over words that know what they attended
to, which also attends to the grid, with a head that says whether image and text match (Li et al., 2021, "Align before
Fuse", https://arxiv.org/abs/2107.07651); it learns from candidate lists.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.training.options import FusionOptions


class GridTokens(nn.Module):
    """The image's part, which an index can keep: one token for each place of the grid, each head of length 1."""

    def __init__(self, channels: int, places: int, options: FusionOptions) -> None:
        super().__init__()
        self.heads = options.heads
        self.features = nn.Linear(channels, options.features)
        self.offset, self.gain = nn.Parameter(torch.zeros(options.features)), nn.Parameter(torch.ones(options.features))
        self.straight = nn.Linear(options.features, options.width)
        self.positions = nn.Parameter(torch.zeros(places, options.width))
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, grid: Tensor) -> Tensor:
        """(n, channels, h, w) to (n, h · w, width)."""
        x = functional.relu6(self.features(grid.flatten(2).transpose(1, 2)))
        y = self.straight(self.dropout(x * self.gain + self.offset)) + self.positions
        return _unit_heads(y, self.heads)


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
    """Pre-norm: words to each other, words to the image, each word by itself."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, image: Tensor, bias: Tensor | None) -> Tensor:
        """x (n, length, width), image (n, places, width) to (n, length, width)."""
        y = self.norms[0](x)
        x = x + self.dropout(self.own(y, y, bias))
        x = x + self.dropout(self.cross(self.norms[1](x), image, None))
        changed: Tensor = self.down(functional.gelu(self.up(self.norms[2](x))))
        x = x + self.dropout(changed)
        return x


class Words(nn.Module):
    """Text tokens to words in the space of the grid, and to how much each of them counts."""

    def __init__(self, channels: int, options: FusionOptions) -> None:
        super().__init__()
        self.heads = options.heads
        self.offset, self.gain = nn.Parameter(torch.zeros(channels)), nn.Parameter(torch.ones(channels))
        self.straight = nn.Linear(channels, options.width)
        self.up, self.down = nn.Linear(channels, 2 * options.width), nn.Linear(2 * options.width, options.width)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        self.weight = nn.Linear(channels, options.heads)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, text: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """text (n, length, channels) to words (n, length, width) and weights (n, length, heads) of sum 1."""
        x = self.dropout(text / text.norm(dim=-1, keepdim=True).clamp(min=1e-6) * self.gain + self.offset)
        y = self.straight(x) + self.down(self.dropout(functional.gelu(self.up(x))))
        weights = self.weight(x)
        if mask is not None:
            weights = weights + (1 - mask)[..., None] * -1e9
        n, length, heads = weights.shape
        return _unit_heads(y, self.heads), weights.reshape(n, -1).softmax(1).reshape(n, length, heads)


class Fusion(nn.Module):
    """Text tokens and image tokens to the logarithm of the odds that they belong together."""

    def __init__(self, channels: int, options: FusionOptions) -> None:
        super().__init__()
        self.heads = options.heads
        self.words = Words(channels, options)
        self.sharpness = nn.Parameter(torch.full((options.heads, 1, 1), 2.0))
        self.scale, self.bias = nn.Parameter(torch.tensor(2.7)), nn.Parameter(torch.tensor(-3.0))
        self.enter = nn.Linear(3 * options.width, options.inner)
        self.see = nn.Linear(options.width, options.inner)
        self.see_norm, self.last_norm = nn.LayerNorm(options.inner), nn.LayerNorm(options.inner)
        self.layers = nn.ModuleList(
            FusionLayer(options.inner, options.inner_heads, options.dropout) for _ in range(options.layers)
        )
        self.logit = nn.Linear(options.inner, 1)
        nn.init.zeros_(self.logit.weight)
        nn.init.zeros_(self.logit.bias)

    def forward(self, text: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """text (n or 1, length, channels) and tokens (n, places, width) to (n,); mask (n, length), 1 for tokens."""
        direct, words, weights, found = self._first(text, tokens, mask)
        attended = found.transpose(1, 2).reshape(tokens.shape[0], words.shape[1], -1)
        words = words.expand(attended.shape)
        x = self.enter(torch.cat([words, attended, words * attended], dim=2) * self.heads**-0.5 * 4)
        bias = None if mask is None else (1 - mask)[:, None, None, :] * -1e9
        image = self.see_norm(self.see(tokens))
        for layer in self.layers:
            x = layer(x, image, bias)
        pooled = (self.last_norm(x) * weights.sum(2, keepdim=True)).sum(1)
        logits: Tensor = direct + self.logit(pooled)[:, 0]
        return logits

    def first_part(self, text: Tensor, tokens: Tensor) -> Tensor:
        """The first part alone, of one text (1, length, channels) with images (n, places, width): (n,)."""
        return self._first(text, tokens, None)[0]

    def _first(self, text: Tensor, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        words, weights = self.words(text, mask)
        found = self._found(words, tokens)
        fits = (found * _heads(words, self.heads)).sum(-1)  # cosines (n, heads, length)
        odds: Tensor = self.scale.exp() * (fits * weights.transpose(-1, -2)).sum((-1, -2)) + self.bias
        return odds, words, weights, found

    def all_pairs(self, text: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The first part alone, of every text (t, length, channels) with every image (n, places, width): (t, n)."""
        words, weights = self.words(text, mask)
        real = mask > 0  # padding would be most of the work
        ours = words[real].reshape(-1, self.heads, words.shape[2] // self.heads).transpose(0, 1)
        theirs = _heads(tokens, self.heads)
        attended = self._attended(ours, theirs)  # (n, heads, all words, d)
        fits = (attended * ours).sum(-1) / attended.norm(dim=-1).clamp(min=1e-6)
        weighted = (fits * weights[real].T).sum(1)  # (n, all words)
        owner = real.nonzero()[:, 0]
        total = weighted.new_zeros(len(tokens), len(text)).index_add(1, owner, weighted)
        odds: Tensor = self.scale.exp() * total.T + self.bias
        return odds

    def _attended(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """Words (..., heads, length, d) and places (n, heads, places, d) to the mean place that each word looks for."""
        cosines = ours @ theirs.transpose(2, 3)
        return (self.sharpness.exp() * cosines).softmax(-1) @ theirs

    def _found(self, words: Tensor, tokens: Tensor) -> Tensor:
        """What each word attends to, (n, heads, length, d) of length 1."""
        ours, theirs = _heads(words, self.heads), _heads(tokens, self.heads)
        attended = self._attended(ours, theirs)
        unit: Tensor = attended / attended.norm(dim=-1, keepdim=True).clamp(min=1e-6)
        return unit


def _heads(x: Tensor, heads: int) -> Tensor:
    """(n, length, width) to (n, heads, length, width / heads)."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _unit_heads(x: Tensor, heads: int) -> Tensor:
    """Each head's part of each token divided by its length."""
    parts = x.reshape(x.shape[0], x.shape[1], heads, -1)
    parts = parts / parts.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    whole: Tensor = parts.reshape(x.shape)
    return whole
