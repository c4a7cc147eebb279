"""Which store an address means. Nothing of a store is imported before one is opened.

    a name, a path, local:PATH     an index directory
    milvus://HOST:PORT/NAME, milvus:PATH.db     a Milvus server, a file of milvus-lite
    SCHEME:REST, SCHEME://REST     what an installed package brings as an entry point SCHEME in ``mmsearch.stores``

The object of an entry point is a `StoreFamily`, or a class of them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mmsearch.core.errors import UsageError
from mmsearch.core.home import DEFAULT_INDEX, expanded, home, locate_index
from mmsearch.core.registry import Registry

if TYPE_CHECKING:
    from mmsearch.store.base import Store, StoreFamily

Address = str | os.PathLike[str]
LOCAL = "local"
STORES: Registry[StoreFamily | type[StoreFamily]] = Registry(
    "mmsearch.stores",
    "store",
    {LOCAL: "mmsearch.store.local.store:LocalFamily", "milvus": "mmsearch.store.milvus.store:MilvusFamily"},
)
"""Families by the schemes of their addresses."""
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):(?://)?(.+)", re.DOTALL)


def open_store(address: Address = DEFAULT_INDEX) -> Store:
    """Opens a store that there is.

    Raises:
        UsageError: nobody knows the scheme of the address.
        IndexMissing, IndexTooNew, IndexDamaged: with what to do.
    """
    return family_of(address).open(os.fspath(address))


def local_path(address: Address) -> Path | None:
    """The directory that an address means; ``None`` where it means another store.

    What lies there already goes before a scheme: names and paths may have colons.

    Raises:
        UsageError: an empty address, or what can be none.
    """
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) and "\0" not in address else None
    if found is not None and found[1] == LOCAL:
        return locate_index(found[2])
    if found is None or os.path.lexists(expanded(found[0])) or (home() / found[0]).is_dir():
        return locate_index(address)
    return None


def family_of(address: Address) -> StoreFamily:
    """Who opens the store at an address.

    Raises:
        UsageError: nobody knows its scheme, or what an installed package brings for it is no family.
    """
    from mmsearch.store.base import StoreFamily

    scheme = LOCAL if local_path(address) is not None else os.fspath(address).partition(":")[0]
    row = STORES.find(scheme)
    if row is None:
        raise UsageError(
            f'there is no store "{scheme}" for {address}: the known ones are {", ".join(STORES)}; install the package '
            f"that brings it (an entry point in {STORES.group}), or write local:{address} for a folder of that name"
        )
    family = row() if isinstance(row, type) else row
    if not isinstance(family, StoreFamily):
        raise UsageError(
            f"the entry point {scheme} of {STORES.group} is of the type {type(family).__name__}; expected a StoreFamily"
        )
    return family
