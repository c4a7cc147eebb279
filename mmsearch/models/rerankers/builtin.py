"""The built-in reranker: text tokens attend to the grid of image features, on onnxruntime, without torch.

It lies in the folder of a built-in encoder, whose graphs it starts from, and is described by ``reranker.json``::

    {"format": 1, "name": "builtin", "digest": SHA-256 of both graphs, "encoder_digest": of the encoder,
     "token_shape": [81, 128], "mix": 0.5, "tokens": "rerank_tokens.onnx", "score": "rerank_score.onnx"}

``tokens`` maps the encoder's ``grid`` (n, 352, 9, 9) to ``tokens`` (n, 81, 128) float32; ``score`` maps ``text``
(1, length, 384), the encoder's text ``tokens``, and ``tokens`` (n, 81, 128) float32 to ``logit`` (n,).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder, open_session
from mmsearch.models.rerankers.base import FloatArray, Reranker, RerankerSpec, TokenArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from PIL.Image import Image

FORMAT = 1
DESCRIPTION = "reranker.json"


class BuiltinReranker(Reranker):
    """The reranker in the folder of a built-in encoder.

    Raises:
        ModelMissing: the folder has none, or not all of its files.
        EncoderError: its description cannot be understood, or it belongs to other weights than the encoder's.
    """

    def __init__(
        self,
        directory: Path = SHIPPED_WEIGHTS,
        options: EncoderOptions | None = None,
        encoder: BuiltinEncoder | None = None,
    ) -> None:
        options = options or EncoderOptions()
        self.encoder = encoder or BuiltinEncoder(directory, options)
        self.spec, files = _read(directory)
        if self.spec.encoder_digest != self.encoder.spec.digest:
            raise EncoderError(
                f"the reranker in {directory} was trained after an encoder with the weights "
                f"{self.spec.encoder_digest[:12]}, the one here has {self.encoder.spec.key}; train it again"
            )
        self._tokens, self._score = (open_session(directory / name, options.threads) for name in files)
        self.input_size, self.batch_size = self.encoder.input_size, self.encoder.batch_size
        self._text = lru_cache(maxsize=1)(self.encoder.text_tokens)  # candidates come in several calls

    def prepare_image(self, image: Image) -> npt.NDArray[np.uint8]:
        """As the encoder sees it: (size, size, 3) uint8."""
        return self.encoder.prepare_image(image)

    def tokens_of_prepared(self, inputs: npt.NDArray[Any]) -> TokenArray:
        """Stacked outputs of ``prepare_image``, which are the encoder's too, to (n, *token_shape) float16."""
        return self.tokens_of_grid(self.encoder.image_grid(inputs))

    def tokens_of_grid(self, grid: FloatArray) -> TokenArray:
        """The encoder's grids (n, channels, h, w) to (n, *token_shape) float16."""
        tokens: TokenArray = self._run(self._tokens, "tokens", {"grid": grid}).astype(np.float16)
        return tokens

    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """See :meth:`Reranker.score_tokens`."""
        self.check_tokens(tokens)
        if not len(tokens):
            return np.zeros(0, dtype=np.float32)
        inputs = {"text": self._text(text), "tokens": tokens.astype(np.float32)}
        return self._run(self._score, "logit", inputs)

    def _run(self, session: InferenceSession, output: str, inputs: dict[str, npt.NDArray[Any]]) -> FloatArray:
        try:
            values: FloatArray = session.run([output], inputs)[0]
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise EncoderError(f"reranker {self.spec.name} failed to run: {error}") from error
        return values


def has_reranker(directory: Path) -> bool:
    """Whether the folder of an encoder has a reranker with it."""
    return (directory / DESCRIPTION).is_file()


def digest_of(directory: Path, names: Sequence[str]) -> str:
    """Hex SHA-256 over the graphs."""
    digest = hashlib.sha256()
    for name in names:
        digest.update((directory / name).read_bytes())
    return digest.hexdigest()


def _read(directory: Path) -> tuple[RerankerSpec, tuple[str, str]]:
    path = directory / DESCRIPTION
    try:
        fields: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if fields["format"] != FORMAT:
            raise ValueError(f"layout {fields['format']!r}, this version of mmsearch reads {FORMAT}")
        shape = tuple(int(side) for side in fields["token_shape"])
        spec = RerankerSpec(
            str(fields["name"]), str(fields["digest"]), shape, str(fields["encoder_digest"]), float(fields["mix"])
        )
        files = (str(fields["tokens"]), str(fields["score"]))
    except OSError as error:
        raise ModelMissing(
            f"there is no reranker in {directory}: train one with `mmsearch train PAIRS --reranker`"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise EncoderError(
            f"{path} does not describe a reranker ({type(error).__name__}: {error}); train it again"
        ) from error
    for name in files:
        if not (directory / name).is_file():
            raise ModelMissing(f"{path} names {name}, which is not in that folder; copy the whole folder")
    return spec, files
