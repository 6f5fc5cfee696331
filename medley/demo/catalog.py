"""A deterministic catalogue of drawn products, for demos and for trying out filters."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from random import Random

from medley.demo.drawing import COLOURS, PATTERNS, PLACES, Scene, draw
from medley.demo.shapes import SHAPES

Value = str | int | float | bool | list[str]

MAX_PRODUCTS = len(SHAPES) * len(COLOURS) * len(PATTERNS)
"""Size of the largest catalogue; beyond it names would repeat."""

SHOWCASE = (
    Scene("t-shirt", "green", "plain"),
    Scene("t-shirt", "green", "striped"),
    Scene("t-shirt", "green", "dotted"),
    Scene("dress", "red", "striped"),
    Scene("dress", "red", "plain"),
    Scene("dress", "red", "dotted"),
    Scene("mug", "blue", "plain"),
    Scene("mug", "blue", "striped"),
    Scene("mug", "blue", "checked"),
    Scene("ball", "yellow", "plain", 2),
    Scene("ball", "yellow", "striped", 2),
    Scene("ball", "yellow", "plain"),
    Scene("ball", "red", "plain", 3),
)
"""Products of every catalogue, so that the documentation's queries have answers."""

NUMBERS = {1: "", 2: "two", 3: "three"}
PATTERN_WEIGHTS = (45, 20, 13, 12, 10)
COUNT_WEIGHTS = (76, 13, 11)
SINGLE = frozenset({"trousers", "chair"})
"""Kinds that are never shown in twos or threes."""

DEPARTMENTS = {
    "clothing": ("t-shirt", "dress", "trousers", "hat", "glove", "sock"),
    "footwear": ("shoe", "boot"),
    "bags": ("bag", "backpack", "umbrella"),
    "kitchen": ("mug", "teapot", "bottle"),
    "home": ("lamp", "chair", "clock", "plant pot"),
    "leisure": ("ball", "book"),
}
MATERIALS = {
    "t-shirt": ("soft cotton", 12),
    "dress": ("light viscose", 39),
    "trousers": ("brushed twill", 35),
    "hat": ("felted wool", 24),
    "shoe": ("canvas with a rubber sole", 49),
    "boot": ("waxed leather", 89),
    "glove": ("knitted wool", 15),
    "sock": ("ribbed cotton", 6),
    "bag": ("vegan leather", 59),
    "backpack": ("recycled nylon", 54),
    "mug": ("glazed stoneware", 11),
    "teapot": ("fine porcelain", 32),
    "bottle": ("double-walled steel", 22),
    "lamp": ("linen and oak", 45),
    "chair": ("woven fabric and beech", 129),
    "clock": ("lacquered metal", 38),
    "umbrella": ("water-repellent pongee", 27),
    "ball": ("moulded rubber", 9),
    "book": ("thick paper, clothbound", 18),
    "plant pot": ("fired clay, with its plant", 21),
}
USES = {
    "clothing": ("Easy to wear all year round.", "Keeps its shape after many washes.", "Made for cool mornings."),
    "footwear": ("Comfortable from the first step.", "For long walks and short errands."),
    "bags": ("Room for a whole day.", "Light to carry.", "Ready for rain."),
    "kitchen": ("Safe in the dishwasher.", "For the first cup of the morning.", "A small gift that is used daily."),
    "home": ("Brings colour into a quiet room.", "Looks good in a hallway or a study.", "Arrives assembled."),
    "leisure": ("For rainy and sunny afternoons alike.", "A present for any age.", "Takes little space on a shelf."),
}


@dataclass(frozen=True, slots=True)
class Product:
    """One drawn product.

    `metadata` has type, colour, pattern, count, position, department, price, stock, rating, in_sale and tags.
    `picture` is a JPEG file of 256x256 pixels.
    """

    id: str
    name: str
    description: str
    metadata: Mapping[str, Value]
    picture: bytes


def generate_catalog(count: int = 360, *, seed: int = 7) -> Iterator[Product]:
    """Yield `count` products with distinct names: the same ones for the same `count` and `seed`.

    From 253 products on, it has every kind in every colour.

    Raises:
        ValueError: `count` is not within 0..`MAX_PRODUCTS`.
    """
    if not 0 <= count <= MAX_PRODUCTS:
        raise ValueError(f"count must be within 0..{MAX_PRODUCTS}, got {count}")
    rng = Random(seed)
    scenes = _scenes(count, rng)
    rng.shuffle(scenes)
    for number, scene in enumerate(scenes, start=1):
        yield _product(number, scene, Random(f"{seed} {_name(scene)}"))


def _scenes(count: int, rng: Random) -> list[Scene]:
    """Return `count` scenes with distinct names: the showcase, every kind in every colour, then any."""
    chosen = {_name(scene): scene for scene in SHOWCASE}
    pairs = [(kind, colour) for kind in SHAPES for colour in COLOURS]
    rng.shuffle(pairs)
    while len(chosen) < count:
        kind, colour = pairs.pop() if pairs else (rng.choice(list(SHAPES)), rng.choice(list(COLOURS)))
        scene = _scene(kind, colour, rng)
        chosen.setdefault(_name(scene), scene)
    return list(chosen.values())[:count]


def _scene(kind: str, colour: str, rng: Random) -> Scene:
    (pattern,) = rng.choices(PATTERNS, PATTERN_WEIGHTS)
    (count,) = (1,) if kind in SINGLE else rng.choices((1, 2, 3), COUNT_WEIGHTS)
    aside = count == 1 and rng.random() < 0.2
    return Scene(kind, colour, pattern, count, rng.choice(list(PLACES)) if aside else "centre")


def _name(scene: Scene) -> str:
    """Return for instance "Green striped T-shirt" or "Two yellow balls"."""
    pattern = "" if scene.pattern == "plain" else scene.pattern
    words = " ".join(filter(None, (NUMBERS[scene.count], scene.colour, pattern, _noun(scene))))
    return words[0].upper() + words[1:]


def _noun(scene: Scene) -> str:
    noun = "T-shirt" if scene.kind == "t-shirt" else scene.kind
    if scene.count == 1:
        return noun
    return f"{noun}es" if noun.endswith(("s", "ch", "sh")) else f"{noun}s"


def _product(number: int, scene: Scene, rng: Random) -> Product:
    encoded = BytesIO()
    draw(scene, rng).save(encoded, "JPEG", quality=90)
    return Product(
        id=f"p-{number:04}",
        name=_name(scene),
        description=_description(scene, rng),
        metadata=_metadata(scene, rng),
        picture=encoded.getvalue(),
    )


def _department(scene: Scene) -> str:
    return next(name for name, kinds in DEPARTMENTS.items() if scene.kind in kinds)


def _description(scene: Scene, rng: Random) -> str:
    name = _name(scene)
    start = name if scene.count > 1 or scene.kind == "trousers" else f"{_article(name)} {name[0].lower()}{name[1:]}"
    aside = "" if scene.place == "centre" else f", shown at the {scene.place} of the picture"
    return f"{start} in {MATERIALS[scene.kind][0]}{aside}. {rng.choice(USES[_department(scene)])}"


def _article(name: str) -> str:
    return "An" if name[0] in "AEIOU" else "A"


def _metadata(scene: Scene, rng: Random) -> dict[str, Value]:
    in_sale = rng.random() < 0.25
    price = MATERIALS[scene.kind][1] * scene.count * rng.uniform(0.8, 1.3) * (0.7 if in_sale else 1.0)
    return {
        "type": scene.kind,
        "colour": scene.colour,
        "pattern": scene.pattern,
        "count": scene.count,
        "position": scene.place if scene.count == 1 else "",
        "department": _department(scene),
        "price": round(price, 2),
        "stock": rng.randint(0, 120),
        "rating": round(rng.triangular(2.5, 5.0, 4.4), 1),
        "in_sale": in_sale,
        "tags": [scene.colour, scene.pattern, _department(scene), *(["sale"] if in_sale else [])],
    }
