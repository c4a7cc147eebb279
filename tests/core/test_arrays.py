"""Arrays in int8 with scales, and shipped files that name their encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.core.arrays import dequantised, quantised, read_npz


@given(st.integers(0, 10_000), st.integers(0, 1), st.sampled_from([np.float16, np.float32]))
def test_a_value_moves_by_half_a_step_at_most(seed: int, axis: int, dtype: type) -> None:
    random = np.random.default_rng(seed)
    values = random.standard_normal((5, 9)).astype(np.float32) * random.choice([0.1, 1, 30])
    values[2] = 0
    steps, scale = quantised(values, axis, dtype=dtype)
    assert steps.dtype == np.int8 and scale.dtype == dtype and steps.min() >= -127
    # A float16 scale may be too small by 1/2048, so that the largest value is cut off.
    most = scale.astype(np.float32) / 2 + np.abs(values).max() / 1024
    assert (np.abs(dequantised(steps, scale) - values) <= most).all()
    assert not dequantised(steps, scale)[2].any()


def test_a_file_is_read_for_its_encoder_alone_and_damage_is_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    assert read_npz(path, lambda name: True) is None
    np.savez_compressed(path, encoder=np.array("ab"), rows=np.arange(3000))
    stored = read_npz(path, lambda name: name == "ab")
    assert stored is not None and stored["rows"].sum() == 4498500
    assert read_npz(path, lambda name: name == "cd") is None
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at])
        assert read_npz(path, lambda name: True) is None


@pytest.mark.parametrize("smallest", [0.0, 1e-9])
def test_zeros_stay_zeros(smallest: float) -> None:
    steps, scale = quantised(np.zeros((2, 3), np.float32), 1, smallest)
    assert not steps.any() and (scale == np.float32(smallest)).all()
