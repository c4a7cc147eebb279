"""What `verify` can find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Part = Literal["catalogue", "vectors", "tokens", "disk"]


@dataclass(frozen=True)
class Difference:
    """One thing that does not agree.

    ``kind`` is one of `KINDS`; ``where`` a file, a folder or a part of the index; ``detail`` a sentence.
    """

    kind: str
    where: str
    detail: str

    @property
    def part(self) -> Part:
        """Which side of the index the difference concerns."""
        return KINDS[self.kind][0]

    @property
    def mendable(self) -> bool:
        """Whether `mend` can do something about it."""
        return KINDS[self.kind][1]


KINDS: dict[str, tuple[Part, bool]] = {
    "new file": ("disk", True),
    "changed file": ("disk", True),
    "missing file": ("disk", True),
    "changed bytes": ("disk", True),
    "unreadable file": ("disk", False),
    "missing folder": ("disk", False),
    "damaged database": ("catalogue", False),
    "changed catalogue": ("catalogue", True),
    "foreign log": ("catalogue", False),
    "damaged manifest": ("catalogue", True),
    "damaged vector index": ("vectors", True),
    "damaged calibration": ("vectors", True),
    "incomplete content": ("catalogue", True),
    "lost content": ("catalogue", False),
    "unused content": ("catalogue", True),
    "wrong modality": ("catalogue", True),
    "empty root": ("catalogue", True),
    "vectors missing": ("vectors", True),
    "uncommitted bytes": ("vectors", True),
    "row without owner": ("vectors", True),
    "row outside": ("vectors", True),
    "row owned and dead": ("vectors", True),
    "wrong row blocks": ("vectors", True),
    "wrong codes": ("vectors", True),
    "bad vector": ("vectors", True),
    "lost vector": ("vectors", False),
    "tokens missing": ("tokens", True),
    "uncommitted tokens": ("tokens", True),
    "bad tokens": ("tokens", True),
    "stray file": ("vectors", False),
}
"""Kind → (part, whether it can be mended).

A folder that is missing may be a disk that is not mounted, so nothing is dropped for it. What is not mendable says
in its detail what to do.
"""


@dataclass(frozen=True)
class Verdict:
    """What was compared, and every difference. ``clean`` when there is none."""

    documents: int
    vectors: int
    files: int
    differences: tuple[Difference, ...] = ()

    @property
    def clean(self) -> bool:
        """Whether catalogue, vector file and disk agree."""
        return not self.differences
