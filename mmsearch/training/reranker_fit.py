"""Training the reranker of a built-in encoder on candidate lists that the encoder itself gets wrong.

pairs → grids, text tokens and vectors by the encoder → batches of images alike → all pairs, then lists of the hardest
→ loss → average → dev R@1 → keep the best → folder
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import BuiltinEncoder
from mmsearch.models.rerankers.base import FloatArray, standard
from mmsearch.models.rerankers.builtin import DESCRIPTION, FORMAT, digest_of
from mmsearch.training.builtin_export import _axis, export_graph
from mmsearch.training.onnx_weights import read_tensors, store_half
from mmsearch.training.options import RerankerOptions, Stage
from mmsearch.training.pairs import Pairs
from mmsearch.training.reranker_data import Seen, alike, groups_alike, look, padded_texts
from mmsearch.training.reranker_modules import Fusion, GridTokens
from mmsearch.training.trainer import schedule

TOKENS_FILE, SCORE_FILE = "rerank_tokens.onnx", "rerank_score.onnx"
_MIXES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0)


@dataclass(frozen=True)
class Reranked:
    """What came out, on the dev split: text→image R@1 of the encoder alone and after reranking its first ``top``,
    with the weight ``mix`` of the reranker's score; ``losses`` of each epoch.
    """

    before: float
    after: float
    mix: float
    losses: tuple[float, ...]


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
    learning, judging = look(encoder, train, "train", progress), look(encoder, dev, "dev", progress)
    channels, height, width = learning.grids.shape[1:]
    tokens = GridTokens(channels, height * width, options.fusion)
    fusion = Fusion(learning.texts[0].shape[1], options.fusion)
    start_from_encoder(directory, encoder, tokens, fusion, learning)
    average = copy.deepcopy((tokens, fusion))
    losses: list[float] = []
    best: tuple[float, float, float, Any] | None = None
    for epoch, loss in enumerate(_epochs(tokens, fusion, average, learning, options, progress), 1):
        losses.append(loss)
        before, after, mix = _judge(*average, judging, options, epoch > options.epochs - options.list_epochs)
        progress(Stage(f"reranker {epoch}", 1, 1, f"R@1 {before:.3f} → {after:.3f}"))
        if best is None or after > best[1]:
            best = (before, after, mix, copy.deepcopy([part.state_dict() for part in average]))
    assert best is not None
    tokens.load_state_dict(best[3][0])
    fusion.load_state_dict(best[3][1])
    result = Reranked(best[0], best[1], best[2], tuple(losses))
    _export(directory, output, tokens, fusion, encoder.spec.digest, result, options)
    return result


def start_from_encoder(
    directory: Path, encoder: BuiltinEncoder, tokens: GridTokens, fusion: Fusion, seen: Seen
) -> None:
    """Lets places and words begin where the projections of the encoders would put them, each by itself, in the
    ``width`` directions in which the vectors of texts and images differ most. Encoders without such projections leave
    everything to chance.
    """
    image, text = (read_tensors(directory / name) for name in encoder.graph_files)
    names = ("head.gain", "head.offset", "head.straight.weight", "head.straight.bias")
    if (
        not all(name in tensors for tensors in (image, text) for name in names)
        or "network.conv_head.weight" not in image
    ):
        return
    joint = len(image["head.straight.weight"])
    width = tokens.straight.out_features
    if width > joint or tokens.features.out_features != len(image["head.gain"]):
        return
    rows = np.concatenate([seen.images[:, :joint], seen.text_vectors[: 2 * len(seen.images), :joint]])
    basis = np.linalg.eigh(rows.T @ rows)[1][:, -width:].T

    def put(parameter: Tensor, values: npt.NDArray[Any]) -> None:
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32).reshape(parameter.shape)))

    put(tokens.features.weight, image["network.conv_head.weight"])
    put(tokens.features.bias, image["network.conv_head.bias"])
    for part, tensors in ((tokens, image), (fusion.words, text)):
        put(part.gain, tensors["head.gain"])
        put(part.offset, tensors["head.offset"])
        put(part.straight.weight, basis @ tensors["head.straight.weight"])
        put(part.straight.bias, basis @ tensors["head.straight.bias"])


def _epochs(
    tokens: GridTokens,
    fusion: Fusion,
    average: tuple[GridTokens, Fusion],
    seen: Seen,
    options: RerankerOptions,
    progress: Callable[[Stage], None],
) -> Iterator[float]:
    """Yields the mean loss of each epoch when it is over."""
    random = np.random.default_rng(options.seed)
    parameters = [*tokens.parameters(), *fusion.parameters()]
    means = [*average[0].parameters(), *average[1].parameters()]
    optimizer = torch.optim.AdamW(parameters, options.rate, weight_decay=options.weight_decay)
    near = alike(seen, options.neighbours)
    batches = max(1, options.passes * len(seen.images) // options.batch_size)
    for epoch in range(options.epochs):
        tokens.train()
        fusion.train()
        losses: list[float] = []
        order = np.concatenate([groups_alike(near, random) for _ in range(options.passes)])
        for number in range(batches):
            images = np.unique(order[number * options.batch_size : (number + 1) * options.batch_size])
            captions = random.integers(seen.first[images], seen.first[images + 1])
            with_lists = epoch >= options.epochs - options.list_epochs
            loss = _batch_loss(tokens, fusion, seen, images, captions, options, random, with_lists)
            step = epoch * batches + number
            for group in optimizer.param_groups:
                group["lr"] = options.rate * schedule(step, options.epochs * batches, 0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters, 2.0)
            optimizer.step()
            # The average of the first steps would remember the beginning for too long.
            decay = min(options.average, (step + 1) / (step + 11))
            with torch.no_grad():
                for mean, parameter in zip(means, parameters, strict=True):
                    mean.lerp_(parameter, 1 - decay)
            losses.append(float(loss.detach()))
            progress(
                Stage(f"reranker {epoch + 1}/{options.epochs}", number + 1, batches, f"loss {np.mean(losses):.3f}")
            )
        yield float(np.mean(losses))


def _batch_loss(
    tokens: GridTokens,
    fusion: Fusion,
    seen: Seen,
    images: npt.NDArray[np.int64],
    captions: npt.NDArray[np.int64],
    options: RerankerOptions,
    random: np.random.Generator,
    with_lists: bool,
) -> Tensor:
    """``captions`` (n,) are those of ``images`` (n,), one each."""
    grids = torch.from_numpy(seen.grids[images].astype(np.float32))
    mirrored = torch.from_numpy(random.random(len(images)) < 0.5)
    grids = torch.where(mirrored[:, None, None, None], grids.flip(3), grids)
    places = tokens(grids)
    kept = round(places.shape[1] * (1 - options.fusion.places_dropped))
    places = places[:, torch.from_numpy(np.sort(random.permutation(places.shape[1])[:kept]))]
    text, mask = padded_texts([seen.texts[caption] for caption in captions])
    every = fusion.all_pairs(text, places, mask)
    right = torch.arange(len(images))
    contrast = (functional.cross_entropy(every, right) + functional.cross_entropy(every.T, right)) / 2
    if not with_lists:
        return contrast
    hardest = every.detach().clone()
    hardest[right, right] = torch.inf
    lists = hardest.topk(min(options.candidates, len(images)), dim=1).indices  # each text's own image comes first
    many = lists.shape[1]
    logits = fusion(text.repeat_interleave(many, 0), places[lists.flatten()], mask.repeat_interleave(many, 0))
    return contrast + options.list_weight * list_loss(logits.reshape(-1, many), options)


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


def _judge(
    tokens: GridTokens, fusion: Fusion, seen: Seen, options: RerankerOptions, with_lists: bool
) -> tuple[float, float, float]:
    """(R@1 of the encoder, R@1 after reranking with the best mix, that mix)."""
    tokens.eval()
    fusion.eval()
    step = max(1, len(seen.texts) // options.dev_queries)
    captions = np.arange(0, len(seen.texts), step)
    firsts, seconds, found = [], [], []
    with torch.inference_mode():
        kept = torch.cat([tokens(torch.from_numpy(part.astype(np.float32))) for part in np.array_split(seen.grids, 16)])
        for caption in captions:
            top = seen.hardest(int(caption), options.top)
            firsts.append(standard(seen.images[top] @ seen.text_vectors[caption]))
            text = torch.from_numpy(seen.texts[caption].astype(np.float32))[None]
            logits = (fusion if with_lists else fusion.first_part)(text, kept[top]).numpy()
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
    channels = tokens.features.in_features
    n, length = _axis("n", 1, 4096), _axis("length", 2, 256)
    grid = torch.randn(2, channels, side, places // side)
    first = export_graph(copy.deepcopy(tokens), (grid,), ["grid"], ["tokens"], ({0: n},))
    text = torch.randn(1, 9, fusion.words.straight.in_features)
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
