"""CLAP by Hugging Face transformers: sounds and texts in one space.

Y. Wu and others, Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption
Augmentation (2023). The package is an extra: ``pip install "mmsearch[hf]"``. It and torch are imported when a model is
opened. Nothing here reaches the network.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.core.extras import install_hint
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import EncoderOptions
from mmsearch.models.encoders.torch_encoder import choose_device, offline
from mmsearch.models.encoders.transformers import HubFiles, quiet
from mmsearch.models.encoders.weights import read_json
from mmsearch.models.sounds.base import FloatArray, Samples, SoundEncoder

MODEL_TYPE = "clap"


class ClapEncoder(SoundEncoder):
    """A model from a directory in the format of transformers, with its own feature extractor and tokenizer.

    A window that is shorter than ``window_s`` is filled as the feature extractor fills it (CLAP repeats it).

    Raises (on construction):
        ModelMissing: transformers is not installed.
        EncoderError: the directory holds another kind of model, or it cannot be loaded.
    """

    def __init__(self, directory: Path, name: str, options: EncoderOptions | None = None) -> None:
        options = options or EncoderOptions()
        kind = str(read_json(directory / "config.json").get("model_type"))
        if kind != MODEL_TYPE:
            raise EncoderError(
                f"{name} is a model of the type {kind}; an encoder of sounds is of the type {MODEL_TYPE}"
            )
        model, self._tokenizer, self._extractor = _load(directory, name)
        self.device = choose_device(options.device)
        self._model = model.requires_grad_(False).to(self.device)
        self._using = threading.Lock()  # a tokenizer remembers how it last cut and padded
        self.rate, self.window_s = int(self._extractor.sampling_rate), float(self._extractor.max_length_s)
        places = int(model.config.text_config.max_position_embeddings) - 2  # RoBERTa counts them from 2
        self._max_tokens = min(int(self._tokenizer.model_max_length), places)
        extractor = self._extractor
        self.spec = EncoderSpec(
            name=name,
            digest=HubFiles(name, directory).digest,
            dim=int(model.config.projection_dim),
            preprocessing=(
                f"{self.rate} Hz mono, {self.window_s:g} s, {extractor.feature_size} mels "
                f"{extractor.frequency_min:g}-{extractor.frequency_max:g} Hz {extractor.truncation} {extractor.padding}"
            ),
            logit_scale=float(model.logit_scale_a.detach().exp().item()),
        )

    def encode_sounds(self, windows: Sequence[Samples]) -> FloatArray:
        """See `SoundEncoder.encode_sounds`."""
        if not len(windows):
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        with self._using:
            given = self._extractor(list(windows), sampling_rate=self.rate, return_tensors="pt")
            given["is_longer"][:] = False  # with fusion it would draw one by lot, and no window is longer
            return self._rows(self._model.get_audio_features, given)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """See `SoundEncoder.encode_texts`."""
        if not len(texts):
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        with self._using:
            given = self._tokenizer(
                list(texts), padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
            )
            return self._rows(self._model.get_text_features, given)

    def _rows(self, encode: Any, given: Any) -> FloatArray:
        import torch

        from mmsearch.models.encoders.torch_modules import unit_rows

        with torch.inference_mode():
            rows: FloatArray = unit_rows(encode(**given.to(self.device))).cpu().numpy()
        return rows


def _load(directory: Path, name: str) -> tuple[Any, Any, Any]:
    """Model (float32, in evaluation mode), tokenizer and feature extractor."""
    try:
        import transformers as library
    except ImportError as error:
        raise ModelMissing(f"{name} needs the package transformers: {install_hint('hf')}") from error
    transformers: Any = library
    with offline(), quiet(transformers):
        try:
            place = str(directory)
            model = transformers.ClapModel.from_pretrained(place, local_files_only=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
            extractor = transformers.ClapFeatureExtractor.from_pretrained(place, local_files_only=True)
        except Exception as error:
            raise EncoderError(f"{name} cannot be loaded from {directory}: {' '.join(str(error).split())}") from error
    return model.float().eval(), tokenizer, extractor
