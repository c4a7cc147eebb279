"""A small real encoder whose answers can be worked out by hand, small photos for it, and a process that dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmsearch.core.types import EncoderSpec
from mmsearch.models.encoders.base import Encoder, FloatArray

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 50, 210),
    "yellow": (235, 215, 40),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "orange": (240, 140, 20),
    "violet": (130, 40, 190),
}


def die_at(owner: Any, name: str, when: str, call: int) -> None:
    """Lets this process be killed, as by ``kill -9``, at the ``call``-th call of a method: ``before`` or after it."""
    method, calls = getattr(owner, name), [call]

    def dying(*arguments: Any, **named: Any) -> Any:
        calls[0] -= 1
        if calls[0] == 0 and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = method(*arguments, **named)
        if calls[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, dying)


class ColourEncoder(Encoder):
    """Both encoders map into RGB space: an image is its mean colour, a text the mean of the colours it names.

    Small enough to work out by hand what a search must return, and a full implementation of the contract.
    """

    input_size = 8
    max_text_tokens = 32

    def __init__(self, name: str = "colours", batch_size: int = 4) -> None:
        self.spec = EncoderSpec(name=name, digest=(name * 40)[:64], dim=4, preprocessing="mean colour")
        self.batch_size = batch_size
        self.encoded_images = 0
        self.encoded_texts = 0

    def prepare_image(self, image: Image.Image) -> np.ndarray:
        return np.asarray(image.convert("RGB").resize((8, 8), Image.Resampling.BOX))

    def encode_prepared(self, inputs: np.ndarray) -> FloatArray:
        self.encoded_images += len(inputs)
        means = inputs.reshape(len(inputs), -1, 3).astype(np.float32).mean(axis=1) if len(inputs) else np.zeros((0, 3))
        return _unit(means)

    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        self.encoded_texts += len(texts)
        rows = [[COLOURS[word] for word in text.lower().replace(".", "").split() if word in COLOURS] for text in texts]
        means = [np.mean(row, axis=0) if row else np.full(3, 128.0) for row in rows]
        return _unit(np.asarray(means, dtype=np.float32).reshape(-1, 3))

    def count_tokens(self, text: str) -> int:
        return len(text.split()) + 2


def _unit(colours: np.ndarray) -> FloatArray:
    centred = np.concatenate([colours / 255.0 - 0.5, np.full((len(colours), 1), 0.05)], axis=1)
    return (centred / np.linalg.norm(centred, axis=1, keepdims=True)).astype(np.float32)


def save_colour(path: Path, colour: str, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    """A small photo of one colour with a little noise, so that no two seeds give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-12, 12, (size[1], size[0], 3))
    pixels = np.clip(np.asarray(COLOURS[colour]) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path
