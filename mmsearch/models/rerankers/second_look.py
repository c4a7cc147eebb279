"""The shipped reranker of the built-in encoder: it looks at a picture again, and asks it for the words of the question.

No attention: 6,000 photos are too few to learn any. Instead

- the image encoder sees the mirrored picture and its middle, which errs elsewhere than the first look did;
- a reduced-rank ridge regression (Izenman, 1975, "Reduced-rank regression for the multivariate linear model") says of
  what these looks found how likely each word and pair of words is in a caption. The words of the question that are
  likelier here than usual speak for a picture, on the logarithmic scale of naive Bayes;
- the same regression says where in the learned half of the joint space the captions of such a picture lie on average;
- and a picture that lies near captions in general has a high hubness, and must fit the query better than another
  (`mmsearch.models.encoders.caption_centroids`).

All of it is one file beside the encoder's weights, ``second_look.npz``, which `scripts/fit_second_look.py` makes:
``format``, ``encoder`` (the encoder's digest), ``vocabulary`` (lines), of the inputs ``middle`` and ``spread`` float32
(dim + classes,), the matrices ``latent`` (rank, dim + classes), ``words`` (vocabulary, rank) and ``captions`` (learned,
rank), all three int8 with a ``…_scale`` for each row, and float32 ``usual`` (vocabulary,), ``typical`` (learned,),
``weights`` (4,) and ``mix``.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.arrays import dequantised, quantised
from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.caption_centroids import caption_shares, nearness
from mmsearch.models.encoders.views import MIDDLE, further_views
from mmsearch.models.rerankers.base import FloatArray, Reranker, RerankerSpec, TokenArray

if TYPE_CHECKING:
    from PIL.Image import Image

FILE = "second_look.npz"
FORMAT = 2
LOOKS = 2
LEAST = 0.2
"""No word is taken to be rarer than so many times its usual share: a regression cannot tell rare from very rare."""
_CHANNELS = 128
_MATRICES = ("latent", "words", "captions")
_WORD = re.compile(r"[a-z0-9]+")


def terms(text: str) -> set[str]:
    """The words of a text, in small letters, and its pairs of words that follow each other."""
    words = _WORD.findall(text.lower())
    return {*words, *(f"{first} {second}" for first, second in itertools.pairwise(words))}


@dataclass(frozen=True, eq=False)
class SecondLookModel:
    """What ``second_look.npz`` holds. All float32; ``dim`` of the encoder's vectors, ``rank`` of the regression."""

    encoder_digest: str
    vocabulary: tuple[str, ...]
    middle: FloatArray
    spread: FloatArray
    latent: FloatArray
    words: FloatArray
    usual: FloatArray
    captions: FloatArray
    typical: FloatArray
    weights: FloatArray
    """(4,): of the three `parts`, and of the picture's hubness."""
    mix: float

    @property
    def rank(self) -> int:
        """Figures that the regression needs of a picture."""
        return len(self.latent)

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {term: column for column, term in enumerate(self.vocabulary)}

    def columns(self, text: str) -> npt.NDArray[np.int64]:
        """The columns of the vocabulary that a text has, ascending."""
        return np.array(sorted(self._column_of[term] for term in terms(text) if term in self._column_of), np.int64)

    def latents(self, vectors: FloatArray, logits: FloatArray) -> FloatArray:
        """Vectors of length 1, (n, dim), and logits (n, classes), to what the regression needs of them, (n, rank)."""
        found: FloatArray = ((np.hstack([vectors, logits]) - self.middle) / self.spread) @ self.latent.T
        return found

    def parts(
        self, text: FloatArray, columns: npt.NDArray[np.int64], vectors: FloatArray, latents: FloatArray
    ) -> FloatArray:
        """What speaks for each of n pictures, (n, 3): the cosine with the ``text`` (dim,), how much likelier its words
        (``columns`` of the vocabulary) are than usual, and the agreement with the captions that are expected.
        """
        shares = np.clip(latents @ self.words[columns].T + self.usual[columns], LEAST * self.usual[columns], 1.0)
        expected = latents @ self.captions.T
        expected /= np.linalg.norm(expected, axis=1, keepdims=True) + 1e-9
        parts = [
            vectors @ text,
            np.log(shares / self.usual[columns]).sum(axis=1),
            expected @ (text[: len(self.typical)] - self.typical),
        ]
        return np.stack(parts, axis=1).astype(np.float32)

    def write(self, path: Path) -> None:
        """Writes the file; matrices lose what int8 cannot hold."""
        stored: dict[str, npt.NDArray[Any]] = {
            name: getattr(self, name) for name in ("middle", "spread", "usual", "typical", "weights")
        }
        for name in _MATRICES:
            matrix: FloatArray = getattr(self, name)
            stored[name], stored[f"{name}_scale"] = quantised(matrix, axis=1, smallest=1e-12)
        names = {
            "format": np.array(FORMAT),
            "encoder": np.array(self.encoder_digest),
            "vocabulary": np.array("\n".join(self.vocabulary)),
            "mix": np.array(self.mix),
        }
        np.savez_compressed(path, allow_pickle=False, **stored, **names)

    @classmethod
    def read(cls, path: Path) -> SecondLookModel:
        """Reads the file.

        Raises:
            ModelMissing: it cannot be opened.
            EncoderError: it cannot be understood.
        """
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                if int(stored["format"]) != FORMAT:
                    raise ValueError(f"layout {stored['format']}, this version of mmsearch reads {FORMAT}")
                plain = {
                    name: stored[name].astype(np.float32)
                    for name in ("middle", "spread", "usual", "typical", "weights")
                }
                matrices = {name: dequantised(stored[name], stored[f"{name}_scale"]) for name in _MATRICES}
                vocabulary = tuple(str(stored["vocabulary"]).split("\n"))
                model = cls(str(stored["encoder"]), vocabulary, mix=float(stored["mix"]), **plain, **matrices)
        except OSError as error:
            raise ModelMissing(f"{path} cannot be read ({error.strerror or error}); reinstall mmsearch") from error
        except Exception as error:  # a damaged archive raises whatever its readers stumble over
            raise EncoderError(f"{path} is no {FILE} ({type(error).__name__}: {error}); reinstall mmsearch") from error
        model._check(path)
        return model

    def _check(self, path: Path) -> None:
        rank, inputs = self.latent.shape
        expected = {
            "middle": (inputs,), "spread": (inputs,), "words": (len(self.vocabulary), rank),
            "usual": (len(self.vocabulary),), "captions": (len(self.typical), rank), "weights": (4,),
        }  # fmt: skip
        for name, shape in expected.items():
            found: FloatArray = getattr(self, name)
            if found.shape != shape or not np.isfinite(found).all():
                raise EncoderError(f"{path}: {name} has the shape {found.shape}, expected finite {shape}; fit it again")


class SecondLook(Reranker):
    """The reranker of ``second_look.npz`` in the folder of a built-in encoder.

    The tokens of an image are the mean of its vectors, of length 1, and the latents of the regression. They stand for
    no places.

    Raises:
        ModelMissing: the folder has none.
        EncoderError: it cannot be understood, or belongs to other weights than the encoder's.
    """

    tokens_have_places = False

    def __init__(
        self,
        directory: Path = SHIPPED_WEIGHTS,
        options: EncoderOptions | None = None,
        encoder: BuiltinEncoder | None = None,
    ) -> None:
        self.encoder = encoder or BuiltinEncoder(directory, options)
        self.model = SecondLookModel.read(directory / FILE)
        if self.model.encoder_digest != self.encoder.spec.digest:
            raise EncoderError(
                f"{directory / FILE} belongs to an encoder with the weights {self.model.encoder_digest[:12]}, the one "
                f"here has {self.encoder.spec.key}: fit it again"
            )
        self.dim = self.encoder.spec.dim
        rows = -(-(self.dim + self.model.rank) // _CHANNELS)
        digest = hashlib.sha256((directory / FILE).read_bytes()).hexdigest()
        self.spec = RerankerSpec("builtin", digest, (rows, _CHANNELS), self.encoder.spec.digest, self.model.mix)
        self.input_size = round(self.encoder.input_size / MIDDLE)
        self.batch_size = max(1, self.encoder.batch_size // LOOKS)
        self._centroids = self.encoder.caption_centroids()
        self._text = lru_cache(maxsize=1)(self._read)  # candidates come in several calls

    def prepare_image(self, image: Image) -> npt.NDArray[np.uint8]:
        """An upright picture of any mode to (``LOOKS``, size, size, 3) uint8."""
        return np.stack([self.encoder.prepare_image(view) for view in further_views(image)])

    def tokens_of_prepared(self, inputs: npt.NDArray[Any]) -> TokenArray:
        """(n, ``LOOKS``, size, size, 3) uint8 to (n, *token_shape) float16; what is left of the last row is 0."""
        vectors, logits = self.encoder.vectors_and_logits(inputs.reshape(-1, *inputs.shape[2:]))
        mean = mean_of_looks(vectors.reshape(len(inputs), LOOKS, -1))
        latents = self.model.latents(mean, logits.reshape(len(inputs), LOOKS, -1).mean(axis=1))
        flat = np.zeros((len(inputs), self.spec.token_shape[0] * _CHANNELS), dtype=np.float16)
        flat[:, : self.dim], flat[:, self.dim : self.dim + self.model.rank] = mean, latents
        return flat.reshape(-1, *self.spec.token_shape)

    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """See :meth:`Reranker.score_tokens`."""
        self.check_tokens(tokens)
        flat = tokens.reshape(len(tokens), self.spec.token_shape[0] * _CHANNELS).astype(np.float32)
        vector, columns = self._text(text)
        mean, latents = flat[:, : self.dim], flat[:, self.dim : self.dim + self.model.rank]
        parts = np.column_stack(
            [self.model.parts(vector, columns, mean, latents), hubness(vector[None], mean, self._centroids)[0]]
        )
        scores: FloatArray = parts @ self.model.weights
        return scores

    def _read(self, text: str) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """The text's vector and the columns of its terms, of which another language than English has none."""
        columns = self.model.columns(text if self.encoder.is_read_as_english(text) else "")
        return self.encoder.encode_queries([text])[0], columns


def mean_of_looks(vectors: FloatArray) -> FloatArray:
    """(n, looks, dim) to rows of length 1, (n, dim)."""
    sums = vectors.sum(axis=1)
    rows: FloatArray = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return rows


def hubness(texts: FloatArray, vectors: FloatArray, centroids: FloatArray | None) -> FloatArray:
    """The hubness of each picture, as far as that counts for each text, (q, n), from vectors of length 1,
    (q, dim) and (n, dim); 0 where there are no centroids.
    """
    if centroids is None:
        return np.zeros((len(texts), len(vectors)), dtype=np.float32)
    return caption_shares(texts, centroids.shape[1])[:, None] * nearness(vectors, centroids)


def has_second_look(directory: Path) -> bool:
    """Whether the folder of an encoder has one."""
    return (directory / FILE).is_file()
