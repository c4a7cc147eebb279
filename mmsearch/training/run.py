"""From a file of pairs to a directory that ``mmsearch index --model DIR`` takes, and whether it is better."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import UsageError
from mmsearch.core.types import Skip
from mmsearch.evaluate.metrics import compare_runs, two_way_recall
from mmsearch.evaluate.metrics.two_way import TwoWayRecall
from mmsearch.models.encoders import Encoder, open_encoder
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS
from mmsearch.models.encoders.open_clip_files import locate
from mmsearch.models.encoders.registry import BUILTIN, without_views
from mmsearch.training.builtin_model import BuiltinModel
from mmsearch.training.dual_encoder import DualEncoder
from mmsearch.training.fit import fit
from mmsearch.training.hubness import captions_of, write_hubness_samples
from mmsearch.training.options import BuiltinModelOptions, Fitted, Freezing, RerankerOptions, Stage, TrainOptions
from mmsearch.training.pair_sources import read_pairs, vectors_of_index
from mmsearch.training.pairs import Pairs, image_vectors, without_unreadable
from mmsearch.training.reranker_fit import Reranked, train_reranker


@dataclass(frozen=True)
class TrainRequest:
    """What to train on, from what, and where the result goes.

    ``pairs`` and ``dev`` are read by ``read_pairs``; without ``dev`` the fraction ``held_out`` of the images is
    kept apart. ``images`` is where a table's paths start from. ``keep_cache`` keeps what frozen parts gave,
    which can be gigabytes. ``negatives``: the address of an index whose vectors tell which images are each other's
    hard negatives; images that it lacks have none.
    """

    pairs: Path
    output: Path
    model: str = BUILTIN
    dev: Path | None = None
    images: Path | None = None
    held_out: float = 0.1
    learns: Freezing = field(default_factory=Freezing)
    builtin: BuiltinModelOptions = field(default_factory=BuiltinModelOptions)
    keep_cache: bool = False
    negatives: str | Path | None = None


@dataclass(frozen=True)
class TrainReport:
    """What a run did. ``before`` and ``after`` are recalls on the held-out split, in fractions, measured with the
    encoders as a search uses them; ``fitted`` tells of each epoch. ``p_value``: how likely such a difference of the
    reciprocal ranks is by chance (paired permutation test over all questions of both directions).
    """

    output: Path
    images: int
    captions: int
    dev_images: int
    refused: tuple[Skip, ...]
    before: dict[str, float]
    after: dict[str, float]
    fitted: Fitted
    p_value: float = 1.0

    @property
    def is_better(self) -> bool:
        """Whether the mean of the recalls rose."""
        return float(np.mean(list(self.after.values()))) > float(np.mean(list(self.before.values())))


def train(
    request: TrainRequest,
    options: TrainOptions,
    *,
    resume: bool = False,
    progress: Callable[[Stage], None] = lambda stage: None,
) -> TrainReport:
    """Reads pairs, trains, writes the encoder into ``request.output`` and what happened into its folder ``run``.

    Raises:
        UsageError: no usable pairs, options that make no sense, or an output directory that holds something else.
        EncoderError: the model cannot be opened.
    """
    run = request.output / "run"
    if request.output.exists() and any(request.output.iterdir()) and not run.is_dir():
        raise UsageError(f"{request.output} is not empty and holds no training run: name another directory")
    learning, held_out, refused = _pairs(request, progress)
    mined = None if request.negatives is None else vectors_of_index(request.negatives, learning)
    run.mkdir(parents=True, exist_ok=True)
    _write_refused(run, refused)
    before = encoder_ranks(open_encoder(request.model), held_out)
    network = open_network(request.model, request.learns, request.builtin, options.seed)
    fitted = fit(network, learning, held_out, options, run, resume=resume, mined=mined, progress=progress)
    progress(Stage("export", 0, 1))
    network.cpu().settle(captions_of(learning))
    network.export(request.output)
    progress(Stage("export", 1, 1))
    progress(Stage("hubness", 0, 1))
    write_hubness_samples(request.output, learning, network.caption_numbers)
    progress(Stage("hubness", 1, 1))
    after = encoder_ranks(open_encoder(os.fspath(request.output)), held_out)
    if not request.keep_cache:
        shutil.rmtree(run / "cache", ignore_errors=True)
    report = TrainReport(
        request.output,
        len(learning),
        learning.caption_count,
        len(held_out),
        refused,
        before.recalls(),
        after.recalls(),
        fitted,
        compare_runs(_reciprocal(after), _reciprocal(before)).p_value,
    )
    _write_report(run / "report.json", report, request, options)
    return report


def add_reranker(
    request: TrainRequest, options: RerankerOptions, *, progress: Callable[[Stage], None] = lambda stage: None
) -> tuple[Reranked, tuple[Skip, ...]]:
    """Trains a reranker after the built-in encoder ``request.model`` (or one trained from it); ``request.output``
    becomes that encoder with the reranker beside it. It may be the encoder's own directory.

    Raises:
        UsageError: the model is not of the built-in layout, or as for ``train``.
    """
    directory = SHIPPED_WEIGHTS if request.model == BUILTIN else Path(request.model.removeprefix("local-dir:"))
    if not (directory / "encoder.json").is_file():
        raise UsageError(
            f"a reranker is trained after an encoder of the built-in layout; {request.model} has no encoder.json"
        )
    learning, held_out, refused = _pairs(request, progress)
    result = train_reranker(directory, learning, held_out, options, request.output, progress)
    _write_refused(request.output / "run", refused)
    return result, refused


def open_network(model: str, learns: Freezing, options: BuiltinModelOptions, seed: int) -> DualEncoder:
    """The encoders of a model by the names that ``open_encoder`` knows; new weights depend on ``seed``."""
    import torch

    plain, views = without_views(model)
    if views:
        raise UsageError(f"views belong to indexing: train {plain}, and index with +views after what comes out")
    torch.manual_seed(seed)
    directory = SHIPPED_WEIGHTS if model == BUILTIN else Path(model.removeprefix("local-dir:"))
    if (directory / "encoder.json").is_file():
        if learns.rank:
            raise UsageError("low-rank updates are for models of open_clip: train the built-in encoders with last:N")
        return BuiltinModel(directory, learns, options)
    from mmsearch.training.open_clip_model import OpenClipModel

    return OpenClipModel(locate(model), learns)


def encoder_ranks(encoder: Encoder, pairs: Pairs) -> TwoWayRecall:
    """The places of the right answers in both directions, by an encoder as a search uses it."""
    texts = [text for captions in pairs.captions for text in captions]
    owners = [[row] for row, captions in enumerate(pairs.captions) for _ in captions]
    return two_way_recall(encoder.encode_texts(texts), image_vectors(encoder, pairs.images), owners)


def _reciprocal(found: TwoWayRecall) -> npt.NDArray[np.float64]:
    ranks: npt.NDArray[np.float64] = 1 / np.concatenate([found.text_to_image.ranks, found.image_to_text.ranks])
    return ranks


def _pairs(request: TrainRequest, progress: Callable[[Stage], None]) -> tuple[Pairs, Pairs, tuple[Skip, ...]]:
    def checked(pairs: Pairs) -> Pairs:
        return without_unreadable(pairs, lambda done, total: progress(Stage("check images", done, total)))

    pairs = checked(read_pairs(request.pairs, request.images))
    if request.dev is None:
        learning, held_out = pairs.split(request.held_out)
        return learning, held_out, pairs.refused
    dev = checked(read_pairs(request.dev, request.images))
    shared = set(pairs.images) & set(dev.images)
    if shared:
        raise UsageError(
            f"{len(shared)} images are both in {request.pairs} and in {request.dev}, {next(iter(shared)).name} among "
            "them: what is learned from cannot judge"
        )
    return pairs, dev, (*pairs.refused, *dev.refused)


def _write_refused(run: Path, refused: tuple[Skip, ...]) -> None:
    lines = [json.dumps({"path": skip.path, "reason": skip.reason}, ensure_ascii=False) + "\n" for skip in refused]
    (run / "refused.jsonl").write_text("".join(lines), encoding="utf-8")


def _write_report(path: Path, report: TrainReport, request: TrainRequest, options: TrainOptions) -> None:
    content = {
        "model": request.model,
        "learns": str(request.learns),
        "negatives": None if request.negatives is None else str(request.negatives),
        "images": report.images,
        "captions": report.captions,
        "dev_images": report.dev_images,
        "refused": len(report.refused),
        "before": report.before,
        "after": report.after,
        "is_better": report.is_better,
        "p_value": report.p_value,
        "best_epoch": report.fitted.best,
        "seed": options.seed,
        "options": asdict(options),
        "builtin_options": asdict(request.builtin),
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
