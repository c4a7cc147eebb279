"""Documents as rows of a collection, and back.

A row is a segment in one of its documents: Milvus has no joins, so each row carries what filters ask of the document.
Documents with equal bytes share their segments, which then have a row for each of them, with the same vector; all but
one of these are marked as copies.

Ids are the same on every machine and in every run, so that writing something twice changes nothing: 63 bits of a BLAKE2
hash of the tenant, root and path for a document, and of the content's hash, decoding and number for a segment. (Among
10⁸ the chance that any two are equal is 1 in 1,800.) The row of a document's first segment has the document's id, which
makes it the document's own; it is written last, so a document is there whole or not at all.

``tokens`` holds what is looked for as a whole: words (``w``) of what is written about the document in its first row and
of its own text in each; names in the path (``n``), folded (``f``), and those of them that are folders (``d``), the
root's own name included; and where the server cannot look inside of texts, all runs of three characters (``g``) of the
path's words. What is not known is an empty text, or `NOTHING`: not every server knows null.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Any

import numpy as np

from mmsearch.core.letters import tokens_of
from mmsearch.core.types import MediaInfo, Modality
from mmsearch.store.base import DATASET, FloatArray, NewDocument, NewSegment, Segment

NOTHING = -1e300
"""A number that is not known."""
NUMBERS = ("size", "width", "height", "duration_s", "latitude", "longitude", "rating", "pixels", "long_side", "speaks")
FOLDED = ("camera", "lens", "artist", "album", "title")
"""Texts that filters look inside of, kept without case."""
TEXTS = (*FOLDED, "caption", "description", "path", "modality", "note")
LONGEST = 65_535
"""Bytes of a text, at most."""
MOST_TOKENS = 4096
"""Of one row."""
_LONGEST_TOKEN = 512
_CUT = 24_000
"""Bytes of a description, caption or passage that are kept: three of them fit one row."""
_INFO = tuple(one.name for one in fields(MediaInfo))
_LIKE_ASCII = {0x130: "i", 0x131: "i", 0x17F: "s", 0x212A: "k"}
"""What `re.IGNORECASE` takes for an ASCII letter."""


def nfc(text: str) -> str:
    """In Unicode form NFC."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def fold(name: str) -> str:
    """A name as it is compared without case: one for all that `re.IGNORECASE` takes for equal to an ASCII name."""
    return nfc(name).translate(_LIKE_ASCII).lower()


def folded(text: str) -> str:
    """A text in which another is looked for without case; see `mmsearch.filters.tree.contains_text`."""
    return nfc(nfc(text).casefold())


def _number(*parts: bytes) -> int:
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return int.from_bytes(digest.digest(), "big") >> 1


def document_id(tenant: str, root: str, path: str) -> int:
    """Of the document at a path."""
    return _number(b"document", tenant.encode(), root.encode(), path.encode())


def row_id(document: int, ordinal: int) -> int:
    """Of the row of a document's segment."""
    return document if ordinal == 0 else _number(b"row", document.to_bytes(8, "big"), ordinal.to_bytes(8, "big"))


def segment_id(tenant: str, hash_: bytes, decoding: str, ordinal: int) -> int:
    """Of a segment, in whatever document it is."""
    return _number(b"segment", tenant.encode(), hash_, decoding.encode(), ordinal.to_bytes(8, "big"))


@dataclass(frozen=True)
class Row:
    """A row as it is read, without its vector. ``described``: its document and its own segment, see `described`."""

    document: int
    segment: int
    ordinal: int
    kind: Modality
    count: int
    described: Mapping[str, Any]
    hubness: float
    is_text: bool

    @property
    def place(self) -> str:
        """Where the document lies."""
        root, path = self.described["root"], self.described["path"]
        return path if root.startswith(DATASET) else f"{root.rstrip('/')}/{path}"

    @property
    def own(self) -> NewSegment:
        """Its segment."""
        return NewSegment(*self.described["segment"])

    def as_segment(self, date: str | None = None) -> Segment:
        """As the contract has it."""
        start_s, end_s, text, _ = self.described["segment"]
        return Segment(
            self.segment, self.document, self.place, self.kind, self.ordinal, start_s, end_s, text, date
        )  # fmt: skip

    def fields(self) -> dict[str, Any]:
        """What `mmsearch.filters.holds` reads of the document."""
        known = dict(self.described)
        root, path = known["root"], known["path"]
        if not root.startswith(DATASET):
            above = root.rstrip("/")
            known |= {"absolute": f"{above}/{path}".lstrip("/"), "named": f"{above.rsplit('/', 1)[-1]}/{path}"}
        return known | {"document": self.document}


READ = ("document", "segment", "ordinal", "kind", "count", "described", "hubness", "is_text")
"""The columns of a `Row`."""


def row_of(entity: Mapping[str, Any]) -> Row:
    """A row from its columns `READ`."""
    return Row(
        entity["document"], entity["segment"], entity["ordinal"], entity["kind"], entity["count"],
        json.loads(entity["described"]), float(entity["hubness"]), bool(entity["is_text"]),
    )  # fmt: skip


def described(document: NewDocument, segment: NewSegment) -> dict[str, Any]:
    """What makes a document again, and this segment of it; without what is not known."""
    info = {name: value for name in _INFO if (value := getattr(document.info, name)) is not None}
    known: dict[str, Any] = {
        "root": document.root, "path": document.path, "modality": document.modality, "size": document.size,
        "mtime_ns": document.mtime_ns, "hash": document.hash.hex(), **info,
    }  # fmt: skip
    for name in ("caption", "decoding", "sidecars"):
        if getattr(document, name):
            known[name] = getattr(document, name)
    if document.own is not None:
        known["own"] = {
            name: getattr(document.own, name) for name in _INFO if getattr(document.own, name) != known.get(name)
        }
    if any(one.kind == "speech" for one in document.segments):
        known["speaks"] = 1
    known["segment"] = [segment.start_s, segment.end_s, segment.text, segment.kind]
    return known


def document_of(rows: Iterable[Row]) -> NewDocument:
    """A document from all its rows, in order."""
    ordered = list(rows)
    known = ordered[0].described
    info = MediaInfo(**{name: known.get(name) for name in _INFO})
    own = replace(info, **known["own"]) if "own" in known else None
    return NewDocument(
        known["path"], known["modality"], bytes.fromhex(known["hash"]), [one.own for one in ordered], known["root"],
        info, known["size"], known["mtime_ns"], known.get("caption"), known.get("decoding", ""),
        known.get("sidecars", ""), own,
    )  # fmt: skip


def texts_about(document: NewDocument) -> dict[str, str]:
    """What is written about it: path, folder, caption, description."""
    folder = document.root.removeprefix(DATASET).rstrip("/").rsplit("/", 1)[-1]
    texts = {"path": document.path, "folder": folder, "caption": document.caption or ""}
    return texts | {"description": document.info.description or ""}


def texts_of(row: Row) -> list[str]:
    """What is written in a row: of the document in its first one, of its own segment in each."""
    known = row.described
    own = [known["segment"][2]] if known["segment"][2] else []
    if row.ordinal:
        return own
    folder = known["root"].removeprefix(DATASET).rstrip("/").rsplit("/", 1)[-1]
    return [known["path"], folder, *filter(None, (known.get("caption"), known.get("description"))), *own]


def name_of(row: Row) -> str:
    """The path of a file in its root; nothing of an imported row's."""
    return "" if row.described["root"].startswith(DATASET) else str(row.described["path"])


def rows_of(
    document: NewDocument, vectors: FloatArray, tenant: str, *, has_infix: bool, arrivals: Iterable[int]
) -> list[dict[str, Any]]:
    """The rows of a document, as they are written. ``arrivals``: a number for each, by which they are ordered."""
    id_, is_file = document_id(tenant, document.root, document.path), not document.root.startswith(DATASET)
    letters = " ".join(tokens_of(document.path)) if is_file else ""
    info = document.info
    size = None if info.width is None or info.height is None else (info.width, info.height)
    numbers = {
        **{name: getattr(info, name) for name in NUMBERS if hasattr(info, name)},
        "size": document.size, "pixels": size and size[0] * size[1], "long_side": size and max(size),
        "speaks": int(any(one.kind == "speech" for one in document.segments)),
    }  # fmt: skip
    shared: dict[str, Any] = {
        "document": id_, "count": len(document.segments), "tenant": tenant, "modality": document.modality,
        "root": document.root, "name": nfc(document.path), "place": nfc(document.place), "hash": document.hash.hex(),
        "mtime_ns": document.mtime_ns, "taken_at": info.taken_at or "", "letters": letters if has_infix else "",
        **{name: NOTHING if value is None else float(value) for name, value in numbers.items()},
        **{name: cut(folded(getattr(info, name) or ""), 4096) for name in FOLDED},
    }  # fmt: skip
    names = _name_tokens(document, is_file=is_file)
    grams = [] if has_infix else [f"g{letters[at : at + 3]}" for at in range(len(letters) - 2)]
    written = [text for text in texts_about(document).values() if text]
    made = []
    for ordinal, (segment, vector, arrival) in enumerate(zip(document.segments, vectors, arrivals, strict=False)):
        texts = [*(written if ordinal == 0 else ()), *([segment.text] if segment.text else ())]
        words = [f"w{token}" for text in texts for token in tokens_of(text)]
        tokens = dict.fromkeys([*names, *words, *(grams if ordinal == 0 else ())])
        made.append(
            shared
            | {
                "id": row_id(id_, ordinal), "ordinal": ordinal, "arrival": arrival, "vector": vector,
                "segment": segment_id(tenant, document.hash, document.decoding, ordinal),
                "kind": segment.kind or document.modality, "described": _as_json(document, segment),
                "tokens": [cut(token, _LONGEST_TOKEN) for token in tokens][:MOST_TOKENS],
                "is_copy": False, "is_measured": False, "is_text": False, "hubness": 0.0,
            }
        )  # fmt: skip
    return made


def _name_tokens(document: NewDocument, *, is_file: bool) -> list[str]:
    names = [name for name in nfc(document.path).split("/") if name]
    if is_file and (root := nfc(document.root).rstrip("/").rsplit("/", 1)[-1]):
        names = [root, *names]
    return [*(f"n{name}" for name in names), *(f"f{fold(name)}" for name in names),
            *(f"d{fold(name)}" for name in names[:-1])]  # fmt: skip


def _as_json(document: NewDocument, segment: NewSegment) -> str:
    known = described(document, segment)
    text = json.dumps(known, ensure_ascii=False, separators=(",", ":"))
    if len(text.encode()) <= LONGEST:
        return text
    for name in ("caption", "description", "note"):
        if name in known:
            known[name] = cut(known[name], _CUT if name != "note" else 1000)
    known["segment"][2] = known["segment"][2] and cut(known["segment"][2], _CUT // 2)
    return json.dumps(known, ensure_ascii=False, separators=(",", ":"))


def cut(text: str, size: int) -> str:
    """The beginning of a text, of at most ``size`` bytes."""
    encoded = text.encode("utf-8", "surrogatepass")
    return text if len(encoded) <= size else encoded[:size].decode("utf-8", "ignore")


def unit_half(vectors: FloatArray) -> FloatArray:
    """Vectors as every store keeps them: rounded to float16."""
    rounded: FloatArray = np.asarray(vectors).astype(np.float16).astype(np.float32)
    return rounded
