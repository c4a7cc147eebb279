"""What every decoded frame costs is done in whole numbers; here it is compared with what the numbers mean."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmsearch.media.video.frame import glance
from mmsearch.media.video.packets import seconds_of
from mmsearch.media.video.similarity import frame_difference

thumbnails = arrays(np.uint8, (16, 16, 3))


@given(thumbnails, thumbnails)
def test_the_difference_is_the_larger_of_two_means(a: np.ndarray, b: np.ndarray) -> None:
    change = np.abs(a.astype(float) - b.astype(float)).max(axis=2) / 255
    parts = [change[y : y + 4, x : x + 4].mean() for y in range(0, 16, 4) for x in range(0, 16, 4)]
    expected = max(change.mean(), np.mean(sorted(parts)[-2:]) / 4)
    assert frame_difference(a, b) == pytest.approx(expected, abs=1e-12)
    assert frame_difference(a, b) == frame_difference(b, a)


@pytest.mark.parametrize("size", [(16, 16), (97, 61), (160, 96), (1280, 720)])
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv422p10le", "gbrp", "yuv444p16le"])
def test_a_glance_is_the_mean_of_nine_points_of_each_part(size: tuple[int, int], pixels: str) -> None:
    width, height = size
    frame = av.VideoFrame(width, height, pixels)
    random = np.random.default_rng(0)
    bits = frame.format.components[0].bits
    expected = []
    for plane in list(frame.planes)[:3]:
        kind = np.dtype(np.uint8 if bits == 8 else "<u2")
        values = random.integers(0, 2**bits, (plane.height, plane.line_size // kind.itemsize)).astype(kind)
        plane.update(values.tobytes())
        rows, columns = (np.arange(48) * side // 48 for side in (plane.height, plane.width))
        points = values[np.ix_(rows, columns)].astype(float)
        means = [[points[y : y + 3, x : x + 3].mean() for x in range(0, 48, 3)] for y in range(0, 48, 3)]
        expected.append(np.floor(np.array(means) / 2 ** (bits - 8) + 1e-9).astype(np.uint8))
    np.testing.assert_array_equal(glance(frame), np.stack(expected, axis=2))


@given(st.integers(-(2**62), 2**62), st.fractions(min_value=Fraction(1, 2**31), max_value=2**31))
def test_seconds_are_those_of_the_fraction(ticks: int, base: Fraction) -> None:
    assert seconds_of(ticks, base) == float(ticks * base)
