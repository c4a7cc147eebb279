"""An index that an older mmsearch made is brought up to date when it is opened, and loses nothing."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pytest
import sqlite_utils

from mmsearch.api import Index
from mmsearch.core.errors import IndexBusy
from mmsearch.store.local import migrations
from mmsearch.store.local.catalogue import row_owners
from mmsearch.store.local.catalogue.database import register_words
from mmsearch.store.local.directory import IndexDirectory
from tests.support.colours import COLOURS, ColourEncoder
from tests.support.old_index import OldDocument, write_old_index


@pytest.fixture
def old(photos: Path, tmp_path: Path) -> Path:
    """An index as the first schema had it."""
    encoder = ColourEncoder()
    files = sorted(photos.rglob("*.png"))
    vectors = encoder.encode_texts([file.stem for file in files])
    documents = [
        OldDocument(file, row[None], bytes([number]))
        for number, (file, row) in enumerate(zip(files, vectors, strict=True))
    ]
    return write_old_index(tmp_path / "old", encoder.spec, photos, documents)


def test_an_old_index_is_searched_and_kept_up_to_date(old: Path, photos: Path) -> None:
    with Index.open(old, encoder=ColourEncoder()) as index:
        for colour in COLOURS:
            assert Path(index.search(colour, k=1)[0].path).stem == colour
        assert {one.kind for one in index.verify().differences} == {"changed file"}, "read differently then"
        assert index.add(photos).updated == 8
        assert index.verify().clean


def test_whose_its_rows_are_is_written_down(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_owners, "BLOCK", 3)
    catalogue = IndexDirectory.open(old).catalogue
    assert catalogue.sql.execute("SELECT first_row FROM row_blocks ORDER BY 1").fetchall() == [(0,), (3,)]
    assert catalogue.row_owners(1, 8, np.zeros(0, np.int64)).contents.tolist() == list(range(1, 9))


def test_it_is_brought_up_to_date_once(old: Path) -> None:
    assert IndexDirectory.open(old).catalogue.sql.execute("PRAGMA user_version").fetchone() == (len(migrations.STEPS),)
    with IndexDirectory.open(old).writing():
        IndexDirectory.open(old).close()  # nothing left to write


def test_somebody_else_may_be_writing(old: Path) -> None:
    with filelock.FileLock(old / "writer.lock"), pytest.raises(IndexBusy):
        IndexDirectory.open(old)


def dump(
    sql: sqlite3.Connection, before: dict[str, list[tuple[Any, ...]]] | None = None
) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables that are no search engine's own; of one in ``before`` the columns that it had there."""
    tables = [
        name for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE '%fts5%'")
        if not name.startswith(("document_words", "segment_words", "picture_", "name_parts"))
    ]  # fmt: skip
    found = {name: sorted(sql.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in sorted(tables)}
    for name, rows in (before or {}).items():
        found[name] = [row[: len(rows[0])] for row in found[name]] if rows else found[name]
    return found


def schema(sql: sqlite3.Connection) -> set[tuple[str, str]]:
    """Name and statement of everything but the full text, as they were before `m010_any_modality` but for the lists of
    modalities, and for columns that came later.
    """
    rows = sql.execute(
        "SELECT name, coalesce(sql, '') FROM sqlite_master "
        "WHERE name NOT GLOB '*_words*' AND name NOT GLOB 'picture_letters*' AND name NOT GLOB 'words_of_*'"
    ).fetchall()
    later = r",\s+(rating INTEGER|is_described INTEGER NOT NULL DEFAULT 0|(taken_at|camera|lens) TEXT|l\w+itude REAL)"
    check = " CHECK (modality IN ('image', 'video', 'text'))"
    rows = [(name, re.sub(later, "", created.replace(check, ""))) for name, created in rows]
    return {(name, re.sub(r'TABLE "(\w+)"', r"TABLE \1", created)) for name, created in rows}


@pytest.fixture
def listed(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A catalogue of the schema that lists the modalities, with something in every table that refers to another."""
    sql = sqlite3.connect(tmp_path / "catalogue.sqlite", isolation_level=None)
    register_words(sql)
    sql.execute("PRAGMA foreign_keys = ON")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(migrations, "STEPS", migrations.STEPS[: migrations.STEPS.index(migrations.m010_any_modality)])
        migrations.migrate(sqlite_utils.Database(sql))
    sql.execute("INSERT INTO roots (path, is_relative) VALUES ('/photos', 0)")
    sql.execute("INSERT INTO spaces (spec, dim, file, row_count) VALUES ('{}', 4, 'vectors', 9)")
    for number, modality in enumerate(["image", "video", "text"] * 3, start=1):
        sql.execute("INSERT INTO contents (hash, decoding, modality, description) VALUES (?, 'x', ?, 'a red car')",
                    [bytes([number]), modality])  # fmt: skip
        sql.execute("INSERT INTO segments (content_id, ordinal, text) VALUES (?, 0, 'a passage')", [number])
        sql.execute("INSERT INTO vectors VALUES (1, ?, ?, ?)", [number - 1, number, modality])
        sql.execute("INSERT INTO documents (root_id, path, modality, size, mtime_ns, content_id, caption) "
                    "VALUES (1, ?, ?, 1, 1, ?, 'wide')", [f"{number}.x", modality, number])  # fmt: skip
        sql.execute("INSERT INTO readings VALUES (?, 'reader', NULL)", [number])
        sql.execute("INSERT INTO segment_readings VALUES (?, 'a line')", [number])
    sql.execute("INSERT INTO left_out VALUES (1, 3, 'a reason')")
    sql.execute("INSERT INTO row_blocks VALUES (1, 0, zeroblob(72), zeroblob(9))")
    sql.execute("DELETE FROM documents WHERE id > 7")
    sql.execute("DELETE FROM contents WHERE id > 7")
    yield sql
    sql.close()


def test_tables_without_a_list_of_modalities_hold_what_they_held(listed: sqlite3.Connection) -> None:
    rows, statements = dump(listed), schema(listed)
    migrations.migrate(sqlite_utils.Database(listed))
    after = dump(listed, rows)
    assert after.pop("modalities") == [(0, "image"), (1, "video"), (2, "text"), (4, "speech")]
    assert {name: after[name] for name in rows} == rows, "the ids that were given up too (sqlite_sequence)"
    assert {one for one in statements if "contents" not in str(one)} <= schema(listed)
    assert "IN ('image'" not in " ".join(sql or "" for (sql,) in listed.execute("SELECT sql FROM sqlite_master"))
    assert listed.execute("PRAGMA foreign_keys").fetchone() == (1,)
    assert listed.execute("PRAGMA foreign_key_check").fetchall() == []
    assert listed.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_what_hangs_on_the_tables_still_works(listed: sqlite3.Connection) -> None:
    migrations.migrate(sqlite_utils.Database(listed))
    listed.execute("INSERT INTO contents (hash, decoding, modality) VALUES (x'ff', 'x', 'sound')")
    (content,) = listed.execute("SELECT max(id) FROM contents").fetchone()
    assert content == 10, "no id is used twice"
    listed.execute("INSERT INTO documents (root_id, path, modality, size, mtime_ns, content_id) "
                   "VALUES (1, 'song', 'sound', 1, 1, 10)")  # fmt: skip
    assert listed.execute("SELECT rowid FROM document_words WHERE document_words MATCH 'song'").fetchall() == [(10,)]
    listed.execute("INSERT INTO contents (hash, decoding, modality) VALUES (x'fe', 'x', 'smell')")
    listed.execute("INSERT INTO contents (hash, decoding, modality) VALUES (x'fd', 'x', 'sound')")
    assert listed.execute("SELECT * FROM modalities WHERE number > 2").fetchall() == [
        (4, "speech"),
        (5, "sound"),
        (6, "smell"),
    ]
    listed.execute("DELETE FROM documents WHERE id = 1")
    listed.execute("DELETE FROM contents WHERE id = 1")
    for table in ("segments WHERE content_id", "vectors WHERE segment_id", "readings WHERE content_id"):
        assert listed.execute(f"SELECT count(*) FROM {table} = 1").fetchone() == (0,), "gone with its content"
    assert (0,) in listed.execute("SELECT row FROM dead_rows").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        listed.execute("DELETE FROM contents WHERE id = 2")
    plan = listed.execute("EXPLAIN QUERY PLAN SELECT id FROM documents WHERE root_id = 1 AND path > 'a'").fetchall()
    assert "documents_by_path" in plan[0][3] or "sqlite_autoindex_documents" in plan[0][3]


def test_references_must_not_be_enforced_meanwhile(listed: sqlite3.Connection) -> None:
    rows = dump(listed)
    with pytest.raises(RuntimeError, match="foreign keys are on"):
        migrations.m010_any_modality(sqlite_utils.Database(listed))
    assert dump(listed) == rows


@pytest.mark.parametrize("statements", range(1, 42, 4))
def test_a_crash_on_the_way_leaves_the_old_schema(listed: sqlite3.Connection, statements: int) -> None:
    rows, before = dump(listed), schema(listed)

    class Crash(Exception):
        pass

    class Database:
        """Stops before one of the statements."""

        def __init__(self) -> None:
            self.left, self.real = statements, sqlite_utils.Database(listed)
            self.atomic = self.real.atomic

        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if self.left == 0 and "PRAGMA foreign_keys =" not in sql:
                raise Crash
            self.left -= 1
            return self.real.execute(sql, *parameters)

    with pytest.raises(Crash):
        migrations.migrate(Database())
    assert (dump(listed), schema(listed)) == (rows, before)
    assert listed.execute("PRAGMA foreign_keys").fetchone() == (1,)
    migrations.migrate(sqlite_utils.Database(listed))
    assert dump(listed, rows)["documents"] == rows["documents"]
