"""One step of training: the loss of a batch and its gradients, at once or in pieces that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmsearch.training.dual_encoder import DualEncoder
from mmsearch.training.losses import Objective
from mmsearch.training.options import StepOptions


@dataclass(frozen=True)
class Words:
    """Short queries of a batch: ``tokens`` (w, length), and ``shares`` (w, n): how much each image of the batch has
    to do with each, 0 to 1; every row has a positive share.
    """

    tokens: Tensor
    shares: Tensor


@dataclass(frozen=True)
class Batch:
    """``images``: what ``DualEncoder.image_start`` gave, n rows; ``texts``: for each of one or more captions an image,
    (n, length) tokens; ``groups`` (n,): equal numbers name the same image.
    """

    images: tuple[Tensor, ...]
    texts: tuple[Tensor, ...]
    groups: Tensor
    words: Words | None = None


def batch_loss(objective: Objective, images: Tensor, texts: Sequence[Tensor], batch: Batch, o: StepOptions) -> Tensor:
    """The mean over captions of the objective, plus the loss of the short queries.

    ``texts`` holds rows for each caption of the images, then for the words.
    """
    captions = texts[: len(batch.texts)]
    losses = [objective(images, rows, batch.groups) for rows in captions]
    loss = torch.stack(losses).mean()
    if batch.words is not None and o.words_weight:
        loss = loss + o.words_weight * word_loss(images, texts[-1], batch.words.shares, o.words_scale)
    return loss


def word_loss(images: Tensor, words: Tensor, shares: Tensor, scale: float) -> Tensor:
    """Kullback–Leibler divergence, mean over words, of softmax over images from the images' shares in the word."""
    wanted = shares / shares.sum(1, keepdim=True)
    found = (scale * (words.float() @ images.float().T)).log_softmax(1)
    divergence: Tensor = torch.special.xlogy(wanted, wanted) - wanted * found
    return divergence.sum(1).mean()


def backward(network: DualEncoder, objective: Objective, batch: Batch, options: StepOptions, seed: int) -> float:
    """Adds the gradients of a batch's loss to the parameters; returns the loss.

    With ``options.piece`` set, gradients are cached (Gao et al., 2021, "Scaling Deep Contrastive Learning Batch
    Size under Memory Limited Setup", https://arxiv.org/abs/2101.06983): vectors are computed piece by piece
    without activations, then the loss's gradient in the vectors, then each piece again with activations. The
    result is that of the whole batch at once. ``seed`` makes dropout fall the same way both times.
    """
    pieces = _pieces(network, batch, options)
    if options.piece is None:
        rows = _encoded(pieces, seed)
        images, drift = rows[0]
        loss = batch_loss(objective, images, [row for row, _ in rows[1:]], batch, options) + drift
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())
    with torch.no_grad():
        cached = [torch.cat([row for row, _ in _encoded(part, seed)]) for part in _grouped(pieces)]
    leaves = [rows.detach().requires_grad_() for rows in cached]
    loss = batch_loss(objective, leaves[0], leaves[1:], batch, options)
    loss.backward()  # type: ignore[no-untyped-call]
    total = float(loss.detach())
    for leaf, part in zip(leaves, _grouped(pieces), strict=True):
        done = 0
        for piece in part:
            [(vectors, penalty)] = _encoded([piece], seed)
            assert leaf.grad is not None
            share = penalty * len(vectors) / len(leaf)
            ((vectors * leaf.grad[done : done + len(vectors)]).sum() + share).backward()  # type: ignore[no-untyped-call]
            done += len(vectors)
            total += float(share.detach())
    return total


@dataclass(frozen=True)
class _Piece:
    kind: int
    number: int
    encode: Callable[[], tuple[Tensor, Tensor]]


def _pieces(network: DualEncoder, batch: Batch, options: StepOptions) -> list[_Piece]:
    """Everything that a batch encodes, cut to size: kind 0 is the images, each further kind one set of texts."""

    def images(start: int, stop: int) -> tuple[Tensor, Tensor]:
        rows = network.image_rest(tuple(part[start:stop] for part in batch.images))
        return rows.learned, rows.drift

    def texts(tokens: Tensor) -> tuple[Tensor, Tensor]:
        rows = network.texts(tokens).learned
        return rows, rows.new_zeros(())

    found = []
    size = options.piece or max(len(batch.groups), 1)
    for number, start in enumerate(range(0, len(batch.groups), size)):
        found.append(_Piece(0, number, lambda a=start, b=start + size: images(a, b)))  # type: ignore[misc]
    sets = [*batch.texts, *([batch.words.tokens] if batch.words is not None and options.words_weight else [])]
    for kind, tokens in enumerate(sets, 1):
        step = options.piece or len(tokens)
        for number, start in enumerate(range(0, len(tokens), step)):
            found.append(_Piece(kind, number, lambda t=tokens[start : start + step]: texts(t)))  # type: ignore[misc]
    return found


def _grouped(pieces: list[_Piece]) -> list[list[_Piece]]:
    return [[p for p in pieces if p.kind == kind] for kind in range(pieces[-1].kind + 1)]


def _encoded(pieces: list[_Piece], seed: int) -> list[tuple[Tensor, Tensor]]:
    rows = []
    for piece in pieces:
        torch.manual_seed(hash((seed, piece.kind, piece.number)) % 2**63)
        rows.append(piece.encode())
    return rows
