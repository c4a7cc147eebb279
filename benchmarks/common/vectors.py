"""Image vectors and text queries to search: synthetic ones, and those of Flickr8k through the built-in encoder.

**Synthetic** (`Source`): correlated vectors with a modality gap, made to be as hard as CLIP's for an approximate index.
An image is a point of a low-dimensional latent space (3,000 centres of Zipf-distributed popularity, and a spread
around each; spectrum i^-0.5 over 128 dimensions), turned into ``dim`` dimensions, moved along one direction (the
modality) and blurred by a little white noise. A text query is the latent point of an unseen image, weakened
to a quarter, with as much noise *inside* the latent space as CLIP texts seem to have, moved along another
direction. So texts have a cosine of 0 with a random image and of about 0.22 with their nearest.

How it was fitted: by the recall@100 that IVF with 1024 lists over 100,000 of them gives, against VIBE's figures
for IVF4096 over 1M LAION-CLIP image vectors (arXiv:2505.17810), image queries / text queries:

    lists visited      1           4           16          64
    VIBE, CLIP     .38 / .24   .69 / .51   .90 / .75   .98 / .91
    here           .62 / .25   .79 / .47   .89 / .71   .97 / .91

**Flickr8k**: the vectors of its images, each copied as often as needed with a random step, and the captions of its
dev split as text queries.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from common.environment import data_folder

FOLDER = Path(tempfile.gettempdir()) / "mmsearch-vector-search"
"""Where vectors are kept from one run to the next."""
DATA = {
    "synthetic": "synthetic vectors with a modality gap (benchmarks/common/vectors.py)",
    "flickr8k": "Flickr8k through the built-in encoder, replicated with noise (benchmarks/common/vectors.py)",
}
LATENT, CENTRES, BLOCK = 128, 3000, 50_000


class Source:
    """Draws images and text queries, float32 (m, dim) of length 1; equal seeds draw equal vectors."""

    def __init__(self, dim: int = 512, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.dim, self.seed = dim, seed
        basis = np.linalg.qr(random.standard_normal((dim, dim)))[0].astype(np.float32)
        self._turn, self._image, self._text = basis[:, :LATENT].T, basis[:, -1], basis[:, -2]
        spectrum = (np.arange(1, LATENT + 1) ** -0.5).astype(np.float32)
        self._spectrum = spectrum / np.linalg.norm(spectrum)
        self._centres = random.standard_normal((CENTRES, LATENT)).astype(np.float32) * self._spectrum
        popularity = random.zipf(1.3, CENTRES).clip(1, 200).astype(float)
        self._popularity = popularity / popularity.sum()

    def _latent(self, m: int, random: np.random.Generator) -> np.ndarray:
        near = self._centres[random.choice(CENTRES, m, p=self._popularity)]
        return near + 0.75 * random.standard_normal((m, LATENT), dtype=np.float32) * self._spectrum

    def _vectors(
        self, latent: np.ndarray, modality: np.ndarray, noise: float, random: np.random.Generator
    ) -> np.ndarray:
        blur = random.standard_normal((len(latent), self.dim), dtype=np.float32)
        x = latent @ self._turn + 0.8 * modality + noise / np.sqrt(np.float32(self.dim)) * blur
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def images(self, m: int, part: int) -> np.ndarray:
        """``m`` image vectors; another ``part`` is another draw."""
        random = np.random.default_rng((self.seed, 1, part))
        return self._vectors(self._latent(m, random), self._image, 0.25, random)

    def texts(self, m: int, part: int) -> np.ndarray:
        """``m`` text query vectors; another ``part`` is another draw."""
        random = np.random.default_rng((self.seed, 2, part))
        noise = random.standard_normal((m, LATENT), dtype=np.float32) / np.sqrt(np.float32(LATENT))
        return self._vectors(0.25 * self._latent(m, random) + 0.6 * noise, self._text, 0.7, random)


def write_matrix(path: Path, n: int, source: Source) -> np.memmap:
    """``n`` image vectors as a vector file: float16 rows, written once, mapped read-only."""
    if not path.is_file() or path.stat().st_size != n * source.dim * 2:
        with path.open("wb") as file:
            for low in range(0, n, BLOCK):
                source.images(min(BLOCK, n - low), low // BLOCK).astype("<f2").tofile(file)
    return np.memmap(path, dtype="<f2", mode="r", shape=(n, source.dim))


def flickr8k(cache: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Image vectors (7000, dim) and dev caption vectors (5000, dim), cached by the digest of the weights."""
    from mmsearch import open_encoder

    folder = data_folder("flickr8k")
    encoder = open_encoder("builtin")
    place = cache / f"flickr8k-{encoder.spec.key}.npz"
    if not place.exists():
        from PIL import Image

        files = sorted((folder / "images").glob("*.jpg"))
        rows = []
        for start in range(0, len(files), 64):
            rows.append(encoder.encode_images([Image.open(file).convert("RGB") for file in files[start : start + 64]]))
        dev = set((folder / "dev.txt").read_text().split())
        lines = [line.split("\t") for line in (folder / "captions.tsv").read_text(encoding="utf-8").splitlines()]
        texts = encoder.encode_texts([line[1] for line in lines if line[0] in dev])
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(place, images=np.concatenate(rows), texts=texts)
    stored = np.load(place)
    return stored["images"], stored["texts"], encoder.spec.describe()


def replicate(images: np.ndarray, count: int, noise: float, seed: int = 0) -> np.ndarray:
    """``count`` rows of length 1, float16, around the images."""
    random = np.random.default_rng(seed)
    rows = np.empty((count, images.shape[1]), np.float16)
    for start in range(0, count, 65_536):
        stop = min(count, start + 65_536)
        chosen = images[random.integers(0, len(images), stop - start)]
        steps = random.standard_normal(chosen.shape, dtype=np.float32)
        steps *= noise / np.linalg.norm(steps, axis=1, keepdims=True)
        moved = chosen + steps
        rows[start:stop] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return rows


def prepare(data: str, n: int, queries: int, ks: list[int], folder: Path = FOLDER) -> Path:
    """Writes ``n`` vectors (unless they are there), and a file, which it returns, of queries and their true neighbours.

    That holds ``texts`` and ``images`` (queries, dim) float32, the name of the ``matrix`` beside it, and ``text_K`` and
    ``image_K``, (queries, K) int64, for each of ``ks``.
    """
    from mmsearch.store.local.vector_index import ExactIndex

    folder.mkdir(parents=True, exist_ok=True)
    matrix, texts, images = vectors_of(data, n, folder, queries)
    truth = {}
    for kind, rows in (("text", texts), ("image", images)):
        best = np.stack([each.rows for each in ExactIndex(matrix).search(rows, max(ks))])
        truth |= {f"{kind}_{k}": best[:, :k] for k in ks}
    path = folder / f"{data}-{n}.npz"
    np.savez(path, texts=texts, images=images, matrix=Path(str(matrix.filename)).name, **truth)
    return path


def vectors_of(data: str, n: int, folder: Path, queries: int) -> tuple[np.memmap, np.ndarray, np.ndarray]:
    """``n`` image vectors, mapped float16 (n, dim), and text and image queries, each (queries, dim) float32."""
    if data == "synthetic":
        source = Source()
        matrix = write_matrix(folder / f"{data}-{n}.f16", n, source)
        return matrix, source.texts(queries, 0), source.images(queries, 10**6)
    from mmsearch import open_encoder

    pictures, captions, _ = flickr8k(folder)
    path = folder / f"{data}-{n}-{open_encoder('builtin').spec.key}.f16"
    if not path.is_file() or path.stat().st_size != n * pictures.shape[1] * 2:
        replicate(pictures, n, 0.6).tofile(path)
    texts = captions[np.random.default_rng(1).permutation(len(captions))[:queries]]
    images = replicate(pictures, queries, 0.6, seed=1).astype(np.float32)
    return np.memmap(path, dtype="<f2", mode="r", shape=(n, pictures.shape[1])), texts, images


def mean_recall(found: list[np.ndarray], truth: np.ndarray) -> float:
    """Of the rows found for each query, against the true ones."""
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))
