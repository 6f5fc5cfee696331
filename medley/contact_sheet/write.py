"""Writes a contact sheet to a file."""

from pathlib import Path

from medley.contact_sheet.sheet import Sheet

SHEET_SUFFIXES = (".html", ".png")


def write_sheet(sheet: Sheet, path: Path) -> None:
    """Write `sheet` to `path` as HTML or PNG, by its suffix; missing folders are created.

    Raises:
        ValueError: another suffix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix.lower():
        case ".html":
            from medley.contact_sheet.html import html  # noqa: PLC0415  # Pillow is loaded only where it is needed

            path.write_text(html(sheet), "utf-8")
        case ".png":
            from medley.contact_sheet.png import png  # noqa: PLC0415  # as above

            path.write_bytes(png(sheet))
        case _:
            raise ValueError(f"{path}: a contact sheet is .html or .png")
