"""Correlated vectors with a modality gap, made to be as hard as CLIP's for an approximate index.

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
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

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


def write_matrix(path: Path, n: int, source: Source) -> np.ndarray:
    """``n`` image vectors as a vector file: float16 rows, written once, mapped read-only."""
    if not path.is_file() or path.stat().st_size != n * source.dim * 2:
        with path.open("wb") as file:
            for low in range(0, n, BLOCK):
                source.images(min(BLOCK, n - low), low // BLOCK).astype("<f2").tofile(file)
    return np.memmap(path, dtype="<f2", mode="r", shape=(n, source.dim))
