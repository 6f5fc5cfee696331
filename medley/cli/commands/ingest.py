"""`medley ingest`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from medley.cli.exits import INTERRUPTED
from medley.cli.printing import counting_bar, plain, print_error, print_json
from medley.cli.session import Session, collection_option, session_options
from medley.client import Client
from medley.errors import NotFoundError
from medley.inputs import Columns, open_inputs
from medley.loading import Importer, Report
from medley.wording import shortened

SHOWN_FAILURES = 20
INTERRUPTION = "interrupted"


@click.command(short_help="Bring a folder or a manifest into a collection.")
@click.argument("path", type=click.Path(path_type=Path))
@collection_option
@click.option("--create", is_flag=True, help="Create the collection if there is none.")
@click.option("--id-column", metavar="NAME", help="Manifests: the column of the ids.")
@click.option("--text-column", metavar="NAME", help="Manifests: the column of the texts.")
@click.option("--image-column", metavar="NAME", help="Manifests: the column of the pictures, paths or bytes.")
@click.option(
    "--metadata-columns", metavar="A,B,…", help="Manifests: the columns that become metadata.  [default: all other]"
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
    patience: float,
    report_path: Path | None,
    **columns: Any,
) -> int:
    """Bring a folder or a manifest at PATH into a collection.

    A folder is searched with its subfolders for pictures and texts. The caption of cat.jpg stands in cat.txt, or in
    cat.json as {"text": …, and metadata}. Ids are paths within the folder.

    A manifest is a .csv, .tsv, .jsonl or .parquet file, one row an item. Columns are guessed by their names unless
    given; paths of pictures are relative to the manifest.

    What the collection holds already, unchanged, is skipped: run the command again to go on after an interruption.
    """
    inputs = open_inputs(path, _columns(**columns))
    with session.connected() as client:
        ensure_collection(client, collection, create=create)
        with progress(f"Ingesting {path.name}", inputs.total) as report:
            waiting = lambda error: print_error(f"waiting for the server: {shortened(str(error), 100)}")  # noqa: E731
            try:
                Importer(client, collection, timeout_seconds=patience, waiting=waiting).load(inputs.each, report)
            except KeyboardInterrupt:
                report.stopped = INTERRUPTION
        if session.as_json:
            print_json(summary(report))
        else:
            print_report(report)
    if report_path:
        report_path.write_text(json.dumps(plain(summary(report)), indent=2) + "\n", "utf-8")
    if report.stopped == INTERRUPTION:
        return INTERRUPTED
    return 0 if report.ok else 1


def ensure_collection(client: Client, name: str, *, create: bool) -> None:
    """See that there is a collection `name`, with whatever spaces; make one with the usual spaces if that is wanted.

    Raises:
        NotFoundError: there is none, and none is wanted.
    """
    try:
        client.collection(name)
    except NotFoundError as error:
        if not create:
            raise NotFoundError(f"{error}: --create makes it", error.reason, error.metadata) from error
        client.create_collection(name)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Report]:
    """Yield a report that moves a bar on stderr as it fills."""
    with counting_bar() as bar:
        task = bar.add_task(label, total=total)
        yield Report(on_settled=lambda: bar.advance(task))


def summary(report: Report) -> dict[str, Any]:
    """Return `report` as it is written to a file."""
    return {
        "ingested": report.ingested,
        "unchanged": report.unchanged,
        "failed": [plain(failure) for failure in report.failures],
        "stopped": report.stopped,
    }


def print_report(report: Report) -> None:
    """Print what became of the inputs, with the first failures by name."""
    click.echo(f"{report.ingested} ingested, {report.unchanged} unchanged, {len(report.failures)} failed")
    for failure in report.failures[:SHOWN_FAILURES]:
        reason = f" [{failure.reason}]" if failure.reason else ""
        click.echo(f"  {shortened(failure.name, 200)}: {shortened(failure.problem, 300)}{reason}")
    if len(report.failures) > SHOWN_FAILURES:
        click.echo(f"  … and {len(report.failures) - SHOWN_FAILURES} more: --report FILE lists all")
    if report.stopped:
        print_error(f"stopped: {report.stopped}; run the same command again to go on")


def _columns(
    id_column: str | None, text_column: str | None, image_column: str | None, metadata_columns: str | None
) -> Columns:
    metadata = (
        tuple(name.strip() for name in metadata_columns.split(",") if name.strip())
        if metadata_columns is not None
        else None
    )
    return Columns(id_column, text_column, image_column, metadata)
