"""`medley tag`."""

import click

from medley.cli.printing import print_json, print_table
from medley.cli.session import Session, session_options


@click.command()
@click.argument("collection")
@click.argument("name", required=False)
@click.option("--version", default="", metavar="VERSION", help="The version to tag.  [default: the newest]")
@click.option("--delete", is_flag=True, help="Delete the tag.")
@session_options
def tag(*, session: Session, collection: str, name: str | None, version: str, delete: bool) -> None:
    """Tag a version of COLLECTION, which is then kept until the tag is deleted; without NAME, list the tags.

    `list`, `get`, `collections show` and `backup` accept a tag or a version token to read as of that version.
    """
    if name is None:
        if version or delete:
            raise click.UsageError("Give the tag's NAME.")
        _list(session, collection)
    elif delete:
        if version:
            raise click.UsageError("--delete takes no --version.")
        _delete(session, collection, name)
    else:
        _tag(session, collection, name, version)


def _list(session: Session, collection: str) -> None:
    with session.connect() as client:
        found = client.tags(collection)
    if session.as_json:
        print_json(found)
    elif found:
        print_table(("tag", "version"), ((each.name, each.version) for each in found), flexible="version")
    else:
        click.echo("no tags")


def _delete(session: Session, collection: str, name: str) -> None:
    with session.connect() as client:
        client.delete_tag(collection, name)
    if session.as_json:
        print_json({"deleted": name})
    else:
        click.echo(f"deleted {name}")


def _tag(session: Session, collection: str, name: str, version: str) -> None:
    with session.connect() as client:
        tagged = client.tag(collection, name, version=version)
    if session.as_json:
        print_json(tagged)
    else:
        click.echo(f"{tagged.name}: version {tagged.version}")
