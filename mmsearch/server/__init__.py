"""What an index shows to others: a page and JSON for the browser and programs (`mmsearch serve`), tools for assistants
(`mmsearch mcp`). Importing this package loads nothing.

app         what is served at which address       searching   what may be asked at /search, and what is answered
browsing    lists of what the index holds         served      the open index, and what is kept between requests
parameters  models of requests, from the fields of options
problems    what went wrong, as problem+json      reference   the page that documents the interface
mcp         tools for assistants (MCP), of the same index
routes      how a request reaches its function, and JSON
access      who may use it: whoever has the token, of this machine unless others were let in
pictures    small pictures of indexed files, kept for a while
zipping     many files as one zip                 run         listens until it is stopped
warming     lists that the page shows first, made ahead
page.*, page/*.js   what the browser shows       static      the addresses of these files
"""

from __future__ import annotations

import importlib.util

PACKAGES = {"serve": ("fastapi", "uvicorn", "multipart", "segno"), "mcp": ("mcp",)}
"""What the extras of this room consist of, by their names."""


def has_extra(name: str) -> bool:
    """Whether an extra of `PACKAGES` is installed."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES[name])


def has_server() -> bool:
    """Whether the extra of `mmsearch serve` is installed."""
    return has_extra("serve")
