"""Several lists of hits as one, as it is shown: relevance never rises, and weaker matches stand behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmsearch.core.types import Hit
from mmsearch.query.options import MATCH


def merged(first: Sequence[Hit], second: Sequence[Hit], k: int) -> list[Hit]:
    """Both lists as one, by relevance, in the order that each has; at equal relevance the first one comes first.

    A hit whose relevance is not known goes by the next one of its list that is known: it hides no better one behind it.
    Where none follows, the lists take turns, as long as the other one has matches; weaker ones stand behind.
    """
    taken: list[Hit] = []
    lists = [[*zip(each, _known_from(each), strict=True)][::-1] for each in (first, second)]
    left, right = lists
    source = right
    while len(taken) < k and (left or right):
        if not left or not right:
            source = left or right
        else:
            one, other = left[-1][1], right[-1][1]
            if one is not None and other is not None:
                source = right if other > one else left
            elif one is not None and one < MATCH:
                source = right
            elif other is not None and other < MATCH:
                source = left
            else:
                source = left if source is right else right
        taken.append(replace(source.pop()[0], rank=len(taken) + 1))
    return taken


def _known_from(hits: Sequence[Hit]) -> list[float | None]:
    """For each hit its relevance or, where that is not known, the next one that is."""
    known: list[float | None] = []
    for hit in reversed(hits):
        known.append(hit.relevance if hit.relevance is not None or not known else known[-1])
    return known[::-1]


def weaker_behind(hits: Sequence[Hit]) -> list[Hit]:
    """The same hits in the same order. What stands behind a weaker match, by its score, is no match either where its
    relevance is not known.
    """
    first = next((place for place, hit in enumerate(hits) if not hit.match), len(hits))
    return [*hits[:first], *(replace(hit, match=False) if hit.match else hit for hit in hits[first:])]
