"""The file of an `AnnIndex`: what FAISS writes, then a seal that says what it is and whether it is whole.

    FAISS's bytes | JSON | length of the JSON, uint32 | b"mmsearch-ann-01\\n"

FAISS trusts what it reads, so a torn or foreign file could end the process. The seal is checked first: length,
checksums of both ends, dimension, and a checksum of some rows of the vector file (an index built before
compaction is about other rows). FAISS reads from the front and never sees the seal.
"""

from __future__ import annotations

import json
import os
import secrets
import struct
import zlib
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from mmsearch.core.errors import IndexDamaged
from mmsearch.core.system import sync_directory
from mmsearch.store.local.vector_index.base import Matrix, gather

MAGIC = b"mmsearch-ann-01\n"
ENDS = 1 << 20
"""Bytes of each end of FAISS's part that are checked when it is opened: the header and the trained parts."""


COPIED = (b"IwPf", b"IPfs")
"""Kinds of index, in FAISS's own four letters, whose codes FAISS copies into memory of its own even out of a map: the
4-bit fast-scan ones, which lie in aligned blocks. A map would only keep the same bytes resident a second time."""


def write(path: Path, core: Any, recipe: str, matrix: Matrix) -> None:
    """Write ``core``, an index over the first rows of ``matrix``, in one step: temporary file, sync, rename."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        faiss.write_index(core, str(part))
        length = part.stat().st_size
        seal = {
            "recipe": recipe,
            "dim": core.d,
            "rows": core.ntotal,
            "bytes": length,
            "ends": _ends(part, length),
            "vectors": _fingerprint(matrix, core.ntotal),
            "faiss": faiss.__version__,
        }
        with part.open("ab") as file:
            body = json.dumps(seal).encode()
            file.write(body + struct.pack("<I", len(body)) + MAGIC)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_directory(path.parent)
    finally:
        part.unlink(missing_ok=True)


def read(path: Path, recipe: str, matrix: Matrix, mapped: bool) -> Any:
    """The FAISS index in ``path``, once its seal fits ``recipe`` and ``matrix``; else `IndexDamaged`."""
    seal = read_seal(path)
    for key, expected in (("recipe", recipe), ("dim", matrix.shape[1])):
        if seal[key] != expected:
            raise IndexDamaged(f"{path} has {key} {seal[key]!r}, {expected!r} is expected; build it again")
    if seal["rows"] > len(matrix) or seal["vectors"] != _fingerprint(matrix, seal["rows"]):
        raise IndexDamaged(f"{path} was built over other vectors than the vector file holds; build it again")
    if seal["ends"] != _ends(path, seal["bytes"]):
        raise IndexDamaged(f"{path} is damaged: its checksum does not fit; build it again")
    try:
        with path.open("rb") as file:
            mapped = mapped and file.read(4) not in COPIED
        core = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    except RuntimeError as error:
        raise IndexDamaged(f"FAISS {faiss.__version__} cannot read {path}; build it again") from error
    if (core.d, core.ntotal) != (seal["dim"], seal["rows"]):
        raise IndexDamaged(f"{path} holds {core.ntotal} vectors, {seal['rows']} are expected; build it again")
    return core


def read_seal(path: Path) -> dict[str, Any]:
    """What ``path`` says of itself: recipe, dim, rows, bytes …; `IndexDamaged` where it is not whole."""
    foot = struct.calcsize("<I") + len(MAGIC)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - foot))
            tail = file.read()
            if len(tail) < foot or not tail.endswith(MAGIC):
                raise IndexDamaged(f"{path} is no complete vector index; build it again")
            (length,) = struct.unpack_from("<I", tail)
            file.seek(max(0, size - foot - length))
            seal = json.loads(file.read(length))
    except OSError as error:
        raise IndexDamaged(f"cannot read the vector index {path}: {error.strerror}; build it again") from error
    except ValueError as error:
        raise IndexDamaged(f"{path} is damaged: its seal cannot be read; build it again") from error
    whole = isinstance(seal, dict) and {"recipe", "dim", "rows", "bytes", "ends", "vectors"} <= seal.keys()
    if not whole or seal["bytes"] != size - foot - length:
        raise IndexDamaged(f"{path} is damaged: its length does not fit; build it again")
    return dict(seal)


def _ends(path: Path, length: int) -> int:
    """CRC-32 of the first and the last `ENDS` bytes of the first ``length`` bytes of ``path``."""
    with path.open("rb") as file:
        crc = zlib.crc32(file.read(min(ENDS, length)))
        file.seek(max(0, length - ENDS))
        return zlib.crc32(file.read(length - file.tell()), crc)


def _fingerprint(matrix: Matrix, rows: int) -> int:
    """CRC-32 of 64 rows spread evenly over the first ``rows`` rows of ``matrix``."""
    if not rows:
        return 0
    return zlib.crc32(gather(matrix, np.linspace(0, rows - 1, 64).astype(np.int64)).tobytes())
