"""What can be said about a labelled picture, and which other pictures the same words fit.

A `Caption` carries the labels its words state. Two pictures with those labels are both right answers for it, so they
are never negatives of each other's captions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from models.training.corpus import CALTECH, DRAWN, FASHION, Example

FIELDS = ("kind", "group", "colour", "gender", "usage", "pattern", "count", "place", "title")

ALWAYS_PLURAL = frozenset(
    """jeans trousers shorts leggings jeggings sunglasses tights stockings boxers briefs pants capris suspenders
    headphones binoculars scissors glasses earrings""".split()  # noqa: SIM905 - a list would take twenty lines
)
SYNONYMS = {
    "tshirts": ("t-shirt", "tee shirt", "tee"),
    "t-shirt": ("tshirt", "tee shirt", "tee"),
    "casual shoes": ("sneaker",),
    "sports shoes": ("running shoe", "trainer"),
    "formal shoes": ("dress shoe",),
    "trousers": ("pair of trousers", "pants"),
    "jeans": ("pair of jeans", "denim"),
    "handbags": ("purse", "ladies bag"),
    "backpacks": ("rucksack",),
    "caps": ("baseball cap",),
    "bra": ("brassiere",),
    "perfume and body mist": ("perfume", "bottle of perfume"),
    "flip flops": ("flip-flop",),
    "innerwear vests": ("vest",),
    "sarees": ("sari",),
    "earrings": ("pair of earrings",),
    "airplanes": ("aeroplane", "plane"),
    "motorbikes": ("motorcycle",),
    "faces": ("person's face", "human face"),
    "faces easy": ("close-up of a face", "portrait"),
    "car side": ("car", "car seen from the side"),
    "cellphone": ("mobile phone",),
    "cup": ("coffee cup",),
    "inline skate": ("roller skate",),
    "water lilly": ("water lily",),
    "cougar face": ("face of a cougar",),
    "cougar body": ("cougar", "mountain lion"),
    "yin yang": ("yin and yang symbol",),
    "ketch": ("sailing boat",),
    "mug": ("coffee mug",),
    "hat": ("sun hat",),
    "plant pot": ("plant", "potted plant"),
}
CANONICAL = {
    "tshirts": "t-shirt",
    "dresses": "dress",
    "watches": "watch",
    "umbrellas": "umbrella",
    "trousers": "trousers",
    "gloves": "glove",
    "socks": "sock",
}
WHO = {"men": "men", "women": "women", "boys": "boys", "girls": "girls", "unisex": "everyone"}
NUMBERS = {"1": "one", "2": "two", "3": "three"}
PLACES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "centre": "in the centre",
}


@dataclass(frozen=True, slots=True)
class Caption:
    """Words, and the labels they state as (field, value) pairs."""

    text: str
    states: tuple[tuple[str, str], ...]


def canonical(kind: str) -> str:
    """Return one spelling for a kind of thing that several sources name."""
    plain = kind.lower().replace("_", " ")
    return CANONICAL.get(plain, plain)


def labels(example: Example) -> dict[str, str]:
    """Return the labels of `example` as captions state them."""
    found = {field: getattr(example, field).lower() for field in FIELDS}
    return {**found, "kind": canonical(example.kind)}


def singular(noun: str) -> str:
    """Return `noun` for one thing: "casual shoes" is "casual shoe"; "jeans" stay "jeans"."""
    last = noun.rsplit(maxsplit=1)[-1]
    if last in ALWAYS_PLURAL or not last.endswith("s") or last.endswith("ss"):
        return noun
    for ending, replacement in (("sses", "ss"), ("tches", "tch"), ("ches", "ch"), ("rves", "rf"), ("ies", "y")):
        if last.endswith(ending) and len(last) > len("ties"):
            return noun[: -len(ending)] + replacement
    return noun[:-1]


def plural(noun: str) -> str:
    """Return `noun` for several things."""
    last = noun.rsplit(maxsplit=1)[-1]
    if last in ALWAYS_PLURAL or (last.endswith("s") and not last.endswith("ss")):
        return noun
    return noun + ("es" if last.endswith(("ss", "ch", "sh", "x")) else "s")


def article(noun: str) -> str:
    """Return `noun` after "a" or "an", or alone where it is a plural."""
    if noun.rsplit(maxsplit=1)[-1] in ALWAYS_PLURAL:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


@cache
def nouns(kind: str) -> tuple[str, ...]:
    """Return what a thing of this kind may be called: as the source spells it, for one, for several, synonyms."""
    plain = kind.lower().replace("_", " ")
    return tuple(dict.fromkeys((plain, singular(plain), *SYNONYMS.get(plain, ()))))


def phrases(noun: str, source: str) -> tuple[str, ...]:
    """Return ways to ask for a picture of `noun`."""
    seen = "drawing" if source == DRAWN else "product photo" if source == FASHION else "photograph"
    one = article(noun)
    return (noun, one, f"a photo of {one}", f"a picture of {one}", f"a {seen} of {one}")


@cache
def _stating(source: str, noun_phrases: tuple[str, ...], states: tuple[tuple[str, str], ...]) -> tuple[Caption, ...]:
    texts = dict.fromkeys(text for noun in noun_phrases for text in phrases(noun, source))
    return tuple(Caption(text, states) for text in texts)


def of_kind(example: Example) -> tuple[Caption, ...]:
    """Name the kind of thing alone."""
    return _stating(example.source, nouns(example.kind), (("kind", canonical(example.kind)),))


def of_colour(example: Example) -> tuple[Caption, ...]:
    """Name the colour and the kind."""
    colour = example.colour.lower()
    called = tuple(f"{colour} {noun}" for noun in nouns(example.kind))
    return _stating(example.source, called, (("kind", canonical(example.kind)), ("colour", colour)))


def topics(example: Example) -> Iterator[tuple[float, tuple[Caption, ...]]]:
    """Yield (weight, captions) for each thing that can be said about `example`."""
    yield 1.0, of_kind(example)
    if example.source == CALTECH:
        return
    if example.colour:
        yield 2.0, of_colour(example)
    if example.pattern:
        yield 1.5, _of_pattern(example)
    yield from _fashion_topics(example) if example.source == FASHION else _drawn_topics(example)


def titles(example: Example) -> tuple[Caption, ...]:
    """Return the captions that belong to one product alone; a photograph without a name repeats its kind."""
    if not example.title:
        return of_kind(example)
    states = (("title", example.title.lower()),)
    return tuple(Caption(text, states) for text in (example.title, example.text) if text)


def _of_pattern(example: Example) -> tuple[Caption, ...]:
    pattern, colour = example.pattern.lower(), example.colour.lower()
    kind = (("kind", canonical(example.kind)), ("pattern", pattern))
    plain = tuple(f"{pattern} {noun}" for noun in nouns(example.kind))
    coloured = tuple(f"{colour} {noun}" for noun in plain) + tuple(
        f"{pattern} {colour} {noun}" for noun in nouns(example.kind)
    )
    return _stating(example.source, plain, kind) + _stating(example.source, coloured, (*kind, ("colour", colour)))


def _fashion_topics(example: Example) -> Iterator[tuple[float, tuple[Caption, ...]]]:
    kind, gender, usage = ("kind", canonical(example.kind)), example.gender.lower(), example.usage.lower()
    called = nouns(example.kind)
    who = tuple(f"{gender} {noun}" for noun in called) + tuple(f"{noun} for {WHO[gender]}" for noun in called)
    yield 1.0, _stating(example.source, who, (kind, ("gender", gender)))
    yield 0.4, _stating(example.source, tuple(f"{usage} {noun}" for noun in called), (kind, ("usage", usage)))
    yield 0.4, _stating(example.source, nouns(example.group), (("group", example.group.lower()),))


def _drawn_topics(example: Example) -> Iterator[tuple[float, tuple[Caption, ...]]]:
    kind, colour = ("kind", canonical(example.kind)), ("colour", example.colour.lower())
    if example.count in NUMBERS:
        number = ("count", example.count)
        several = plural if example.count != "1" else singular
        called = tuple(f"{NUMBERS[example.count]} {several(noun)}" for noun in nouns(example.kind))
        hued = tuple(f"{NUMBERS[example.count]} {colour[1]} {several(noun)}" for noun in nouns(example.kind))
        yield 1.0, tuple(Caption(text, (kind, number)) for text in called)
        yield 2.0, tuple(Caption(text, (kind, number, colour)) for text in hued)
    if example.place:
        where = ("place", example.place.lower())
        called = tuple(f"{colour[1]} {noun} {PLACES[where[1]]}" for noun in nouns(example.kind))
        yield 1.0, _stating(example.source, called, (kind, colour, where))
