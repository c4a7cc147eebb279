"""BLIP for image-text retrieval (Li et al., 2022, https://arxiv.org/abs/2201.12086) through transformers.

The text encoder attends to the patch tokens of the vision encoder, and its matching head says whether the two
belong together. Opening one imports torch and transformers, which are an extra: ``pip install "mmsearch[hf]"``.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.core.extras import install_hint
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.weights import file_digest, find_checkpoint
from mmsearch.models.rerankers.base import FloatArray, Reranker, RerankerSpec, TokenArray

if TYPE_CHECKING:
    from PIL.Image import Image

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""What BLIP's image processor takes where its configuration says nothing."""


class BlipReranker(Reranker):
    """A ``BlipForImageTextRetrieval`` from a directory in the format of transformers.

    The directory holds ``config.json``, the weights, ``tokenizer.json`` and, for images that are not normalised as
    usual, ``preprocessor_config.json``.

    Raises:
        ModelMissing: transformers is not installed, or a file is not there.
        EncoderError: the model cannot be loaded.
    """

    def __init__(self, directory: Path, name: str, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        checkpoint = find_checkpoint(directory)
        for file in (checkpoint or directory / "model.safetensors", directory / "tokenizer.json"):
            if not file.is_file():
                raise ModelMissing(f"{directory} holds no {file.name}, which {name} needs: copy the whole model")
        self._model, self.device = _load(directory, name, options)
        self._tokenizer = _tokenizer(directory, int(self._model.config.text_config.max_position_embeddings))
        vision = self._model.config.vision_config
        self.input_size, self._mean, self._std = _preprocessing(directory, int(vision.image_size))
        places = (int(vision.image_size) // int(vision.patch_size)) ** 2 + 1
        assert checkpoint is not None
        self.spec = RerankerSpec(name, file_digest(checkpoint), (places, int(vision.hidden_size)))
        self._lock = threading.Lock()

    def prepare_image(self, image: Image) -> npt.NDArray[np.uint8]:
        """An upright picture, squeezed into a square: (size, size, 3) uint8."""
        from PIL.Image import Resampling

        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return np.asarray(rgb.resize((self.input_size, self.input_size), Resampling.BICUBIC), dtype=np.uint8)

    def tokens_of_prepared(self, inputs: npt.NDArray[Any]) -> TokenArray:
        """(n, size, size, 3) uint8 to (n, *token_shape) float16."""
        import torch

        pixels = (inputs.astype(np.float32) / 255 - self._mean) / self._std
        with self._lock, torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))).to(self.device)
            hidden = self._model.vision_model(pixel_values=given).last_hidden_state
        tokens: TokenArray = hidden.float().cpu().numpy().astype(np.float16)
        return tokens

    def score_tokens(self, text: str, tokens: TokenArray) -> FloatArray:
        """See :meth:`Reranker.score_tokens`: the difference of the matching head's two logits."""
        import torch

        self.check_tokens(tokens)
        if not len(tokens):
            return np.zeros(0, dtype=np.float32)
        ids = self._tokenizer.encode(text.encode("utf-8", "replace").decode("utf-8")).ids
        with self._lock, torch.inference_mode():
            images = torch.from_numpy(tokens.astype(np.float32)).to(self.device)
            input_ids = torch.tensor([ids], device=self.device).expand(len(images), -1)
            hidden = self._model.text_encoder(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                encoder_hidden_states=images,
                encoder_attention_mask=torch.ones(images.shape[:2], dtype=torch.long, device=self.device),
            ).last_hidden_state
            logits = self._model.itm_head(hidden[:, 0, :])
            odds: FloatArray = (logits[:, 1] - logits[:, 0]).float().cpu().numpy()
        return odds


def _load(directory: Path, name: str, options: EncoderOptions) -> tuple[Any, Any]:
    try:
        from transformers import BlipForImageTextRetrieval
    except ImportError as error:
        raise ModelMissing(f"the reranker {name} needs the package transformers: {install_hint('hf')}") from error
    import torch

    from mmsearch.models.encoders.torch_encoder import choose_device

    if options.threads:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    try:
        loader: Any = BlipForImageTextRetrieval
        model = loader.from_pretrained(str(directory), local_files_only=True)
    except Exception as error:
        raise EncoderError(f"{name} cannot be loaded from {directory}: {' '.join(str(error).split())}") from error
    return model.eval().requires_grad_(False).to(device), device


def _tokenizer(directory: Path, longest: int) -> Any:
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise EncoderError(f"{path} cannot be read as a tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer


def _preprocessing(directory: Path, size: int) -> tuple[int, FloatArray, FloatArray]:
    """Side of the square in pixels, mean and standard deviation of the three colours."""
    path = directory / "preprocessor_config.json"
    given: dict[str, Any] = {}
    if path.is_file():
        try:
            given = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise EncoderError(f"{path} cannot be read: {error}") from error
    side = given.get("size", size)
    side = side.get("height", size) if isinstance(side, dict) else side
    if int(side) != size:
        raise EncoderError(f"{path} makes images of {side} pixels, the model takes {size}: copy both from one model")
    mean, std = (np.array(given.get(key, usual), dtype=np.float32)
                 for key, usual in (("image_mean", _MEAN), ("image_std", _STD)))  # fmt: skip
    return size, mean, std
