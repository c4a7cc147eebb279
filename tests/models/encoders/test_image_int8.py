"""Image encoders in int8: the guard, and that a vector does not depend on its batch."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmsearch.api import Index
from mmsearch.core.options import EncoderOptions
from mmsearch.models.encoders import image_int8, machine_plan, open_encoder
from mmsearch.models.encoders.image_int8 import PHOTOS, Verdict, compare
from mmsearch.models.encoders.registry import canonical_name, is_present, plain_name
from tests.models.encoders.test_open_clip import SIGLIP, SQUASH, photo, save_model

torch = pytest.importorskip("torch")
pytest.importorskip("open_clip")

FP32, INT8 = (EncoderOptions(device="cpu", precision=word) for word in ("fp32", "int8"))  # type: ignore[arg-type]


pytestmark = pytest.mark.usefixtures("cached")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of open_clip, exported."""
    folder = save_model(tmp_path_factory.mktemp("models") / "siglip", SIGLIP, SQUASH)
    open_encoder(str(folder), FP32).prepare_for_queries()
    return folder


@pytest.fixture(scope="module")
def pixels(model: Path) -> np.ndarray:
    """As many prepared photos as the guard wants, that differ."""
    encoder = open_encoder(str(model), FP32)
    return np.stack([encoder.prepare_image(photo(40 + 3 * seed, 90 - seed, seed)) for seed in range(PHOTOS)])


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights and drawn photos: what is nearest is chance."""
    monkeypatch.setattr(image_int8, "_VERDICTS", "lenient.json")
    monkeypatch.setattr(image_int8, "LOWEST_OVERLAP", 0.3)


def images_of(encoder: Any) -> Any:
    """The image encoder of an exported one."""
    return encoder._images


@pytest.mark.usefixtures("lenient")
def test_after_the_first_photos_it_goes_on_in_int8(model: Path, pixels: np.ndarray) -> None:
    exact = open_encoder(str(model), FP32)
    expected = exact.encode_prepared(pixels)
    encoder = open_encoder(str(model), INT8)
    assert encoder.spec == exact.spec, "vectors of both may meet in one index"
    assert images_of(encoder).precision == "fp32"
    np.testing.assert_array_equal(encoder.encode_prepared(pixels[:40]), expected[:40])
    assert images_of(encoder).precision == "fp32"
    encoder.encode_prepared(pixels[40:])
    assert images_of(encoder).precision == "int8"
    narrow = encoder.encode_prepared(pixels)
    cosines = (narrow * expected).sum(axis=1)
    assert cosines.mean() >= 0.995 and cosines.min() >= 0.98 and not np.array_equal(narrow, expected)

    again = open_encoder(str(model), INT8)
    assert images_of(again).precision == "int8", "what was measured is known the next time"
    alone = np.concatenate([again.encode_prepared(pixels[i : i + 1]) for i in range(PHOTOS)])
    np.testing.assert_array_equal(alone, narrow)
    np.testing.assert_array_equal(again.encode_prepared(pixels[::-1])[::-1], narrow)
    assert images_of(open_encoder(str(model), FP32)).precision == "fp32"


def test_where_int8_differs_too_much_it_stays_and_says_so(
    model: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(image_int8, "_VERDICTS", "strict.json")
    monkeypatch.setattr(image_int8, "LOWEST_WORST", 0.9999999)
    expected = open_encoder(str(model), FP32).encode_prepared(pixels)
    encoder = open_encoder(str(model), INT8)
    for _ in range(2):
        np.testing.assert_array_equal(encoder.encode_prepared(pixels), expected)
    with caplog.at_level(logging.WARNING):
        assert images_of(open_encoder(str(model), INT8)).precision == "fp32"
    assert "are encoded in float32, int8 differs too much: cosine to float32 " in caplog.text


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize(("rate", "precision"), [(1e9, "int8"), (1e-3, "fp32")])
def test_auto_takes_the_faster(
    rate: float, precision: str, model: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_encoder(str(model), INT8).encode_prepared(pixels)
    plan_for = machine_plan.plan_for

    def planned(graph: Path, *others: Any, **named: Any) -> Any:
        plan = plan_for(graph, *others, **named)
        return machine_plan.Plan(plan.threads, plan.batch, plan.at_once, rate if "int8" in graph.name else 1.0)

    monkeypatch.setattr("mmsearch.models.encoders.image_export.plan_for", planned)
    encoder = open_encoder(str(model), EncoderOptions(device="cpu", precision="auto"))
    assert images_of(encoder).precision == precision


def test_the_verdict() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(PHOTOS, 32)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    assert compare(rows, rows).passed and compare(rows, rows).overlap == 1
    one_off = rows.copy()
    one_off[7] = rows[8]
    assert not compare(rows, one_off).passed
    noisy = rows + random.normal(size=rows.shape).astype(np.float32) * 0.05
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    assert not compare(rows, noisy).passed
    assert not Verdict(0.999, 0.99, 0.85).passed and not Verdict(0.994, 0.99, 1).passed


def test_an_index_remembers_its_precision(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        photo(60, 50, seed).save(folder / f"{seed}.png")
    with Index.open(tmp_path / "index", create=True, encoder=str(model), options=INT8) as index:
        index.add(folder)
    name = json.loads((tmp_path / "index" / "manifest.json").read_text())["model"]
    assert name == f"local-dir:{model}+int8" == canonical_name(f"{model}+int8")
    assert plain_name(f"{name}+views") == f"local-dir:{model}" and is_present(f"{name}+views")
    with Index.open(tmp_path / "index") as index:
        assert index.add(folder).unchanged == 3
    assert open_encoder(name)._options.precision == "int8"  # type: ignore[attr-defined]
    with Index.open(tmp_path / "plain", create=True, encoder="builtin", options=INT8) as index:
        assert json.loads((tmp_path / "plain" / "manifest.json").read_text())["model"] == "builtin+int8"
