"""Do photos that a camera stored turned end up where the upright ones do?

    python benchmarks/ingest_orientation.py [--photos 20] [--model builtin]

Each photo is stored in the eight ways of EXIF (pixels turned or mirrored, the tag saying how to undo it) as JPEG of one
quality, indexed by `Index.add`, and every stored vector is compared with that of the upright file. Beside it, the
cosines that come out when the tag is ignored, as an indexer without this step has them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from common.output import command_line, publish
from common.photos import pictures, real_photos
from PIL import Image

from mmsearch import Index, open_encoder

T = Image.Transpose
STORED = {2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_90, 7: T.TRANSVERSE,
          8: T.ROTATE_270}  # fmt: skip
"""EXIF orientation → what was done to the pixels before they were stored; the tag undoes it."""


def write_variants(folder: Path, count: int) -> None:
    """``tagged/N-O.jpg`` with the tag, ``bare/N-O.jpg`` without."""
    for number, picture in enumerate(pictures(count, (1200, 900))):
        for orientation in range(1, 9):
            stored = picture.transpose(STORED[orientation]) if orientation in STORED else picture
            exif = Image.Exif()
            exif[274] = orientation
            for name, tags in (("tagged", exif), ("bare", Image.Exif())):
                (folder / name).mkdir(exist_ok=True)
                stored.save(folder / name / f"{number:03d}-{orientation}.jpg", quality=92, exif=tags)


def cosines(index: Index, folder: Path, count: int) -> np.ndarray:
    """(photos, 8): every orientation's vector against that of orientation 1."""
    directory = index._directory
    space = directory.space()
    matrix = directory.matrix(space).astype(np.float32)
    rows = {Path(found.path).name: found.row for found in directory.catalogue.find_rows(space.id, range(len(matrix)))
            if found.path.startswith(folder.name)}  # fmt: skip
    vectors = np.stack([[matrix[rows[f"{n:03d}-{o}.jpg"]] for o in range(1, 9)] for n in range(count)])
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    return np.einsum("noc,nc->no", vectors, vectors[:, 0])


def main() -> None:
    """Measures, prints, writes the result."""
    parser = command_line(__doc__)
    parser.add_argument("--photos", type=int, default=20)
    parser.add_argument("--model", default="builtin")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        folder.mkdir()
        write_variants(folder, arguments.photos)
        with Index.open(Path(place) / "index", create=True, encoder=open_encoder(arguments.model)) as index:
            index.add(folder)
            tagged = cosines(index, folder / "tagged", arguments.photos)
            bare = cosines(index, folder / "bare", arguments.photos)
    figures = {
        "photos": arguments.photos,
        "model": arguments.model,
        "images_are": "photos with pixel noise" if real_photos() else "generated",
        "worst_cosine": round(float(tagged.min()), 5),
        "worst_cosine_of_each_orientation": {o: round(float(tagged[:, o - 1].min()), 5) for o in range(1, 9)},
        "mean_cosine_where_the_tag_is_ignored": {o: round(float(bare[:, o - 1].mean()), 3) for o in range(1, 9)},
        "passed": bool(tagged.min() >= 0.99),
    }
    publish("ingest_orientation", figures, arguments)


if __name__ == "__main__":
    main()
