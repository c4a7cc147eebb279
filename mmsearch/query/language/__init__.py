"""The query language: one line of text to what it asks for. The same in command line, API and server.

    mountain lake -people type:image after:2021 before:2023-06 path:holiday/* near:46.5,7.9,20km
    camera:"X100" size:>2mp "exact words"

Words are separated by white space; what they mean:

- ``word``: what to look for. ``"two words"``: these words, exactly. ``-word``, ``-"two words"``: without it.
- ``key:value``: a filter (`mmsearch.filters.KEYS` lists them); ``-key:value``: its complement. Several filters must
  all hold. A value may hold quoted parts: ``path:"my photos"/*``. Keys, types and units are read in any case.
- A backslash before ``" \\ : - * ? ,`` or white space makes that character ordinary: ``\\-5``, ``foo\\:bar``,
  ``path:\\*.jpg``. Before any other character it stands for itself. It also works inside quotes.
- A ``-`` is an exclusion only at the start of a word and before a letter, a digit, a quote, a backslash or a
  character beyond ASCII; so ``black-and-white``, ``a - b``, ``--`` and ``->`` are words. A quote opens a
  phrase only at the start of a word: ``12" vinyl`` has none.
- ``letters:something`` with unknown letters is an error, since it is most likely a mistyped filter. It is a
  word, though, if there are fewer than two letters, anything but ASCII letters, nothing after the colon, or
  another ``:`` or a ``/`` right after it: ``12:30``, ``:-)``, ``C:\\x``, ``note:``, ``http://x.org``,
  ``std::map``.

What values mean:

- ``type:image,video``: any of these.
- ``after:2021`` from the first second of 2021 on; ``before:2023-06`` earlier than the first second of June
  2023; so both with one date share nothing and leave out nothing. Year, month, day, minute or second.
- ``path:`` and ``folder:`` as `mmsearch.filters.keys.Path` and ``Folder`` state: a path is matched whole (a pattern
  without ``/``: the file's name), a folder by its name anywhere above the file.
- ``near:latitude,longitude,radius`` in degrees and km, m or mi, the edge included.
- ``camera:`` and ``lens:``: contains, in any case.
- ``size:`` and ``duration:``: ``>`` ``>=`` ``<`` ``<=`` ``=`` before a number, or ``a..b`` with both ends;
  mp (10⁶ pixels), px (the longer side), b kb mb gb tb (powers of 1000), kib mib gib (of 1024); s, m or min, h.
  A bare number is refused: hardly a file is exactly that large.
"""

from mmsearch.query.language.parser import ParsedQuery, QueryError, complete, parse_query

__all__ = ["ParsedQuery", "QueryError", "complete", "parse_query"]
