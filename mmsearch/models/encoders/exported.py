"""An encoder of open_clip or transformers that runs from its exports, and which way a model is opened.

On a CPU the first run exports what it used; from then on neither `index` nor `query` imports torch. On a GPU images go
through torch, and texts of a query through the export.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import platform
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.base import Encoder, EncoderOptions, FloatArray
from mmsearch.models.encoders.exports import ModelFiles
from mmsearch.models.encoders.image_export import ImageEncoder, find_image_export
from mmsearch.models.encoders.text_export import TextEncoder, export_text_encoder, open_text_encoder

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.models.encoders.image_export import ImageDescription
    from mmsearch.models.encoders.torch_encoder import TorchEncoder

_log = logging.getLogger(__name__)


class ExportedEncoder(Encoder):
    """Texts go through the exported text encoder, images through the exported image encoder; where there is none, or
    a graph is not enough, the whole model is opened for them. Each graph opens when it is first used, so that indexing
    images never waits for the text encoder.
    """

    has_int8 = True

    def __init__(
        self,
        texts: TextEncoder,
        images: ImageDescription | None,
        directory: Path | None,
        options: EncoderOptions,
        open_whole: Callable[[], TorchEncoder],
    ) -> None:
        self._texts, self._found, self.directory, self._options = texts, images, directory, options
        self._open_whole = open_whole
        self._whole: TorchEncoder | None = None
        self._images: ImageEncoder | None = None
        self._lock = threading.Lock()
        self._texts_failed = False
        self.spec = texts.spec
        self.input_size = texts.input_size
        self.batch_size = options.batch_size or 16
        self.max_text_tokens = texts.tokenizer.context_length

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
        return self._load().encode_texts(texts) if self._lacks_texts() else self._texts.encode_texts(texts)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text, special ones included, before it is cut."""
        return self._texts.tokenizer.count(text)

    def prepare_image(self, image: Image) -> npt.NDArray[np.generic]:
        """As the model's own ``prepare_image``."""
        return self._load().prepare_image(image) if self._found is None else self._found.preparation(image)

    def encode_prepared(self, inputs: npt.NDArray[np.generic]) -> FloatArray:
        """As the model's own ``encode_prepared``."""
        return self._load().encode_prepared(inputs) if self._found is None else self._open(self._found).encode(inputs)

    def patch_scores(self, image: Image, vector: FloatArray) -> FloatArray | None:
        """As the model's own ``patch_scores``, for which it is loaded."""
        return self._load().patch_scores(image, vector)

    def open_images(self) -> None:
        """Opens the image encoder now, so that ``batch_size`` is what suits it."""
        if self._found is not None:
            self._open(self._found)

    def _open(self, found: ImageDescription) -> ImageEncoder:
        with self._lock:
            if self._images is None:
                self._images = ImageEncoder(found, self._options)
                self.batch_size = self._images.batch_size
            return self._images

    def _lacks_texts(self) -> bool:
        """Whether the exported text encoder cannot be used, which shows when its graph opens."""
        if not self._texts_failed:
            try:
                self._texts.open()
            except EncoderError as error:
                _log.warning("the exported text encoder of %s cannot be used, torch goes on: %s", self.spec.name, error)
                self._texts_failed = True
        return self._texts_failed

    def _load(self) -> TorchEncoder:
        with self._lock:
            if self._whole is None:
                whole = self._open_whole()
                if whole.spec != self.spec:
                    raise EncoderError(
                        f"the weights changed while they were in use: {self.spec.describe()} was opened,"
                        f" {whole.spec.describe()} is there now; open the encoder again"
                    )
                self._whole = whole
                if self._found is None:
                    self.batch_size = whole.batch_size
            return self._whole


def open_best(
    model: ModelFiles, options: EncoderOptions, open_whole: Callable[[], TorchEncoder], *, texts_only: bool
) -> Encoder:
    """Opens a model without torch where its exports are there and do, else whole. ``texts_only`` exports the text
    encoder where it is not there yet, which takes some seconds.
    """
    images = find_image_export(model) if runs_exported(options) else None
    if images is not None or texts_only:
        texts = open_text_encoder(model, options, opens_graph=texts_only)
        if texts is not None:
            encoder = ExportedEncoder(texts, images, model.directory, options, open_whole)
            if not texts_only:
                encoder.open_images()
            return encoder
    whole = open_whole()
    if texts_only:
        export_text_encoder(whole)
    return whole


def runs_exported(options: EncoderOptions) -> bool:
    """Whether ONNX Runtime encodes images on this machine's CPU: there is no GPU for torch, or none is wanted."""
    if options.compile or options.device not in ("auto", "cpu"):
        return False
    return options.device == "cpu" or not may_have_gpu()


@functools.cache
def may_have_gpu() -> bool:
    """Whether torch may find a GPU here, without importing it: it takes seconds."""
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    try:
        if version("torch").endswith("+cpu"):
            return False
    except PackageNotFoundError:
        return False
    return Path("/dev/kfd").exists() or _cuda_devices() > 0


def _cuda_devices() -> int:
    """As the driver counts them, which also knows ``CUDA_VISIBLE_DEVICES``."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        count = ctypes.c_int(0)
        if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return count.value
