"""`medley search`."""

from pathlib import Path

import click

from medley.cli.printing import one_line, print_json, print_table, shortened, title
from medley.cli.session import Session, collection_option, session_options
from medley.contact_sheet import Query, gathered, write_sheet
from medley.values import ArmScore, Hit, SearchResult

QUERIES = ("text", "image", "item")


@click.command()
@click.argument("text", required=False)
@collection_option
@click.option("--image", type=click.Path(dir_okay=False, path_type=Path), help="Search by this picture.")
@click.option("--item", metavar="ID", help="Search by this item of the collection.")
@click.option("--space", default="", metavar="NAME", help="Search in this space alone.  [default: all that suit]")
@click.option(
    "--weight", "weights", multiple=True, metavar="QUERY=N", help="Weight of text, image or item, e.g. text=2."
)
@click.option("--where", metavar="JSON", help='Filter, e.g. \'{"colour": "green", "price": {"$lt": 50}}\'.')
@click.option("--top-k", default=10, show_default=True, help="Hits wanted.")
@click.option("--k", type=float, help="Constant of reciprocal rank fusion.  [default: 60]")
@click.option(
    "--sheet",
    "sheets",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
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
    sheets: tuple[Path, ...],
) -> None:
    """Rank the items of a collection by TEXT, a picture, an item, or several of them together."""
    if text is None and image is None and item is None:
        raise click.UsageError("Give a text, --image or --item to search by.")
    with session.connected() as client:
        result = client.search(
            collection,
            text=text,
            image=image,
            item=item,
            space=space,
            weights=dict(map(_weight, weights)),
            where=where,
            top_k=top_k,
            k=k,
            version=client.collection(collection).version,
        )
        query = Query(collection, text, image.read_bytes() if image else None, item, where)
        sheet = gathered(client, query, result) if sheets else None
    if session.as_json:
        print_json(result)
    else:
        print_result(result)
    for path in sheets if sheet else ():
        assert sheet
        write_sheet(sheet, path)
        click.echo(f"contact sheet: {path}", err=session.as_json)


def print_result(result: SearchResult) -> None:
    """Print a ranking, then what its arms did."""
    if not result.hits:
        click.echo("no hits")
    columns = {
        "#": {"justify": "right"},
        "id": {"min_width": 8, "max_width": 24},
        "what": {"ratio": 1},
        "score": {"justify": "right", "min_width": 7},
        **{
            f"{number} {report.space}": {"justify": "right", "min_width": 10}
            for number, report in enumerate(result.arms, 1)
        },
    }
    if result.hits:
        print_table(columns, (_row(hit, len(result.arms)) for hit in result))
    for number, report in enumerate(result.arms, start=1):
        click.echo(
            f"arm {number}: {report.space}, {report.metric}, weight {report.weight:g}, {report.mode} "
            f"among {report.candidates}, {report.milliseconds:.0f} ms"
        )


def _row(hit: Hit, arms: int) -> tuple[str, ...]:
    scores: dict[int, ArmScore] = {score.arm: score for score in hit.arms}
    cells = (f"#{scores[arm].rank} {scores[arm].score:.3f}" if arm in scores else "-" for arm in range(arms))
    return str(hit.rank), hit.id, shortened(one_line(title(hit.item)), 200), f"{hit.score:.4f}", *cells


def _weight(spelt: str) -> tuple[str, float]:
    query, _, number = spelt.partition("=")
    try:
        if query in QUERIES:
            return query, float(number)
    except ValueError:
        pass
    raise click.UsageError(f"--weight {spelt}: wants one of {', '.join(QUERIES)}, = and a number, e.g. text=2")
