"""Filters: what a document must be like to be found, as types and as SQL.

A filter says yes or no to every document. Where the catalogue does not know the answer (a photo without
coordinates, asked ``NearFilter``) it says no; a negated filter says yes to exactly the documents to which the
plain one says no, so also to those. Filters given together must all say yes.

``to_sql`` turns them into the condition of a WHERE clause over ``documents AS d JOIN contents AS c``. Values
travel as parameters only. Three functions that SQLite lacks must be registered on the connection first, with
``register_functions``. Both sides of a text comparison are brought to Unicode form NFC, because file systems
differ in how they spell an accent.

base     the contract, and how several filters become one condition
kinds    type, date        paths    path, folder      places   distance
cameras  camera, lens      sizes    size, duration
"""

import sqlite3

from mmsearch.filters.base import Filter, Parameters, to_sql
from mmsearch.filters.cameras import CameraFilter, LensFilter, contains_text
from mmsearch.filters.kinds import DOCUMENT_DATE_SQL, After, Before, TypeFilter
from mmsearch.filters.paths import FolderFilter, PathFilter, matches_path
from mmsearch.filters.places import NearFilter, distance_km, distance_or_null
from mmsearch.filters.sizes import Comparison, DurationFilter, SizeFilter

__all__ = [
    "DOCUMENT_DATE_SQL",
    "After",
    "Before",
    "CameraFilter",
    "Comparison",
    "DurationFilter",
    "Filter",
    "FolderFilter",
    "LensFilter",
    "NearFilter",
    "Parameters",
    "PathFilter",
    "SizeFilter",
    "TypeFilter",
    "distance_km",
    "register_functions",
    "to_sql",
]


def register_functions(connection: sqlite3.Connection) -> None:
    """Teach a connection the functions that the conditions call; all deterministic."""
    connection.create_function("mmsearch_distance_km", 4, distance_or_null, deterministic=True)
    connection.create_function("mmsearch_glob", 3, matches_path, deterministic=True)
    connection.create_function("mmsearch_contains", 2, contains_text, deterministic=True)
