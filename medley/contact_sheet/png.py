"""A contact sheet as one PNG picture."""

from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from medley.contact_sheet.pictures import open_picture
from medley.contact_sheet.sheet import Card, Sheet
from medley.text import one_line

COLUMNS = 5
MARGIN = 28
GAP = 16
CELL = 216
LINE = 19
CAPTION_LINES = 2
PAPER, CARD, INK, SOFT, EDGE, MARK = "#f6f5f2", "#ffffff", "#1d1c1a", "#6d6a64", "#e2dfd8", "#b3541e"
FONTS = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "Arial.ttf",
    "Arial Unicode.ttf",
    "segoeui.ttf",
    "LiberationSans-Regular.ttf",
)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def png(sheet: Sheet) -> bytes:
    """Return `sheet` as the bytes of a PNG file."""
    canvas = _Canvas(sheet)
    canvas.draw_header()
    for number, card in enumerate(sheet.cards):
        canvas.draw_card(number, card)
    encoded = BytesIO()
    canvas.image.save(encoded, "PNG", optimize=True)
    return encoded.getvalue()


class _Canvas:
    """The picture being drawn."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet
        self._small, self._plain, self._large = _font(12), _font(14), _font(24)
        self._arms = max((len(card.arms) for card in sheet.cards), default=0)
        self._columns = max(2, min(COLUMNS, len(sheet.cards)))
        self._query = open_picture(sheet.picture, 132) if sheet.picture else None
        self._notes = [line for line in (sheet.query.scope, *sheet.arms) if line]
        self._card_height = CELL + (CAPTION_LINES + 1 + self._arms) * LINE + 18
        width = 2 * MARGIN + self._columns * CELL + (self._columns - 1) * GAP
        self._text_left = MARGIN + (132 + 22 if self._query else 0)
        self._heading = self._wrap(sheet.query.heading, self._large, width - MARGIN - self._text_left, 3)
        text_height = len(self._heading) * 32 + len(self._notes) * LINE
        self._top = MARGIN + max(text_height, 132 if self._query else 0) + 22
        rows = max(1, -(-len(sheet.cards) // self._columns))
        height = self._top + rows * (self._card_height + GAP) + MARGIN - GAP
        self.image = Image.new("RGB", (width, height), PAPER)
        self._pen = ImageDraw.Draw(self.image)

    def draw_header(self) -> None:
        if self._query:
            self._paste(self._query, MARGIN, MARGIN, 132)
            self._pen.rectangle((MARGIN - 2, MARGIN - 2, MARGIN + 133, MARGIN + 133), outline=MARK, width=2)
        top = MARGIN
        for line in self._heading:
            self._pen.text((self._text_left, top), line, INK, self._large)
            top += 32
        for line in self._notes:
            shown = self._truncate(line, self._small, self.image.width - MARGIN - self._text_left)
            self._pen.text((self._text_left, top), shown, SOFT, self._small)
            top += LINE
        if not self._sheet.cards:
            self._pen.text((MARGIN, self._top), "No hits.", SOFT, self._plain)

    def draw_card(self, number: int, card: Card) -> None:
        left = MARGIN + number % self._columns * (CELL + GAP)
        top = self._top + number // self._columns * (self._card_height + GAP)
        box = (left, top, left + CELL, top + self._card_height)
        self._pen.rounded_rectangle(box, 8, fill=CARD, outline=EDGE)
        picture = open_picture(card.picture, CELL - 2) if card.picture else None
        if picture:
            self._paste(picture, left + 1, top + 1, CELL - 2)
        else:
            self._draw_excerpt(card, left, top)
        self._draw_rank(card.rank, left + 8, top + 8)
        self._draw_words(card, left + 10, top + CELL + 8)

    def _draw_excerpt(self, card: Card, left: int, top: int) -> None:
        for number, line in enumerate(self._wrap(card.text, self._plain, CELL - 28, 8)):
            self._pen.text((left + 14, top + 42 + number * LINE), line, SOFT, self._plain)

    def _draw_rank(self, rank: int, left: int, top: int) -> None:
        words = str(rank)
        width = max(28, int(self._pen.textlength(words, self._plain)) + 16)
        self._pen.rounded_rectangle((left, top, left + width, top + 24), 12, fill=INK)
        self._pen.text((left + width / 2, top + 12), words, PAPER, self._plain, anchor="mm")

    def _draw_words(self, card: Card, left: int, top: int) -> None:
        for line in self._wrap(card.title, self._plain, CELL - 20, CAPTION_LINES):
            self._pen.text((left, top), line, INK, self._plain)
            top += LINE
        score = f"{card.score:.4f}"
        room = CELL - 30 - self._pen.textlength(score, self._small)
        top += (CAPTION_LINES - len(self._wrap(card.title, self._plain, CELL - 20, CAPTION_LINES))) * LINE + 2
        self._pen.text((left, top), self._truncate(card.id, self._small, room), INK, self._small)
        self._pen.text((left + CELL - 20, top), score, INK, self._small, anchor="ra")
        for arm in card.arms:
            top += LINE
            self._pen.text((left, top), self._truncate(arm, self._small, CELL - 20), SOFT, self._small)

    def _paste(self, picture: Image.Image, left: int, top: int, side: int) -> None:
        at = (left + (side - picture.width) // 2, top + (side - picture.height) // 2)
        self.image.paste(picture, at, picture)

    def _wrap(self, text: str, font: Font, width: float, lines: int) -> list[str]:
        """Return `text` in at most `lines` lines, the last one cut with … if necessary."""
        wrapped: list[str] = []
        words = one_line(text).split(" ")
        while words and len(wrapped) < lines - 1:
            line = words.pop(0)
            while words and font.getlength(f"{line} {words[0]}") <= width:
                line += f" {words.pop(0)}"
            wrapped.append(self._truncate(line, font, width))
        return [*wrapped, self._truncate(" ".join(words), font, width)] if words else wrapped

    def _truncate(self, text: str, font: Font, width: float) -> str:
        text = one_line(text)
        if font.getlength(text) <= width:
            return text
        low, high = 0, len(text)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if font.getlength(f"{text[:middle]}…") <= width else (low, middle - 1)
        return f"{text[:low].rstrip()}…"


def _font(size: int) -> Font:
    """Return a system font with many scripts, or Pillow's own."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
