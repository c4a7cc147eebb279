"""How to train, where training stands, and what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.training.losses import LossOptions
from mmsearch.training.steps import StepOptions
from mmsearch.training.views import ViewOptions

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
    that multiply it. ``threads`` of torch on a CPU. ``blend``: how far the weights at the end go from those at the
    beginning to those of the best epoch, 1 being all the way. Halfway often beats both where the towers were trained
    before (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", https://arxiv.org/abs/2109.01903).
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
    blend: float = 1.0
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
        if not 0 < self.blend <= 1:
            raise UsageError(f"blend must lie in (0, 1], found {self.blend}")


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
