"""What encoders on torch have in common: device and precision, batches that shrink when memory runs out, pixels on the
device.
"""

from __future__ import annotations

import contextlib
import threading
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
    from PIL.Image import Image

# Measured: on a CPU small batches are faster (the activations stay in the caches); a GPU needs many images.
_BATCH_SIZE = {"cpu": 16, "mps": 32, "cuda": 256}
_WIDEST = 16
_keep_alive: list[Any] = []


class TorchEncoder(Encoder):
    """An encoder on torch: float32 on a CPU, bfloat16 or float16 on a GPU.

    Raises (on construction):
        EncoderError: the device does not exist.
    """

    def __init__(self, options: EncoderOptions) -> None:
        import torch

        if options.threads:
            torch.set_num_threads(options.threads)
        self.device = choose_device(options.device)
        self.batch_size = options.batch_size or _BATCH_SIZE[self.device.type]
        self._dtype = _dtype(self.device)
        self._lock = threading.Lock()

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


def without_far_ends(image: Image) -> Image:
    """A very long or tall picture without what a crop of its middle square cuts off anyway: scaling a 1 × 5,000 image
    up first would take gigabytes.
    """
    width, height = image.size
    if max(width, height) <= _WIDEST * min(width, height):
        return image
    half = 2 * min(width, height)
    x, y = width // 2, height // 2
    return image.crop((max(x - half, 0), max(y - half, 0), min(x + half, width), min(y + half, height)))


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
