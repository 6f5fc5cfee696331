"""`medley ingest`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from medley.cli.exit_codes import INTERRUPTED
from medley.cli.printing import print_error, print_json, progress_bar, to_jsonable
from medley.cli.session import Session, collection_option, session_options
from medley.client import Client
from medley.errors import NotFoundError
from medley.importer import Importer, Report
from medley.inputs import Columns, open_inputs
from medley.text import shorten

MAX_SHOWN_FAILURES = 20
INTERRUPTION = "interrupted"


@click.command(short_help="Ingest a folder or a manifest into a collection.")
@click.argument("path", type=click.Path(path_type=Path))
@collection_option
@click.option("--create", is_flag=True, help="Create the collection if it does not exist.")
@click.option("--id-column", metavar="NAME", help="Manifests: the column of the ids.")
@click.option("--text-column", metavar="NAME", help="Manifests: the column of the texts.")
@click.option("--image-column", metavar="NAME", help="Manifests: the column of the pictures, paths or bytes.")
@click.option(
    "--metadata-columns", metavar="A,B,…", help="Manifests: the columns that become metadata.  [default: all others]"
)
@click.option("--idle-timeout", default=60.0, show_default=True, help="Seconds without progress before giving up.")
@click.option(
    "--report", "report_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here, as JSON."
)
@session_options
def ingest(
    *,
    session: Session,
    path: Path,
    collection: str,
    create: bool,
    idle_timeout: float,
    report_path: Path | None,
    **columns: Any,
) -> int:
    """Ingest a folder or a manifest at PATH into a collection.

    A folder is searched with its subfolders for pictures and texts. The caption of cat.jpg is read from cat.txt, or
    from cat.json, an object with "text" and metadata. Ids are paths within the folder.

    A manifest is a .csv, .tsv, .jsonl or .parquet file with one row per item. Columns are guessed by their names unless
    given; paths of pictures are relative to the manifest.

    Items that are stored unchanged are skipped: run the command again to continue after an interruption.
    """
    inputs = open_inputs(path, _columns(**columns))
    with session.connect() as client:
        ensure_collection(client, collection, create=create)
        with progress(f"Ingesting {path.name}", inputs.total) as report:
            on_wait = lambda error: print_error(f"waiting for the server: {shorten(str(error), 100)}")  # noqa: E731
            try:
                Importer(client, collection, timeout_seconds=idle_timeout, on_wait=on_wait).run(inputs.iterator, report)
            except KeyboardInterrupt:
                report.stopped = INTERRUPTION
        if session.as_json:
            print_json(summary(report))
        else:
            print_report(report)
    if report_path:
        report_path.write_text(json.dumps(to_jsonable(summary(report)), indent=2) + "\n", "utf-8")
    if report.stopped == INTERRUPTION:
        return INTERRUPTED
    return 0 if report.ok else 1


def ensure_collection(client: Client, name: str, *, create: bool) -> None:
    """Check that the collection `name` exists; with `create`, create it with the default spaces if it does not.

    Raises:
        NotFoundError: it does not exist, and `create` is False.
    """
    try:
        client.collection(name)
    except NotFoundError as error:
        if not create:
            raise NotFoundError(f"{error}: --create creates it", error.reason, error.metadata) from error
        client.create_collection(name)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Report]:
    """Yield a report that advances a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task(label, total=total)
        yield Report(on_processed=lambda: bar.advance(task))


def summary(report: Report) -> dict[str, Any]:
    """Return `report` as an object to write as JSON."""
    return {
        "ingested": report.ingested,
        "unchanged": report.unchanged,
        "failed": [to_jsonable(failure) for failure in report.failures],
        "stopped": report.stopped,
    }


def print_report(report: Report) -> None:
    """Print the numbers of `report` and its first failures."""
    click.echo(f"{report.ingested} ingested, {report.unchanged} unchanged, {len(report.failures)} failed")
    for failure in report.failures[:MAX_SHOWN_FAILURES]:
        reason = f" [{failure.reason}]" if failure.reason else ""
        click.echo(f"  {shorten(failure.name, 200)}: {shorten(failure.problem, 300)}{reason}")
    if len(report.failures) > MAX_SHOWN_FAILURES:
        click.echo(f"  … and {len(report.failures) - MAX_SHOWN_FAILURES} more: --report FILE lists all")
    if report.stopped:
        print_error(f"stopped: {report.stopped}; run the same command again to continue")


def _columns(
    id_column: str | None, text_column: str | None, image_column: str | None, metadata_columns: str | None
) -> Columns:
    metadata = (
        tuple(name.strip() for name in metadata_columns.split(",") if name.strip())
        if metadata_columns is not None
        else None
    )
    return Columns(id_column, text_column, image_column, metadata)
