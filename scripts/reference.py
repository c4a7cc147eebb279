"""Makes `query/calibrate/reference.npz` anew: run it when the built-in weights or the captions have changed.

    python scripts/reference.py [ENCODER]

``$MMSEARCH_TEST_DATA`` names a folder with ``flickr8k/`` (images, train.txt) and ``coco/`` (images), of which every
sixth photo is taken. Run ``scripts/caption_bank.py`` and ``scripts/caption_centroids.py`` before, and after it
``scripts/fit_relevance.py``. For another ENCODER it makes a file of its own beside it, named after the digest of the
weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from mmsearch.core.arrays import quantised
from mmsearch.models.encoders import open_encoder
from mmsearch.models.encoders.base import FloatArray
from mmsearch.query.calibrate.caption_bank import bank_vectors, captions_digest, generic_captions
from mmsearch.query.calibrate.fit import SHIPPED, hubness_of_vectors, learned_numbers
from mmsearch.query.options import ALPHA

EVERY = 6
COMPONENTS = 128


def main(data: Path, name: str = "builtin") -> None:
    """Encodes the photos and writes the file."""
    encoder, captions = open_encoder(name), generic_captions()
    names = (data / "flickr8k" / "train.txt").read_text(encoding="utf-8").split()[::EVERY]
    files = [data / "flickr8k" / "images" / name for name in names]
    files += sorted((data / "coco" / "images").iterdir())[1::EVERY]
    photos = np.concatenate(
        [
            encoder.encode_images([Image.open(file).convert("RGB") for file in files[start : start + 64]])
            for start in range(0, len(files), 64)
        ]
    ).astype(np.float16)
    bank = bank_vectors(encoder, captions).astype(np.float32)
    vectors = photos.astype(np.float32)
    centroids = encoder.caption_centroids()
    hubness = hubness_of_vectors(vectors, vectors @ bank.T, centroids)
    digest = encoder.spec.digest
    path = SHIPPED if name == "builtin" else SHIPPED.with_name(f"reference-{digest[:12]}.npz")
    write_reference(vectors, ALPHA * hubness, learned_numbers(centroids), digest, captions_digest(captions), path)


def write_reference(
    photos: FloatArray, corrections: FloatArray, learned: int, digest: str, captions: str, path: Path = SHIPPED
) -> None:
    """Makes the file from the vectors of ``photos``, float32 (n, dim), and their hubness ``corrections`` (n,); for
    ``learned`` see `Reference`.
    """
    middle = photos.mean(axis=0)
    axes = np.linalg.svd(photos - middle, full_matrices=False)[2][:COMPONENTS]
    narrow_axes, axes_scale = quantised(axes, axis=1)
    places = (photos - middle) @ axes.T
    narrow_places, places_scale = quantised(places, axis=0)
    np.savez_compressed(
        path,
        allow_pickle=False,
        encoder=np.array(digest),
        captions=np.array(captions),
        name=np.array(f"{len(photos)} photos, {len(axes)} components"),
        middle=middle.astype(np.float16),
        axes=narrow_axes,
        axes_scale=axes_scale,
        places=narrow_places,
        places_scale=places_scale,
        corrections=corrections.astype(np.float16),
        learned=np.array(learned),
    )


if __name__ == "__main__":
    folder = os.environ.get("MMSEARCH_TEST_DATA")
    if not folder:
        sys.exit("MMSEARCH_TEST_DATA must name the folder with flickr8k/ and coco/")
    main(Path(folder), *sys.argv[1:2])
