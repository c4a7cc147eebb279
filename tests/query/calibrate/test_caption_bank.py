"""The shipped vectors of the caption bank are those of the built-in text encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmsearch.models.encoders import open_encoder
from mmsearch.query.calibrate.caption_bank import SHIPPED, bank_vectors, captions_digest, generic_captions
from tests.support.colours import ColourEncoder


def test_the_shipped_vectors_fit_the_shipped_weights() -> None:
    encoder, captions = open_encoder("builtin"), generic_captions()
    with np.load(SHIPPED, allow_pickle=False) as stored:
        assert str(stored["encoder"]) == encoder.spec.digest, "run scripts/bank_vectors.py"
        assert str(stored["captions"]) == captions_digest(captions), "run scripts/bank_vectors.py"
    vectors = bank_vectors(encoder, captions)
    assert (vectors.dtype, vectors.shape) == (np.float16, (len(captions), encoder.spec.dim))
    some = list(range(0, len(captions), 97))
    fresh = encoder.encode_texts([captions[number] for number in some])
    assert np.allclose(vectors[some].astype(np.float32), fresh, atol=2e-3)


def test_another_encoder_or_a_missing_file_means_encoding(tmp_path: Path) -> None:
    encoder = ColourEncoder()
    vectors = bank_vectors(encoder, ["red", "blue"])
    assert np.allclose(vectors, encoder.encode_texts(["red", "blue"]), atol=2e-3)
    assert np.array_equal(bank_vectors(encoder, ["red", "blue"], tmp_path / "none.npz"), vectors)
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 torn")
    assert len(bank_vectors(encoder, ["red"], tmp_path / "torn.npz")) == 1
