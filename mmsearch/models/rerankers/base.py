"""The contract of a reranker: it looks at a query and a candidate together, which a dual encoder never does."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import VectorError

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
        """What the tokens of one image take in memory, as float16; kept with an index they take about half."""
        return 2 * int(np.prod(self.token_shape))


@dataclass(frozen=True)
class Cost:
    """Seconds that one image takes: ``look`` to make its tokens, ``score`` to score them against a text."""

    look: float
    score: float


class Reranker(ABC):
    """Scores one text against many images. The part that depends on the image alone is a step of its own, so that an
    index can keep what it gives; methods may be called from several threads.

    One of your own sets ``spec`` and has the three abstract methods::

        class Brightness(Reranker):
            def __init__(self, options=None, encoder=None):  # each is left out where the constructor does not take it
                self.spec = RerankerSpec("my_rerankers:Brightness", digest="brightness-1", token_shape=(1,))

            def prepare_image(self, image):
                return np.asarray(image.convert("L").resize((16, 16)))

            def tokens_of_prepared(self, inputs):
                return (inputs.reshape(len(inputs), 256).mean(axis=1, keepdims=True) / 255).astype(np.float16)

            def score_tokens(self, text, tokens):
                return tokens[:, 0].astype(np.float32) * (1 if "bright" in text else -1)

    ``mmsearch query TEXT --rerank my_rerankers:Brightness`` and `open_reranker` open it by that name.
    """

    spec: RerankerSpec
    input_size: int = 320
    """The shorter side, in pixels, that an image must have for ``prepare_image`` to lose nothing."""
    batch_size: int = 8
    """How many images one call of ``tokens_of_prepared`` should get."""
    tokens_have_places: bool = True
    """Whether tokens in a square are a grid over the picture, of which a heat map can be drawn."""
    _cost: Cost | None = None

    @abstractmethod
    def prepare_image(self, image: Image) -> npt.NDArray[Any]:
        """An upright RGB image to the array of one model input, without the batch axis."""

    @abstractmethod
    def tokens_of_prepared(self, inputs: npt.NDArray[Any]) -> TokenArray:
        """Stacked outputs of ``prepare_image``, n of 1 or more, to (n, *token_shape) float16."""

    @abstractmethod
    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """How well a text fits each of n images, (n,): the logarithm of the odds that they belong together, up to a
        constant of the text.

        A score does not depend on the other images.
        """

    def image_tokens(self, images: Sequence[Image]) -> TokenArray:
        """n upright RGB images to (n, *token_shape) float16, in batches of ``batch_size``; n may be 0."""
        parts = [np.zeros((0, *self.spec.token_shape), dtype=np.float16)]
        for start in range(0, len(images), self.batch_size):
            batch = images[start : start + self.batch_size]
            parts.append(self.tokens_of_prepared(np.stack([self.prepare_image(image) for image in batch])))
        return np.concatenate(parts)

    def score(self, text: str, images: Sequence[Image]) -> FloatArray:
        """``score_tokens`` of images whose tokens were not kept."""
        return self.score_tokens(text, self.image_tokens(images))

    def cost(self) -> Cost:
        """What an image costs on this machine, measured once on grey ones; everything is loaded on the way."""
        if self._cost is None:
            from PIL import Image

            grey = Image.new("RGB", (self.input_size, self.input_size), (128, 128, 128))
            self.score("a photo", [grey])  # the first run loads and allocates
            looked = time.perf_counter()
            tokens = self.image_tokens([grey])
            scored = time.perf_counter()
            self.score_tokens("a photo of two things", tokens)
            self._cost = Cost(scored - looked, time.perf_counter() - scored)
        return self._cost

    def mixed(self, first: FloatArray, scores: FloatArray) -> FloatArray:
        """First-stage cosines and own scores as one number to sort by, both (n,).

        Among the candidates of one query both are centred and set to spread 1, then added, the own score with the
        weight ``spec.mix``: a cosine and a logarithm of odds have no unit in common.
        """
        together: FloatArray = standard(first) + np.float32(self.spec.mix) * standard(scores)
        return together

    def check_tokens(self, tokens: TokenArray) -> None:
        """Refuses tokens that are not this reranker's.

        Raises:
            VectorError: naming both shapes.
        """
        if tokens.shape[1:] != self.spec.token_shape:
            raise VectorError(
                f"image tokens have the shape {tokens.shape[1:]}; the reranker {self.spec.name} takes "
                f"{self.spec.token_shape}, as its image_tokens makes them"
            )


def standard(values: FloatArray) -> FloatArray:
    """Values with mean 0 and standard deviation 1; all 0 where they do not differ."""
    spread = float(values.std()) if len(values) else 0.0
    if spread <= 1e-6:
        return np.zeros(len(values), dtype=np.float32)
    scaled: FloatArray = ((values - values.mean()) / spread).astype(np.float32)
    return scaled
