"""High dynamic range to sRGB: pictures and frames coded by PQ or HLG, which look grey where they are taken for sRGB.

Sources: Rec. ITU-R BT.2100-2 (PQ: table 4, HLG: table 5), BT.2408-7 (reference white, 203 cd/m²), BT.2390-11, 5.4 (the
curve that makes room for highlights), BT.2020-2 and BT.709-6 (primaries), IEC 61966-2-1 (sRGB), ITU-T H.273 (code
points).
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PQ, HLG = 16, 18
"""TransferCharacteristics of H.273, table 3."""
WHITE = 203.0
"""Luminance of reference white in cd/m²: it becomes the white of sRGB."""
HLG_PEAK = 1000.0
_PEAK_SHARE = 0.998
"""So many pixels are not brighter than what counts as the brightest: sparks and noise darken no picture."""

_XYZ_OF_709 = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_XYZ_OF_2020 = np.array([[0.6370, 0.1446, 0.1689], [0.2627, 0.6780, 0.0593], [0.0000, 0.0281, 1.0610]])
_XYZ_OF_P3 = np.array([[0.4866, 0.2657, 0.1982], [0.2290, 0.6917, 0.0793], [0.0000, 0.0451, 1.0439]])
_PRIMARIES = {1: _XYZ_OF_709, 9: _XYZ_OF_2020, 11: _XYZ_OF_P3, 12: _XYZ_OF_P3}
"""ColourPrimaries of H.273, table 2; others are taken for those of BT.2020, which HDR comes with."""


class Coding(NamedTuple):
    """How colours are coded: ColourPrimaries and TransferCharacteristics of H.273."""

    primaries: int
    transfer: int

    @property
    def is_hdr(self) -> bool:
        """Whether `to_srgb` knows it."""
        return self.transfer in {PQ, HLG}


def to_srgb(coded: npt.NDArray[np.unsignedinteger[Any]], coding: Coding) -> npt.NDArray[np.uint8]:
    """Full-range RGB, uint8 or uint16 (h, w, 3), coded by PQ or HLG, to sRGB, uint8 (h, w, 3).

    What is not brighter than reference white keeps its brightness where the picture has no highlights; else the upper
    part makes room for them, by BT.2390 on the brightest of the three components, so hues stay.
    """
    light = _light_of_codes(coding.transfer, coded.dtype.itemsize)[coded]
    if coding.transfer == HLG:
        # BT.2100, table 5: the OOTF of a display of 1,000 cd/m², gamma 1.2.
        luminance = light @ np.array([0.2627, 0.6780, 0.0593], dtype=np.float32)
        light *= HLG_PEAK * np.power(np.maximum(luminance, 1e-6), np.float32(0.2))[..., None]
    matrix = np.linalg.inv(_XYZ_OF_709) @ _PRIMARIES.get(coding.primaries, _XYZ_OF_2020)
    light = np.maximum(light @ matrix.T.astype(np.float32), 0)
    light *= _room_for_highlights(light.max(axis=2))[..., None] / np.float32(WHITE)
    steps = (light.clip(0, 1) * 65535 + 0.5).astype(np.uint16)
    shown: npt.NDArray[np.uint8] = _srgb_of_light()[steps]
    return shown


@cache
def _light_of_codes(transfer: int, size: int) -> Floats:
    """For each code of so many bytes: PQ's luminance in cd/m²; of HLG, the light of the scene from 0 to 1."""
    signal = np.linspace(0, 1, 256**size, dtype=np.float64)
    if transfer == PQ:
        return _pq_light(signal).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    light = np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)
    return light.astype(np.float32)


_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 4096 * 128, 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32


def _pq_light(signal: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """BT.2100, table 4: the EOTF of PQ, in cd/m²."""
    power = np.power(signal, 1 / _M2)
    light: npt.NDArray[Any] = 10_000 * np.power(np.maximum(power - _C1, 0) / (_C2 - _C3 * power), 1 / _M1)
    return light


def _pq_signal(light: npt.NDArray[Any]) -> npt.NDArray[Any]:
    power = np.power(light / 10_000, _M1)
    signal: npt.NDArray[Any] = np.power((_C1 + _C2 * power) / (1 + _C3 * power), _M2)
    return signal


def _room_for_highlights(brightest: Floats) -> Floats:
    """By what to multiply pixels of so many cd/m², (h, w), so that the picture's peak becomes reference white."""
    peak = float(np.quantile(brightest, _PEAK_SHARE))
    if peak <= WHITE * 1.02:
        return np.ones_like(brightest)
    top = _pq_signal(np.float64(peak))
    most = float(_pq_signal(np.float64(WHITE)) / top)
    knee = 1.5 * most - 0.5
    steps = np.linspace(0, 1, 1024)
    t = np.maximum(steps - knee, 0) / (1 - knee)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    mapped = _pq_light(np.where(steps < knee, steps, spline) * top)
    before = _pq_light(steps * top)
    gains = np.where(before > 0, mapped / np.maximum(before, 1e-9), 1.0)
    return np.interp(brightest, before, gains).astype(np.float32)


@cache
def _srgb_of_light() -> npt.NDArray[np.uint8]:
    """IEC 61966-2-1, for 65,536 steps of linear light."""
    light = np.linspace(0, 1, 65536)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)
    return np.round(255 * coded).astype(np.uint8)
