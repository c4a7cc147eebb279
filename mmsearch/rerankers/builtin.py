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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.encoders.base import EncoderOptions
from mmsearch.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder, open_session
from mmsearch.errors import EncoderError, ModelMissing, VectorError
from mmsearch.rerankers.base import FloatArray, Reranker, RerankerSpec, TokenArray

if TYPE_CHECKING:
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

    def image_tokens(self, images: Sequence[Image]) -> TokenArray:
        """See :meth:`Reranker.image_tokens`."""
        parts = [np.zeros((0, *self.spec.token_shape), dtype=np.float16)]
        for start in range(0, len(images), self.encoder.batch_size):
            batch = images[start : start + self.encoder.batch_size]
            parts.append(self.tokens_of_prepared(np.stack([self.encoder.prepare_image(image) for image in batch])))
        return np.concatenate(parts)

    def tokens_of_prepared(self, inputs: np.ndarray) -> TokenArray:
        """Stacked outputs of the encoder's ``prepare_image`` to (n, *token_shape) float16."""
        grid = self.encoder.image_grid(inputs)
        tokens: TokenArray = self._tokens.run(["tokens"], {"grid": grid})[0].astype(np.float16)
        return tokens

    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """See :meth:`Reranker.score_tokens`."""
        if tokens.shape[1:] != self.spec.token_shape:
            raise VectorError(
                f"image tokens have the shape {tokens.shape[1:]}; the reranker {self.spec.name} takes "
                f"{self.spec.token_shape}, as its image_tokens makes them"
            )
        if not len(tokens):
            return np.zeros(0, dtype=np.float32)
        inputs = {"text": self.encoder.text_tokens(text), "tokens": tokens.astype(np.float32)}
        logits: FloatArray = self._score.run(["logit"], inputs)[0]
        return logits


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
