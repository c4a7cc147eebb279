"""Fits `rerankers.second_look`: closed forms, so there is no seed and nothing to stop; and three weights.

The regression is fitted on pictures and captions that the encoders may have been trained on. What they know by heart
does little harm, because a ridge of a few hundred ranks cannot use it; the weights of its parts are another matter and
must come from pictures that the encoders have not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.rerankers.second_look import SecondLookModel, terms

RIDGE = 10_000.0
"""Penalty on the squares of the weights, for inputs of spread 1; chosen, as what follows, on Flickr8k dev."""
RANK = 384
CAPTION_SHARE = 40.0
"""How much a caption's place counts beside its words when the rank is cut."""
LEAST_PICTURES = 25
"""A word is learned where captions of so many pictures have it."""


def word_shares(captions: Sequence[Sequence[str]], least: int = LEAST_PICTURES) -> tuple[tuple[str, ...], FloatArray]:
    """The terms in captions of at least so many pictures; and the share of each picture's captions that have each,
    (pictures, terms).
    """
    found = [[terms(text) for text in texts] for texts in captions]
    pictures = Counter(term for texts in found for term in set().union(*texts))
    vocabulary = tuple(sorted(term for term, count in pictures.items() if count >= least))
    column = {term: place for place, term in enumerate(vocabulary)}
    shares = np.zeros((len(captions), len(vocabulary)), dtype=np.float32)
    for row, texts in zip(shares, found, strict=True):
        for text in texts:
            row[[column[term] for term in text if term in column]] += 1 / len(texts)
    return vocabulary, shares


def fit_second_look(
    encoder_digest: str,
    inputs: FloatArray,
    vocabulary: Sequence[str],
    shares: FloatArray,
    captions: FloatArray,
    *,
    rank: int = RANK,
    ridge: float = RIDGE,
) -> SecondLookModel:
    """The reduced-rank ridge regression, as a model whose ``weights`` are all 1.

    Args:
        encoder_digest: of the encoder that made the inputs.
        inputs: (n, looks, dim + classes), vectors and logits of n pictures; each look is a row of its own.
        vocabulary: the terms of the columns of ``shares``.
        shares: (n, terms), how many of a picture's captions have the term.
        captions: (n, learned), the mean of their vectors in the learned half of the joint space.
        rank: of the regression.
        ridge: penalty on the squared weights.

    Raises:
        UsageError: the arrays do not fit each other.
    """
    count, looks, width = inputs.shape
    if shares.shape != (count, len(vocabulary)) or captions.ndim != 2 or len(captions) != count:
        raise UsageError(
            f"shares must be ({count}, {len(vocabulary)}) and captions ({count}, learned) for inputs of shape "
            f"{inputs.shape}, found {shares.shape} and {captions.shape}"
        )
    rows = inputs.reshape(-1, width).astype(np.float64)
    middle, spread = rows.mean(0), rows.std(0) + 1e-5
    rows = (rows - middle) / spread
    usual, typical = shares.mean(0, dtype=np.float64), captions.mean(0, dtype=np.float64)
    scale = np.sqrt(usual * (1 - usual)) + 1e-6
    targets = np.hstack([(shares - usual) / scale, CAPTION_SHARE * (captions - typical)])
    square = (rows.T @ rows + ridge * np.eye(width)) / len(rows)
    # Each look has the same targets.
    across = rows.reshape(count, looks, width).sum(1).T @ targets / len(rows)
    root = np.linalg.cholesky(square)
    # The best rank under the penalty is that of root' · weights, and root' · square⁻¹ · across = root⁻¹ · across.
    left, strength, right = np.linalg.svd(np.linalg.solve(root, across), full_matrices=False)
    kept = min(rank, int((strength > 1e-9).sum()))
    latent = np.linalg.solve(root.T, left[:, :kept])
    size = (rows @ latent).std(0)
    found = (strength[:kept, None] * right[:kept] * size[:, None]).T
    terms_count = len(vocabulary)
    return SecondLookModel(
        encoder_digest,
        tuple(vocabulary),
        middle=middle.astype(np.float32),
        spread=spread.astype(np.float32),
        latent=(latent / size).T.astype(np.float32),
        words=(found[:terms_count] * scale[:, None]).astype(np.float32),
        usual=usual.astype(np.float32),
        captions=(found[terms_count:] / CAPTION_SHARE).astype(np.float32),
        typical=typical.astype(np.float32),
        weights=np.ones(4, dtype=np.float32),
        mix=1.0,
    )


def fit_weights(
    first: FloatArray, parts: FloatArray, right: npt.NDArray[np.int64], valid: npt.NDArray[np.bool_] | None = None
) -> tuple[FloatArray, float]:
    """The weights of the parts, (parts,), and the ``mix`` of their sum with the first stage.

    They make the right one of a list of candidates the most probable (softmax over the list; Cao et al., 2007,
    "Learning to rank: from pairwise approach to listwise approach").

    Args:
        first: (questions, candidates), the first stage's scores.
        parts: (questions, candidates, parts).
        right: (questions,), the place of the right candidate, -1 where it is not among them.
        valid: (questions, candidates), which candidates count; all, if not given.
    """
    use = np.flatnonzero(right >= 0)
    standard = (first - first.mean(1, keepdims=True)) / (first.std(1, keepdims=True) + 1e-6)
    size = parts.std(1).mean(0) + 1e-9  # so that one penalty and one step fit all
    given = np.concatenate([standard[..., None], parts / size], axis=2)[use]
    features, answers = torch.from_numpy(given.astype(np.float32)), torch.from_numpy(right[use])
    hidden = None if valid is None else torch.from_numpy(~valid[use])
    weights = torch.zeros(given.shape[2], requires_grad=True)
    descent: Any = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Any:
        descent.zero_grad()
        scores = features @ weights
        if hidden is not None:
            scores = scores.masked_fill(hidden, -1e4)
        value: Any = torch.nn.functional.cross_entropy(scores, answers) + 1e-3 * (weights**2).sum()
        value.backward()
        return value

    descent.step(loss)
    found = weights.detach().numpy()
    own: FloatArray = (found[1:] / size).astype(np.float32)
    return own, float((parts @ own).std(1).mean() / max(float(found[0]), 1e-6))
