"""`medley demo`."""

import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import click

from medley.cli.commands.ingest import print_report, progress
from medley.cli.commands.search import print_result
from medley.client import Client
from medley.contact_sheet.sheet import Query, build_sheet
from medley.contact_sheet.write import write_sheet
from medley.demo.catalog import MAX_PRODUCTS, Product, generate_catalog
from medley.importer import Importer
from medley.inputs import Input
from medley.local_server import LocalServerError, find_free_ports, run_local_server
from medley.values import NewItem, SearchResult

COLLECTION = "demo"
WORDS = "a green t-shirt"
MUG, DRESS = QUERY_PRODUCTS = ("Blue mug", "Red dress")
FILTER = '{"colour": "blue", "price": {"$lt": 30}}'


class DemoError(LocalServerError):
    """A result of the demo is not the expected one."""


@click.command(short_help="Run a demo: draw, ingest, search, clean up.")
@click.option(
    "--count", default=360, show_default=True, type=click.IntRange(20, MAX_PRODUCTS), help="Products to draw."
)
@click.option(
    "--sheet-dir",
    default="demo-output",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the contact sheets.",
)
def demo(count: int, sheet_dir: Path) -> None:
    """Draw a catalogue, start the services, fill a collection and search it in every way; then stop and clean up."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="medley-demo-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        with run_local_server(folder / "data", find_free_ports(), folder / "services.log") as running:
            click.echo("Starting the services …")
            running.wait_until_ready()
            with Client(running.server) as client:
                pictures = _fill(client, count)
                _search(client, pictures, sheet_dir)
                _read_media(client)
    click.echo(f"\nDone in {time.monotonic() - begin:.0f} seconds. Contact sheets: {sheet_dir}/*.html and *.png")
    click.echo("Next: `medley up`, then in another terminal:")
    click.echo("  medley ingest FOLDER-OF-PICTURES --collection photos --create")
    click.echo('  medley search "a red ball" --collection photos --sheet found.html')


def _fill(client: Client, count: int) -> dict[str, bytes]:
    """Ingest the catalogue and return the pictures to search by."""
    client.create_collection(COLLECTION)
    shown: dict[str, bytes] = {}

    def inputs() -> Iterator[Input]:
        for product in generate_catalog(count):
            if product.name in QUERY_PRODUCTS:
                shown[product.name] = product.picture
            yield Input(product.name, _item(product))

    begin = time.monotonic()
    with progress("Drawing and ingesting", count) as report:
        Importer(client, COLLECTION).run(inputs(), report)
    print_report(report)
    click.echo(f"{report.ingested / (time.monotonic() - begin):.0f} products a second, drawing included")
    stored = client.count(COLLECTION)
    if not report.ok or stored != count or set(shown) != set(QUERY_PRODUCTS):
        raise DemoError(f"the demo drew {count} products, the collection has {stored}")
    return shown


def _item(product: Product) -> NewItem:
    return NewItem(product.id, product.description, product.picture, {"name": product.name, **product.metadata})


def _search(client: Client, pictures: dict[str, bytes], sheets: Path) -> None:
    words = Query(COLLECTION, WORDS)
    picture = Query(COLLECTION, image=pictures[MUG])
    both = Query(COLLECTION, "red and striped", pictures[DRESS])
    present = Query(COLLECTION, "a present", where=FILTER)
    _show(client, f'Words to pictures: "{WORDS}"', words, sheets / "1-words", space="clip")
    _show(client, f"Picture to pictures: {MUG}", picture, sheets / "2-picture")
    _show(client, f'Words and a picture, fused: "{both.text}" and {DRESS}', both, sheets / "3-both")
    filtered = _show(client, f'Words under a filter: "{present.text}" where {FILTER}', present, sheets / "4-filter")
    for hit in filtered:
        metadata = hit.item.metadata or {}
        if metadata.get("colour") != "blue" or not float(str(metadata.get("price"))) < 30:
            raise DemoError(f"{hit.id} does not satisfy the filter {FILTER}")


def _show(client: Client, heading: str, query: Query, path: Path, *, space: str = "") -> SearchResult:
    """Search, print the ranking and write its contact sheets."""
    result = client.search(COLLECTION, text=query.text, image=query.image, where=query.where, space=space)
    click.echo(f"\n{heading}")
    print_result(query, result)
    if not result.hits:
        raise DemoError(f"no hits for {query.heading}")
    sheet = build_sheet(client, query, result)
    for suffix in (".html", ".png"):
        write_sheet(sheet, path.with_suffix(suffix))
    return result


def _read_media(client: Client) -> None:
    """Read one item's picture and compare it with its name, which is its hash."""
    item = next(client.list(COLLECTION, page_size=1))
    if item.media is None:
        raise DemoError(f"{item.id} has no picture")
    content = b"".join(client.download_media(item.media.sha256))
    if hashlib.sha256(content).hexdigest() != item.media.sha256:
        raise DemoError(f"the picture of {item.id} came back changed")
    click.echo(f"\nmedia: {item.id} read back, {len(content)} bytes, SHA-256 as stored")
