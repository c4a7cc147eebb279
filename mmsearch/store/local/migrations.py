"""The schema of the catalogue, as numbered steps. A step is never edited once released; a change is a new one.

Each step runs in one transaction together with the record that it ran, so a crash leaves either the old schema
or the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mmsearch.core.errors import IndexTooNew

Database = Any  # sqlite_utils.Database; kept opaque so that reading this file costs no import


def m001_documents_and_vectors(db: Database) -> None:
    """Roots hold documents; a document points at its content; a content has segments; a segment has vectors.

    Contents stand between documents and segments so that equal files under several paths share their vectors,
    and a moved file keeps them.
    """
    for statement in (
        """CREATE TABLE roots (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            path TEXT NOT NULL UNIQUE,          -- absolute, or relative to the index directory
            is_relative INTEGER NOT NULL CHECK (is_relative IN (0, 1))
        ) STRICT""",
        """CREATE TABLE contents (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            hash BLOB NOT NULL,                 -- of all bytes of the file
            decoding TEXT NOT NULL,             -- which decoder with which settings made the segments
            modality TEXT NOT NULL CHECK (modality IN ('image', 'video', 'text')),
            width INTEGER, height INTEGER, duration_s REAL,
            taken_at TEXT, camera TEXT, lens TEXT, latitude REAL, longitude REAL,
            description TEXT, note TEXT,
            UNIQUE (hash, decoding)
        ) STRICT""",
        """CREATE TABLE segments (
            id INTEGER PRIMARY KEY AUTOINCREMENT,   -- AUTOINCREMENT: an id is never used twice
            content_id INTEGER NOT NULL REFERENCES contents(id) ON DELETE CASCADE,
            ordinal INTEGER NOT NULL CHECK (ordinal >= 0),
            start_s REAL, end_s REAL, text TEXT,
            UNIQUE (content_id, ordinal),
            CHECK (end_s IS NULL OR end_s >= start_s)
        ) STRICT""",
        """CREATE TABLE towers (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            spec TEXT NOT NULL,                 -- JSON of the encoder's identity
            dim INTEGER NOT NULL CHECK (dim > 0),
            file TEXT NOT NULL UNIQUE,          -- its vector file, inside the index directory
            row_count INTEGER NOT NULL DEFAULT 0 CHECK (row_count >= 0)   -- committed rows of that file
        ) STRICT""",
        """CREATE TABLE vectors (
            tower_id INTEGER NOT NULL REFERENCES towers(id) ON DELETE CASCADE,
            row INTEGER NOT NULL CHECK (row >= 0),
            segment_id INTEGER NOT NULL REFERENCES segments(id) ON DELETE CASCADE,
            modality TEXT NOT NULL CHECK (modality IN ('image', 'video', 'text')),
            PRIMARY KEY (tower_id, row),
            UNIQUE (segment_id, tower_id)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX vectors_by_modality ON vectors (tower_id, modality)",
        """CREATE TABLE dead_rows (               -- rows of a vector file that no segment owns any more
            tower_id INTEGER NOT NULL REFERENCES towers(id) ON DELETE CASCADE,
            row INTEGER NOT NULL,
            PRIMARY KEY (tower_id, row)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TRIGGER vectors_leave_dead_rows AFTER DELETE ON vectors
            WHEN EXISTS (SELECT 1 FROM towers WHERE id = OLD.tower_id) BEGIN
            INSERT INTO dead_rows (tower_id, row) VALUES (OLD.tower_id, OLD.row);
        END""",
        """CREATE TABLE documents (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            root_id INTEGER NOT NULL REFERENCES roots(id) ON DELETE CASCADE,
            path TEXT NOT NULL,                 -- POSIX, relative to the root
            modality TEXT NOT NULL CHECK (modality IN ('image', 'video', 'text')),
            size INTEGER NOT NULL CHECK (size >= 0),
            mtime_ns INTEGER NOT NULL,
            content_id INTEGER NOT NULL REFERENCES contents(id),
            UNIQUE (root_id, path)
        ) STRICT""",
        "CREATE INDEX documents_by_content ON documents (content_id)",
        """CREATE TABLE skipped (
            root_id INTEGER NOT NULL REFERENCES roots(id) ON DELETE CASCADE,
            path TEXT NOT NULL,
            size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL,
            decoding TEXT NOT NULL,
            reason TEXT NOT NULL,
            PRIMARY KEY (root_id, path)
        ) STRICT, WITHOUT ROWID""",
    ):
        db.execute(statement)


def m002_captions_scopes_archives(db: Database) -> None:
    """Captions that lie beside a file, what a user asked to have indexed, and archives that were read whole.

    A caption belongs to the document, not to the content: two copies of one photo may be described differently.
    """
    for statement in (
        "ALTER TABLE documents ADD COLUMN caption TEXT",  # of its sidecar, or of its sample in an archive
        "ALTER TABLE documents ADD COLUMN sidecars TEXT NOT NULL DEFAULT ''",  # their names, sizes and times
        """CREATE TABLE scopes (                  -- which parts of a root are to be kept up to date, and how
            root_id INTEGER NOT NULL REFERENCES roots(id) ON DELETE CASCADE,
            below TEXT NOT NULL,                -- a path in the root; '' is all of it
            options TEXT NOT NULL,              -- JSON
            PRIMARY KEY (root_id, below)
        ) STRICT, WITHOUT ROWID""",
        "INSERT INTO scopes SELECT id, '', '{}' FROM roots",
        """CREATE TABLE archives (                -- whose samples are all accounted for
            root_id INTEGER NOT NULL REFERENCES roots(id) ON DELETE CASCADE,
            path TEXT NOT NULL,
            size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, decoding TEXT NOT NULL,
            PRIMARY KEY (root_id, path)
        ) STRICT, WITHOUT ROWID""",
    ):
        db.execute(statement)


def m003_full_text_and_revision(db: Database) -> None:
    """Full text over what is known of documents and passages in words, and a number that counts their changes.

    ``document_words`` has the documents' ids as rowids, ``segment_words`` those of segments with a text. Both are
    kept by triggers. A replaced row (OR REPLACE) fires no delete trigger, so a reader joins with the table itself.
    """
    words = """SELECT d.id, d.path, replace(r.path, rtrim(r.path, replace(r.path, '/', '')), ''), d.caption,
            c.description FROM documents d JOIN contents c ON c.id = d.content_id JOIN roots r ON r.id = d.root_id"""
    insert = f"INSERT INTO document_words (rowid, path, root, caption, description) {words}"
    for statement in (
        """CREATE VIRTUAL TABLE document_words USING fts5(
            path, root, caption, description, tokenize = 'unicode61 remove_diacritics 2')""",
        "CREATE VIRTUAL TABLE segment_words USING fts5(text, tokenize = 'unicode61 remove_diacritics 2')",
        "CREATE TABLE revision (number INTEGER NOT NULL) STRICT",
        "INSERT INTO revision VALUES (0)",
        insert,
        "INSERT INTO segment_words (rowid, text) SELECT id, text FROM segments WHERE text IS NOT NULL",
        f"""CREATE TRIGGER words_of_new_document AFTER INSERT ON documents BEGIN
            DELETE FROM document_words WHERE rowid = NEW.id;
            {insert} WHERE d.id = NEW.id;
            UPDATE revision SET number = number + 1;
        END""",
        f"""CREATE TRIGGER words_of_changed_document AFTER UPDATE ON documents BEGIN
            DELETE FROM document_words WHERE rowid = OLD.id;
            {insert} WHERE d.id = NEW.id;
            UPDATE revision SET number = number + 1;
        END""",
        """CREATE TRIGGER words_of_gone_document AFTER DELETE ON documents BEGIN
            DELETE FROM document_words WHERE rowid = OLD.id;
            UPDATE revision SET number = number + 1;
        END""",
        f"""CREATE TRIGGER words_of_changed_content AFTER UPDATE OF description ON contents BEGIN
            DELETE FROM document_words WHERE rowid IN (SELECT id FROM documents WHERE content_id = NEW.id);
            {insert} WHERE c.id = NEW.id;
            UPDATE revision SET number = number + 1;
        END""",
        """CREATE TRIGGER words_of_new_segment AFTER INSERT ON segments WHEN NEW.text IS NOT NULL BEGIN
            INSERT INTO segment_words (rowid, text) VALUES (NEW.id, NEW.text);
        END""",
        """CREATE TRIGGER words_of_gone_segment AFTER DELETE ON segments WHEN OLD.text IS NOT NULL BEGIN
            DELETE FROM segment_words WHERE rowid = OLD.id;
        END""",
    ):
        db.execute(statement)


def m004_text_in_pictures(db: Database) -> None:
    """What was read in pictures and video frames, by segment, and which contents a reader has looked at.

    ``picture_words`` finds words and phrases, ``picture_letters`` parts of them: lines without spaces and marks, as
    `mmsearch.store.local.catalogue.read_text.letters_of` writes them.
    """
    for statement in (
        """CREATE TABLE readings (
            content_id INTEGER PRIMARY KEY REFERENCES contents(id) ON DELETE CASCADE,
            reader TEXT NOT NULL,
            problem TEXT                        -- why nothing could be read; NULL where it could
        ) STRICT""",
        """CREATE TABLE segment_readings (
            segment_id INTEGER PRIMARY KEY REFERENCES segments(id) ON DELETE CASCADE,
            text TEXT NOT NULL                  -- lines, never empty
        ) STRICT""",
        "CREATE VIRTUAL TABLE picture_words USING fts5(text, tokenize = 'unicode61 remove_diacritics 2')",
        "CREATE VIRTUAL TABLE picture_letters USING fts5(letters, tokenize = 'trigram')",
        """CREATE TRIGGER words_of_gone_reading AFTER DELETE ON segment_readings BEGIN
            DELETE FROM picture_words WHERE rowid = OLD.segment_id;
            DELETE FROM picture_letters WHERE rowid = OLD.segment_id;
        END""",
    ):
        db.execute(statement)


def m005_kept_tokens(db: Database) -> None:
    """Image tokens that a reranker made, in a file of their own, and whose they are."""
    for statement in (
        """CREATE TABLE token_files (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            reranker TEXT NOT NULL,             -- the name that opens it
            digest TEXT NOT NULL UNIQUE,        -- of its weights
            shape TEXT NOT NULL,                -- JSON: of the tokens of one image
            file TEXT NOT NULL UNIQUE,          -- inside the index directory
            row_count INTEGER NOT NULL DEFAULT 0 CHECK (row_count >= 0)   -- committed rows of that file
        ) STRICT""",
        """CREATE TABLE tokens (                    -- rows that no segment owns any more are just not in here
            file_id INTEGER NOT NULL REFERENCES token_files(id) ON DELETE CASCADE,
            place INTEGER NOT NULL CHECK (place >= 0),
            segment_id INTEGER NOT NULL REFERENCES segments(id) ON DELETE CASCADE,
            PRIMARY KEY (file_id, place),
            UNIQUE (segment_id, file_id)
        ) STRICT, WITHOUT ROWID""",
    ):
        db.execute(statement)


def m006_left_out(db: Database) -> None:
    """Contents that an encoder could not be given vectors of, when it was filled in beside another one, and why."""
    db.execute(
        """CREATE TABLE left_out (
            tower_id INTEGER NOT NULL REFERENCES towers(id) ON DELETE CASCADE,
            content_id INTEGER NOT NULL REFERENCES contents(id) ON DELETE CASCADE,
            reason TEXT NOT NULL,
            PRIMARY KEY (tower_id, content_id)
        ) STRICT, WITHOUT ROWID"""
    )
    db.execute("CREATE INDEX left_out_by_content ON left_out (content_id)")


def m007_wide_pictures_in_parts(db: Database) -> None:
    """Version 2 of the image decoder cuts very wide and tall pictures; what it reads as before need not be read again.

    The pages of a TIFF may differ in shape, but its description has the first one's: it counts for all.
    """
    db.execute(
        """UPDATE contents SET decoding = 'image/2' WHERE decoding = 'image/1'
            AND max(width, height) <= 2 * min(width, height)
            AND hash NOT IN (SELECT hash FROM contents WHERE decoding = 'image/2')"""
    )


def m008_row_blocks(db: Database) -> None:
    """Whose the rows of vector files are, a run of rows a record: see `mmsearch.store.local.catalogue.row_owners`.

    The records follow from the other tables. They hold for rows that stay as they are, so they go where that is not so.
    ``documents_by_path`` has all that the list of the documents below a folder needs: a third of the time, 40 bytes a
    document.
    """
    for statement in (
        "CREATE INDEX documents_by_path ON documents (root_id, path, content_id)",
        """CREATE TABLE row_blocks (
            tower_id INTEGER NOT NULL REFERENCES towers(id) ON DELETE CASCADE,
            first_row INTEGER NOT NULL CHECK (first_row >= 0),
            contents BLOB NOT NULL,             -- 8 bytes a row, little-endian: the id of its content, 0 for a dead row
            modalities BLOB NOT NULL,           -- 1 byte a row: image 0, video 1, text 2; 3 for a dead row
            PRIMARY KEY (tower_id, first_row)
        ) STRICT""",
        """CREATE TRIGGER row_blocks_of_changed_vectors AFTER UPDATE ON vectors BEGIN
            DELETE FROM row_blocks WHERE tower_id = OLD.tower_id;
        END""",
        """CREATE TRIGGER row_blocks_of_rows_given_up AFTER UPDATE OF row_count ON towers
            WHEN NEW.row_count < OLD.row_count BEGIN
            DELETE FROM row_blocks WHERE tower_id = NEW.id;
        END""",
    ):
        db.execute(statement)


def m009_spaces(db: Database) -> None:
    """What was called a tower is an embedding space: the vectors of one encoder. Indexes and triggers follow."""
    db.execute("ALTER TABLE towers RENAME TO spaces")
    for table in ("vectors", "dead_rows", "left_out", "row_blocks"):
        db.execute(f"ALTER TABLE {table} RENAME COLUMN tower_id TO space_id")


def m010_any_modality(db: Database) -> None:
    """No table lists the modalities that there may be, and each that comes gets a number for ``row_blocks``.

    SQLite takes a CHECK off only with its table, so three tables are made anew (as in "Making Other Kinds Of Table
    Schema Changes" of its ALTER TABLE page): triggers aside, copied, renamed, indexes and triggers back. `migrate` has
    switched foreign keys off, without which dropping a table would delete what points at it.
    """
    if db.execute("PRAGMA foreign_keys").fetchone()[0]:
        raise RuntimeError("foreign keys are on: dropping a table would empty others")
    triggers = db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' ORDER BY rowid").fetchall()
    for name, _ in triggers:
        db.execute(f"DROP TRIGGER {name}")
    for table in ("contents", "vectors", "documents"):
        kept = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND type = ? AND sql IS NOT NULL ORDER BY rowid"
        created: str = db.execute(kept, [table, "table"]).fetchone()[0]
        indexes = db.execute(kept, [table, "index"]).fetchall()
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", [table]).fetchone()
        columns = created.replace(" CHECK (modality IN ('image', 'video', 'text'))", "").partition("(")[2]
        db.execute(f"CREATE TABLE new_{table} ({columns}")
        db.execute(f"INSERT INTO new_{table} SELECT * FROM {table}")
        db.execute(f"DROP TABLE {table}")
        db.execute(f"ALTER TABLE new_{table} RENAME TO {table}")
        for (index,) in indexes:
            db.execute(index)
        if last is not None:  # ids that were used and given up stay used
            db.execute("DELETE FROM sqlite_sequence WHERE name = ?", [table])
            db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", [table, last[0]])
    for _, trigger in triggers:
        db.execute(trigger)
    for statement in (
        "CREATE TABLE modalities (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT",
        "INSERT INTO modalities VALUES (0, 'image'), (1, 'video'), (2, 'text')",
        """CREATE TRIGGER number_of_new_modality AFTER INSERT ON contents
            WHEN NOT EXISTS (SELECT 1 FROM modalities WHERE name = NEW.modality) BEGIN
            INSERT INTO modalities SELECT max(3, max(number)) + 1, NEW.modality FROM modalities;  -- 3: of dead rows
        END""",
    ):
        db.execute(statement)


def m011_what_vanished(db: Database) -> None:
    """Documents whose files are not there for the moment, which folders there were, and what was taken out by hand.

    An absent document stands in ``absent_documents`` instead of ``documents``, with all its columns: so nothing that
    looks for documents finds it, and its words leave the full text by the triggers that are there. Its content and
    its vectors stay: a content may only go when neither table points at it, which the reference enforces.
    """
    created: str = db.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = 'documents'").fetchone()[0]
    for statement in (
        created.replace("documents", "absent_documents", 1),
        "CREATE INDEX absent_by_content ON absent_documents (content_id)",
        "CREATE TABLE absence (changes INTEGER NOT NULL) STRICT",  # counts comings and goings
        "INSERT INTO absence VALUES (0)",
        """CREATE TABLE folders (                 -- as they were when files were last met in them
            root_id INTEGER NOT NULL REFERENCES roots(id) ON DELETE CASCADE,
            path TEXT NOT NULL,                 -- in the root; '' is the root itself
            device INTEGER NOT NULL, inode INTEGER NOT NULL,
            is_mount INTEGER NOT NULL CHECK (is_mount IN (0, 1)),   -- lies on another device than the folder above
            PRIMARY KEY (root_id, path)
        ) STRICT, WITHOUT ROWID""",
        """CREATE TABLE removed (                 -- taken out of a part that is kept up to date; it stays out
            root_id INTEGER NOT NULL REFERENCES roots(id) ON DELETE CASCADE,
            path TEXT NOT NULL,
            PRIMARY KEY (root_id, path)
        ) STRICT, WITHOUT ROWID""",
    ):
        db.execute(statement)


def m012_checksums(db: Database) -> None:
    """What was committed to the files beside the catalogue: see `mmsearch.store.local.catalogue.checksums`."""
    db.execute(
        """CREATE TABLE checksums (
            file TEXT NOT NULL,                 -- inside the index directory
            first_row INTEGER NOT NULL CHECK (first_row >= 0),
            sums BLOB NOT NULL,                 -- 8 bytes a row
            PRIMARY KEY (file, first_row)
        ) STRICT"""
    )


def m013_plain_words(db: Database) -> None:
    """The full text holds what `mmsearch.core.letters.tokens_of` makes of texts, so that words are found inside of runs
    of scripts without spaces, and whichever way they are written. ``name_parts`` finds parts of the words of files'
    paths; imported rows have none, whose paths nobody typed: it would be an eighth of the time of an import.

    The functions are those of `mmsearch.store.local.catalogue.database.register_words`. To the tokenizer ``ascii``, a
    word is whatever stands between spaces. A document whose words stay the same keeps its rows.
    """
    words = """SELECT d.id, mmsearch_tokens(d.path),
            mmsearch_tokens(replace(r.path, rtrim(r.path, replace(r.path, '/', '')), '')), mmsearch_tokens(d.caption),
            mmsearch_tokens(c.description)
            FROM documents d JOIN contents c ON c.id = d.content_id JOIN roots r ON r.id = d.root_id"""
    insert = f"INSERT INTO document_words (rowid, path, root, caption, description) {words}"
    of_files = "FROM roots r WHERE r.id = {0}.root_id AND r.path NOT GLOB 'dataset:*'"
    parts_come = (
        f"INSERT INTO name_parts (rowid, name) SELECT NEW.id, mmsearch_tokens(NEW.path) {of_files.format('NEW')}"
    )
    parts_go = f"""INSERT INTO name_parts (name_parts, rowid, name)
            SELECT 'delete', OLD.id, mmsearch_tokens(OLD.path) {of_files.format("OLD")}"""
    for trigger in ("new_document", "changed_document", "gone_document", "changed_content", "new_segment"):
        db.execute(f"DROP TRIGGER words_of_{trigger}")
    for table, columns, options in (
        ("document_words", "path, root, caption, description", "tokenize = 'ascii'"),
        ("segment_words", "text", "tokenize = 'ascii'"),
        ("picture_words", "text", "tokenize = 'ascii'"),
        ("picture_letters", "letters", "tokenize = 'trigram'"),
        ("name_parts", "name", "tokenize = 'trigram', content = ''"),
    ):
        db.execute(f"DROP TABLE IF EXISTS {table}")
        db.execute(f"CREATE VIRTUAL TABLE {table} USING fts5({columns}, {options}, columnsize = 0)")
    for statement in (
        insert,
        """INSERT INTO name_parts (rowid, name) SELECT d.id, mmsearch_tokens(d.path)
            FROM documents d JOIN roots r ON r.id = d.root_id AND r.path NOT GLOB 'dataset:*'""",
        "INSERT INTO segment_words (rowid, text) SELECT id, mmsearch_tokens(text) FROM segments WHERE text IS NOT NULL",
        "INSERT INTO picture_words (rowid, text) SELECT segment_id, mmsearch_tokens(text) FROM segment_readings",
        "INSERT INTO picture_letters (rowid, letters) SELECT segment_id, mmsearch_letters(text) FROM segment_readings",
        f"""CREATE TRIGGER words_of_new_document AFTER INSERT ON documents BEGIN
            DELETE FROM document_words WHERE rowid = NEW.id;
            {insert} WHERE d.id = NEW.id;
            {parts_come};
            UPDATE revision SET number = number + 1;
        END""",
        f"""CREATE TRIGGER words_of_changed_document AFTER UPDATE ON documents
            WHEN (OLD.id, OLD.root_id, OLD.path, OLD.caption, OLD.content_id)
                IS NOT (NEW.id, NEW.root_id, NEW.path, NEW.caption, NEW.content_id) BEGIN
            DELETE FROM document_words WHERE rowid = OLD.id;
            {parts_go};
            {insert} WHERE d.id = NEW.id;
            {parts_come};
        END""",
        """CREATE TRIGGER revision_of_changed_document AFTER UPDATE ON documents BEGIN
            UPDATE revision SET number = number + 1;
        END""",
        f"""CREATE TRIGGER words_of_gone_document AFTER DELETE ON documents BEGIN
            DELETE FROM document_words WHERE rowid = OLD.id;
            {parts_go};
            UPDATE revision SET number = number + 1;
        END""",
        f"""CREATE TRIGGER words_of_changed_content AFTER UPDATE OF description ON contents BEGIN
            DELETE FROM document_words WHERE rowid IN (SELECT id FROM documents WHERE content_id = NEW.id);
            {insert} WHERE c.id = NEW.id;
            UPDATE revision SET number = number + 1;
        END""",
        """CREATE TRIGGER words_of_new_segment AFTER INSERT ON segments WHEN NEW.text IS NOT NULL BEGIN
            INSERT INTO segment_words (rowid, text) VALUES (NEW.id, mmsearch_tokens(NEW.text));
        END""",
    ):
        db.execute(statement)


def m014_what_is_written_beside(db: Database) -> None:
    """What sidecars say of a document's date, camera, lens, place and rating counts before what its content says.

    Pictures and videos that are there already are opened again, for what they say in their headers, by the next
    `mmsearch index`.
    """
    beside = ("taken_at TEXT", "camera TEXT", "lens TEXT", "latitude REAL", "longitude REAL", "rating INTEGER")
    for statement in (
        "ALTER TABLE contents ADD COLUMN rating INTEGER",
        "ALTER TABLE contents ADD COLUMN is_described INTEGER NOT NULL DEFAULT 0",
        "UPDATE contents SET is_described = 1 WHERE modality NOT IN ('image', 'video')",
        "CREATE INDEX undescribed ON contents (id) WHERE is_described = 0",
        *(f"ALTER TABLE documents ADD COLUMN {column}" for column in beside),
        *(f"ALTER TABLE absent_documents ADD COLUMN {column}" for column in beside),
    ):
        db.execute(statement)


def m015_speech(db: Database) -> None:
    """What is said in videos and recordings: see `mmsearch.store.local.catalogue.speech`. Tags of recordings."""
    for statement in (
        "ALTER TABLE contents ADD COLUMN title TEXT",
        "ALTER TABLE contents ADD COLUMN artist TEXT",
        "ALTER TABLE contents ADD COLUMN album TEXT",
        """CREATE TABLE heard (
            content_id INTEGER PRIMARY KEY REFERENCES contents(id) ON DELETE CASCADE,
            subtitles TEXT,                     -- NULL: to be looked for; empty: none; else where they came from
            recogniser TEXT,                    -- what made the passages, where no subtitles did
            problem TEXT
        ) STRICT""",
        """CREATE TABLE spoken (                  -- segments that are passages of what is said
            segment_id INTEGER PRIMARY KEY REFERENCES segments(id) ON DELETE CASCADE,
            language TEXT,                      -- ISO 639-1
            words TEXT                          -- JSON: [text, start, end] of each word, where known
        ) STRICT""",
        """CREATE TRIGGER subtitles_of_new_document AFTER INSERT ON documents WHEN NEW.sidecars <> '' BEGIN
            UPDATE heard SET subtitles = NULL WHERE content_id = NEW.content_id;
        END""",
        """CREATE TRIGGER subtitles_of_changed_document AFTER UPDATE ON documents
            WHEN NEW.sidecars <> OLD.sidecars OR (NEW.sidecars <> '' AND NEW.content_id <> OLD.content_id) BEGIN
            UPDATE heard SET subtitles = NULL WHERE content_id = NEW.content_id;
        END""",
        """INSERT INTO modalities SELECT max(3, max(number)) + 1, 'speech' FROM modalities
            WHERE NOT EXISTS (SELECT 1 FROM modalities WHERE name = 'speech')""",
    ):
        db.execute(statement)


def m016_sounds(db: Database) -> None:
    """What sounds in videos and recordings: see `mmsearch.store.local.catalogue.sounds`."""
    for statement in (
        """CREATE TABLE sound_encoder (         -- whose windows there are; one row at most
            id INTEGER PRIMARY KEY CHECK (id = 1),
            spec TEXT NOT NULL                  -- JSON of an EncoderSpec
        ) STRICT""",
        """CREATE TABLE listened (
            content_id INTEGER PRIMARY KEY REFERENCES contents(id) ON DELETE CASCADE,
            problem TEXT
        ) STRICT""",
        """CREATE TABLE sounds (                  -- windows of sound
            content_id INTEGER NOT NULL REFERENCES contents(id) ON DELETE CASCADE,
            start_s REAL NOT NULL,
            end_s REAL NOT NULL,
            vector BLOB NOT NULL,               -- float16, little-endian
            checksum BLOB NOT NULL,             -- 8 bytes of BLAKE2b of the vector
            PRIMARY KEY (content_id, start_s)
        ) STRICT""",
    ):
        db.execute(statement)


STEPS: tuple[Callable[[Database], None], ...] = (
    m001_documents_and_vectors,
    m002_captions_scopes_archives,
    m003_full_text_and_revision,
    m004_text_in_pictures,
    m005_kept_tokens,
    m006_left_out,
    m007_wide_pictures_in_parts,
    m008_row_blocks,
    m009_spaces,
    m010_any_modality,
    m011_what_vanished,
    m012_checksums,
    m013_plain_words,
    m014_what_is_written_beside,
    m015_speech,
    m016_sounds,
)


def migrate(db: Database) -> None:
    """Brings a catalogue to the schema of this mmsearch; a new database gets all steps.

    Raises:
        IndexTooNew: a newer mmsearch has already changed the schema.
    """
    done: int = db.execute("PRAGMA user_version").fetchone()[0]
    check_version(done)
    if not is_old(done):
        return
    are_enforced: int = db.execute("PRAGMA foreign_keys").fetchone()[0]
    db.execute("PRAGMA foreign_keys = OFF")  # which a transaction cannot; steps keep references as they are themselves
    try:
        for number, step in enumerate(STEPS[done:], start=done + 1):
            with db.atomic():
                step(db)
                db.execute(f"PRAGMA user_version = {number}")
    finally:
        db.execute(f"PRAGMA foreign_keys = {are_enforced}")


def is_old(found: int) -> bool:
    """Whether a schema lacks steps that this mmsearch relies on."""
    return found < len(STEPS)


def check_version(found: int) -> None:
    """Refuses a schema that this mmsearch does not know."""
    if found > len(STEPS):
        raise IndexTooNew(
            f"the catalogue has schema {found}, this mmsearch knows schemas up to {len(STEPS)}: "
            "upgrade mmsearch to use this index"
        )
