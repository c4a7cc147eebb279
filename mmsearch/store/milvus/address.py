"""What the address of a Milvus store means.

    milvus://HOST[:PORT]/NAME     a server; NAME: letters, digits and underscores
    milvus:PATH.db                a file of milvus-lite

Either may end in options: ``?index=flat`` or ``hnsw`` for a store that is made, ``tenant=NAME`` for one of several that
share a collection and see nothing of each other, ``secure=true`` for TLS, ``db=NAME`` for another database than the
server's default. A token, or user and password, come from the environment alone.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from mmsearch.core.errors import UsageError
from mmsearch.core.home import expanded

PORT = 19530
LITE_NAME = "mmsearch"
TOKEN, USER, PASSWORD = "MMSEARCH_MILVUS_TOKEN", "MMSEARCH_MILVUS_USER", "MMSEARCH_MILVUS_PASSWORD"
INDEXES = ("flat", "hnsw")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_SERVER = re.compile(r"milvus://([^/?#]*)(?:/([^?#]*))?(?:\?(.*))?")


@dataclass(frozen=True)
class Address:
    """``uri``: what the client connects to. ``name``: of the alias of the collection that answers. ``index``: how
    vectors of a new store are searched; empty: FLAT in a file, HNSW on a server.
    """

    text: str
    uri: str
    name: str
    is_file: bool
    index: str = ""
    tenant: str = ""
    database: str = ""

    @property
    def path(self) -> Path:
        """Of the file."""
        return Path(self.uri)


def parse(text: str) -> Address:
    """The parts of an address.

    Raises:
        UsageError: it is none, with how one looks.
    """
    options: dict[str, str] = {}
    match = _SERVER.fullmatch(text)
    if match is None:
        rest, _, query = text.removeprefix("milvus:").partition("?")
        uri, name, is_file = str(expanded(rest)), LITE_NAME, True
        if not rest.endswith(".db") or text.startswith("milvus://"):
            raise UsageError(
                f"{text} is no address of Milvus: write milvus://HOST:{PORT}/NAME for a server, or milvus:PATH.db for "
                "a file"
            )
        uri = os.path.abspath(uri)  # noqa: PTH100  (a link stays what it is)
    else:
        host, given, query = match[1], match[2] or LITE_NAME, match[3] or ""
        if "@" in host:
            raise UsageError(
                f"an address must not hold a password, which others could read: set {TOKEN}, or {USER} and {PASSWORD}, "
                "in the environment"
            )
        if not re.fullmatch(r"[A-Za-z0-9._-]+(:[0-9]{1,5})?|\[[0-9a-fA-F:]+\](:[0-9]{1,5})?", host):
            raise UsageError(f'"{host}" in {text} is no host: write milvus://HOST:{PORT}/NAME')
        name, is_file = given.rstrip("/"), False
        uri = host if re.search(r":[0-9]+$", host) else f"{host}:{PORT}"
        if not _NAME.fullmatch(name):
            raise UsageError(f'"{name}" in {text} is no name of a collection: use letters, digits and underscores')
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = options.keys() - {"index", "tenant", "secure", "db"}
    if unknown:
        raise UsageError(
            f"{text} has unknown options {', '.join(sorted(unknown))}; there are index, tenant, secure, db"
        )
    index = options.get("index", "").lower()
    if index not in ("", *INDEXES):
        raise UsageError(f'{text}: there is no index "{index}"; there are {", ".join(INDEXES)}')
    secure = options.get("secure", "false").lower()
    if secure not in ("true", "false"):
        raise UsageError(f'{text}: secure is "{secure}"; expected true or false')
    if not is_file:
        uri = f"{'https' if secure == 'true' else 'http'}://{uri}"
    return Address(text, uri, name, is_file, index, options.get("tenant", ""), options.get("db", ""))


def credentials() -> dict[str, str]:
    """What the client takes, from the environment."""
    if token := os.environ.get(TOKEN):
        return {"token": token}
    user, password = os.environ.get(USER), os.environ.get(PASSWORD)
    if (user is None) != (password is None):
        raise UsageError(f"only one of {USER} and {PASSWORD} is set: set both, or {TOKEN}")
    return {} if user is None or password is None else {"user": user, "password": password}
