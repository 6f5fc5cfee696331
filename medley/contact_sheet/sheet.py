"""Contact sheet of a search: the query, and the pictures found with their ranks and scores. Needs the extra `cli`."""

from dataclasses import dataclass, field

from medley.client import Client
from medley.text import item_name
from medley.values import ArmReport, Hit, Item, SearchResult


@dataclass(frozen=True, slots=True)
class Query:
    """A query for people: any of a text, a picture and an item, with a filter."""

    collection: str
    text: str | None = None
    image: bytes | None = field(default=None, repr=False)
    item: str | None = None
    where: str | None = None

    @property
    def heading(self) -> str:
        """The query in words."""
        picture = "this picture" if self.image is not None else None
        item = f"item {self.item}" if self.item is not None else None
        text = f"“{self.text}”" if self.text is not None else None
        return " + ".join(filter(None, (text, picture, item)))

    def label(self, report: ArmReport) -> str:
        """Return the query and space of the arm of `report`: "words in clip"."""
        queries = {"words": self.text, "picture": self.image, "item": self.item}
        given = [kind for kind, query in queries.items() if query is not None]
        return f"{given[report.request_arm]} in {report.space}"

    @property
    def scope(self) -> str:
        """The collection and the filter."""
        return f"in {self.collection}, where {self.where}" if self.where else f"in {self.collection}"


@dataclass(frozen=True, slots=True)
class Card:
    """One hit: its rank, title, scores, and its picture if it has one."""

    rank: int
    id: str
    title: str
    text: str
    score: float
    arms: tuple[str, ...]
    picture: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Sheet:
    """A page: the query, its picture, the cards in order, and one line per arm."""

    query: Query
    picture: bytes | None = field(repr=False)
    cards: tuple[Card, ...]
    arms: tuple[str, ...]


def build_sheet(client: Client, query: Query, result: SearchResult) -> Sheet:
    """Return the sheet of `result`, reading the pictures from the server."""
    picture = query.image
    if picture is None and query.item is not None:
        picture = _picture(client, client.get(query.collection, query.item))
    labels = [query.label(report) for report in result.arms]
    cards = tuple(_card(client, hit, labels) for hit in result)
    return Sheet(query, picture, cards, tuple(map(summarize_arm, labels, result.arms)))


def summarize_arm(label: str, report: ArmReport) -> str:
    """Return a line on how an arm was searched."""
    how = f"{report.metric}, weight {report.weight:g}, {report.mode} among {report.candidates}"
    if report.mode == "approximate":
        how += f", {report.compared} compared"
    return f"{label}: {how}, {report.milliseconds:.0f} ms"


def _card(client: Client, hit: Hit, labels: list[str]) -> Card:
    scores = tuple(f"{labels[score.arm]} #{score.rank} · {score.score:.3f}" for score in hit.arms)
    item = hit.item
    return Card(
        hit.rank,
        hit.id,
        item_name(item) or item.text or hit.id,
        item.text or "",
        hit.score,
        scores,
        _picture(client, item),
    )


def _picture(client: Client, item: Item) -> bytes | None:
    if item.media is None or not item.media.mime_type.startswith("image/"):
        return None
    return b"".join(client.download_media(item.media.sha256))
