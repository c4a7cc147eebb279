"""What an encoder gives for pairs, as the training of a reranker takes it: grids, text tokens, vectors, batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mmsearch.models.encoders.builtin import BuiltinEncoder
from mmsearch.models.rerankers.base import FloatArray
from mmsearch.training.options import Stage
from mmsearch.training.pairs import Pairs


@dataclass(frozen=True)
class Seen:
    """What the encoder gives for a set of pairs. ``owner`` (captions,) is each caption's image; ``first`` (images + 1,)
    where the captions of each image begin.
    """

    grids: npt.NDArray[np.float16]
    images: FloatArray
    texts: list[npt.NDArray[np.float16]]
    text_vectors: FloatArray
    owner: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]

    def hardest(self, caption: int, count: int) -> npt.NDArray[np.int64]:
        """The images that the encoder finds most like a caption, best first, its own among them or not."""
        scores = self.images @ self.text_vectors[caption]
        count = min(count, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        return best[np.argsort(-scores[best], kind="stable")]


def look(encoder: BuiltinEncoder, pairs: Pairs, name: str, progress: Callable[[Stage], None]) -> Seen:
    """All images and captions of ``pairs`` through the encoder; ``name`` is what progress calls them."""
    grids, vectors = [], []
    size = encoder.batch_size
    for start in range(0, len(pairs), size):
        sources = pairs.images[start : start + size]
        inputs = np.stack([encoder.prepare_image(source.read(encoder.input_size)) for source in sources])
        some, grid = encoder.vectors_and_grids(inputs)
        grids.append(grid.astype(np.float16))
        vectors.append(some)
        progress(Stage(f"{name} images", start + len(sources), len(pairs)))
    captions = [caption for texts in pairs.captions for caption in texts]
    tokens: list[npt.NDArray[np.float16]] = []
    rows = []
    for start in range(0, len(captions), 256):
        some, found = encoder.vectors_and_tokens(captions[start : start + 256])
        tokens += [values.astype(np.float16) for values in found]
        rows.append(some)
        progress(Stage(f"{name} texts", start + len(some), len(captions)))
    counts = [len(texts) for texts in pairs.captions]
    owner, first = np.repeat(np.arange(len(pairs)), counts), np.concatenate([[0], np.cumsum(counts)])
    return Seen(np.concatenate(grids), np.concatenate(vectors), tokens, np.concatenate(rows), owner, first)


def alike(seen: Seen, count: int) -> npt.NDArray[np.int64]:
    """Of every image the ``8 · count`` others that its captions fit best, best first."""
    means = np.stack([seen.text_vectors[a:b].mean(0) for a, b in itertools.pairwise(seen.first)])
    count = min(8 * count, len(means) - 1)
    rows = []
    for start in range(0, len(means), 512):
        scores = means[start : start + 512] @ seen.images.T
        scores[np.arange(len(scores)), np.arange(start, start + len(scores))] = -np.inf
        best = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        rows.append(np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), axis=1), 1))
    return np.concatenate(rows)


def groups_alike(near: npt.NDArray[np.int64], random: np.random.Generator) -> npt.NDArray[np.int64]:
    """All images, shuffled in groups of an image and the nearest ones that are still free."""
    free = np.ones(len(near), dtype=bool)
    group = max(1, near.shape[1] // 8)
    groups = []
    for row in random.permutation(len(near)):
        if free[row]:
            free[row] = False
            members = np.array([row, *near[row][free[near[row]]][: group - 1]])
            free[members] = False
            groups.append(members)
    return np.concatenate([groups[number] for number in random.permutation(len(groups))])


def padded_texts(texts: Sequence[npt.NDArray[np.float16]]) -> tuple[Tensor, Tensor]:
    """Tokens of n texts as (n, length, channels), and their mask (n, length)."""
    text = torch.zeros(len(texts), max(map(len, texts)), texts[0].shape[1])
    mask = torch.zeros(text.shape[:2])
    for row, values in enumerate(texts):
        text[row, : len(values)], mask[row, : len(values)] = torch.from_numpy(values.astype(np.float32)), 1
    return text, mask
