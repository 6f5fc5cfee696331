"""`medley backup` and `medley restore`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from medley.backup import Backup, Restore, open_destination
from medley.cli.printing import print_json, progress_bar
from medley.cli.session import Session, session_options


@click.command()
@click.argument("collection")
@click.option(
    "--to", "place", required=True, metavar="FOLDER|s3://…", help="Destination: a folder or a bucket's prefix."
)
@click.option(
    "--version", "as_of", default="", metavar="VERSION|TAG", help="Back up this version.  [default: the newest]"
)
@session_options
def backup(*, session: Session, collection: str, place: str, as_of: str) -> None:
    """Back up COLLECTION as of one version: items, vectors, metadata and media.

    Writers need not stop. After an interruption, run the same command again: it resumes with the same version.
    """
    with session.connect() as client, _progress() as show:
        saved = Backup(client, open_destination(place), lambda done, total: show("Saving items", done, total)).save(
            collection, as_of
        )
    if session.as_json:
        print_json(saved)
    else:
        size = f"{saved.items} items, {saved.media} media, {saved.bytes} bytes"
        click.echo(f"{saved.collection}: version {saved.version} saved to {place}: {size}")


@click.command()
@click.argument("place", metavar="FOLDER|s3://…")
@click.option("--as", "name", default="", metavar="NAME", help="Name of the collection.  [default: the one it had]")
@click.option("--re-embed", is_flag=True, help="Embed the items again instead of restoring the models' vectors.")
@click.option("--into-existing", is_flag=True, help="Write into a collection that has items; equal ids are replaced.")
@session_options
def restore(*, session: Session, place: str, name: str, re_embed: bool, into_existing: bool) -> None:
    """Restore a backup from PLACE.

    Every file is compared with its hash first; a damaged backup is refused, and nothing is written. Vectors are
    restored if the server's models have the same fingerprints; otherwise use --re-embed.
    """
    with session.connect() as client, _progress() as show:
        restored = Restore(client, open_destination(place), show).restore(
            name, re_embed=re_embed, into_existing=into_existing
        )
    if session.as_json:
        print_json(restored)
    else:
        vectors = ", embedded again" if restored.re_embedded else ""
        click.echo(f"{restored.collection}: {restored.items} items and {restored.media} media restored{vectors}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a function that shows the step, the number done and the total in a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("Connecting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
