"""RapidOCR: the detector and recogniser of PP-OCR as ONNX models that ship in its wheel (Apache-2.0)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmsearch.core.errors import UsageError
from mmsearch.core.system import usable_cores
from mmsearch.media.ocr.base import TextReader

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_SCORE = 0.7
"""Mean probability of a line's characters; below it, most lines of photos without text are patterns that look like
letters (benchmarks/ocr.py)."""
LONGEST_SIDE = 2000
"""Pixels; longer pictures are made smaller before text is looked for."""


class RapidTextReader(TextReader):
    """Chinese, Japanese and Latin script, also turned by 90° and 180°."""

    def __init__(self, threads: int | None = None) -> None:
        folder = _models()
        import rapidocr

        self.name = f"rapidocr {importlib.metadata.version('rapidocr')}"
        # Paths to the models: without them it would look at their digests, and fetch them anew where those differ.
        paths = {f"{part}.model_path": str(_model(folder, part.lower())) for part in ("Det", "Cls", "Rec")}
        self._engine: Any = rapidocr.RapidOCR(
            params={
                **paths,
                "Global.log_level": "critical",
                "Global.max_side_len": LONGEST_SIDE,
                "Global.text_score": LEAST_SCORE,
                "EngineConfig.onnxruntime.intra_op_num_threads": threads or usable_cores(),
            }
        )

    def read(self, image: Image) -> list[str]:
        """See :meth:`TextReader.read`."""
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB"))[:, :, ::-1])  # it expects blue first
        found = self._engine(pixels).txts
        return [line.strip() for line in found or () if line.strip()]


def _models() -> Path:
    spec = importlib.util.find_spec("rapidocr")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "models"


def _model(folder: Path, part: str) -> Path:
    found = sorted(path for path in folder.glob("*.onnx") if f"_{part}_" in path.name.lower())
    if not found:
        raise UsageError(
            f"this installation of rapidocr lacks its models (none for {part} in {folder}): install it again with "
            'pip install --force-reinstall "rapidocr>=3.10"'
        )
    return found[-1]
