"""`medley backup` and `medley restore`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from medley.backup import Backup, Restore, open_destination
from medley.cli.printing import counting_bar, print_json
from medley.cli.session import Session, session_options


@click.command()
@click.argument("collection")
@click.option("--to", "place", required=True, metavar="FOLDER|s3://…", help="Where to: a folder, or a bucket's prefix.")
@click.option(
    "--version", "as_of", default="", metavar="VERSION|TAG", help="Back up this version.  [default: the newest]"
)
@session_options
def backup(*, session: Session, collection: str, place: str, as_of: str) -> None:
    """Back up COLLECTION as of one version: items, vectors, metadata and media.

    Writers need not stop. After an interruption the same command goes on where it was, with the same version.
    """
    with session.connected() as client, _progress() as show:
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
@click.option("--re-embed", is_flag=True, help="Make the vectors of models anew instead of restoring them.")
@click.option("--into-existing", is_flag=True, help="Write into a collection that has items, replacing those of an id.")
@session_options
def restore(*, session: Session, place: str, name: str, re_embed: bool, into_existing: bool) -> None:
    """Restore a backup from PLACE.

    Every file is compared with its hash first; a backup that was changed is refused, and nothing is written. Vectors
    are restored as they were where the server's models would make the same; otherwise say --re-embed.
    """
    with session.connected() as client, _progress() as show:
        restoring = Restore(client, open_destination(place), show)
        restored = restoring.restore(name, re_embed=re_embed, into_existing=into_existing)
    if session.as_json:
        print_json(restored)
    else:
        vectors = ", embedded anew" if restored.embedded_anew else ""
        click.echo(f"{restored.collection}: {restored.items} items and {restored.media} media restored{vectors}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what shows what is done and how much of it, on stderr, where that is a terminal."""
    with counting_bar() as bar:
        task = bar.add_task("Connecting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)
