"""A page and a JSON interface in the browser of this machine: `mmsearch serve`. Importing this package loads nothing.

app         what is served at which address
parameters  options from the parameters of an address
access      who may use it: this machine alone, and whoever has the token
pictures    small pictures of indexed files, kept for a while
run         listens until it is stopped
page.*      what the browser shows
"""

from __future__ import annotations

import importlib.util

EXTRA = 'pip install "mmsearch[serve]"'


def has_server() -> bool:
    """Whether the extra is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("starlette", "uvicorn"))
