"""The dev split, measured after every epoch."""

from __future__ import annotations

import torch
from torch import Tensor

from mmsearch.evaluate.metrics import two_way_recall
from mmsearch.training.pairs import Pairs
from mmsearch.training.towers import Towers
from mmsearch.training.views import ImageFeed

_TEXTS = 128


class HeldOut:
    """The dev split: what the frozen parts give for it is worked out once."""

    def __init__(self, towers: Towers, dev: Pairs, feed: ImageFeed, device: torch.device) -> None:
        self.towers, self.feed, self.device = towers, feed, device
        self.texts = [text for captions in dev.captions for text in captions]
        self.owners = [[row] for row, captions in enumerate(dev.captions) for _ in captions]
        self.order = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i]))
        self.kept: list[tuple[Tensor, ...]] = []

    def recalls(self) -> dict[str, float]:
        """R@1, 5 and 10 in both directions on the vectors that the exported encoder will give."""
        self.towers.eval()
        with torch.no_grad():
            if not self.kept:
                self.kept = [self._start(begin) for begin in range(0, len(self.order), _TEXTS)]
            images = torch.cat([self.towers.image_rest(kept).vectors.float().cpu() for kept in self.feed.plain()])
            texts = torch.cat([self.towers.text_rest(kept).vectors.float().cpu() for kept in self.kept])
        self.towers.train()
        owners = [self.owners[i] for i in self.order]
        return two_way_recall(texts.numpy(), images.numpy(), owners).recalls()

    def _start(self, begin: int) -> tuple[Tensor, ...]:
        texts = [self.texts[i] for i in self.order[begin : begin + _TEXTS]]
        return self.towers.text_start(torch.from_numpy(self.towers.tokenize(texts)).to(self.device))
