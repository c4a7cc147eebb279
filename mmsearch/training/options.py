"""How to train, where training stands, and what came of it. Nothing here needs torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Literal

from mmsearch.core.errors import UsageError
from mmsearch.core.options import Options, option

LossName = Literal["infonce", "triplet", "sigmoid"]


@dataclass(frozen=True)
class Freezing:
    """How much learns: the projections into the shared space and the last ``blocks`` blocks of each encoder.

    ``None`` is everything; 0 is the projections alone. ``text_blocks`` is for another number in the text encoder. With
    ``rank`` above 0, the matrices of those blocks learn by low-rank updates (LoRA) of that rank, and nothing else of
    them does.
    """

    blocks: int | None = 0
    text_blocks: int | None = None
    rank: int = 0

    @classmethod
    def parse(cls, text: str) -> Freezing:
        """``heads``, ``all``, ``last:N`` with N of 1 or more, or ``last:N,M`` (image encoder, text encoder).

        ``lora:R`` is ``all`` by low-rank updates of rank R, ``lora:R,last:N`` the last N blocks by such.
        """
        low = re.fullmatch(r"lora:([1-9]\d{0,2})(?:,(last:.*))?", text)
        if low is not None:
            return replace(cls.parse(low[2] or "all"), rank=int(low[1]))
        if text in ("heads", "all"):
            return cls(0 if text == "heads" else None)
        match = re.fullmatch(r"last:([1-9]\d?)(?:,([1-9]\d?))?", text)
        if match is None:
            raise UsageError(
                f"what learns is {text!r}; expected heads, last:N (the last N blocks of both encoders), "
                "last:N,M (of the image encoder, of the text encoder), all, lora:R or lora:R,last:N "
                "(low-rank updates of rank R)"
            )
        return cls(int(match[1]), int(match[2]) if match[2] else None)

    def __str__(self) -> str:
        blocks = {None: "all", 0: "heads"}.get(self.blocks, f"last:{self.blocks}")
        if self.text_blocks is not None:
            blocks = f"last:{self.blocks},{self.text_blocks}"
        if not self.rank:
            return blocks
        return f"lora:{self.rank}" if self.blocks is None else f"lora:{self.rank},{blocks}"

    @property
    def of_text(self) -> int | None:
        """How many blocks of the text encoder learn."""
        return self.blocks if self.text_blocks is None else self.text_blocks


@dataclass(frozen=True)
class LossOptions(Options):
    """Which loss, and its constants. ``None`` for ``scale`` or ``bias`` takes what the paper starts with.

    ``scale`` is 1 / temperature, learned from there; ``bias`` only the sigmoid loss has; ``margin`` is the
    triplet loss's, in units of cosine; ``label_smoothing`` softens InfoNCE's targets, 0 up to 1.
    """

    name: LossName = option("infonce", "infonce, triplet or sigmoid.", flag="--loss", keyword="loss")
    scale: float | None = option(None, "1 / temperature to start from.", flag="--scale", above=0)
    bias: float | None = None
    margin: float = option(0.2, "Of the triplet loss.", above=0)
    label_smoothing: float = option(0.0, "Of InfoNCE.", least=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_below_one(label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class StepOptions(Options):
    """``piece``: images or texts that are encoded with their activations kept, at a time (``None``: all).

    ``words_weight`` of the loss of short queries and its ``words_scale`` (1 / temperature).
    """

    piece: int | None = option(
        None, "Encode so many at a time, with cached gradients: less memory.", flag="--piece", least=1
    )
    words_weight: float = option(0.0, "Weight of one-word queries made from captions.", flag="--words", least=0)
    words_scale: float = 15.0


@dataclass(frozen=True)
class ViewOptions(Options):
    """How far random views may go from the picture.

    ``smallest`` fraction of the area that a crop keeps; ``aspect`` by which its aspect ratio may change, at
    most; ``mirror`` probability; ``colour``: brightness and contrast change by up to this fraction, saturation
    by half as much again. ``cached`` views of each picture are made once and what the frozen part of the encoder
    gives for them is kept on the disk (the first is the plain picture, the second its mirror image); 0 makes
    fresh ones in every epoch. ``size`` of the views in pixels, where it is not the encoder's own: smaller ones learn
    faster, and crops look as large in them as whole pictures do later (Touvron et al., 2019, "Fixing the train-test
    resolution discrepancy", https://arxiv.org/abs/1906.06423).
    """

    smallest: float = 0.35
    aspect: float = 4 / 3
    mirror: float = 0.5
    colour: float = 0.2
    cached: int = option(
        0, "Random views of each image made once and kept; 0: new ones every epoch.", flag="--views", least=0
    )
    size: int | None = option(
        None, "Side of the views in pixels; smaller ones learn faster (built-in).", flag="--view-size", least=32
    )


@dataclass(frozen=True)
class TrainOptions(Options):
    """How to train; ``loss``, ``views`` and ``step`` have their own options.

    ``batch_size`` images with ``captions`` captions each; ``accumulate`` batches make one step. With
    ``neighbours`` above 1, a batch is made of groups of so many images that the encoders find alike before training:
    each other's hard negatives. Rates are those
    of AdamW: ``learning_rate`` for projections, ``encoder_rate`` for the rest; both rise over the first ``warm_up``
    of all steps and fall to 0 on a cosine. ``average``: decay of the moving average of the weights, which is what
    is judged and kept (0: the weights themselves). ``patience``: epochs without a better dev recall before
    training ends (0: never). ``precision`` ``auto`` is bfloat16 on a GPU and float32 on a CPU; ``bf16`` pays on CPUs
    that multiply it. ``threads`` of torch on a CPU. ``blend``: how far the weights at the end go from those at the
    beginning to those of the best epoch, 1 being all the way. Halfway often beats both where the encoders were trained
    before (Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", https://arxiv.org/abs/2109.01903).
    """

    epochs: int = option(10, "Passes over the images.", flag="--epochs", least=1)
    batch_size: int = option(256, "Images in a batch.", flag="--batch-size", least=2)
    captions: int = option(1, "Captions of each image in a batch.", flag="--captions", least=1)
    accumulate: int = option(1, "Batches that make one step.", flag="--accumulate", least=1)
    neighbours: int = option(
        1, "Images of a batch that come with their nearest ones: hard negatives.", flag="--neighbours", least=1
    )
    learning_rate: float = option(1e-3, "Learning rate of the projections.", flag="--rate", above=0)
    encoder_rate: float = option(
        2e-5, "Learning rate of everything else.", flag="--encoder-rate", old="tower_rate", least=0
    )
    weight_decay: float = 0.05
    warm_up: float = option(0.05, "Share of the steps over which rates rise.", least=0)
    average: float = option(0.99, "Decay of the average of the weights.", flag="--average", least=0)
    blend: float = option(
        1.0, "How far to go from the old weights to the new; 1: all the way.", flag="--blend", above=0, most=1
    )
    patience: int = option(0, "Stop after so many epochs without gain; 0: never.", flag="--patience", least=0)
    seed: int = option(0, "Decides everything random.", flag="--seed")
    device: Literal["auto", "cpu", "cuda"] = option("auto", "auto, cpu or cuda.", flag="--device")
    precision: Literal["auto", "bf16", "fp32"] = option("auto", "auto, bf16 or fp32.", flag="--precision")
    threads: int | None = option(None, "CPU threads of torch.", flag="--threads", least=1)
    workers: int = option(2, "Threads that read images.", least=1)
    loss: LossOptions = field(default_factory=LossOptions)
    views: ViewOptions = field(default_factory=ViewOptions)
    step: StepOptions = field(default_factory=StepOptions)

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_below_one(warm_up=self.warm_up, average=self.average)


@dataclass(frozen=True)
class BuiltinModelOptions(Options):
    """The size of projections that are made anew, and how the two spaces share the score of a text.

    ``joint`` dimensions of the learned space, ``hidden`` units of its projections; ``dropout`` inside them.
    ``share`` of the learned space for captions and ``name_share`` for names of things; the rest is ConSE's. A text's
    half is weighed by the root of its share. ``keep_classes`` weighs the penalty
    for changing what the classifier and the layer of objects find in a picture, which keeps both alive while the trunk
    learns. ``class_queries``: so many names of ImageNet classes a batch are short queries of their own. ``prototypes``:
    so many classes a batch, of all 1000, are shown as features made up from the classifier's weights, which keeps the
    names of what no training picture shows; ``prototype_weight`` of that loss.
    """

    joint: int = 512
    image_hidden: int = 2048
    text_hidden: int = 1024
    dropout: float = 0.5
    share: float = option(0.97, "Share of the learned space in captions (built-in).", flag="--share", least=0, most=1)
    name_share: float = 0.6
    keep_classes: float = 1.0
    class_queries: int = 96
    prototypes: int = 64
    prototype_weight: float = 0.5


@dataclass(frozen=True)
class FusionOptions:
    """The size of a reranker: ``features`` that it makes of the grid; ``width`` channels of a kept image token, in
    ``heads`` that each word attends with; ``layers`` of the transformer, ``inner`` channels wide with
    ``inner_heads``; ``dropout`` while it learns, and ``places_dropped`` of the grid.
    """

    features: int = 1280
    width: int = 256
    heads: int = 1
    layers: int = 1
    inner: int = 128
    inner_heads: int = 4
    dropout: float = 0.2
    places_dropped: float = 0.2


@dataclass(frozen=True)
class RerankerOptions:
    """How to train. A batch has ``batch_size`` images, each with one of its captions, in groups of ``neighbours`` that
    the encoder finds alike: each other's hard negatives. Every caption is compared with every image of its batch by
    the first part of the network, with the contrastive loss over all pairs. In the last ``list_epochs`` the whole
    network learns as well: a list of the caption's image and the ``candidates`` - 1 others that fit best so far gives
    ``list_weight`` times the cross-entropy over it and ``itm_weight`` of the binary loss of its pairs. An epoch shows
    every image ``passes`` times, half of them mirrored. ``average``: decay of the moving average of the weights, which
    is judged and kept. ``dev_queries`` captions and their first ``top`` candidates judge.
    """

    epochs: int = 8
    passes: int = 2
    batch_size: int = 64
    neighbours: int = 8
    candidates: int = 5
    list_epochs: int = 3
    rate: float = 1e-3
    weight_decay: float = 0.05
    list_weight: float = 1.0
    itm_weight: float = 0.5
    average: float = 0.99
    dev_queries: int = 1000
    top: int = 50
    seed: int = 0
    threads: int | None = None
    fusion: FusionOptions = field(default_factory=FusionOptions)


def _check_below_one(**values: float) -> None:
    for name, value in values.items():
        if value >= 1:
            raise UsageError(f"{name} must be below 1, got {value:g}")


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
        return sum(self.recalls.values()) / len(self.recalls)


@dataclass(frozen=True)
class Fitted:
    """What came out: every epoch, and which one's weights the encoders now have."""

    epochs: tuple[Epoch, ...]
    best: int
