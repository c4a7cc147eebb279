"""What an index shows to others: a page and JSON for the browser and programs of this machine (`mmsearch serve`), tools
for assistants (`mmsearch mcp`). Importing this package loads nothing.

app         what is served at which address
parameters  options from the parameters of an address
mcp         tools for assistants (MCP), of the same index
access      who may use it: this machine alone, and whoever has the token
pictures    small pictures of indexed files, kept for a while
run         listens until it is stopped
page.*      what the browser shows
"""

from __future__ import annotations

import importlib.util

PACKAGES = {"serve": ("starlette", "uvicorn"), "mcp": ("mcp",)}
"""What the extras of this room consist of, by their names."""


def has_extra(name: str) -> bool:
    """Whether an extra of `PACKAGES` is installed."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES[name])


def has_server() -> bool:
    """Whether the extra of `mmsearch serve` is installed."""
    return has_extra("serve")
