"""Training a dual encoder on pairs: ``fit`` reads like its line.

pairs → views (frozen part worked out once) → batches → loss → steps → average → dev recall → keep the best
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from mmsearch.core.errors import UsageError
from mmsearch.models.encoders.base import FloatArray
from mmsearch.training.batches import Batches
from mmsearch.training.dual_encoder import DualEncoder
from mmsearch.training.losses import Objective
from mmsearch.training.options import Epoch, Fitted, LossOptions, Stage, TrainOptions
from mmsearch.training.pairs import Pairs
from mmsearch.training.trainer import HeldOut, Trainer
from mmsearch.training.views import ImageFeed

CHECKPOINT = "checkpoint.pt"


def fit(
    network: DualEncoder,
    train: Pairs,
    dev: Pairs,
    options: TrainOptions,
    run: Path,
    *,
    resume: bool = False,
    mined: FloatArray | None = None,
    progress: Callable[[Stage], None] = lambda stage: None,
) -> Fitted:
    """Trains ``network`` in place and leaves the weights of the best epoch in them.

    ``run`` gets ``config.json``, ``metrics.jsonl`` and a checkpoint an epoch. A run that was
    interrupted goes on with ``resume`` and ends with exactly the weights of one that was not: everything random
    depends on the seed, the epoch and the step alone.

    ``mined``: vectors of the training images by which ``options.neighbours`` finds hard negatives, float32 (images,
    dim) of length 1, rows of zeros for images without one; by default those that the encoders give now.

    Raises:
        UsageError: ``run`` holds another run's checkpoint, or training diverged.
    """
    device = _device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network.to(device)
    run.mkdir(parents=True, exist_ok=True)

    def note(stage: str, done: int, total: int) -> None:
        progress(Stage(stage, done, total))

    common: dict[str, Any] = {"seed": options.seed, "device": device, "workers": options.workers, "progress": note}
    feed = ImageFeed(network, train.images, options.views, run / "cache" / "train", **common)
    dev_feed = ImageFeed(network, dev.images, None, run / "cache" / "dev", **common)
    try:
        batches = Batches(network, train, feed, options.batch_size, options.captions, options.seed, device)
        if options.step.words_weight:
            batches.find_words()
        if options.neighbours > 1:
            batches.find_neighbours(options.neighbours, mined)
        network.begin(batches.sample_images(), batches.sample_texts())
        trainer = Trainer(network, Objective(_from_network(options.loss, network)).to(device), options, len(batches))
        config = {**asdict(options), "encoders": network.describe(), "images": len(train), "dev_images": len(dev)}
        if mined is not None:
            config["mined"] = hashlib.sha256(mined.tobytes()).hexdigest()
        held_out = HeldOut(network, dev, dev_feed, device)
        first = trainer.restore(run / CHECKPOINT, config) if resume else 0
        (run / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for epoch in range(first, options.epochs):
            if trainer.is_stuck():
                break
            begin = time.perf_counter()
            loss = trainer.run_epoch(batches, epoch, progress)
            recalls = trainer.with_average(held_out.recalls)
            trainer.keep(
                Epoch(epoch + 1, loss, float(trainer.objective.scale.detach()), time.perf_counter() - begin, recalls)
            )
            trainer.save(run / CHECKPOINT, config)
            _write_metrics(run, trainer.history)
        trainer.take_best()
        objective = trainer.objective
        network.take_scale(
            float(objective.scale.detach()), float(objective.bias.detach()) if options.loss.name == "sigmoid" else None
        )
        return Fitted(tuple(trainer.history), trainer.best_epoch)
    finally:
        feed.close()
        dev_feed.close()


def _from_network(options: LossOptions, network: DualEncoder) -> LossOptions:
    """The loss starts from the scale that the encoders were trained with, unless told otherwise."""
    return replace(options, scale=network.scale) if options.scale is None else options


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no cuda device here; use --device cpu or auto")
    return torch.device(name)


def _write_metrics(run: Path, history: list[Epoch]) -> None:
    lines = [json.dumps(asdict(epoch)) for epoch in history]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
