"""Makes `caption_middles.npz` beside the built-in weights: run it when these have changed, before `reference.py`.

    python scripts/caption_centroids.py FLICKR8K

FLICKR8K is a folder with ``captions.tsv`` and ``train.txt``. The captions of the training photos, 30,000, fall into
groups by k-means in the learned half of the space.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from mmsearch.models.encoders.builtin import SHIPPED_WEIGHTS, BuiltinEncoder
from mmsearch.models.encoders.caption_centroids import write_caption_centroids
from mmsearch.store.local.vector_index.ann_building import centroids_of_groups

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
    centroids = centroids_of_groups(encoder.encode_texts(captions)[:, :LEARNED], GROUPS)
    write_caption_centroids(SHIPPED_WEIGHTS, encoder.spec.digest, centroids)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
