"""What encoders on torch have in common: device and precision, batches that shrink when memory runs out, pixels on the
device.
"""

from __future__ import annotations

import contextlib
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError
from mmsearch.models.encoders.base import Encoder, EncoderOptions, FloatArray

if TYPE_CHECKING:
    import torch

    from mmsearch.models.encoders.exports import ModelFiles
    from mmsearch.models.encoders.image_export import ImageEncoder
    from mmsearch.models.encoders.preparation import Preparation

# Measured: on a CPU small batches are faster (the activations stay in the caches); a GPU needs many images.
_BATCH_SIZE = {"cpu": 16, "mps": 32, "cuda": 256}
_EXPORT_AFTER = 64
"""Images that torch encodes before the image encoder is exported: of fewer, exporting would take longer."""
_keep_alive: list[Any] = []


class TorchEncoder(Encoder):
    """An encoder on torch: float32 on a CPU, bfloat16 or float16 on a GPU.

    On a CPU it hands images over to ONNX Runtime after the first few, which is about twice as fast.

    Raises (on construction):
        EncoderError: the device does not exist.
    """

    has_int8 = True
    files: ModelFiles
    preparation: Preparation | None = None
    """How pictures are prepared, where that needs Pillow alone; else the image encoder cannot be exported."""

    def __init__(self, options: EncoderOptions) -> None:
        import torch

        self._options = options
        self._images: ImageEncoder | None = None
        self._seen, self._exporting = 0, threading.Lock()
        if options.threads:
            torch.set_num_threads(options.threads)
        self.device = choose_device(options.device)
        self.batch_size = options.batch_size or _BATCH_SIZE[self.device.type]
        self._dtype = _dtype(self.device)
        self._lock = threading.Lock()

    @abstractmethod
    def image_module_on_cpu(self) -> torch.nn.Module:
        """The image encoder in float32, to export it: (n, h, w, 3) uint8 to (n, dim) rows of length 1."""

    @abstractmethod
    def text_module_on_cpu(self) -> Any:
        """The text encoder in float32, to export it: a GPU's copy has lost half the digits.

        A module with ``cuts``, whether rows may end after the longest text of a batch, and ``end_id``, the id with
        which a text ends, where one does.
        """

    @abstractmethod
    def text_inputs(self, texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """What the module above takes of n texts: ids (n, context), maybe their mask."""

    @abstractmethod
    def reference_text_rows(self, texts: Sequence[str]) -> FloatArray:
        """``encode_texts`` as the library of the model computes it, in float32."""

    @abstractmethod
    def saved_tokenizer(self, directory: Path) -> dict[str, Any] | None:
        """Writes what `open_text_encoder` needs of the tokenizer; its settings, ``None`` where that cannot be."""

    def prepare_for_queries(self) -> None:
        """Exports the text encoder, so that a query needs no torch; on a CPU also the image encoder, so that the next
        run of indexing needs none.
        """
        from mmsearch.models.encoders.image_export import export_image_encoder
        from mmsearch.models.encoders.text_export import export_text_encoder

        export_text_encoder(self)
        if self._hands_over:
            export_image_encoder(self)

    @property
    def _hands_over(self) -> bool:
        return self.device.type == "cpu" and not self._options.compile and self.preparation is not None

    def _encoded(self, images: npt.NDArray[Any], encode: Callable[[npt.NDArray[Any]], torch.Tensor]) -> FloatArray:
        """Image rows: of the first images by ``encode``, of all others by the exported image encoder."""
        if self._hands_over and self._seen >= 0:
            with self._exporting:
                if self._images is None and self._seen >= (
                    _EXPORT_AFTER if self._options.precision in (None, "fp32") else 0
                ):
                    self._open_export()
                self._seen += len(images) if self._seen >= 0 else 0
        return self._in_batches(images, encode) if self._images is None else self._images.encode(images)

    def _open_export(self) -> None:
        from mmsearch.models.encoders.image_export import ImageEncoder, export_image_encoder

        found = export_image_encoder(self)
        if found is None:
            self._seen = -1  # not again at every batch
            return
        self._images = ImageEncoder(found, self._options)

    def _in_batches(self, inputs: npt.NDArray[Any], encode: Callable[[npt.NDArray[Any]], torch.Tensor]) -> FloatArray:
        """Runs ``encode`` over slices; when memory runs out, halves the batch size for good, tries again."""
        import torch

        rows = np.zeros((len(inputs), self.spec.dim), dtype=np.float32)
        start = 0
        while start < len(inputs):
            batch = inputs[start : start + self.batch_size]
            try:
                with self._lock, torch.inference_mode():
                    encoded = encode(batch).float().cpu().numpy()
            except Exception as error:
                if not _out_of_memory(error):
                    raise EncoderError(f"{self.spec.name} failed on {self.device}: {error}") from error
                if len(batch) == 1:
                    raise EncoderError(
                        f"{self.spec.name} needs more memory than {self.device} has, even for one input;"
                        " use another device (--device cpu) or a smaller model"
                    ) from error
                encoded = None
            if encoded is None:  # outside of `except`: the traceback there still holds the tensors of the failure
                self.batch_size = max(1, min(self.batch_size, len(batch)) // 2)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            rows[start : start + len(batch)] = encoded
            start += len(batch)
        return rows

    def _pixels(self, images: npt.NDArray[np.uint8], mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
        """(n, h, w, 3) uint8, normalised: (n, 3, h, w) on the device, in its precision."""
        import torch

        pixels = self._to_device(images).permute(0, 3, 1, 2).to(torch.float32) / 255
        means, stds = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (mean, std))
        return ((pixels - means) / stds).to(self._dtype)

    def _to_device(self, array: npt.NDArray[Any]) -> torch.Tensor:
        import torch

        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)


def choose_device(name: str) -> torch.device:
    """``auto`` takes a GPU where there is one.

    Raises:
        EncoderError: there is no such device here.
    """
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if name not in _BATCH_SIZE:
        raise EncoderError(f"there is no device {name!r}; choose auto, cpu, cuda or mps")
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise EncoderError(f"torch {torch.__version__} finds no {name} device here; use --device cpu or auto")
    return torch.device(name)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Makes every request through huggingface_hub fail at once: opening a model never reaches the network."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def make_torchvision_importable() -> None:
    """Lets torchvision be imported beside a CPU build of torch.

    PyPI has only torchvision wheels built for CUDA. Their compiled library needs libraries that a CPU build
    of torch lacks, so it is not loaded, and ``import torchvision`` then dies over the missing operators
    ``nms`` and ``qnms``. Models need only the transforms, which are Python: declaring the two is enough.
    """
    import torch

    if torch.version.cuda is not None or getattr(torch.version, "hip", None) or _keep_alive:
        return
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        return  # the import error of whoever needs it says what is missing
    library = next(iter(Path(spec.origin).parent.glob("_C*.so")), None)
    if library is not None:
        with contextlib.suppress(OSError):
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call,unused-ignore]
    if not hasattr(torch.ops.torchvision, "nms"):
        fragment: Any = cast("Any", torch.library).Library("torchvision", "FRAGMENT")
        for operator in ("nms", "qnms"):
            fragment.define(operator + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _keep_alive.append(fragment)


def _dtype(device: torch.device) -> torch.dtype:
    import torch

    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8:
        return torch.bfloat16
    return torch.float16


def _out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
