"""XMP packets of several programs, and what is wrong with some of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmsearch.core.types import MediaInfo
from mmsearch.media.metadata.xmp import date_of_file, read_xmp, xmp_info

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "aux": "http://ns.adobe.com/exif/1.0/aux/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
}


def packet(inside: str = "", attributes: str = "", prefix: str = "x:") -> str:
    named = " ".join(f'xmlns:{name}="{space}"' for name, space in SPACES.items())
    space = f'xmlns{":" + prefix[:-1] if prefix else ""}="adobe:ns:meta/"'
    return (
        f'<?xpacket begin="" id="W5M0"?><{prefix}xmpmeta {space}><rdf:RDF {named}>'
        f'<rdf:Description rdf:about="" {attributes}>{inside}</rdf:Description></rdf:RDF></{prefix}xmpmeta>'
        "<?xpacket end='w'?>"
    )


def bag(name: str, *texts: str, kind: str = "Bag") -> str:
    items = "".join(f"<rdf:li>{text}</rdf:li>" for text in texts)
    return f"<{name}><rdf:{kind}>{items}</rdf:{kind}></{name}>"


def spoken(name: str, **texts: str) -> str:
    items = "".join(f'<rdf:li xml:lang="{lang.replace("_", "-")}">{text}</rdf:li>' for lang, text in texts.items())
    return f"<{name}><rdf:Alt>{items}</rdf:Alt></{name}>"


LIGHTROOM = packet(
    spoken("dc:title", x_default="Pier") + spoken("dc:description", de="Abend", x_default="Evening at the pier")
    + bag("dc:subject", "sea", "Norway") + bag("lr:hierarchicalSubject", "Places|Norway|Bergen", "sea"),
    'xmp:Rating="4" exif:DateTimeOriginal="2019-05-06T07:08:09.50+02:00" exif:GPSLatitude="60,23.5N" '
    'exif:GPSLongitude="5,19.2E" tiff:Make="NIKON CORPORATION" tiff:Model="NIKON D750" aux:Lens="24-70 mm f/2.8"',
)  # fmt: skip
DIGIKAM = packet(
    "<xmp:Rating>4</xmp:Rating><exif:DateTimeOriginal>2019-05-06T07:08:09</exif:DateTimeOriginal>"
    "<exif:GPSLatitude>60,23,30N</exif:GPSLatitude><exif:GPSLongitude>5,19.2E</exif:GPSLongitude>"
    "<tiff:Make>NIKON CORPORATION</tiff:Make><tiff:Model>NIKON D750</tiff:Model><aux:Lens>24-70 mm f/2.8</aux:Lens>"
    + spoken("dc:title", x_default="Pier") + spoken("dc:description", x_default="Evening at the pier")
    + bag("dc:subject", "sea", "Norway") + bag("digiKam:TagsList", "Places/Norway/Bergen", "sea", kind="Seq"),
)  # fmt: skip
DARKTABLE = packet(
    spoken("dc:title", x_default="Pier") + spoken("dc:description", x_default="Evening at the pier")
    + bag("dc:subject", "sea", "Norway", kind="Seq")
    + bag("lr:hierarchicalSubject", "Places|Norway|Bergen", kind="Seq"),
    'xmp:Rating="4" exif:DateTimeOriginal="2019:05:06 07:08:09.000" exif:GPSLatitude="60,23.5000N" '
    'exif:GPSLongitude="5,19.2000E" tiff:Make="NIKON CORPORATION" tiff:Model="NIKON D750" aux:Lens="24-70 mm f/2.8"',
)  # fmt: skip


@pytest.mark.parametrize("text", [LIGHTROOM, DIGIKAM, DARKTABLE])
def test_programs_say_it_in_their_own_ways(text: str) -> None:
    assert xmp_info(read_xmp(text.encode())) == MediaInfo(
        taken_at="2019-05-06T07:08:09",
        camera="NIKON D750",
        lens="24-70 mm f/2.8",
        latitude=pytest.approx(60.391667, abs=1e-6),
        longitude=pytest.approx(5.32, abs=1e-6),
        rating=4,
        description="Pier\nEvening at the pier\nsea, Norway, Places, Bergen",
    )


FACES = {
    "IPTC": bag("Iptc4xmpExt:PersonInImage", "Ada", "Grace"),
    "regions, elements": '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag>'
    '<rdf:li rdf:parseType="Resource"><mwg-rs:Name>Ada</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type></rdf:li>'
    '<rdf:li rdf:parseType="Resource"><mwg-rs:Name>Rex</mwg-rs:Name><mwg-rs:Type>Pet</mwg-rs:Type></rdf:li>'
    '<rdf:li rdf:parseType="Resource"><mwg-rs:Name>Grace</mwg-rs:Name><mwg-rs:Type>Face</mwg-rs:Type></rdf:li>'
    "</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>",
    "regions, attributes": '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList><rdf:Bag>'
    '<rdf:li><rdf:Description mwg-rs:Name="Ada" mwg-rs:Type="Face"><mwg-rs:Area/></rdf:Description></rdf:li>'
    '<rdf:li><rdf:Description mwg-rs:Name="Grace" mwg-rs:Type="Face"/></rdf:li>'
    "</rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>",
    "Windows": '<x><MPReg:PersonDisplayName>Ada</MPReg:PersonDisplayName></x><rdf:li MPReg:PersonDisplayName="Grace"/>',
}


@pytest.mark.parametrize("way", FACES)
def test_people_are_found_by_their_names(way: str) -> None:
    assert xmp_info(read_xmp(packet(FACES[way]))).description == "Ada, Grace"


@pytest.mark.parametrize(
    ("latitude", "longitude", "place"),
    [
        ("46,30.0N", "7,54.0E", (46.5, 7.9)),
        ("33,51,25.5S", "70,30W", (-33.857083, -70.5)),
        ("-46.5", "7.9", (-46.5, 7.9)),
        ("0,0N", "0,0E", (None, None)),
        ("46,30.0N", "", (None, None)),
        ("95,0N", "7,54E", (None, None)),
        ("north", "7,54E", (None, None)),
        ("4.5.6N", "7,54E", (None, None)),
    ],
)
def test_places(latitude: str, longitude: str, place: tuple[float | None, float | None]) -> None:
    info = xmp_info(read_xmp(packet(attributes=f'exif:GPSLatitude="{latitude}" exif:GPSLongitude="{longitude}"')))
    assert (info.latitude, info.longitude) == (
        place if place[0] is None else tuple(pytest.approx(degrees, abs=1e-6) for degrees in place)
    )


@pytest.mark.parametrize(
    ("written", "date"),
    [
        ("1965", "1965-01-01T00:00:00"),
        ("1965-07", "1965-07-01T00:00:00"),
        ("1965-07-09", "1965-07-09T00:00:00"),
        ("1965-07-09T10:11Z", "1965-07-09T10:11:00"),
        ("1965-13", None),
        ("0000-00-00", None),
        ("soon", None),
    ],
)
def test_dates_may_be_known_to_the_year_alone(written: str, date: str | None) -> None:
    assert xmp_info(read_xmp(packet(attributes=f'photoshop:DateCreated="{written}"'))).taken_at == date


def test_the_date_of_a_scan_is_not_when_it_was_taken() -> None:
    xmp = read_xmp(packet(attributes='xmp:CreateDate="2015-01-02T03:04:05"'))
    assert xmp_info(xmp).taken_at is None
    assert date_of_file(xmp) == "2015-01-02T03:04:05"


@pytest.mark.parametrize(
    ("written", "stars"),
    [("5", 5), ("4.0", 4), ("0", 0), ("-1", -1), ("6", None), ("many", None), ("nan", None), ("", None)],
)
def test_ratings(written: str, stars: int | None) -> None:
    assert xmp_info(read_xmp(packet(attributes=f'xmp:Rating="{written}"'))).rating == stars


ENCODED = packet(spoken("dc:description", x_default="Grüße aus Łódź"))


@pytest.mark.parametrize(
    "data",
    [
        ENCODED.encode(),
        b"\xef\xbb\xbf" + ENCODED.encode(),
        ENCODED.encode("utf-16"),
        ENCODED.encode("utf-16-le"),
        ENCODED.encode("utf-16-be"),
        b"\0\0" + ENCODED.encode() + bytes(2000),
        packet(spoken("dc:description", x_default="Grüße aus Łódź"), prefix="").encode(),
        packet(spoken("dc:description", x_default="Grüße aus Łódź"), prefix="xmp_:").encode(),
        ENCODED[ENCODED.index("<rdf:RDF") : ENCODED.index("</x:")].encode(),
    ],
)
def test_any_encoding_and_any_prefix(data: bytes) -> None:
    assert xmp_info(read_xmp(data)).description == "Grüße aus Łódź"


def test_bytes_of_another_encoding_than_it_says() -> None:
    text = packet(spoken("dc:description", x_default="Grüße")).encode("latin-1")
    assert xmp_info(read_xmp(text)).description == "Grüße"


HOSTILE = {
    "entities": '<!DOCTYPE x [<!ENTITY a "boom"><!ENTITY b "&a;&a;">]>' + packet(spoken("dc:title", x="&b;")),
    "entities in UTF-16": ('<!DOCTYPE x [<!ENTITY a "boom">]>' + packet()).encode("utf-16"),
    "a file of this machine": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
    + packet(spoken("dc:title", x_default="&a;")),
    "nested deeply": packet("<a>" * 90_000 + "</a>" * 90_000),
    "nested absurdly": packet("<a>" * 400_000 + "</a>" * 400_000),
    "only elements": packet("<a/>" * 900_000),
    "one long text": packet(spoken("dc:title", x_default="a" * 5_000_000)),
    "cut": LIGHTROOM[:-60],
    "closed wrongly": LIGHTROOM.replace("</rdf:RDF>", "</rdf:BAG>"),
    "control characters": packet(spoken("dc:title", x_default="a\x01b")),
    "no XML": b"\xff\xd8\xff\xe0" * 1000,
    "nothing": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_packet_says_nothing_and_costs_little(kind: str) -> None:
    assert xmp_info(read_xmp(HOSTILE[kind])) == MediaInfo()


TEXTS = st.text(max_size=200).map(lambda text: packet(text[:50], text[50:]).encode("utf-8", "replace"))


@given(st.binary(max_size=200) | TEXTS)
def test_anything_is_survived(data: bytes) -> None:
    assert isinstance(xmp_info(read_xmp(data)), MediaInfo)
