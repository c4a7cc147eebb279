"""The contract of towers that learn, and how much of them does."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from mmsearch.core.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]
Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Freezing:
    """How much learns: the projections into the shared space and the last ``blocks`` blocks of each tower.

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


class ImageRows(NamedTuple):
    """``learned`` (n, dim) of length 1, which the loss compares; ``vectors`` (n, d) of length 1, what the exported
    encoder gives; ``drift``: a penalty for forgetting, 0 where the towers have none.
    """

    learned: Tensor
    vectors: Tensor
    drift: Tensor


class TextRows(NamedTuple):
    """``learned`` (n, dim) and ``vectors`` (n, d), as in ``ImageRows``."""

    learned: Tensor
    vectors: Tensor


class Towers(nn.Module, ABC):
    """Two towers that learn. The frozen start of each is a function of its own, so that what it gives can be kept.

    Which parameters learn is decided when the towers are made and shows in their ``requires_grad``.
    """

    name: str
    image_size: int
    """Pixels of the shorter side that ``view`` can use."""

    @abstractmethod
    def view(self, image: Image, box: tuple[float, float, float, float] | None, size: int | None = None) -> Pixels:
        """A picture to (h, w, 3): as the exported encoder sees it, or only what lies in ``box`` (left, top, right,
        bottom in pixels). ``size``: another side than the tower's own, for towers that take pictures of any size.
        """

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tokens:
        """n texts to (n, length) token ids, as the exported encoder reads them, padded with 0."""

    @abstractmethod
    def image_start(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """(n, h, w, 3) uint8 through the part that does not learn: tensors of n rows."""

    @abstractmethod
    def image_rest(self, kept: tuple[Tensor, ...]) -> ImageRows:
        """From what ``image_start`` gave."""

    @abstractmethod
    def text_start(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """(n, length) token ids through the part that does not learn: tensors of n rows."""

    @abstractmethod
    def text_rest(self, kept: tuple[Tensor, ...]) -> TextRows:
        """From what ``text_start`` gave."""

    @abstractmethod
    def parameter_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """(projections, towers): the parameters that learn; towers take smaller steps."""

    @abstractmethod
    def begin(self, kept: tuple[Tensor, ...], texts: Tensor) -> None:
        """Called once before training with a sample: what ``image_start`` gave, and token ids."""

    @abstractmethod
    def export(self, directory: Path) -> None:
        """Writes an encoder that ``open_encoder`` opens; ``directory`` exists."""

    def known_queries(self, kept: tuple[Tensor, ...], random: np.random.Generator) -> tuple[list[str], Tensor] | None:
        """Short texts of which the frozen part knows how well each image of a batch fits: (texts, (texts, images)
        shares of 0 to 1), or ``None``. Learning from them keeps what the towers knew before.
        """
        return None

    @property
    def caption_numbers(self) -> int | None:
        """So many numbers of a vector, from the first, tell captions apart; ``None``: all of them."""
        return None

    @property
    def scale(self) -> float | None:
        """1 / temperature that the towers were trained with, where they know it."""
        return None

    def take_scale(self, scale: float, bias: float | None) -> None:
        """Told after training what the loss ended with."""

    def texts(self, tokens: Tensor) -> TextRows:
        """Both parts of the text encoder in one."""
        return self.text_rest(self.text_start(tokens))

    def images(self, pixels: Tensor) -> ImageRows:
        """Both parts of the image encoder in one."""
        return self.image_rest(self.image_start(pixels))

    def describe(self) -> dict[str, Any]:
        """What learns, in numbers, for the run directory."""
        heads, towers = self.parameter_groups()
        return {
            "parameters": sum(p.numel() for p in self.parameters()),
            "learning_in_projections": sum(p.numel() for p in heads),
            "learning_in_towers": sum(p.numel() for p in towers),
        }
