"""Images that ask for text passages: those that lie near every photo are corrected, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference import write_reference

from mmsearch import Index
from mmsearch.core.types import EncoderSpec
from mmsearch.evaluate import EvaluationOptions, measuring
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import NEIGHBOURS
from mmsearch.query import SearchOptions
from mmsearch.query.calibrate import calibration as background
from mmsearch.query.calibrate.fit import FitScale, load_reference
from tests.support.colours import COLOURS, ColourEncoder, save_colour


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FloatArray:
    """Reference photos of the colour encoder, most of them red."""
    random = np.random.default_rng(0)
    rows = ColourEncoder().encode_texts(["red"] * 90 + list(COLOURS) * 5) + 0.05 * random.standard_normal((130, 4))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    write_reference(rows, np.zeros(len(rows), np.float32), 0, "any", "any", tmp_path / "reference.npz")
    reference = load_reference("any", "any", tmp_path / "reference.npz")
    assert reference is not None

    def scale(spec: EncoderSpec) -> FitScale:
        return FitScale(reference)

    for module in (background, measuring):
        monkeypatch.setattr(module, "fit_scale", scale)
    return rows


@pytest.fixture
def index(tmp_path: Path, photos: FloatArray) -> Index:
    (tmp_path / "files").mkdir()
    for number, name in enumerate(COLOURS):
        (tmp_path / "files" / f"about {name}.txt").write_text(f"{name} things")
        save_colour(tmp_path / "files" / f"{name}.png", name, seed=number)
    for one, other in zip(list(COLOURS), list(COLOURS)[1:], strict=False):
        (tmp_path / "files" / f"{one}-{other}.txt").write_text(f"{one} or {other}")
    made = Index.open(tmp_path / "index", create=True, encoder=ColourEncoder())
    made.add(tmp_path / "files")
    return made


def test_passages_near_all_photos_are_corrected_where_an_image_asks(index: Index, photos: FloatArray) -> None:
    """Against every passage scored in NumPy, and their nearness to every reference photo."""
    directory = index._directory
    matrix = directory.matrix(directory.space()).astype(np.float32)
    rows = directory.catalogue.rows_of_modalities(directory.space().id, ["text"])
    hubs = np.sort(matrix[rows] @ photos.T, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    assert np.ptp(hubs) > 0.1
    image = index.path.parent / "files" / "blue.png"
    vector = index.encoder().encode_images([Image.open(image)])[0]
    for alpha in (0.0, 0.5, 1.0):
        hits = index.search(image=image, options=SearchOptions(len(rows), ("text",), hubness=alpha, words=0.0))
        totals = np.sort(matrix[rows] @ vector - alpha * hubs)[::-1]
        np.testing.assert_allclose([sum(hit.parts.values()) for hit in hits], totals, atol=5e-3)
    corrections = {Path(hit.path).stem: hit.parts["hubness"] for hit in hits}
    assert corrections["about red"] == min(corrections.values()) < corrections["about blue"] - 0.05


def test_nothing_else_is_corrected_by_photos(index: Index) -> None:
    """Pictures that an image asks for, and passages that a text asks for."""
    image = index.path.parent / "files" / "blue.png"
    for hits in (
        index.search(image=image, k=5, modality="image"),
        index.search("blue type:text", k=5),
        index.search("red", image=image, k=5),
    ):
        assert hits and all(hit.parts["hubness"] == 0 for hit in hits)
    assert any(hit.parts["hubness"] < 0 for hit in index.search("red", k=5))


def test_an_evaluation_says_what_that_gains(index: Index, photos: FloatArray) -> None:
    """Against a count by hand: of each picture, the wrong captions before its first right one."""
    folder, names = index.path.parent, list(COLOURS)
    pairs = [(name, f"{name} {other}") for place, name in enumerate(names) for other in names[place:]]
    (folder / "captions.tsv").write_text("".join(f"{name}.png\t{caption}\n" for name, caption in pairs))
    texts = index.encoder().encode_texts([caption for _, caption in pairs])
    images = index.encoder().encode_images([Image.open(folder / "files" / f"{name}.png") for name in names])
    hubs = np.sort(texts @ photos.T, axis=1)[:, -NEIGHBOURS:].mean(axis=1)
    for alpha in (0.5, 2.0):
        scores = images @ texts.T - alpha * hubs
        right = np.array([[name == other for other, _ in pairs] for name in names])
        firsts = np.where(right, scores, -9).max(axis=1, keepdims=True)
        by_hand = [100 * float(np.mean(((scores >= firsts - 1e-3) & ~right).sum(axis=1) < k)) for k in (1, 5, 10)]
        run = index.evaluate(folder / "captions.tsv", options=EvaluationOptions(alpha=alpha))
        found = [run.two_way[f"R@{k} image→text, corrected"] for k in (1, 5, 10)]
        np.testing.assert_allclose(found, by_hand, atol=100 / len(names) + 1e-6)
    assert (
        "R@1 image→text, corrected"
        not in index.evaluate(folder / "captions.tsv", options=EvaluationOptions(alpha=0.0)).two_way
    )
