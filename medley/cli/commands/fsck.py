"""`medley fsck`."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from medley.cli.printing import print_json, print_table, progress_bar
from medley.cli.session import Session, session_options
from medley.text import shorten
from medley.values import CheckProgress, Finding

MAX_SHOWN = 200


@click.command()
@click.option("--collection", "-c", metavar="NAME", help="Check this one.  [default: all, and unreferenced objects]")
@click.option("--repair", is_flag=True, help="Repair everything that can be repaired without loss.")
@click.option("--drop-lost-media", is_flag=True, help="With --repair: drop references to missing or damaged media.")
@click.option(
    "--sample", default=100, show_default=True, type=click.IntRange(min=0), help="Media to read in each collection."
)
@click.option("--all-media", is_flag=True, help="Read all media, whatever --sample says.")
@click.option(
    "--vectors", default=100, show_default=True, type=click.IntRange(0, 10_000), help="Items to compare with the index."
)
@session_options
def fsck(
    *,
    session: Session,
    collection: str | None,
    repair: bool,
    drop_lost_media: bool,
    sample: int,
    all_media: bool,
    vectors: int,
) -> int:
    """Check that rows, media, vectors and indexes agree.

    The exit code is 0 if nothing is wrong or everything was repaired, else 1. Writers need not stop.

    Without --repair nothing is changed. With it, stored objects that no item refers to are removed after the grace
    period, missing and invalid vectors are embedded again, and indexes that differ are rebuilt.
    """
    if drop_lost_media and not repair:
        raise click.UsageError("--drop-lost-media needs --repair.")
    findings: list[Finding] = []
    checked: list[CheckProgress] = []
    with session.connect() as client, _progress() as show:
        for part in client.check(
            collection,
            media_sample=None if all_media else sample,
            vector_sample=vectors,
            repair=repair,
            drop_lost_media=drop_lost_media,
        ):
            match part:
                case Finding():
                    findings.append(part)
                case CheckProgress(done=True):
                    checked.append(part)
                case CheckProgress():
                    show(part)
    left = sum(not finding.repaired for finding in findings)
    if session.as_json:
        print_json({"clean": not left, "findings": findings, "checked": checked})
    else:
        _print(findings, checked)
    return 1 if left else 0


def _print(findings: Sequence[Finding], checked: Sequence[CheckProgress]) -> None:
    for each in checked:
        if each.collection:
            read = f"{each.media} media, {each.media_read} of them read, {each.vectors_compared} vectors compared"
            click.echo(f"{each.collection}: {each.rows} items, {read}")
    if not findings:
        click.echo("all is well")
        return
    click.echo()
    for line in map(_line, findings[:MAX_SHOWN]):
        click.echo(line)
    if len(findings) > MAX_SHOWN:
        click.echo(f"… and {len(findings) - MAX_SHOWN} more: --json prints all")
    click.echo()
    counts = Counter((finding.kind or "unknown", finding.repaired) for finding in findings)
    rows = [(kind, counts[kind, False], counts[kind, True]) for kind in sorted({kind for kind, _ in counts})]
    print_table(("finding", "left", "repaired"), rows, flexible="finding", right=("left", "repaired"))


def _line(finding: Finding) -> str:
    place = "/".join(filter(None, (finding.collection, shorten(finding.id, 60))))
    what = " ".join(filter(None, (place, finding.space and f"space {finding.space}", finding.sha256)))
    if finding.repaired:
        state = " (repaired)"
    else:
        state = f" (not repaired: {finding.not_repaired_because})" if finding.not_repaired_because else ""
    return f"{finding.kind or 'unknown'}: {what}: {finding.detail}{state}"


@contextmanager
def _progress() -> Iterator[Callable[[CheckProgress], None]]:
    """Yield a function that shows the progress of a check in a progress bar."""
    with progress_bar() as bar:
        task = bar.add_task("Checking", total=None)

        def show(progress: CheckProgress) -> None:
            reading = f", {progress.media} media" if progress.media else ""
            bar.update(
                task,
                description=f"Checking {progress.collection}{reading}",
                total=progress.rows_total,
                completed=progress.rows,
            )

        yield show
