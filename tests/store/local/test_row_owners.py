"""Whose the rows of a vector file are: what the blocks say is what the tables say, after anything that can happen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmsearch.core.types import EncoderSpec, MediaInfo
from mmsearch.store.local.catalogue import Catalogue, NewContent, NewSegment, Space, row_owners

MODALITIES = ("image", "video", "text")

SPEC = EncoderSpec("test", "ab" * 32, 4, "none")


def slowly(catalogue: Catalogue, space_id: int) -> dict[int, tuple[int, str]]:
    """Row → (content, modality) of all live rows, by a join."""
    rows = catalogue.sql.execute(
        """SELECT v.row, c.id, c.modality FROM vectors v JOIN segments s ON s.id = v.segment_id
           JOIN contents c ON c.id = s.content_id WHERE v.space_id = ?""",
        [space_id],
    )
    return {row: (content, modality) for row, content, modality in rows}


def check(catalogue: Catalogue) -> int:
    """Compares everything with the join; returns how many rows stand in blocks."""
    for space in catalogue.spaces():
        truth = slowly(catalogue, space.id)
        for count in {space.row_count, space.row_count // 2, max(0, space.row_count - 1)}:
            owners = catalogue.row_owners(space.id, count, catalogue.dead_rows(space.id))
            known = {row: one for row, one in truth.items() if row < count}
            for row in range(count):
                content, modality = known.get(row, (0, None))
                assert owners.contents[row] == content
                assert (owners.modalities[row] == row_owners.NOBODY) == (modality is None)
            for wanted in ((), ("image",), ("text", "video"), MODALITIES):
                rows = sorted(row for row, (_, modality) in known.items() if modality in wanted)
                assert owners.of_modalities(wanted).tolist() == rows
                every = np.arange(count)
                assert every[owners.are_of_modalities(every, wanted)].tolist() == rows
            asked = np.array([*{content for content, _ in truth.values()}, 10**9, 10**9 + 1], dtype=np.int64)[::-1]
            places, rows_found = owners.of_contents(asked)
            pairs = sorted(zip(asked[places].tolist(), rows_found.tolist(), strict=True))
            assert pairs == sorted((content, row) for row, (content, _) in known.items())
        assert not catalogue.has_wrong_blocks(space)
    return sum(len(blob) for (blob,) in catalogue.sql.execute("SELECT modalities FROM row_blocks"))


def add(catalogue: Catalogue, space: Space, hashes: list[tuple[int, int]]) -> None:
    """Commits contents, given as (hash, segments), as one document each; known ones get new vectors."""
    with catalogue.transaction():
        row = first = catalogue.row_count(space.id)
        for hash_, segments in hashes:
            new = [NewSegment(row + number) for number in range(segments)]
            content = NewContent(bytes([hash_]), "x", MODALITIES[hash_ % 3], MediaInfo(), new)
            content_id = catalogue.add_content(space, content)
            catalogue.put_document(1, f"{hash_}", MODALITIES[hash_ % 3], 1, 1, content_id)
            row += segments
        assert row >= first
        catalogue.set_row_count(space.id, row)


CONTENTS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=8, unique_by=lambda one: one[0])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), CONTENTS),
        st.tuples(st.just("remove"), st.lists(st.integers(0, 40), max_size=12)),
        st.tuples(st.just("compact"), st.none()),
        st.tuples(st.just("give up"), st.integers(1, 9)),
        st.tuples(st.just("fail"), CONTENTS),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(1, 7))
def test_blocks_and_tables_agree_whatever_happens(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, object]], block: int
) -> None:
    catalogue = Catalogue(tmp_path_factory.mktemp("db") / "c.sqlite", read_only=False)
    space = catalogue.add_space(SPEC, "vectors.f16")
    catalogue.add_root("/photos", is_relative=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_owners, "BLOCK", block)
        for step, value in steps:
            if step == "add":
                add(catalogue, space, value)  # type: ignore[arg-type]
            elif step == "fail":
                with pytest.raises(RuntimeError), catalogue.transaction():
                    add(catalogue, space, value)  # type: ignore[arg-type]
                    raise RuntimeError
            elif step == "remove":
                with catalogue.transaction():
                    for hash_ in value:  # type: ignore[attr-defined]
                        catalogue.remove_below(1, f"{hash_}")
                    catalogue.drop_unused_contents()
            elif step == "compact":
                with catalogue.transaction():
                    alive = np.setdiff1d(np.arange(catalogue.row_count(space.id)), catalogue.dead_rows(space.id))
                    catalogue.renumber_rows(space.id, alive, "vectors.f16")
            else:  # the last rows are gone, and others will take their places
                with catalogue.transaction():
                    rows = max(0, catalogue.row_count(space.id) - int(value))  # type: ignore[call-overload]
                    catalogue.set_row_count(space.id, rows)
                    catalogue.sql.execute("DELETE FROM vectors WHERE row >= ?", [rows])
                    catalogue.sql.execute("DELETE FROM dead_rows WHERE row >= ?", [rows])
            in_blocks = check(catalogue)
            if step in ("add", "compact"):
                assert catalogue.row_count(space.id) - in_blocks < block
    catalogue.close()


def test_rows_without_an_owner_yet_are_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_owners, "BLOCK", 4)
    catalogue = Catalogue(tmp_path / "c.sqlite", read_only=False)
    space = catalogue.add_space(SPEC, "vectors.f16")
    catalogue.add_root("/photos", is_relative=False)
    catalogue.set_row_count(space.id, 8)
    assert check(catalogue) == 0
    segments = [NewSegment(row) for row in range(8)]
    catalogue.add_content(space, NewContent(b"a", "x", "image", MediaInfo(), segments))
    assert check(catalogue) == 0
    catalogue.set_row_count(space.id, 8)
    assert check(catalogue) == 8
    catalogue.close()


def test_what_blocks_say_is_not_looked_up_again(tmp_path: Path) -> None:
    """All but the last incomplete block come from the blocks: the tables are only asked for the rest."""
    catalogue = Catalogue(tmp_path / "c.sqlite", read_only=False)
    space = catalogue.add_space(SPEC, "vectors.f16")
    catalogue.add_root("/photos", is_relative=False)
    with catalogue.transaction():
        segments = [NewSegment(row) for row in range(3 * row_owners.BLOCK + 5)]
        catalogue.add_content(space, NewContent(b"a", "x", "video", MediaInfo(), segments))
        catalogue.set_row_count(space.id, len(segments))
    asked: list[str] = []
    catalogue.sql.set_trace_callback(asked.append)
    owners = catalogue.row_owners(space.id, len(segments), np.zeros(0, np.int64))
    catalogue.sql.set_trace_callback(None)
    assert (owners.contents == 1).all() and (owners.modalities == MODALITIES.index("video")).all()
    [from_tables] = [one for one in asked if "FROM vectors" in one]
    assert f"v.row >= {3 * row_owners.BLOCK} " in from_tables
    catalogue.close()
