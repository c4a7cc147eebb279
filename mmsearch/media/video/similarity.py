"""How different two pictures look: finds shot cuts, and merges frames that show the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE = 16
"""Pixels; thumbnails are square RGB whatever the shape of the picture."""

Thumbnail = npt.NDArray[np.uint8]

SAME_PICTURE = 0.025
"""Below this difference two frames show the same: noise, compression, a slow drift of light."""
OTHER_SHOT = 0.15
"""Above this difference two frames, seconds apart, are from different shots, or as good as."""


def thumbnail(image: Image) -> Thumbnail:
    """An RGB image to its thumbnail, uint8 (16, 16, 3), every pixel the mean of its part."""
    from PIL.Image import Resampling

    return np.asarray(image.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Resampling.BOX))


def frame_difference(a: Thumbnail, b: Thumbnail) -> float:
    """0 (equal) to 1 (black against white): how much two thumbnails differ, in the channel that differs most.

    The larger of two measures: the mean over the picture, and a quarter of the mean over the two that changed
    most of its 4 × 4 blocks, so that something small that appears counts as well.
    """
    # Sums of whole numbers: every decoded frame of a video is compared with the one before.
    change = np.abs(np.subtract(a, b, dtype=np.int16)).max(axis=2)
    blocks = sorted(change.reshape(4, 4, 4, 4).sum(axis=(1, 3)).ravel().tolist())
    return float(max(sum(blocks) / 256, (blocks[-1] + blocks[-2]) / 128)) / 255


def is_other_shot(a: Thumbnail | None, b: Thumbnail) -> bool:
    """Whether two frames, seconds apart, are from different shots, or as good as; ``None`` is no frame at all."""
    return a is not None and frame_difference(a, b) > OTHER_SHOT
