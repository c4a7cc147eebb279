"""The state of a training run: weights, their average, the optimizer, the epochs so far. What a checkpoint holds."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmsearch.core.errors import UsageError
from mmsearch.evaluate.metrics import two_way_recall
from mmsearch.training.batches import Batches
from mmsearch.training.dual_encoder import DualEncoder
from mmsearch.training.losses import Objective
from mmsearch.training.options import Epoch, Stage, TrainOptions
from mmsearch.training.pairs import Pairs
from mmsearch.training.steps import backward
from mmsearch.training.views import ImageFeed


class Trainer:
    """The state of a run: what a checkpoint holds."""

    def __init__(self, network: DualEncoder, objective: Objective, options: TrainOptions, batches: int) -> None:
        self.network, self.objective, self.options = network, objective, options
        heads, rest = network.parameter_groups()
        decay = options.weight_decay
        constants = [p for p in objective.parameters() if p.requires_grad]
        groups = [
            {"params": heads, "lr": options.learning_rate, "weight_decay": decay},
            {"params": rest, "lr": options.encoder_rate, "weight_decay": decay},
            {"params": constants, "lr": options.learning_rate, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups)
        self.rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.learning = [*heads, *rest]
        self.average = [p.detach().clone() for p in self.learning]
        self.begun = [p.detach().clone() for p in self.learning] if options.blend < 1 else []
        self.steps_an_epoch = max(1, math.ceil(batches / options.accumulate))
        self.history: list[Epoch] = []
        self.best: list[Tensor] = []
        self.best_epoch = 0

    def run_epoch(self, batches: Batches, epoch: int, progress: Callable[[Stage], None]) -> float:
        """One pass over the images; returns the mean loss."""
        options = self.options
        self.network.train()
        losses: list[float] = []
        step = epoch * self.steps_an_epoch
        for number, batch in enumerate(batches.epoch(epoch), 1):
            with torch.autocast(batch.groups.device.type, torch.bfloat16, enabled=self._narrow(batch.groups.device)):
                seed = (options.seed * 1_000_003 + epoch) * 1_000_003 + number
                losses.append(backward(self.network, self.objective, batch, options.step, seed))
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
        """Runs ``measure`` with the averaged weights in the encoders."""
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
        """Puts the weights of the best epoch into the encoders, which then answer as an encoder does; with
        ``options.blend``, so far from where they began.
        """
        if self.best:
            self._put(self.best)
        if self.begun:
            self._put([a.lerp(p.detach(), self.options.blend) for a, p in zip(self.begun, self.learning, strict=True)])
        self.network.eval()

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


_TEXTS = 128


class HeldOut:
    """The dev split: what the frozen parts give for it is worked out once."""

    def __init__(self, network: DualEncoder, dev: Pairs, feed: ImageFeed, device: torch.device) -> None:
        self.network, self.feed, self.device = network, feed, device
        self.texts = [text for captions in dev.captions for text in captions]
        self.owners = [[row] for row, captions in enumerate(dev.captions) for _ in captions]
        self.order = sorted(range(len(self.texts)), key=lambda i: len(self.texts[i]))
        self.kept: list[tuple[Tensor, ...]] = []

    def recalls(self) -> dict[str, float]:
        """R@1, 5 and 10 in both directions on the vectors that the exported encoder will give."""
        self.network.eval()
        with torch.no_grad():
            if not self.kept:
                self.kept = [self._start(begin) for begin in range(0, len(self.order), _TEXTS)]
            images = torch.cat([self.network.image_rest(kept).vectors.float().cpu() for kept in self.feed.plain()])
            texts = torch.cat([self.network.text_rest(kept).vectors.float().cpu() for kept in self.kept])
        self.network.train()
        owners = [self.owners[i] for i in self.order]
        return two_way_recall(texts.numpy(), images.numpy(), owners).recalls()

    def _start(self, begin: int) -> tuple[Tensor, ...]:
        texts = [self.texts[i] for i in self.order[begin : begin + _TEXTS]]
        return self.network.text_start(torch.from_numpy(self.network.tokenize(texts)).to(self.device))
