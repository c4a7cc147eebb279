"""Batches of pairs, the same for the same seed and epoch, with the short queries that their captions hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mmsearch.models.encoders.base import FloatArray
from mmsearch.training.dual_encoder import DualEncoder
from mmsearch.training.pairs import Pairs
from mmsearch.training.steps import Batch, Words
from mmsearch.training.views import ImageFeed

PROMPTS = ("a photo of a {}.", "{}")
WORDS_A_BATCH = 96
RAREST_WORD = 15
"""Images that a word must be said of to become a query."""
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        """
        a an the in on of is are and with to at his her it its their from for by as while two one three four
        some other another that up out into through down over off near around next has have be being been
        this there they he she who what which very him them each all no not or but about like against front
        behind by along
        """,
    )
)


class Batches:
    """Every image once an epoch, with ``captions`` of its captions (fewer captions are repeated)."""

    def __init__(
        self,
        network: DualEncoder,
        pairs: Pairs,
        feed: ImageFeed,
        size: int,
        captions: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.network, self.feed, self.captions = network, feed, captions
        self.seed, self.device = seed, device
        self.size = min(size, len(pairs))
        self.texts = pairs.captions
        self._near: np.ndarray | None = None
        self._group = 1
        self._words: list[str] = []
        self._shares = np.zeros((len(pairs), 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self.texts) // self.size

    def find_words(self) -> None:
        """Takes the words that several images' captions share as queries of their own.

        Captions are sentences, but people search with one or two words. A word's share in an image is the
        fraction of its captions that say it. English function words are left out.
        """
        said = [Counter(word for text in texts for word in set(_words_of(text))) for texts in self.texts]
        images = Counter(word for counts in said for word in counts)
        self._words = sorted(word for word, count in images.items() if count >= RAREST_WORD)
        column = {word: number for number, word in enumerate(self._words)}
        self._shares = np.zeros((len(said), len(self._words)), dtype=np.float32)
        for row, counts in enumerate(said):
            for word, count in counts.items():
                if word in column:
                    self._shares[row, column[word]] = count / len(self.texts[row])

    def find_neighbours(self, count: int, mined: FloatArray | None = None) -> None:
        """Takes each image's ``count`` - 1 nearest, by ``mined`` vectors, (images, dim) of length 1 or 0, else by those
        that the encoders give now. An image whose vector has length 0 gets no neighbours and is none.
        """
        vectors = self._vectors() if mined is None else torch.from_numpy(mined).to(self.device)
        unknown = vectors.norm(dim=1) == 0
        near = []
        for start in range(0, len(vectors), 512):
            scores = (vectors[start : start + 512] @ vectors.T).masked_fill(unknown[None, :], -2.0)
            nearest = scores.topk(min(4 * count, len(vectors)), dim=1).indices
            own = torch.arange(start, start + len(nearest), device=self.device)[:, None]
            useless = unknown[nearest] | unknown[own]
            near.append(torch.where(useless, own, nearest).cpu())
        self._near, self._group = torch.cat(near).numpy(), count

    def _vectors(self) -> Tensor:
        """What the encoders give for all images now."""
        self.network.eval()
        rows = []
        with torch.no_grad():
            for start in range(0, len(self.texts), 64):
                kept = self.feed.rows(np.arange(start, min(start + 64, len(self.texts))), 0)
                rows.append(self.network.image_rest(kept).vectors.float())
        self.network.train()
        return torch.cat(rows)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch; what is left over after the last full one waits for another shuffle."""
        random = np.random.default_rng([self.seed, 4, epoch])
        order = self._order(random)
        for start in range(0, len(self) * self.size, self.size):
            rows = order[start : start + self.size]
            chosen = [random.permutation(len(self.texts[row])) for row in rows]
            texts = tuple(
                self._tokens([self.texts[row][picks[n % len(picks)]] for row, picks in zip(rows, chosen, strict=True)])
                for n in range(self.captions)
            )
            groups = torch.from_numpy(rows.astype(np.int64)).to(self.device)
            images = self.feed.rows(rows, epoch)
            yield Batch(images, texts, groups, self._short_queries(rows, images, random))

    def sample_images(self) -> tuple[Tensor, ...]:
        """What the image encoder's start gives for up to 512 images."""
        rows = np.linspace(0, len(self.texts) - 1, min(512, len(self.texts))).astype(int)
        return self.feed.rows(rows, 0)

    def sample_texts(self) -> Tensor:
        """Tokens of up to 512 captions."""
        rows = np.linspace(0, len(self.texts) - 1, min(512, len(self.texts))).astype(int)
        return self._tokens([self.texts[row][0] for row in rows])

    def _short_queries(self, rows: np.ndarray, images: tuple[Tensor, ...], random: np.random.Generator) -> Words | None:
        if not self._words:
            return None
        texts, shares = self._words_of_batch(rows, random)
        known = self.network.known_queries(images, random)
        if known is not None:
            texts, shares = texts + known[0], torch.cat([shares, known[1].float()])
        return Words(self._tokens(texts), shares) if texts else None

    def _words_of_batch(self, rows: np.ndarray, random: np.random.Generator) -> tuple[list[str], Tensor]:
        shares = self._shares[rows]
        said = np.flatnonzero(shares.sum(0))
        # Rare words more often than their share of the batch, frequent ones less.
        odds = (1 + shares.sum(0)[said]) ** -0.5
        picked = random.choice(said, min(WORDS_A_BATCH, len(said)), replace=False, p=odds / odds.sum())
        prompts = random.integers(len(PROMPTS), size=len(picked))
        texts = [PROMPTS[p].format(self._words[w]) for p, w in zip(prompts, picked, strict=True)]
        return texts, torch.from_numpy(np.ascontiguousarray(shares[:, picked].T)).to(self.device)

    def _order(self, random: np.random.Generator) -> np.ndarray:
        """All rows, shuffled; with neighbours, in groups of an image and its nearest that are still free."""
        order = random.permutation(len(self.texts))
        if self._near is None:
            return order
        free = np.ones(len(order), dtype=bool)
        groups = []
        for row in order:
            if free[row]:
                near = [other for other in self._near[row] if free[other] and other != row]
                group = np.array([row, *near[: self._group - 1]])
                free[group] = False
                groups.append(group)
        return np.concatenate([groups[number] for number in random.permutation(len(groups))])

    def _tokens(self, texts: list[str]) -> Tensor:
        return torch.from_numpy(self.network.tokenize(texts)).to(self.device)


def _words_of(text: str) -> list[str]:
    return [word for word in re.findall(r"[a-z]{2,}", text.lower()) if word not in _FUNCTION_WORDS]
