"""How the multilingual text encoder learns: a start in closed form, then by gradient, the last layers as well, in three
stages, at last names once more in closed form.

All but the last `OPEN` layers stay as they are. What they give of a text is worked out when it is first needed and
kept, so that later epochs cost the open layers only. Photos do not move: all of them are negatives of every caption.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from multilingual_export import OPEN, Head, MultilingualNet
from multilingual_texts import Text
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from mmsearch.training.builtin_modules import WIDTH, unit

HIDDEN = 1536
SCALE = 20.0
"""1 / temperature of the scores of photos; what `mmsearch train` found for the English text encoder."""
NAME_SCALE = 15.0
DECAY, WARM_UP = 0.01, 60
BATCH, PART = 256, 128
"""Texts of a step, and of one pass through the layers: texts of similar length, so that little is padded."""
AVERAGE = 0.995
NAME_WEIGHT, STRAIGHT_PENALTY, HIDDEN_PENALTY = 3.0, 100.0, 30.0
STRAIGHT_REFIT, HIDDEN_REFIT = 30.0, 10.0


@dataclass(frozen=True)
class Stage:
    """So many ``epochs``, with rates that fall along a cosine as if there were ``planned``.

    ``photo_share``: how much of a caption's target is its own photo, the rest being spread as its English captions say;
    ``drawn``: the weight of the cosines to those; ``hidden``: so many of the tokens are not seen, at random; ``blur``:
    how much of what is special about another photo is added to each, drawn anew at every step, since the space was
    learned from these photos and tells them apart better than others.
    """

    epochs: int
    planned: int
    rate: float
    head_rate: float
    photo_share: float = 0.5
    drawn: float = 2.0
    hidden: float = 0.0
    blur: float = 0.0


FIRST, SECOND = Stage(1, 2, 3e-4, 5e-4), Stage(2, 2, 2e-4, 3e-4)
THIRD = Stage(2, 2, 2e-4, 2e-4, photo_share=0.8, drawn=0.5, hidden=0.1, blur=0.8)
THIRD_WAY = 0.5
"""How far the weights go from the second stage's to the third's."""


@dataclass(frozen=True)
class Targets:
    """What the English encoder says of ``texts``, and vectors of photos: those that captions belong to, and others that
    are ``shown`` to names. All (n, dim), both halves of length 1.
    """

    texts: Tensor
    photos: Tensor
    shown: Tensor


class Kept:
    """Texts up to the open layers, each worked out once, (tokens, 384) float16."""

    def __init__(self, net: MultilingualNet, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        self._net = net
        self.tokens = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
        self._found: list[Tensor | None] = [None] * len(texts)

    def batch(self, members: Sequence[int]) -> tuple[Tensor, Tensor]:
        """(n, length, 384) and the mask (n, length) of texts by their numbers."""
        new = [member for member in members if self._found[member] is None]
        if new:
            ids, mask = padded([self.tokens[member] for member in new])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                found = self._net.below(ids, mask).half()
            for member, row in zip(new, found, strict=True):
                self._found[member] = row[: len(self.tokens[member])].clone()
        lengths = [len(self.tokens[member]) for member in members]
        x = torch.zeros(len(members), max(lengths), WIDTH)
        mask = torch.zeros(len(members), max(lengths))
        for place, (member, length) in enumerate(zip(members, lengths, strict=True)):
            kept = self._found[member]
            assert kept is not None
            x[place, :length], mask[place, :length] = kept, 1
        return x, mask

    def parts(self, members: Sequence[int], size: int) -> list[list[int]]:
        """Members in groups of similar length."""
        order = sorted(members, key=lambda member: len(self.tokens[member]))
        return [order[start : start + size] for start in range(0, len(order), size)]


def padded(tokens: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids and their mask, both (n, length)."""
    ids = torch.ones(len(tokens), max(map(len, tokens)), dtype=torch.long)
    mask = torch.zeros(ids.shape)
    for row, numbers in enumerate(tokens):
        ids[row, : len(numbers)], mask[row, : len(numbers)] = torch.tensor(numbers), 1
    return ids, mask


def features(net: MultilingualNet, kept: Kept, members: Sequence[int]) -> np.ndarray:
    """What the head reads, (n, 3 * 384) float32."""
    found = np.zeros((len(members), 3 * WIDTH), dtype=np.float32)
    place = {member: row for row, member in enumerate(members)}
    for part in kept.parts(members, PART):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found[[place[member] for member in part]] = net.above(*kept.batch(part)).float().numpy()
    return found


def fit_head(captions: np.ndarray, their: np.ndarray, names: np.ndarray, own: np.ndarray) -> Head:
    """A ridge regression in closed form; arrays of features (n, inputs) and of targets (n, dim)."""
    draw = np.random.default_rng(0)
    mean, spread = captions.mean(axis=0), captions.std(axis=0)
    gain = 1 / (spread + 0.2 * spread.mean())
    x, y = (captions - mean) * gain, (names - mean) * gain
    inputs = x.shape[1]
    covariance = x.T @ x / len(x)
    values, axes = np.linalg.eigh(covariance + 0.02 * np.eye(inputs) * np.trace(covariance) / inputs)
    directions = draw.standard_normal((inputs, HIDDEN)) / inputs**0.5
    up = (1.2 * (axes / np.sqrt(values)) @ axes.T @ directions).astype(np.float32)
    offsets = 0.7 * draw.standard_normal(HIDDEN).astype(np.float32)

    def widened(features: np.ndarray) -> np.ndarray:
        hidden = functional.gelu(torch.from_numpy((features @ up + offsets).astype(np.float32))).numpy()
        return np.hstack([features, hidden, np.ones((len(features), 1), dtype=np.float32)])

    a, b = widened(x), widened(y)
    penalty = np.repeat([STRAIGHT_PENALTY, HIDDEN_PENALTY, 0.0], [inputs, HIDDEN, 1])
    products = a.T @ a + NAME_WEIGHT * (b.T @ b) + np.diag(penalty)
    solution = np.linalg.solve(products, a.T @ their + NAME_WEIGHT * (b.T @ own)).astype(np.float32)
    head = Head(inputs, HIDDEN, their.shape[1])
    head.load_state_dict({
        "gain": torch.from_numpy(gain), "offset": torch.from_numpy(-mean * gain),
        "up.weight": torch.from_numpy(up.T.copy()), "up.bias": torch.from_numpy(offsets),
        "straight.weight": torch.from_numpy(solution[:inputs].T.copy()),
        "straight.bias": torch.from_numpy(solution[-1]),
        "down.weight": torch.from_numpy(solution[inputs:-1].T.copy()),
    })  # fmt: skip
    return head


def refit_names(
    head: Head, joint: int, captions: np.ndarray, their: np.ndarray, names: np.ndarray, own: np.ndarray,
    weights: np.ndarray,
) -> None:  # fmt: skip
    """Moves the half of ConSE, which names are told by, closer to what it should be, by a ridge regression of what is
    left: of names more than of captions, which the joint half tells by. Arrays as in `fit_head`; ``weights`` (n,) are
    those of names.
    """
    x = torch.from_numpy(np.concatenate([captions, names]))
    with torch.no_grad():
        x = x * head.gain + head.offset
        inputs = torch.cat([x, functional.gelu(head.up(x)), torch.ones(len(x), 1)], dim=1).numpy()
        given = (head.straight(x) + head.down(functional.gelu(head.up(x))))[:, joint:].numpy()
    wanted = np.concatenate([their, own])[:, joint:] * np.linalg.norm(given, axis=1, keepdims=True)
    share = np.concatenate([np.ones(len(captions)), weights])[:, None].astype(np.float32)
    width = x.shape[1]
    penalty = np.repeat([STRAIGHT_REFIT, HIDDEN_REFIT, 0.0], [width, HIDDEN, 1])
    products = (inputs * share).T @ inputs + np.diag(penalty)
    moves = torch.from_numpy(np.linalg.solve(products, (inputs * share).T @ (wanted - given)).astype(np.float32))
    with torch.no_grad():
        head.straight.weight[joint:] += moves[:width].T
        head.down.weight[joint:] += moves[width:-1].T
        head.straight.bias[joint:] += moves[-1]


class Losses:
    """What each text is to learn; see the figures in `loss_of`."""

    def __init__(self, net: MultilingualNet, texts: Sequence[Text], targets: Targets) -> None:
        self._net, self._texts, self._targets = net, texts, targets
        self._joint = targets.photos[:, : net.joint]
        self._special = self._joint - self._joint.mean(0)
        self._draw = torch.Generator().manual_seed(2)
        self._shown = net.shared(targets.shown[:, : net.joint], targets.shown[:, net.joint :])

    def of(self, both: Tensor, members: Sequence[int], stage: Stage) -> Tensor:
        """The sum over texts, from what the head gives of them."""
        captions = [row for row, member in enumerate(members) if not self._texts[member].is_name]
        names = [row for row, member in enumerate(members) if self._texts[member].is_name]
        joint, conse = self._net.halves(both)
        wanted = self._targets.texts[list(members)]
        cosine = lambda ours, theirs: 1 - (ours * theirs).sum(1)  # noqa: E731
        of_joint = cosine(joint, wanted[:, : self._net.joint])
        of_conse = cosine(conse, wanted[:, self._net.joint :])
        loss = torch.zeros(())
        if captions:
            loss = loss + stage.drawn * (of_joint + of_conse)[captions].sum()
            own = [self._texts[members[row]].photo for row in captions]
            loss = loss + self._of_photos(joint[captions], wanted[captions], own, stage)
        if names:
            loss = loss + (2 * of_joint + 4 * of_conse)[names].sum()
            said = self._net.shared(joint[names], conse[names])
            taught = self._net.shared(wanted[names, : self._net.joint], wanted[names, self._net.joint :])
            loss = loss + spread(said @ self._shown.T, taught @ self._shown.T, NAME_SCALE).sum()
        return loss

    def _of_photos(self, joint: Tensor, wanted: Tensor, own: Sequence[int | None], stage: Stage) -> Tensor:
        scores = SCALE * (joint.bfloat16() @ self._blurred(stage.blur).T).float()
        with torch.no_grad():
            target = (SCALE * (wanted[:, : self._net.joint].bfloat16() @ self._joint.bfloat16().T).float()).softmax(1)
            for row, photo in enumerate(own):
                if photo is not None:
                    target[row] *= 1 - stage.photo_share
                    target[row, photo] += stage.photo_share
        return -(target * scores.log_softmax(1)).sum()

    def _blurred(self, share: float) -> Tensor:
        others = torch.randperm(len(self._joint), generator=self._draw)
        return unit(self._joint + share * self._special[others]).bfloat16()


def spread(ours: Tensor, theirs: Tensor, scale: float) -> Tensor:
    """Cross-entropy of two rankings of the same photos, (n, photos) to (n,)."""
    return -((scale * theirs).softmax(1) * (scale * ours).log_softmax(1)).sum(1)


def learn(
    net: MultilingualNet, kept: Kept, losses: Losses, members: Sequence[int], stage: Stage, each: int,
    report: Callable[[MultilingualNet, int, float], None],
) -> None:  # fmt: skip
    """Learns from some of the texts by gradient; ``report`` gets the net with the averages of its weights, the step and
    the mean loss, after ``each`` steps.
    """
    draw = torch.Generator().manual_seed(1)
    learned = [*net.layers[-OPEN:].parameters(), *net.head.parameters()]
    heads = {id(parameter) for parameter in net.head.parameters()}
    net.requires_grad_(False)
    for parameter in learned:
        parameter.requires_grad_(True)
    groups = [
        {"params": [p for p in learned if (id(p) in heads) == is_head], "lr": rate}
        for is_head, rate in ((False, stage.rate), (True, stage.head_rate))
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=DECAY)
    count = len(members)
    steps, planned = stage.epochs * (count // BATCH), stage.planned * (count // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / WARM_UP, 0.5 * (1 + math.cos(math.pi * min(1, s / planned))))
    )
    means = [parameter.detach().clone() for parameter in learned]
    step, total = 0, 0.0
    for _ in range(stage.epochs):
        order = [members[place] for place in torch.randperm(count, generator=draw).tolist()]
        for start in range(0, count - BATCH + 1, BATCH):
            for part in kept.parts(order[start : start + BATCH], PART):
                x, mask = kept.batch(part)
                if stage.hidden:
                    mask[:, 1:] *= torch.rand(mask[:, 1:].shape, generator=draw) >= stage.hidden
                with torch.autocast("cpu", torch.bfloat16):
                    both = net.head(net.above(x, mask))
                loss = losses.of(both.float(), part, stage) / BATCH
                loss.backward()
                total += loss.item()
            nn.utils.clip_grad_norm_(learned, 5.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            share = min(AVERAGE, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(means, [parameter.detach() for parameter in learned], 1 - share)
            if step % each == 0 or step == steps:
                swap(learned, means)
                report(net, step, total / each)
                swap(learned, means)
                total = 0.0
    swap(learned, means)


def go_part_way(net: MultilingualNet, before: dict[str, Tensor], share: float) -> None:
    """Weights between those of ``before`` and those of the net."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.lerp_(before[name], 1 - share)


def swap(ones: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Exchanges values."""
    with torch.no_grad():
        for one, other in zip(ones, others, strict=True):
            kept = one.detach().clone()
            one.copy_(other)
            other.copy_(kept)
