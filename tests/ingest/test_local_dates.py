"""Dates of files and videos are days of the machine's time zone, also in an index from before they were."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import pytest

from mmsearch.api import Index
from tests.media.video.test_reader import steady, write_clip
from tests.support.colours import ColourEncoder, save_colour
from tests.support.zones import zone


def dates(index: Index, query: str) -> dict[str, str | None]:
    return {Path(hit.path).name: hit.date for hit in index.search(query)}


@pytest.mark.parametrize("name", ["Asia/Tokyo", "America/New_York"])
def test_an_evening_is_one_day_for_photos_videos_and_files(tmp_path: Path, name: str) -> None:
    with zone(name), Index.open(tmp_path / "index", create=True, encoder=ColourEncoder()) as index:
        (tmp_path / "photos").mkdir()
        evening = datetime(2020, 6, 7, 23, 30)
        stamp = datetime.fromtimestamp(evening.timestamp()).astimezone()
        created = (stamp - stamp.utcoffset()).strftime("%Y-%m-%dT%H:%M:%SZ")  # type: ignore[operator]
        write_clip(tmp_path / "photos" / "clip.mp4", [(0.0, "red")], steady(1), metadata={"creation_time": created})
        save_colour(tmp_path / "photos" / "file.png", "blue")
        os.utime(tmp_path / "photos" / "file.png", (evening.timestamp(),) * 2)
        index.add(tmp_path / "photos")
        there = {"clip.mp4": "2020-06-07T23:30:00", "file.png": "2020-06-07T23:30:00"}
        assert dates(index, "after:2020-06-07 before:2020-06-08") == there
        assert dates(index, "after:2020-06-08") == dates(index, "before:2020-06-07") == {}

        # as an older version left it, which took the moment in UTC for a local one
        with index._directory.writing() as writable, writable.catalogue.transaction():
            writable.catalogue.sql.execute(
                "UPDATE contents SET taken_at = ?, is_described = 0 WHERE modality = 'video'",  # as `m014` does
                [created.removesuffix("Z")],
            )
        assert dates(index, "type:video") == {"clip.mp4": created.removesuffix("Z")}
        report = index.add(tmp_path / "photos")
        assert (report.unchanged, report.indexed, report.updated, report.segments) == (2, 0, 0, 0)
        assert dates(index, "after:2020-06-07 before:2020-06-08") == there
