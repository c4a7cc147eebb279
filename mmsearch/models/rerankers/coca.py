"""CoCa of open_clip (Yu et al., 2022, https://arxiv.org/abs/2205.01917) by how likely a text is as a caption.

Its decoder attends to an image's pooled tokens and predicts each word of a caption from those before it. The score
of a text is the mean logarithm of the probabilities of its words: for one text, images are in the same order as by
the logarithm of the odds, from which it differs by what the text alone says.

Importing this module imports torch.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.open_clip import OpenClipEncoder
from mmsearch.models.encoders.open_clip_files import LocalModel
from mmsearch.models.rerankers.base import FloatArray, Reranker, RerankerSpec, TokenArray

if TYPE_CHECKING:
    from PIL.Image import Image


class CocaReranker(Reranker):
    """A CoCa model of open_clip.

    Raises:
        EncoderError: the model has no decoder, or cannot be loaded.
    """

    def __init__(self, local: LocalModel, options: EncoderOptions | None = None) -> None:
        self._encoder = OpenClipEncoder(local, options)
        self._model: Any = self._encoder.model
        if not hasattr(self._model, "text_decoder"):
            raise EncoderError(f"{local.name} is no CoCa model: it has no decoder that could read a caption")
        self.input_size, self.batch_size = self._encoder.input_size, self._encoder.batch_size
        self._lock = threading.Lock()
        grey = np.full((1, *self._encoder.image_shape), 128, dtype=np.uint8)
        self.spec = RerankerSpec(local.name, local.digest, ())
        self.spec = RerankerSpec(local.name, local.digest, self.tokens_of_prepared(grey).shape[1:])

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """As the model's own transform has it: (h, w, 3) uint8."""
        return self._encoder.prepare_image(image)

    def tokens_of_prepared(self, inputs: npt.NDArray[Any]) -> TokenArray:
        """(n, h, w, 3) uint8 to (n, *token_shape) float16."""
        with self._lock, torch.inference_mode():
            _, tokens = self._model._encode_image(self._encoder.normalised(inputs))
        kept: TokenArray = tokens.float().cpu().numpy().astype(np.float16)
        return kept

    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """See :meth:`Reranker.score_tokens`: the mean log-probability of the caption's tokens, the end included."""
        self.check_tokens(tokens)
        if not len(tokens):
            return np.zeros(0, dtype=np.float32)
        device = self._encoder.device
        ids = torch.from_numpy(np.asarray(self._encoder.tokenizer([text]), dtype=np.int64)).to(device)
        with self._lock, torch.inference_mode():
            _, words = self._model._encode_text(ids)
            images = torch.from_numpy(tokens).to(device, words.dtype)
            right = ids[0, 1:]
            is_word = right != self._model.pad_id
            scores = []
            for start in range(0, len(images), self.batch_size):
                part = images[start : start + self.batch_size]
                logits = self._model.text_decoder(part, words[:, :-1].expand(len(part), -1, -1))
                likely = logits.float().log_softmax(-1)[:, torch.arange(len(right)), right]
                scores.append(likely[:, is_word].mean(1))
        found: FloatArray = torch.cat(scores).cpu().numpy()
        return found
