"""A page and a JSON interface in the browser of this machine: `mmsearch serve`. Importing this package loads nothing.

app         what is served at which address       searching   what may be asked at /search, and what is answered
browsing    lists of what the index holds         served      the open index, and what is kept between requests
parameters  models of requests, from the fields of options
problems    what went wrong, as problem+json      reference   the page that documents the interface
access      who may use it: whoever has the token, of this machine unless others were let in
pictures    small pictures of indexed files, kept for a while
zipping     many files as one zip                 run         listens until it is stopped
page.*      what the browser shows
"""

from __future__ import annotations

import importlib.util

EXTRA = 'pip install "mmsearch[serve]"'


def has_server() -> bool:
    """Whether the extra is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("fastapi", "uvicorn", "multipart"))
