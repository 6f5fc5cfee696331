"""`medley search`."""

from collections.abc import Callable
from pathlib import Path

import click

from medley.cli.printing import item_title, print_json, print_table
from medley.cli.session import Session, collection_option, session_options
from medley.contact_sheet.sheet import Query, build_sheet, summarize_arm
from medley.contact_sheet.write import SHEET_SUFFIXES, write_sheet
from medley.values import ArmScore, Hit, SearchResult

QUERIES = ("text", "image", "item")
ARMS_WITH_SCORES = 3
"""With more arms than this only their ranks fit a line."""


@click.command(short_help="Rank items by words, a picture, an item, or several.")
@click.argument("text", required=False)
@collection_option
@click.option("--image", type=click.Path(dir_okay=False, path_type=Path), help="Search by this picture.")
@click.option("--item", metavar="ID", help="Search by this item of the collection.")
@click.option("--space", default="", metavar="NAME", help="Search in this space.  [default: all that accept the query]")
@click.option(
    "--weight", "weights", multiple=True, metavar="QUERY=N", help="Weight of text, image or item, e.g. text=2."
)
@click.option("--where", metavar="JSON", help='Filter, e.g. \'{"colour": "green", "price": {"$lt": 50}}\'.')
@click.option("--top-k", default=10, show_default=True, help="Number of hits.")
@click.option("--k", type=float, help="Constant of reciprocal rank fusion.  [default: 60]")
@click.option("--exact", is_flag=True, help="Compare every candidate, however the spaces are indexed.")
@click.option(
    "--sheet",
    "sheets",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    callback=lambda _context, _option, paths: _validate_sheets(paths),
    help="Write a contact sheet, .html or .png.",
)
@session_options
def search(
    *,
    session: Session,
    text: str | None,
    collection: str,
    image: Path | None,
    item: str | None,
    space: str,
    weights: tuple[str, ...],
    where: str | None,
    top_k: int,
    k: float | None,
    exact: bool,
    sheets: tuple[Path, ...],
) -> None:
    """Rank the items of a collection by TEXT, a picture, an item, or several of them together."""
    if text is None and image is None and item is None:
        raise click.UsageError("Give a text, --image or --item to search by.")
    with session.connect() as client:
        result = client.search(
            collection,
            text=text,
            image=image,
            item=item,
            space=space,
            weights=dict(map(_parse_weight, weights)),
            where=where,
            top_k=top_k,
            k=k,
            version=client.collection(collection).version,
            exact=exact,
        )
        query = Query(collection, text, image.read_bytes() if image else None, item, where)
        sheet = build_sheet(client, query, result) if sheets else None
    if session.as_json:
        print_json(result)
    else:
        print_result(query, result)
    if sheet is not None:
        for path in sheets:
            write_sheet(sheet, path)
            click.echo(f"contact sheet: {path}", err=session.as_json)


def print_result(query: Query, result: SearchResult) -> None:
    """Print a ranking, then the report of each arm."""
    if not result.hits:
        click.echo("no hits")
        return
    arms = [f"arm {number}" for number in range(1, len(result.arms) + 1)]
    show = _rank_and_score if len(arms) <= ARMS_WITH_SCORES else _rank
    rows = (_row(hit, len(arms), show) for hit in result)
    print_table(("id", "#", "what", "score", *arms), rows, flexible="what", right=("#", "score", *arms))
    for number, report in enumerate(result.arms, start=1):
        click.echo(f"arm {number}: {summarize_arm(query.label(report), report)}")


def _row(hit: Hit, arms: int, show: Callable[[ArmScore], str]) -> tuple[object, ...]:
    scores = {score.arm: score for score in hit.arms}
    evidence = (show(scores[arm]) if arm in scores else "-" for arm in range(arms))
    return hit.id, hit.rank, item_title(hit.item), f"{hit.score:.4f}", *evidence


def _rank_and_score(score: ArmScore) -> str:
    return f"#{score.rank} {score.score:.3f}"


def _rank(score: ArmScore) -> str:
    return f"#{score.rank}"


def _validate_sheets(paths: tuple[Path, ...]) -> tuple[Path, ...]:
    for path in paths:
        if path.suffix.lower() not in SHEET_SUFFIXES:
            raise click.BadParameter(f"{path}: a contact sheet is one of {', '.join(SHEET_SUFFIXES)}")
    return paths


def _parse_weight(text: str) -> tuple[str, float]:
    query, _, number = text.partition("=")
    try:
        if query in QUERIES:
            return query, float(number)
    except ValueError:
        pass
    raise click.UsageError(f"--weight {text}: must be one of {', '.join(QUERIES)}, = and a number, e.g. text=2")
