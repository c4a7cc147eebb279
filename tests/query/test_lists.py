"""Several lists of hits as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmsearch.core.types import Hit
from mmsearch.query.calibrate.fit import never_rising
from mmsearch.query.lists import merged, weaker_behind
from mmsearch.query.options import MATCH

unknown_or = st.one_of(st.none(), st.sampled_from([0.0, MATCH, 1.0]), st.floats(0, 1))
lists = st.lists(unknown_or, max_size=7).map(never_rising)


def hits(kind: str, *values: float | None) -> list[Hit]:
    return [
        Hit(n, 0.1, f"{kind}{n}", kind, 0, relevance=value, match=value is None or value >= MATCH)
        for n, value in enumerate(values, 1)
    ]


def order(first: list[Hit], second: list[Hit], k: int = 9) -> list[str]:
    return [hit.path for hit in merged(first, second, k)]


def test_lists_become_one_by_relevance() -> None:
    both = merged(hits("image", 0.9, 0.5, 0.2), hits("speech", 0.9, 0.3), 4)
    assert [hit.path for hit in both] == ["image1", "speech1", "image2", "speech2"]
    assert [hit.rank for hit in both] == [1, 2, 3, 4]


def test_where_relevance_is_not_known_lists_take_turns() -> None:
    assert order(hits("image", None, None), hits("speech", None)) == ["image1", "speech1", "image2"]
    assert order(hits("image", None, None), hits("speech", 0.9, 0.8)) == ["image1", "speech1", "image2", "speech2"]


def test_what_is_not_known_hides_nothing_better_and_stands_before_weaker_ones() -> None:
    assert order(hits("image", None, 0.9), hits("speech", 0.5, 0.4)) == ["image1", "image2", "speech1", "speech2"]
    assert order(hits("image", 0.95, None, 0.9), hits("speech", 0.5)) == ["image1", "image2", "image3", "speech1"]
    assert order(hits("image", 0.95, None, 0.4), hits("speech", 0.5)) == ["image1", "speech1", "image2", "image3"]
    assert order(hits("image", None, None), hits("speech", 0.9, 0.01)) == ["image1", "speech1", "image2", "speech2"]
    assert order(hits("image", 0.01), hits("speech", None, None)) == ["speech1", "speech2", "image1"]


@given(first=lists, second=lists, k=st.integers(0, 14))
def test_one_list_falls_and_keeps_the_order_of_both(
    first: list[float | None], second: list[float | None], k: int
) -> None:
    whole = weaker_behind(merged(hits("image", *first), hits("speech", *second), k))
    known = [hit.relevance for hit in whole if hit.relevance is not None]
    assert known == sorted(known, reverse=True)
    assert [hit.match for hit in whole] == sorted((hit.match for hit in whole), reverse=True)
    assert [hit.rank for hit in whole] == list(range(1, min(k, len(first) + len(second)) + 1))
    for kind in ("image", "speech"):
        own = [hit.path for hit in whole if hit.modality == kind]
        assert own == [f"{kind}{n}" for n in range(1, len(own) + 1)]
