"""Image encoders of open_clip and transformers on ONNX Runtime, so that indexing on a CPU imports no torch.

The graph maps ``pixels`` (n, height, width, 3) uint8 to ``rows`` (n, dim) float32 of length 1; beside it stands how a
picture becomes pixels. Its vectors and those of torch have a cosine of 0.9999 or more, or it is not kept: both may meet
in one index.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError, VectorError
from mmsearch.core.system import session_settings
from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import EncoderOptions, FloatArray
from mmsearch.models.encoders.exports import Exports, ModelFiles, check_cosine
from mmsearch.models.encoders.machine_plan import Plan, plan_for
from mmsearch.models.encoders.preparation import Preparation

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmsearch.models.encoders.torch_encoder import TorchEncoder

IMAGE_EXPORTS = Exports("image_encoders", "image.json", "the image encoder")
_GRAPH = "image.onnx"
_CHECKED_IMAGES = 5
_log = logging.getLogger(__name__)


class Graph:
    """One graph of an image encoder, run as `Plan` says."""

    def __init__(self, path: Path, plan: Plan) -> None:
        import onnxruntime

        self.path, self.plan = path, plan
        self._session = onnxruntime.InferenceSession(
            str(path), session_settings(plan.threads), providers=["CPUExecutionProvider"]
        )
        self._pool = ThreadPoolExecutor(plan.at_once, "image-encoder") if plan.at_once > 1 else None

    def run(self, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        """(n, height, width, 3), n of 1 or more, to (n, dim)."""
        step = self.plan.batch
        parts = [pixels[start : start + step] for start in range(0, len(pixels), step)]
        if self._pool is None or len(parts) == 1:
            return np.concatenate([self._rows(part) for part in parts])
        return np.concatenate(list(self._pool.map(self._rows, parts)))

    def _rows(self, pixels: npt.NDArray[np.uint8]) -> FloatArray:
        rows: FloatArray = self._session.run(None, {"pixels": pixels})[0]
        return rows


@dataclass(frozen=True)
class ImageDescription:
    """What must be known of an image encoder before it runs."""

    directory: Path
    spec: EncoderSpec
    input_size: int
    preparation: Preparation

    @property
    def graph(self) -> Path:
        """The file in float32."""
        return self.directory / _GRAPH

    @property
    def files(self) -> ModelFiles:
        """Names the model whose export this is."""
        return _Origin(self.spec.name, self.spec.digest, self.directory.name.rpartition("-")[2])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one prepared image: height, width, 3."""
        return self.preparation.height, self.preparation.width, 3


class ImageEncoder:
    """An exported image encoder. May be called from several threads; no row depends on the others of its batch.

    With the precision ``int8`` or ``auto`` it starts in float32, and goes on in int8 once enough photos have shown that
    this does no harm (`mmsearch.models.encoders.image_int8`), for ``auto`` if it is faster, too.
    """

    def __init__(self, description: ImageDescription, options: EncoderOptions) -> None:
        self.description, self.spec, self._options = description, description.spec, options
        plan = plan_for(description.graph, description.shape, Graph, options)
        self._exact = self._graph = Graph(description.graph, plan)
        self.batch_size = options.batch_size or plan.images
        self._deciding = threading.Lock()
        self._seen: list[tuple[npt.NDArray[np.uint8], FloatArray]] = []
        self._narrow = self._open_int8() if options.precision in ("int8", "auto") else None

    @property
    def precision(self) -> str:
        """Of the next image: ``fp32`` or ``int8``."""
        return "fp32" if self._graph is self._exact else "int8"

    def prepare(self, image: Image) -> npt.NDArray[np.uint8]:
        """An upright picture to (height, width, 3) uint8."""
        return self.description.preparation(image)

    def encode(self, pixels: npt.NDArray[np.generic]) -> FloatArray:
        """(n, height, width, 3) uint8 to (n, dim) rows of length 1; n may be 0.

        Raises:
            VectorError: ``pixels`` has another shape or type.
            EncoderError: the graph fails.
        """
        inputs = checked_pixels(pixels, self.description.shape)
        if not len(inputs):
            return np.zeros((0, self.spec.dim), dtype=np.float32)
        try:
            rows = self._graph.run(inputs)
            if self._narrow is not None:
                self._compare(self._narrow, inputs, rows)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise EncoderError(f"{self.spec.name} failed on ONNX Runtime: {' '.join(str(error).split())}") from error
        return rows

    def _open_int8(self) -> Graph | None:
        """The graph to be compared; ``None`` where it is decided already."""
        from mmsearch.models.encoders.image_int8 import int8_graph, kept_verdict

        path = int8_graph(self.description.files, self.description.graph)
        if path is None:
            return None
        verdict = kept_verdict(path)
        if verdict is not None and not verdict.passed:
            self._say_fp32(verdict.describe())
            return None
        narrow = Graph(path, plan_for(path, self.description.shape, Graph, self._options, one_by_one=True))
        if verdict is None:
            return narrow
        self._take(narrow)
        return None

    def _compare(self, narrow: Graph, inputs: npt.NDArray[np.uint8], rows: FloatArray) -> None:
        from mmsearch.models.encoders.image_int8 import PHOTOS, compare, keep_verdict

        with self._deciding:
            if self._narrow is None:
                return
            self._seen.append((inputs, rows))
            if sum(len(seen) for seen, _ in self._seen) < PHOTOS:
                return
            pixels, exact = (np.concatenate(parts)[:PHOTOS] for parts in zip(*self._seen, strict=True))
            verdict = compare(exact, narrow.run(pixels))
            keep_verdict(narrow.path, verdict)
            if verdict.passed:
                self._take(narrow)
            else:
                self._say_fp32(verdict.describe())
            self._narrow, self._seen = None, []

    def _take(self, narrow: Graph) -> None:
        if self._options.precision == "int8" or narrow.plan.rate > self._exact.plan.rate:
            self._graph = narrow

    def _say_fp32(self, reason: str) -> None:
        _log.warning("images of %s are encoded in float32, int8 differs too much: %s", self.spec.name, reason)


@dataclass(frozen=True)
class _Origin:
    """The model of an export, as far as an export of this export must know it."""

    name: str
    digest: str
    fingerprint: str
    directory: Path | None = None


def checked_pixels(pixels: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """``pixels``, if they are (n, *shape) uint8.

    Raises:
        VectorError: they are something else.
    """
    if pixels.shape[1:] != shape or pixels.dtype != np.uint8:
        raise VectorError(
            f"prepared images have the shape {pixels.shape} and type {pixels.dtype}; expected (n,"
            f" {', '.join(map(str, shape))}) uint8, as prepare_image gives them"
        )
    return pixels


def find_image_export(model: ModelFiles) -> ImageDescription | None:
    """The exported image encoder of a model on this machine; ``None`` where there is none that is whole."""
    content = IMAGE_EXPORTS.find(model)
    return None if content is None else _described(IMAGE_EXPORTS.directory(model), content)


def export_image_encoder(encoder: TorchEncoder) -> ImageDescription | None:
    """Exports the image encoder of a model; costs seconds, once for each model. ``None`` where it cannot be."""
    if encoder.preparation is None:
        return None
    directory = IMAGE_EXPORTS.make(encoder.files, lambda scratch: _export(encoder, scratch))
    return None if directory is None else find_image_export(encoder.files)


def _export(encoder: TorchEncoder, directory: Path) -> dict[str, Any]:
    import torch

    from mmsearch.models.encoders.graphs import write_graph

    assert encoder.preparation is not None
    content = {
        "spec": asdict(encoder.spec),
        "input_size": encoder.input_size,
        "preparation": asdict(encoder.preparation),
    }
    pixels = _test_pictures(encoder.preparation)
    module = encoder.image_module_on_cpu()
    write_graph(
        module, [torch.from_numpy(pixels[:3])], directory / _GRAPH, inputs=["pixels"], dynamic=[{0: (1, 1 << 16)}]
    )
    with torch.no_grad():
        expected = module(torch.from_numpy(pixels)).numpy()
    rows = Graph(_described(directory, content).graph, Plan(1, _CHECKED_IMAGES, 1)).run(pixels)
    check_cosine(float((rows * expected).sum(axis=1).min()), "image")
    return content


def _described(directory: Path, content: dict[str, Any]) -> ImageDescription:
    preparation = {**content["preparation"], "fill": tuple(content["preparation"]["fill"])}
    return ImageDescription(
        directory, EncoderSpec(**content["spec"]), int(content["input_size"]), Preparation(**preparation)
    )


def _test_pictures(preparation: Preparation) -> npt.NDArray[np.uint8]:
    """Pictures that differ in colour and in how fine they are, prepared."""
    from PIL import Image

    random = np.random.default_rng(0)
    small = [random.integers(0, 256, (side, side + 1, 3), dtype=np.uint8) for side in (1, 2, 4, 16, 64)]
    return np.stack([preparation(Image.fromarray(pixels).resize((320, 240))) for pixels in small[:_CHECKED_IMAGES]])
