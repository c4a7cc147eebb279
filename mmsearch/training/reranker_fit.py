"""Training the reranker of a built-in encoder on candidate lists that the encoder itself gets wrong.

pairs → grids, text tokens and vectors by the encoder → hardest candidates → lists → loss → dev R@1 → folder
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mmsearch.encoders.base import EncoderOptions
from mmsearch.encoders.builtin import BuiltinEncoder
from mmsearch.errors import UsageError
from mmsearch.rerankers.base import FloatArray, standard
from mmsearch.rerankers.builtin import DESCRIPTION, FORMAT, digest_of
from mmsearch.training.builtin_export import _axis, export_graph
from mmsearch.training.fit import Stage, schedule
from mmsearch.training.onnx_narrow import store_half
from mmsearch.training.pairs import Pairs
from mmsearch.training.reranker_modules import Fusion, FusionOptions, GridTokens

TOKENS_FILE, SCORE_FILE = "rerank_tokens.onnx", "rerank_score.onnx"
_MIXES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class RerankerOptions:
    """How to train. A list is one caption with its image and ``candidates`` - 1 others, drawn from the ``hardest``
    that the encoder ranks above the rest; ``batch_size`` lists make a step, ``lists`` an epoch (``None``: one for
    every caption). The loss is the cross-entropy over each list plus ``itm_weight`` of the binary loss of every
    pair. ``dev_queries`` captions and their first ``top`` candidates judge.
    """

    epochs: int = 5
    batch_size: int = 32
    lists: int | None = None
    candidates: int = 8
    hardest: int = 40
    rate: float = 5e-4
    itm_weight: float = 0.5
    dev_queries: int = 1000
    top: int = 50
    seed: int = 0
    threads: int | None = None
    fusion: FusionOptions = field(default_factory=FusionOptions)


@dataclass(frozen=True)
class Reranked:
    """What came out, on the dev split: text→image R@1 of the encoder alone and after reranking its first ``top``,
    with the weight ``mix`` of the reranker's score; ``losses`` of each epoch.
    """

    before: float
    after: float
    mix: float
    losses: tuple[float, ...]


@dataclass(frozen=True)
class _Seen:
    """What the encoder gives for a set of pairs. ``owner`` (captions,) is each caption's image."""

    grids: npt.NDArray[np.float16]
    images: FloatArray
    texts: list[npt.NDArray[np.float16]]
    text_vectors: FloatArray
    owner: npt.NDArray[np.int64]

    def hardest(self, caption: int, count: int) -> npt.NDArray[np.int64]:
        """The images that the encoder finds most like a caption, best first, its own among them or not."""
        scores = self.images @ self.text_vectors[caption]
        count = min(count, len(scores))
        best = np.argpartition(-scores, count - 1)[:count]
        return best[np.argsort(-scores[best], kind="stable")]


def train_reranker(
    directory: Path,
    train: Pairs,
    dev: Pairs,
    options: RerankerOptions,
    output: Path,
    progress: Callable[[Stage], None] = lambda stage: None,
) -> Reranked:
    """Trains a reranker for the encoder in ``directory``; ``output`` becomes that encoder with it.

    Raises:
        UsageError: fewer images than a list has candidates.
        EncoderError: the encoder's graphs give no grid or no tokens (those of version 0 do not).
    """
    if min(len(train), len(dev)) < options.candidates:
        raise UsageError(f"lists of {options.candidates} need as many images; found {len(train)} and {len(dev)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    encoder = BuiltinEncoder(directory, EncoderOptions(threads=options.threads))
    learning, judging = _look(encoder, train, "train", progress), _look(encoder, dev, "dev", progress)
    channels, height, width = learning.grids.shape[1:]
    tokens = GridTokens(channels, height * width, options.fusion.width)
    fusion = Fusion(learning.texts[0].shape[1], options.fusion)
    losses: list[float] = []
    best: tuple[float, float, float, Any] | None = None
    for epoch, loss in enumerate(_epochs(tokens, fusion, learning, options, progress), 1):
        losses.append(loss)
        before, after, mix = _judge(tokens, fusion, judging, options)
        progress(Stage(f"reranker {epoch}", 1, 1, f"R@1 {before:.3f} → {after:.3f}"))
        if best is None or after > best[1]:
            best = (before, after, mix, copy.deepcopy((tokens.state_dict(), fusion.state_dict())))
    assert best is not None
    tokens.load_state_dict(best[3][0])
    fusion.load_state_dict(best[3][1])
    result = Reranked(best[0], best[1], best[2], tuple(losses))
    _export(directory, output, tokens, fusion, encoder.spec.digest, result, options)
    return result


def _look(encoder: BuiltinEncoder, pairs: Pairs, name: str, progress: Callable[[Stage], None]) -> _Seen:
    grids, vectors = [], []
    size = encoder.batch_size
    for start in range(0, len(pairs), size):
        sources = pairs.images[start : start + size]
        inputs = np.stack([encoder.prepare_image(source.read(encoder.input_size)) for source in sources])
        grids.append(encoder.image_grid(inputs).astype(np.float16))
        vectors.append(encoder.encode_prepared(inputs))
        progress(Stage(f"{name} images", start + len(sources), len(pairs)))
    captions = [caption for texts in pairs.captions for caption in texts]
    texts = []
    for done, caption in enumerate(captions, 1):
        texts.append(encoder.text_tokens(caption)[0].astype(np.float16))
        progress(Stage(f"{name} texts", done, len(captions)))
    owner = np.repeat(np.arange(len(pairs)), [len(texts) for texts in pairs.captions])
    return _Seen(np.concatenate(grids), np.concatenate(vectors), texts, encoder.encode_texts(captions), owner)


def _epochs(
    tokens: GridTokens, fusion: Fusion, seen: _Seen, options: RerankerOptions, progress: Callable[[Stage], None]
) -> Any:
    """Yields the mean loss of each epoch when it is over."""
    random = np.random.default_rng(options.seed)
    parameters = [*tokens.parameters(), *fusion.parameters()]
    optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=0.05)
    lists = min(options.lists or len(seen.texts), len(seen.texts))
    batches = max(1, lists // options.batch_size)
    for epoch in range(options.epochs):
        tokens.train()
        fusion.train()
        order, losses = random.permutation(len(seen.texts)), []
        for number in range(batches):
            captions = order[number * options.batch_size : (number + 1) * options.batch_size]
            loss = list_loss(_logits(tokens, fusion, seen, captions, _lists(seen, captions, options, random)), options)
            factor = schedule(epoch * batches + number, options.epochs * batches, 0.05)
            for group in optimizer.param_groups:
                group["lr"] = options.rate * factor
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
            progress(
                Stage(f"reranker {epoch + 1}/{options.epochs}", number + 1, batches, f"loss {np.mean(losses):.3f}")
            )
        yield float(np.mean(losses))


def list_loss(logits: Tensor, options: RerankerOptions) -> Tensor:
    """Of lists (n, candidates) whose first is the right one: which it is, and for each whether it is."""
    right = torch.zeros(len(logits), dtype=torch.int64)
    ranking = functional.cross_entropy(logits, right)
    target = torch.zeros_like(logits)
    target[:, 0] = 1
    # One right against many wrong ones: both kinds weigh the same.
    weight = torch.full_like(logits, 0.5 / (logits.shape[1] - 1))
    weight[:, 0] = 0.5
    matching = functional.binary_cross_entropy_with_logits(logits, target, weight, reduction="sum") / len(logits)
    return ranking + options.itm_weight * matching


def _lists(
    seen: _Seen, captions: npt.NDArray[np.int64], options: RerankerOptions, random: np.random.Generator
) -> npt.NDArray[np.int64]:
    rows = []
    for caption in captions:
        own = seen.owner[caption]
        hard = seen.hardest(int(caption), max(options.hardest, options.candidates))
        hard = hard[hard != own]
        rows.append(np.concatenate([[own], random.choice(hard, options.candidates - 1, replace=False)]))
    return np.stack(rows)


def _logits(
    tokens: GridTokens, fusion: Fusion, seen: _Seen, captions: npt.NDArray[np.int64], lists: npt.NDArray[np.int64]
) -> Tensor:
    """(captions, candidates) logits."""
    used, where = np.unique(lists, return_inverse=True)
    image = tokens(torch.from_numpy(seen.grids[used].astype(np.float32)))[torch.from_numpy(where.reshape(-1))]
    length = max(len(seen.texts[c]) for c in captions)
    text = torch.zeros(len(captions), length, seen.texts[0].shape[1])
    mask = torch.zeros(len(captions), length)
    for row, caption in enumerate(captions):
        values = seen.texts[caption]
        text[row, : len(values)], mask[row, : len(values)] = torch.from_numpy(values.astype(np.float32)), 1
    many = lists.shape[1]
    logits: Tensor = fusion(text.repeat_interleave(many, 0), image, mask.repeat_interleave(many, 0))
    return logits.reshape(len(captions), many)


def _judge(tokens: GridTokens, fusion: Fusion, seen: _Seen, options: RerankerOptions) -> tuple[float, float, float]:
    """(R@1 of the encoder, R@1 after reranking with the best mix, that mix)."""
    tokens.eval()
    fusion.eval()
    step = max(1, len(seen.texts) // options.dev_queries)
    captions = np.arange(0, len(seen.texts), step)
    firsts, seconds, found = [], [], []
    with torch.inference_mode():
        for caption in captions:
            top = seen.hardest(int(caption), options.top)
            firsts.append(standard(seen.images[top] @ seen.text_vectors[caption]))
            logits = _logits(tokens, fusion, seen, np.array([caption]), top[None])[0].numpy()
            seconds.append(standard(logits))
            found.append(top == seen.owner[caption])
    right = {mix: _first_is_right(firsts, seconds, found, mix) for mix in _MIXES}
    best = max(right, key=right.__getitem__)
    return right[0.0], right[best], best


def _first_is_right(
    firsts: list[FloatArray], seconds: list[FloatArray], found: list[npt.NDArray[np.bool_]], mix: float
) -> float:
    hits = [own[np.argmax(one + mix * two)] for one, two, own in zip(firsts, seconds, found, strict=True)]
    return float(np.mean(hits))


def _export(
    source: Path, output: Path, tokens: GridTokens, fusion: Fusion, encoder: str, result: Reranked, o: RerankerOptions
) -> None:
    import onnx

    output.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and source.resolve() != output.resolve():
            shutil.copyfile(file, output / file.name)
    places, width = tokens.positions.shape
    side = round(places**0.5)
    channels = tokens.norm.normalized_shape[0]
    n, length = _axis("n", 1, 4096), _axis("length", 2, 256)
    grid = torch.randn(2, channels, side, places // side)
    first = export_graph(copy.deepcopy(tokens), (grid,), ["grid"], ["tokens"], ({0: n},))
    text = torch.randn(1, 9, fusion.norm.normalized_shape[0])
    inputs = (text, torch.randn(2, places, width))
    second = export_graph(copy.deepcopy(fusion), inputs, ["text", "tokens"], ["logit"], ({1: length}, {0: n}))
    for name, graph in ((TOKENS_FILE, first), (SCORE_FILE, second)):
        store_half(graph)
        onnx.save(graph, str(output / name))
    description = {
        "format": FORMAT,
        "name": "builtin",
        "digest": digest_of(output, (TOKENS_FILE, SCORE_FILE)),
        "encoder_digest": encoder,
        "token_shape": [places, width],
        "mix": result.mix,
        "tokens": TOKENS_FILE,
        "score": SCORE_FILE,
    }
    (output / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    run = output / "run"
    run.mkdir(exist_ok=True)
    report = {"options": asdict(o), **asdict(result)}
    (run / "reranker.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
