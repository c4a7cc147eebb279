"""The contract of dual encoders that learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]
Tokens = npt.NDArray[np.int64]


class ImageRows(NamedTuple):
    """``learned`` (n, dim) of length 1, which the loss compares; ``vectors`` (n, d) of length 1, what the exported
    encoder gives; ``drift``: a penalty for forgetting, 0 where the encoders have none.
    """

    learned: Tensor
    vectors: Tensor
    drift: Tensor


class TextRows(NamedTuple):
    """``learned`` (n, dim) and ``vectors`` (n, d), as in ``ImageRows``."""

    learned: Tensor
    vectors: Tensor


class DualEncoder(nn.Module, ABC):
    """Two encoders that learn. The frozen start of each is a function of its own, so that what it gives can be kept.

    Which parameters learn is decided when the encoders are made and shows in their ``requires_grad``.
    """

    name: str
    image_size: int
    """Pixels of the shorter side that ``view`` can use."""

    @abstractmethod
    def view(self, image: Image, box: tuple[float, float, float, float] | None, size: int | None = None) -> Pixels:
        """A picture to (h, w, 3): as the exported encoder sees it, or only what lies in ``box`` (left, top, right,
        bottom in pixels). ``size``: another side than the encoder's own, for encoders that take pictures of any size.
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
        """(projections, encoders): the parameters that learn; encoders take smaller steps."""

    @abstractmethod
    def begin(self, kept: tuple[Tensor, ...], texts: Tensor) -> None:
        """Called once before training with a sample: what ``image_start`` gave, and token ids."""

    def settle(self, captions: Sequence[str]) -> None:
        """Called once after training, before ``export``, with captions that it learned from."""

    @abstractmethod
    def export(self, directory: Path) -> None:
        """Writes an encoder that ``open_encoder`` opens; ``directory`` exists."""

    def known_queries(self, kept: tuple[Tensor, ...], random: np.random.Generator) -> tuple[list[str], Tensor] | None:
        """Short texts of which the frozen part knows how well each image of a batch fits: (texts, (texts, images)
        shares of 0 to 1), or ``None``. Learning from them keeps what the encoders knew before.
        """
        return None

    @property
    def caption_numbers(self) -> int | None:
        """So many numbers of a vector, from the first, tell captions apart; ``None``: all of them."""
        return None

    @property
    def scale(self) -> float | None:
        """1 / temperature that the encoders were trained with, where they know it."""
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
        heads, network = self.parameter_groups()
        return {
            "parameters": sum(p.numel() for p in self.parameters()),
            "learning_in_projections": sum(p.numel() for p in heads),
            "learning_in_encoders": sum(p.numel() for p in network),
        }
