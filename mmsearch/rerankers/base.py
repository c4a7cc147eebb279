"""The contract of a reranker: it looks at a query and a candidate together, which two towers never do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = npt.NDArray[np.float32]
TokenArray = npt.NDArray[np.float16]


@dataclass(frozen=True)
class RerankerSpec:
    """The identity of a reranker. ``encoder_digest`` names the encoder whose first stage it was trained after (empty:
    any). ``token_shape`` is what one image takes when its tokens are kept; two rerankers with equal ``digest``
    understand each other's tokens. ``mix`` is the weight of its own score beside the first stage's; see ``mixed``.
    """

    name: str
    digest: str
    token_shape: tuple[int, ...]
    encoder_digest: str = ""
    mix: float = 1.0

    @property
    def bytes_per_image(self) -> int:
        """What keeping the tokens of one image costs."""
        return 2 * int(np.prod(self.token_shape))


class Reranker(ABC):
    """Scores one text against many images. The part that depends on the image alone is a step of its own, so that an
    index can keep what it gives; methods may be called from several threads.
    """

    spec: RerankerSpec

    @abstractmethod
    def image_tokens(self, images: Sequence[Image]) -> TokenArray:
        """n upright RGB images to (n, *token_shape) float16; n may be 0."""

    @abstractmethod
    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """How well a text fits each of n images, (n,): the logarithm of the odds that they belong together.

        A score does not depend on the other images.
        """

    def score(self, text: str, images: Sequence[Image]) -> FloatArray:
        """``score_tokens`` of images whose tokens were not kept."""
        return self.score_tokens(text, self.image_tokens(images))

    def mixed(self, first: FloatArray, scores: FloatArray) -> FloatArray:
        """First-stage cosines and own scores as one number to sort by, both (n,).

        Among the candidates of one query both are centred and set to spread 1, then added, the own score with the
        weight ``spec.mix``: a cosine and a logarithm of odds have no unit in common.
        """
        together: FloatArray = standard(first) + np.float32(self.spec.mix) * standard(scores)
        return together


def standard(values: FloatArray) -> FloatArray:
    """Values with mean 0 and standard deviation 1; all 0 where they do not differ."""
    spread = float(values.std()) if len(values) else 0.0
    if spread <= 1e-6:
        return np.zeros(len(values), dtype=np.float32)
    scaled: FloatArray = ((values - values.mean()) / spread).astype(np.float32)
    return scaled
