"""Makes `mmsearch/query/calibrate/reference.npz` anew: run it when the built-in weights or the captions have changed.

``$MMSEARCH_TEST_DATA`` names a folder with ``flickr8k/`` (images, train.txt), of which every sixth photo is taken.
Run ``scripts/bank_vectors.py`` and ``scripts/caption_centroids.py`` before.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch.models.encoders import open_encoder
from mmsearch.query.calibrate.caption_bank import bank_vectors, captions_digest, generic_captions
from mmsearch.query.calibrate.fit import hubness_of_vectors, learned_numbers, write_reference
from mmsearch.query.options import ALPHA

EVERY = 6


def main(data: Path) -> None:
    """Encodes the photos and writes the file."""
    encoder, captions = open_encoder("builtin"), generic_captions()
    names = (data / "flickr8k" / "train.txt").read_text(encoding="utf-8").split()[::EVERY]
    photos = encoder.encode_images(
        [Image.open(data / "flickr8k" / "images" / name).convert("RGB") for name in names]
    ).astype(np.float16)
    bank = bank_vectors(encoder, captions).astype(np.float32)
    vectors = photos.astype(np.float32)
    centroids = encoder.caption_centroids()
    hubness = hubness_of_vectors(vectors, vectors @ bank.T, centroids)
    write_reference(
        vectors, ALPHA * hubness, learned_numbers(centroids), encoder.spec.digest, captions_digest(captions)
    )


if __name__ == "__main__":
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    if not folder:
        sys.exit("MMSEARCH_TEST_DATA must name the folder with flickr8k/")
    main(Path(folder))
