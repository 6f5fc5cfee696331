"""`medley get`, `list`, `update` and `delete`: single items."""

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from medley.cli.printing import item_title, print_json, print_table, to_jsonable
from medley.cli.session import Session, as_of_option, collection_option, session_options
from medley.client import Client
from medley.text import one_line
from medley.values import Item, Media


@click.command()
@click.argument("item_id", metavar="ID")
@collection_option
@click.option("--media", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write its media to this file.")
@click.option("--url", "with_url", is_flag=True, help="Print a URL of its media, valid for an hour (S3 only).")
@as_of_option
@session_options
def get(session: Session, item_id: str, collection: str, *, out: Path | None, with_url: bool, as_of: str) -> None:
    """Show an item."""
    with session.connect() as client:
        item = client.get(collection, item_id, as_of=as_of)
        if out is not None:
            _write_media(client, item, out)
        if with_url:
            click.echo(_url(client, item))
            return
    if session.as_json:
        print_json(item)
    else:
        print_item(item)


@click.command("list")
@collection_option
@click.option("--where", metavar="JSON", help="Only items that satisfy this filter.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(min=1), help="Maximum number of items.")
@as_of_option
@session_options
def list_(session: Session, collection: str, where: str | None, limit: int, as_of: str) -> None:
    """List items by id."""
    with session.connect() as client:
        items = client.list(collection, where=where, page_size=min(limit, 1000), as_of=as_of)
        shown = list(islice(items, limit))
        counted = client.count(collection, where=where, as_of=as_of) if len(shown) == limit else 0
    if session.as_json:
        print_json(shown)
        return
    rows = ((item.id, item.content_type, item_title(item), item.revision) for item in shown)
    print_table(("id", "kind", "what", "rev"), rows, flexible="what", right=("rev",))
    if counted > len(shown):
        click.echo(f"… and {counted - len(shown)} more: --limit")


@click.command()
@click.argument("item_id", metavar="ID")
@collection_option
@click.option("--text", help='New text; "" removes it.')
@click.option("--image", type=click.Path(dir_okay=False, path_type=Path), help="New picture.")
@click.option("--remove-media", is_flag=True, help="Remove the picture.")
@click.option("--metadata", metavar="JSON", help="New metadata in place of the old.")
@click.option("--merge", metavar="JSON", help="Metadata to set; null removes a key.")
@session_options
def update(
    session: Session, item_id: str, collection: str, metadata: str | None, merge: str | None, **changes: Any
) -> None:
    """Change some fields of an item and keep the others."""
    changes["media"] = changes.pop("image")
    if all(value in (None, False) for value in (*changes.values(), metadata, merge)):
        raise click.UsageError("Nothing to change: give --text, --image, --remove-media, --metadata or --merge.")
    if metadata is not None and merge is not None:
        raise click.UsageError("Give --metadata or --merge, not both.")
    changes |= {"metadata": _parse_object("--metadata", metadata), "merge": _parse_object("--merge", merge)}
    with session.connect() as client:
        item = client.update(collection, item_id, **changes)
    if session.as_json:
        print_json(item)
    else:
        print_item(item)


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@collection_option
@click.option("--where", metavar="JSON", help="All items that satisfy this filter.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--receipt", is_flag=True, help="Delete items by id permanently, and check that nothing is left.")
@click.option(
    "--receipt-file", type=click.Path(dir_okay=False, path_type=Path), help="Write the receipt here, as JSON."
)
@click.option(
    "--media", multiple=True, metavar="SHA256", help="With a receipt: media of items deleted earlier, to delete too."
)
@session_options
def delete(
    *,
    session: Session,
    ids: tuple[str, ...],
    collection: str,
    where: str | None,
    yes: bool,
    receipt: bool,
    receipt_file: Path | None,
    media: tuple[str, ...],
) -> int:
    """Delete items by id, or all that satisfy a filter.

    With --receipt their media are deleted too, unless other items have the same, and every older version of the
    collection without a tag is removed. The receipt lists what was checked; the exit code is 1 if something is left.
    """
    if bool(ids) == (where is not None):
        raise click.UsageError("Give either ids or --where.")
    if media and not (receipt or receipt_file):
        raise click.UsageError("--media needs --receipt.")
    if receipt or receipt_file is not None:
        if not ids:
            raise click.UsageError("A receipt needs items by id.")
        return _erase(session, collection, ids, media, receipt_file)
    with session.connect() as client:
        if where is not None and not yes:
            click.confirm(f"Delete {client.count(collection, where=where)} items of {collection}?", abort=True)
        deleted = client.delete(collection, ids or None, where=where)
    if session.as_json:
        print_json({"deleted": deleted})
    else:
        click.echo(f"{deleted} deleted")
    return 0


def _erase(session: Session, collection: str, ids: tuple[str, ...], media: tuple[str, ...], out: Path | None) -> int:
    with session.connect() as client:
        receipts = client.erase(collection, ids, media=media)
    if out is not None:
        out.write_text(json.dumps(to_jsonable(receipts), indent=2) + "\n", "utf-8")
    if session.as_json or out is None:
        print_json(receipts)
    else:
        complete = sum(receipt.complete for receipt in receipts)
        click.echo(f"{complete} of {len(receipts)} erased permanently: {out}")
    return 0 if all(receipt.complete for receipt in receipts) else 1


def print_item(item: Item) -> None:
    """Print the fields of an item, one line each."""
    for name, value in _lines(item):
        click.echo(f"{name + ':':<10} {value}")


def _lines(item: Item) -> Iterator[tuple[str, str]]:
    yield "id", one_line(item.id)
    yield "kind", item.content_type or ""
    if item.text is not None:
        yield "text", one_line(item.text)
    if item.media is not None:
        media = item.media
        size = f", {media.width}x{media.height}" if media.width else ""
        yield "media", f"{media.mime_type}, {media.size_bytes} bytes{size}"
        yield "sha256", media.sha256
    yield "metadata", json.dumps(item.metadata or {}, ensure_ascii=False)
    yield "spaces", ", ".join(item.spaces)
    yield "revision", f"{item.revision}, written {item.update_time:%Y-%m-%d %H:%M:%S} UTC" if item.update_time else ""


def _write_media(client: Client, item: Item, out: Path) -> None:
    """Write an item's media to `out`, atomically."""
    sha256 = _media_of(item).sha256
    partial = out.with_name(f"{out.name}.part")
    try:
        with partial.open("wb") as file:
            for block in client.download_media(sha256):
                file.write(block)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _url(client: Client, item: Item) -> str:
    media = _media_of(item)
    return client.media_url(media.sha256, mime_type=media.mime_type)


def _media_of(item: Item) -> Media:
    if item.media is None:
        raise ValueError(f"item {item.id!r} has no media")
    return item.media


def _parse_object(option: str, text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"{option} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise click.UsageError(f"{option} must be a JSON object")
    return value
