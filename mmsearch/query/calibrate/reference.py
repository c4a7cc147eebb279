"""What a text's scores are like among photos that have nothing to do with it.

Some questions score high everywhere ("a person in a place"), others low; and some passages lie near every photo and
answer for photos that they do not describe. How high a text rises by chance is read from photos that no index holds:
`reference.npz` has the vectors of a thousand, by one encoder, squeezed to their first principal components.
`scripts/reference.py` makes it anew when the weights or the captions have changed; until then, and for other encoders,
nothing is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmsearch.core.arrays import dequantised, read_npz
from mmsearch.models.encoders.base import FloatArray
from mmsearch.models.encoders.caption_centroids import nearest_mean
from mmsearch.models.encoders.views import reads_texts_as
from mmsearch.query.calibrate.hubness import weights

SHIPPED = Path(__file__).parent / "reference.npz"
USUAL = 0.99
"""Which share of the photos a question's usual best score leaves below it."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Photos as ``middle`` + ``places`` @ ``axes``, float32 (dim,), (photos, components) and (components, dim).

    ``corrections`` (photos,) is what hubness takes off their scores with a question that counts in full, ``learned``
    tells how much others count (`mmsearch.query.calibrate.hubness.weights`). ``name`` tells it from others.
    """

    middle: FloatArray
    axes: FloatArray
    places: FloatArray
    corrections: FloatArray
    learned: int
    name: str

    def usual(self, questions: FloatArray) -> FloatArray:
        """The corrected score that only few of the photos reach, (q,), for ``questions`` float32 (q, dim)."""
        scores = self._scores(questions)
        scores -= weights(questions, self.learned)[:, None] * self.corrections
        # The quantile itself, not a mean between two neighbours, needs no full sort.
        place = int(USUAL * (scores.shape[1] - 1))
        usual: FloatArray = np.partition(scores, place, axis=1)[:, place].astype(np.float32)
        return usual

    def nearness(self, passages: FloatArray) -> FloatArray:
        """How much of a hub among photos each of ``passages``, float32 (n, dim), is: (n,)."""
        return nearest_mean(self._scores(passages))

    def _scores(self, texts: FloatArray) -> FloatArray:
        scores: FloatArray = (texts @ self.middle)[:, None] + (texts @ self.axes.T) @ self.places.T
        return scores


def load_reference(digest: str, captions: str, path: Path = SHIPPED) -> Reference | None:
    """What ships for the encoder of this ``digest`` and the caption bank of this digest; ``None`` where none does.

    It serves that encoder with several views as well: a question reaches nearly the same among its vectors.
    """
    stored = read_npz(path, lambda encoder: reads_texts_as(digest, encoder))
    try:
        if stored is None or str(stored["captions"]) != captions:
            return None
        return Reference(
            stored["middle"].astype(np.float32),
            dequantised(stored["axes"], stored["axes_scale"]),
            dequantised(stored["places"], stored["places_scale"]),
            stored["corrections"].astype(np.float32),
            int(stored["learned"]),
            str(stored["name"]),
        )
    except (ValueError, KeyError):
        return None
