"""Batch functions: inputs of a model in, one row of results for each out, in their order.

They are pure and know of no index, so that any engine can run them: an object is as picklable as the model it holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmsearch.media.ocr.base import TextReader
from mmsearch.media.text.passages import cut
from mmsearch.models.encoders.base import Encoder
from mmsearch.models.rerankers.base import Reranker
from mmsearch.models.sounds.base import SoundEncoder
from mmsearch.models.speech.base import SpeechRecogniser, VoicedPart

Output = Mapping[str, Any]


class BatchFunction(ABC):
    """``batch_size``: how many inputs one call should get; each may also get fewer."""

    batch_size: int

    @abstractmethod
    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """n inputs, arrays or texts, n of 1 or more, to n rows."""


class ImageVectors(BatchFunction):
    """Prepared images to ``vector`` (dim,) float32. With a reranker that works on what the encoder sees
    (`shares_inputs`), also to its ``tokens`` (*token_shape) float16, from the same run of the encoder.
    """

    def __init__(self, encoder: Encoder, reranker: Reranker | None = None) -> None:
        self._encoder, self._reranker = encoder, reranker
        self.batch_size = encoder.batch_size

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """See `BatchFunction.__call__`."""
        stacked = np.stack(inputs)
        if self._reranker is None:
            return [{"vector": vector} for vector in self._encoder.encode_prepared(stacked)]
        shared: Any = self._reranker
        vectors, grids = shared.encoder.vectors_and_grids(stacked)
        tokens = shared.tokens_of_grid(grids)
        return [{"vector": vector, "tokens": own} for vector, own in zip(vectors, tokens, strict=True)]


def shares_inputs(reranker: Reranker, encoder: Encoder) -> bool:
    """Whether what the encoder makes of a picture on its way is all that the reranker needs."""
    return getattr(reranker, "encoder", None) is encoder and hasattr(reranker, "tokens_of_grid")


class TextVectors(BatchFunction):
    """Texts to ``vector`` (dim,) float32.

    With ``cut_long``, a text that is too long for the encoder is cut, and gets the direction of the mean of its parts,
    so that nothing of it is lost.
    """

    def __init__(self, encoder: Encoder, batch_size: int | None = None, *, cut_long: bool = False) -> None:
        self._encoder, self._cut_long = encoder, cut_long
        self.batch_size = batch_size or encoder.batch_size

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """See `BatchFunction.__call__`."""
        encoder = self._encoder
        if not self._cut_long:
            return [{"vector": vector} for vector in encoder.encode_texts(list(inputs))]
        parts = [list(cut(text, encoder.max_text_tokens, encoder.count_tokens)) or [text] for text in inputs]
        vectors = encoder.encode_texts([part for own in parts for part in own])
        starts = np.cumsum([0, *(len(own) for own in parts[:-1])])
        sums = np.add.reduceat(vectors, starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        means = np.where(lengths > 1e-6, sums / np.maximum(lengths, 1e-6), vectors[starts])
        return [{"vector": vector} for vector in means.astype(np.float32)]


class ImageTokens(BatchFunction):
    """Images as the reranker prepares them to its ``tokens`` (*token_shape) float16."""

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker
        self.batch_size = reranker.batch_size

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """See `BatchFunction.__call__`."""
        return [{"tokens": tokens} for tokens in self._reranker.tokens_of_prepared(np.stack(inputs))]


class TextInImages(BatchFunction):
    """Upright RGB images (h, w, 3) uint8 to the ``lines`` that stand in them, and the ``problem`` where a reader failed
    (else ``None``).
    """

    batch_size = 1

    def __init__(self, reader: TextReader) -> None:
        self._reader = reader

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """See `BatchFunction.__call__`."""
        return [self._read(pixels) for pixels in inputs]

    def _read(self, pixels: Any) -> Output:
        from PIL import Image

        try:
            return {"lines": self._reader.read(Image.fromarray(pixels)), "problem": None}
        except Exception as error:  # a reader's bug or a library's: recorded, the run goes on
            return {"lines": [], "problem": f"its text could not be read ({type(error).__name__}: {error})"}


class Recognition(BatchFunction):
    """Voiced parts of recordings, in their order, to the ``cues`` of what is said, with times in the recording, and the
    ``problem`` where a recogniser failed (else ``None``).
    """

    batch_size = 1
    SURE = 0.6
    """A language of less probability is taken for the one that was spoken before."""

    def __init__(self, recogniser: SpeechRecogniser) -> None:
        self._recogniser = recogniser
        self._language: str | None = None

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """See `BatchFunction.__call__`."""
        return [self._hear(part) for part in inputs]

    def _hear(self, part: VoicedPart) -> Output:
        if part.is_first:
            self._language = None
        try:
            heard = self._recogniser.recognise(part.samples)
            if heard.probability < self.SURE and self._language not in (None, heard.language):
                heard = self._recogniser.recognise(part.samples, self._language)
            elif heard.cues:
                self._language = heard.language
            return {"cues": part.cues_in_recording(heard.cues), "problem": None}
        except Exception as error:  # a recogniser's bug or a library's: recorded, the run goes on
            return {"cues": [], "problem": f"what is said could not be recognised ({type(error).__name__}: {error})"}


class SoundVectors(BatchFunction):
    """Windows of sound, (n,) float32 each, to ``vector`` (dim,) float32 in the space of an encoder of sounds."""

    def __init__(self, encoder: SoundEncoder) -> None:
        self._encoder = encoder
        self.batch_size = encoder.batch_size

    def __call__(self, inputs: Sequence[Any]) -> Sequence[Output]:
        """See `BatchFunction.__call__`."""
        return [{"vector": vector} for vector in self._encoder.encode_sounds(list(inputs))]
