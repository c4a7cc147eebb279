"""The contract of a dual encoder of sounds and texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mmsearch.core.types import EncoderSpec

FloatArray = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float32]
"""Sound of one channel, −1 to 1, (n,)."""


class SoundEncoder(ABC):
    """``spec``: its identity; ``logit_scale`` of it is what cosines were multiplied by in training. ``rate``: samples a
    second that it hears. ``window_s``: seconds of sound that become one vector. Called from one thread at a time.
    """

    spec: EncoderSpec
    rate: int
    window_s: float
    batch_size: int = 8

    @abstractmethod
    def encode_sounds(self, windows: Sequence[Samples]) -> FloatArray:
        """n windows of at most ``window_s`` to (n, dim) rows of length 1."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> FloatArray:
        """n texts to (n, dim) rows of length 1."""
