"""Training two towers on pairs: ``fit`` reads like its line.

pairs → views (frozen part worked out once) → batches → loss → steps → average → dev recall → keep the best
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmsearch.errors import UsageError
from mmsearch.metrics import two_way_recall
from mmsearch.training.batches import Batches
from mmsearch.training.curves import write_curves
from mmsearch.training.losses import LossOptions, Objective
from mmsearch.training.pairs import Pairs
from mmsearch.training.steps import StepOptions, backward
from mmsearch.training.towers import Towers
from mmsearch.training.views import ImageFeed, ViewOptions

CHECKPOINT = "checkpoint.pt"
_DEV_TEXTS = 128
Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True)
class TrainOptions:
    """How to train; ``loss``, ``views`` and ``step`` have their own options.

    ``batch_size`` images with ``captions`` captions each; ``accumulate`` batches make one step. With
    ``neighbours`` above 1, a batch is made of groups of so many images that the towers find alike before training:
    each other's hard negatives. Rates are those
    of AdamW: ``learning_rate`` for projections, ``tower_rate`` for the rest; both rise over the first ``warm_up``
    of all steps and fall to 0 on a cosine. ``average``: decay of the moving average of the weights, which is what
    is judged and kept (0: the weights themselves). ``patience``: epochs without a better dev recall before
    training ends (0: never). ``precision`` ``auto`` is bfloat16 on a GPU and float32 on a CPU; ``bf16`` pays on CPUs
    that multiply it. ``threads`` of torch on a CPU.
    """

    epochs: int = 10
    batch_size: int = 256
    captions: int = 1
    accumulate: int = 1
    neighbours: int = 1
    learning_rate: float = 1e-3
    tower_rate: float = 2e-5
    weight_decay: float = 0.05
    warm_up: float = 0.05
    average: float = 0.99
    patience: int = 0
    seed: int = 0
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    workers: int = 2
    loss: LossOptions = field(default_factory=LossOptions)
    views: ViewOptions = field(default_factory=ViewOptions)
    step: StepOptions = field(default_factory=StepOptions)

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "captions", "accumulate", "neighbours", "learning_rate", "workers")
        for name in positive:
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} must be above 0, found {getattr(self, name)}")
        if not (0 <= self.warm_up < 1 and 0 <= self.average < 1):
            raise UsageError(f"warm_up and average must lie in [0, 1), found {self.warm_up} and {self.average}")


@dataclass(frozen=True)
class Stage:
    """Where training stands, for a progress bar: ``done`` of ``total`` steps of what ``name`` says."""

    name: str
    done: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Epoch:
    """One epoch's figures; recalls are those of the dev split in fractions, by the weights that are kept."""

    epoch: int
    loss: float
    scale: float
    seconds: float
    recalls: dict[str, float]

    @property
    def score(self) -> float:
        """What the best epoch is chosen by: the mean of all recalls."""
        return float(np.mean(list(self.recalls.values())))


@dataclass(frozen=True)
class Fitted:
    """What came out: every epoch, and which one's weights the towers now have."""

    epochs: tuple[Epoch, ...]
    best: int


def fit(
    towers: Towers,
    train: Pairs,
    dev: Pairs,
    options: TrainOptions,
    run: Path,
    *,
    resume: bool = False,
    progress: Callable[[Stage], None] = lambda stage: None,
) -> Fitted:
    """Trains ``towers`` in place and leaves the weights of the best epoch in them.

    ``run`` gets ``config.json``, ``metrics.jsonl``, ``curves.svg`` and a checkpoint an epoch. A run that was
    interrupted goes on with ``resume`` and ends with exactly the weights of one that was not: everything random
    depends on the seed, the epoch and the step alone.

    Raises:
        UsageError: ``run`` holds another run's checkpoint, or training diverged.
    """
    device = _device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    towers.to(device)
    run.mkdir(parents=True, exist_ok=True)

    def note(stage: str, done: int, total: int) -> None:
        progress(Stage(stage, done, total))

    common: dict[str, Any] = {"seed": options.seed, "device": device, "workers": options.workers, "progress": note}
    feed = ImageFeed(towers, train.images, options.views, run / "cache" / "train", **common)
    dev_feed = ImageFeed(towers, dev.images, None, run / "cache" / "dev", **common)
    try:
        batches = Batches(towers, train, feed, options.batch_size, options.captions, options.seed, device)
        if options.step.words_weight:
            batches.find_words()
        if options.neighbours > 1:
            batches.find_neighbours(options.neighbours)
        towers.begin(batches.sample_images(), batches.sample_texts())
        trainer = _Trainer(towers, Objective(_from_towers(options.loss, towers)).to(device), options, len(batches))
        config = {**asdict(options), "towers": towers.describe(), "images": len(train), "dev_images": len(dev)}
        held_out = _Dev(towers, dev, dev_feed, device)
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
        towers.take_scale(
            float(objective.scale.detach()), float(objective.bias.detach()) if options.loss.name == "sigmoid" else None
        )
        return Fitted(tuple(trainer.history), trainer.best_epoch)
    finally:
        feed.close()
        dev_feed.close()


class _Dev:
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
                self.kept = [self._start(begin) for begin in range(0, len(self.order), _DEV_TEXTS)]
            images = torch.cat([self.towers.image_rest(kept).vectors.float().cpu() for kept in self.feed.plain()])
            texts = torch.cat([self.towers.text_rest(kept).vectors.float().cpu() for kept in self.kept])
        self.towers.train()
        owners = [self.owners[i] for i in self.order]
        return two_way_recall(texts.numpy(), images.numpy(), owners).recalls()

    def _start(self, begin: int) -> tuple[Tensor, ...]:
        texts = [self.texts[i] for i in self.order[begin : begin + _DEV_TEXTS]]
        return self.towers.text_start(torch.from_numpy(self.towers.tokenize(texts)).to(self.device))


class _Trainer:
    """The state of a run: what a checkpoint holds."""

    def __init__(self, towers: Towers, objective: Objective, options: TrainOptions, batches: int) -> None:
        self.towers, self.objective, self.options = towers, objective, options
        heads, rest = towers.parameter_groups()
        decay = options.weight_decay
        constants = [p for p in objective.parameters() if p.requires_grad]
        groups = [
            {"params": heads, "lr": options.learning_rate, "weight_decay": decay},
            {"params": rest, "lr": options.tower_rate, "weight_decay": decay},
            {"params": constants, "lr": options.learning_rate, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.learning = [*heads, *rest]
        self.average = [p.detach().clone() for p in self.learning]
        self.steps_an_epoch = max(1, math.ceil(batches / options.accumulate))
        self.history: list[Epoch] = []
        self.best: list[Tensor] = []
        self.best_epoch = 0

    def run_epoch(self, batches: Batches, epoch: int, progress: Callable[[Stage], None]) -> float:
        """One pass over the images; returns the mean loss."""
        options = self.options
        self.towers.train()
        losses: list[float] = []
        step = epoch * self.steps_an_epoch
        for number, batch in enumerate(batches.epoch(epoch), 1):
            with torch.autocast(batch.groups.device.type, torch.bfloat16, enabled=self._narrow(batch.groups.device)):
                seed = (options.seed * 1_000_003 + epoch) * 1_000_003 + number
                losses.append(backward(self.towers, self.objective, batch, options.step, seed))
            if not math.isfinite(losses[-1]):
                raise UsageError(
                    f"training diverged in epoch {epoch + 1}: the loss is {losses[-1]}; try a smaller learning rate"
                )
            if number % options.accumulate == 0 or number == len(batches):
                self._step(
                    step, options.accumulate if number % options.accumulate == 0 else number % options.accumulate
                )
                step += 1
            progress(Stage(f"epoch {epoch + 1}/{options.epochs}", number, len(batches), f"loss {np.mean(losses):.3f}"))
        return float(np.mean(losses))

    def _narrow(self, device: torch.device) -> bool:
        if self.options.precision == "auto":
            return device.type == "cuda" and torch.cuda.is_bf16_supported()
        return self.options.precision == "bf16"

    def _step(self, step: int, batches: int) -> None:
        factor = schedule(step, self.steps_an_epoch * self.options.epochs, self.options.warm_up)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
            for parameter in group["params"]:
                if parameter.grad is not None and batches > 1:
                    parameter.grad /= batches
        self.optimizer.step()
        self.optimizer.zero_grad()
        # The average of the first steps would remember the beginning for too long.
        decay = min(self.options.average, (step + 1) / (step + 11)) if self.options.average else 0.0
        with torch.no_grad():
            for mean, parameter in zip(self.average, self.learning, strict=True):
                mean.lerp_(parameter, 1 - decay)

    def with_average(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Runs ``measure`` with the averaged weights in the towers."""
        own = [p.detach().clone() for p in self.learning]
        self._put(self.average)
        result = measure()
        self._put(own)
        return result

    def keep(self, epoch: Epoch) -> None:
        """Adds an epoch to the history; its weights are kept if it is the best so far."""
        if not self.history or epoch.score > max(e.score for e in self.history):
            self.best, self.best_epoch = [w.clone() for w in self.average], epoch.epoch
        self.history.append(epoch)

    def is_stuck(self) -> bool:
        """Whether dev recall has not risen for ``patience`` epochs."""
        patience = self.options.patience
        return bool(patience) and len(self.history) - self.best_epoch >= patience

    def take_best(self) -> None:
        """Puts the weights of the best epoch into the towers, which then answer as an encoder does."""
        if self.best:
            self._put(self.best)
        self.towers.eval()

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Writes the state whole or not at all."""
        state = {
            "config": json.dumps(config),
            "learning": [p.detach() for p in self.learning],
            "average": self.average,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": [asdict(epoch) for epoch in self.history],
            "best": self.best,
            "best_epoch": self.best_epoch,
        }
        temporary = path.with_suffix(".new")
        torch.save(state, temporary)
        temporary.replace(path)

    def restore(self, path: Path, config: dict[str, Any]) -> int:
        """Takes up a saved state; returns the number of epochs that it has behind it, 0 if there is none."""
        if not path.is_file():
            return 0
        state = torch.load(path, map_location=self.learning[0].device, weights_only=True)
        saved = json.loads(state["config"])
        now = json.loads(json.dumps(config))
        different = sorted(key for key in {*saved, *now} if saved.get(key) != now.get(key))
        if different:
            raise UsageError(
                f"{path.parent} holds a run with other settings ({', '.join(different)}): "
                "resume it with the same ones, or choose another directory"
            )
        self._put(state["learning"])
        self.average, self.best, self.best_epoch = state["average"], state["best"], state["best_epoch"]
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self.history = [Epoch(**epoch) for epoch in state["history"]]
        return len(self.history)

    def _put(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self.learning, weights, strict=True):
                parameter.copy_(weight)


def schedule(step: int, steps: int, warm_up: float) -> float:
    """The factor of the learning rate at a step: a straight rise over ``warm_up``, then half a cosine to 0."""
    rise = max(1, round(warm_up * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def _from_towers(options: LossOptions, towers: Towers) -> LossOptions:
    """The loss starts from the scale that the towers were trained with, unless told otherwise."""
    return replace(options, scale=towers.scale) if options.scale is None else options


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("torch finds no cuda device here; use --device cpu or auto")
    return torch.device(name)


def _write_metrics(run: Path, history: list[Epoch]) -> None:
    lines = [json.dumps(asdict(epoch)) for epoch in history]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recalls = {name: [e.recalls[name] for e in history] for name in history[0].recalls}
    write_curves(run / "curves.svg", {"loss": [e.loss for e in history]}, recalls)


__all__ = ["Epoch", "Fitted", "Stage", "TrainOptions", "fit", "schedule"]
