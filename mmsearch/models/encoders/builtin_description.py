"""``encoder.json`` of the built-in encoder, read and checked; see `mmsearch.models.encoders.builtin`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt

from mmsearch.core.errors import EncoderError, ModelMissing
from mmsearch.core.types import EncoderSpec, ScoreType
from mmsearch.models.encoders.multilingual import MultilingualDescription

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1


@dataclass(frozen=True)
class Framing:
    """What the image encoder sees of a picture, as a square of ``size`` pixels.

    Of the sides, the middle ``zoom`` is kept; of the longer side beyond the shorter, ``crop`` decides what
    happens: 0 keeps it all and squeezes it into the square, 1 cuts it off, and between the aspect ratio r
    is first cut to r^(1-crop), the rest squeezed.
    """

    size: int
    zoom: float
    crop: float

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in pixels, of what is kept of a picture."""
        ratio = width / height
        kept_width = self.zoom * width * min(1.0, ratio**-self.crop)
        kept_height = self.zoom * height * min(1.0, ratio**self.crop)
        left, top = (width - kept_width) / 2, (height - kept_height) / 2
        return left, top, left + kept_width, top + kept_height

    def apply(self, image: Image) -> npt.NDArray[np.uint8]:
        """An upright picture of any mode to (size, size, 3) uint8."""
        from PIL.Image import Resampling

        rgb = image if image.mode == "RGB" else image.convert("RGB")
        # Above 3x, reducing_gap averages whole pixels first: several times faster, and the same to the eye.
        square = rgb.resize((self.size, self.size), Resampling.BICUBIC, box=self.box(*rgb.size), reducing_gap=3.0)
        return np.asarray(square, dtype=np.uint8)

    def describe(self) -> str:
        """The part of an encoder's identity that is not in its weights."""
        return f"{self.size} px bicubic, zoom {self.zoom:g}, crop {self.crop:g}"


@dataclass(frozen=True)
class BuiltinDescription:
    """``encoder.json``, read and checked."""

    spec: EncoderSpec
    digest_files: tuple[str, ...]
    framing: Framing
    image_file: str
    batch_size: int
    text_file: str
    tokenizer_file: str
    max_tokens: int
    prompt: str
    multilingual: MultilingualDescription | None = None
    names_file: str | None = None
    int8_file: str | None = None

    @classmethod
    def read(cls, directory: Path) -> BuiltinDescription:
        """Reads ``directory/encoder.json``.

        Raises:
            ModelMissing: there is none, or a file that it names is not there.
            EncoderError: it cannot be understood.
        """
        path = directory / "encoder.json"
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            description = cls._from_fields(fields)
        except OSError as error:
            raise ModelMissing(
                f"no encoder weights in {directory}: encoder.json cannot be read ({error.strerror}); "
                "reinstall mmsearch or name a folder that holds an exported encoder"
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise EncoderError(
                f"{path} does not describe an encoder ({type(error).__name__}: {error}); export the encoder again"
            ) from error
        foreign = description.multilingual
        more: tuple[str, ...] = () if foreign is None else (foreign.graph_file, foreign.pieces_file, foreign.guess_file)
        more += tuple(name for name in (description.names_file, description.int8_file) if name is not None)
        for name in (description.image_file, description.text_file, description.tokenizer_file, *more):
            if not (directory / name).is_file():
                raise ModelMissing(f"{path} names {name}, which is not in that folder; copy the whole folder")
        return description

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> BuiltinDescription:
        if fields["format"] != FORMAT:
            raise ValueError(f"layout {fields['format']!r}, this version of mmsearch reads {FORMAT}")
        image, text = fields["image"], fields["text"]
        framing = Framing(int(image["size"]), float(image["zoom"]), float(image["crop"]))
        if not (framing.size > 0 and 0 < framing.zoom <= 1 and 0 <= framing.crop <= 1):
            raise ValueError(f"size must be positive, zoom in (0, 1], crop in [0, 1]; found {framing}")
        if fields["score_type"] not in get_args(ScoreType):
            raise ValueError(f"score_type must be one of {get_args(ScoreType)}, found {fields['score_type']!r}")
        prompt = str(text.get("prompt", "{}"))
        if prompt.count("{}") != 1:
            raise ValueError(f"the text prompt needs {{}} exactly once; found {prompt!r}")
        preprocessing = framing.describe() + ("" if prompt == "{}" else f", prompt {prompt!r}")
        spec = EncoderSpec(
            name=str(fields["name"]),
            digest=str(fields["digest"]),
            dim=int(fields["dim"]),
            preprocessing=preprocessing,
            score_type=fields["score_type"],
            logit_scale=fields.get("logit_scale"),
            logit_bias=fields.get("logit_bias"),
        )
        return cls(
            spec=spec,
            digest_files=tuple(fields["digest_files"]),
            framing=framing,
            image_file=image["file"],
            int8_file=image.get("int8"),
            batch_size=int(image.get("batch_size", 8)),
            text_file=text["file"],
            tokenizer_file=text["tokenizer"],
            max_tokens=int(text["max_tokens"]),
            prompt=prompt,
            multilingual=_multilingual(fields.get("multilingual")),
            names_file=str(fields["names"]["file"]) if "names" in fields else None,
        )


def _multilingual(fields: dict[str, Any] | None) -> MultilingualDescription | None:
    if fields is None:
        return None
    graph, pieces, guess = (str(fields[name]) for name in ("file", "pieces", "guess"))
    return MultilingualDescription(graph, pieces, guess, int(fields["max_tokens"]))
