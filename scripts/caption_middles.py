"""Makes `caption_middles.npz` beside the built-in weights: run it when these have changed, before `reference.py`.

    python scripts/caption_middles.py FLICKR8K

FLICKR8K is a folder with ``captions.tsv`` and ``train.txt``. The captions of the training photos, 30,000, fall into
groups by k-means in the learned half of the space.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import faiss
import numpy as np

from mmsearch.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.encoders.caption_middles import write_caption_middles

LEARNED = 512
"""Dimensions of the learned half, which comes first."""
GROUPS = 1000


def main(flickr: Path) -> None:
    """Encodes the captions and writes the file."""
    train = set((flickr / "train.txt").read_text(encoding="utf-8").split())
    with (flickr / "captions.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        captions = [row["caption"] for row in rows if row["image"] in train]
    encoder = BuiltinEncoder()
    vectors = np.ascontiguousarray(encoder.encode_texts(captions)[:, :LEARNED])
    groups = faiss.Kmeans(LEARNED, GROUPS, niter=8, seed=1, min_points_per_centroid=1)
    groups.train(vectors)
    write_caption_middles(SHIPPED_WEIGHTS, encoder.spec.digest, groups.centroids)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
