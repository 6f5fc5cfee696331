from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from medley.contact_sheet.html import html
from medley.contact_sheet.pictures import SMALL_BYTES, encode_for_web, open_picture
from medley.contact_sheet.png import png
from medley.contact_sheet.sheet import Card, Query, Sheet
from medley.contact_sheet.write import write_sheet
from medley.values import ArmReport

REPORT = ArmReport(1, "clip", "cosine", 1.0, "exact", 3, 1.0)


def picture(size: tuple[int, int] = (40, 20), kind: str = "JPEG", colour: str = "red") -> bytes:
    encoded = BytesIO()
    Image.new("RGB", size, colour).save(encoded, kind)
    return encoded.getvalue()


def sheet(*cards: Card, query: Query | None = None) -> Sheet:
    return Sheet(query or Query("c", "words"), None, cards, ("words in clip: cosine",))


def card(rank: int = 1, **changes: object) -> Card:
    values = {"id": f"item-{rank}", "title": "A title", "text": "A text", "score": 0.5, "arms": ("words in clip #1",)}
    return Card(rank, **{**values, "picture": picture(), **changes})  # type: ignore[arg-type]


def test_a_query_says_itself_and_its_arms_in_words() -> None:
    query = Query("c", "cats", b"", "x", '{"a": 1}')
    assert query.heading == "“cats” + this picture + item x"
    assert query.scope == 'in c, where {"a": 1}'
    assert query.label(REPORT) == "picture in clip"
    assert Query("c", image=b"").heading == "this picture"


def test_a_page_escapes_what_others_wrote() -> None:
    hostile = '"><script>alert(1)</script>'
    page = html(sheet(card(id=hostile, title=hostile, text=hostile, arms=(hostile,)), query=Query(hostile, hostile)))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_a_page_carries_its_pictures_and_nothing_else() -> None:
    page = html(Sheet(Query("c", image=picture()), picture(), (card(), card(2)), ()))
    assert page.count('src="data:image/jpeg;base64,') == 3
    assert "http" not in page


def test_a_hit_without_a_picture_shows_its_text() -> None:
    assert "<blockquote>A text</blockquote>" in html(sheet(card(picture=None)))
    assert "<blockquote>A text</blockquote>" in html(sheet(card(picture=b"no picture")))


def test_an_empty_answer_says_so() -> None:
    assert "No hits." in html(sheet())
    assert Image.open(BytesIO(png(sheet()))).format == "PNG"


@pytest.mark.parametrize("text", ["", "ä☂日本語🙂", "w" * 500, "many words " * 100, "a\nb\x00c"])
def test_any_text_can_be_drawn(text: str) -> None:
    cards = [card(rank, id=text, title=text, text=text, arms=(text,) * 3, picture=None) for rank in range(1, 8)]
    drawn = Image.open(BytesIO(png(sheet(*cards, query=Query("c", text, where=text)))))
    assert drawn.width < 1300


def test_a_drawn_sheet_grows_by_rows_of_five() -> None:
    heights = [Image.open(BytesIO(png(sheet(*map(card, range(1, count + 1)))))).height for count in (5, 6, 10, 11)]
    assert heights[0] < heights[1] == heights[2] < heights[3]


def test_the_pictures_are_on_the_sheet() -> None:
    drawn = Image.open(BytesIO(png(sheet(card(picture=picture((200, 200), colour="#ff0000"))))))
    colours = {colour: count for count, colour in drawn.getcolors(2**24) or ()}
    assert sum(count for (red, green, blue), count in colours.items() if red > 240 and green < 15) > 20_000  # type: ignore[misc]


def test_small_pictures_go_as_they_are_and_large_ones_are_made_small() -> None:
    small = picture()
    assert encode_for_web(small, 100) == ("image/jpeg", small)
    encoded = BytesIO()
    Image.effect_noise((900, 600), 100).save(encoded, "PNG")
    assert len(encoded.getvalue()) > SMALL_BYTES
    shrunk = encode_for_web(encoded.getvalue(), 100)
    assert shrunk is not None
    assert Image.open(BytesIO(shrunk[1])).size == (100, 67)


def test_formats_no_browser_shows_are_converted() -> None:
    converted = encode_for_web(picture(kind="TIFF"), 100)
    assert converted is not None
    assert converted[0] == "image/jpeg"


def test_a_picture_is_turned_upright() -> None:
    encoded = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(encoded, "JPEG", exif=exif)
    upright = open_picture(encoded.getvalue(), 100)
    assert upright is not None
    assert upright.size == (50, 100)


@pytest.mark.parametrize("data", [b"", b"no picture", picture()[:100]])
def test_what_cannot_be_read_is_no_picture(data: bytes) -> None:
    assert open_picture(data, 100) is None
    assert encode_for_web(data, 100) is None or data.startswith(b"\xff\xd8")


def test_a_sheet_is_written_by_its_suffix(tmp_path: Path) -> None:
    write_sheet(sheet(card()), tmp_path / "new" / "a.html")
    write_sheet(sheet(card()), tmp_path / "new" / "a.PNG")
    assert (tmp_path / "new/a.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "new/a.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"\.html or \.png"):
        write_sheet(sheet(card()), tmp_path / "a.pdf")
