"""Draws a product: its parts in colour and pattern, softly lit, on a quiet background.

Everything is drawn at twice the final size or more and scaled down, so that edges are smooth.
"""

from dataclasses import dataclass
from functools import cache
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from medley.demo.shapes import SHAPES, Material, Part

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (207, 49, 48),
    "orange": (240, 134, 40),
    "yellow": (246, 208, 62),
    "green": (66, 152, 78),
    "turquoise": (66, 190, 186),
    "blue": (45, 98, 196),
    "purple": (128, 72, 168),
    "pink": (242, 146, 178),
    "brown": (126, 82, 52),
    "grey": (146, 150, 156),
    "black": (46, 46, 50),
    "white": (248, 248, 246),
}
PATTERNS = ("plain", "striped", "dotted", "checked", "floral")
PLACES: dict[str, tuple[float, float]] = {
    "centre": (0.5, 0.5),
    "left": (0.29, 0.52),
    "right": (0.71, 0.52),
    "top": (0.5, 0.3),
    "bottom": (0.5, 0.7),
}
BACKDROPS: list[Colour] = [
    (240, 236, 228),
    (226, 233, 238),
    (238, 228, 226),
    (228, 236, 226),
    (234, 230, 240),
    (242, 234, 214),
    (222, 224, 228),
    (248, 248, 248),
]
DEEP_BACKDROPS: list[Colour] = [(150, 168, 182), (172, 158, 142), (152, 172, 154), (178, 152, 156)]
"""Backdrops of white products."""

WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
DEEP_YELLOW: Colour = (206, 138, 24)
"""Yellow darkened with black turns olive; this stays yellow."""

PICTURE, SCENE, TILE = 256, 512, 512
MARGIN = 0.07
"""Share of a tile left free on every side, for the turn and the shadow."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Content of a picture: `count` things of one kind, colour and pattern; `place` is where a single one is."""

    kind: str
    colour: str
    pattern: str
    count: int = 1
    place: str = "centre"


def draw(scene: Scene, rng: Random) -> Image.Image:
    """Draw `scene` as an RGB picture of `PICTURE` pixels square; `rng` decides what the scene leaves open."""
    canvas = _backdrop(scene, rng)
    for x, y, size in _arrangement(scene, rng):
        thing = _tile(scene, rng).resize((size, size), Image.Resampling.BILINEAR)
        turned = thing.rotate(rng.gauss(0, 6), Image.Resampling.BILINEAR)
        _paste_with_shadow(canvas, turned, (x - size // 2, y - size // 2))
    return canvas.reduce(SCENE // PICTURE)


def mix(left: Colour, right: Colour, share: float) -> Colour:
    """Return `left` with `share` (0 to 1) of `right`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(left, right, strict=True))
    return red, green, blue


def darken(colour: Colour, share: float) -> Colour:
    """Return `colour` with `share` (0 to 1) of its shadow."""
    red, green, blue = colour
    return mix(colour, DEEP_YELLOW, min(1.0, 2 * share)) if min(red, green) > 2 * blue else mix(colour, BLACK, share)


def brightness(colour: Colour) -> float:
    """Return how light `colour` looks, 0 to 255."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2]


def _arrangement(scene: Scene, rng: Random) -> list[tuple[int, int, int]]:
    """Return (x, y, size) in scene pixels for every thing."""
    if scene.count == 1:
        centred = scene.place == "centre"
        spots = [(*PLACES[scene.place], rng.uniform(0.8, 1.0) if centred else rng.uniform(0.5, 0.62))]
    elif scene.count == 2:
        lift = rng.uniform(-0.08, 0.08)
        spots = [(0.27, 0.52 + lift, 0.53), (0.73, 0.52 - lift, 0.53)]
    else:
        upside = rng.choice((0.23, -0.23))
        spots = [(0.5, 0.5 - upside, 0.5), (0.27, 0.5 + upside, 0.5), (0.73, 0.5 + upside, 0.5)]
    return [
        (round((x + rng.uniform(-0.02, 0.02)) * SCENE), round(y * SCENE), round(size * SCENE)) for x, y, size in spots
    ]


def _backdrop(scene: Scene, rng: Random) -> Image.Image:
    base = rng.choice(DEEP_BACKDROPS if scene.colour == "white" else BACKDROPS)
    canvas = Image.new("RGB", (SCENE, SCENE), mix(base, WHITE, 0.45))
    canvas.paste(mix(base, BLACK, 0.07), mask=_vignette())
    if rng.random() < 0.4:
        floor = round(rng.uniform(0.68, 0.8) * SCENE)
        canvas.paste(mix(base, BLACK, 0.1), (0, floor, SCENE, SCENE), _fade(SCENE, SCENE - floor))
    elif rng.random() < 0.4:
        disc = Image.new("L", (SCENE, SCENE))
        ImageDraw.Draw(disc).ellipse((40, 40, SCENE - 40, SCENE - 40), fill=110)
        canvas.paste(mix(base, WHITE, 0.7), mask=disc)
    return canvas


@cache
def _vignette() -> Image.Image:
    return Image.radial_gradient("L").resize((SCENE, SCENE))


def _fade(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).point(lambda value: 230 - value // 2)


def _paste_with_shadow(canvas: Image.Image, thing: Image.Image, corner: tuple[int, int]) -> None:
    """Paste `thing` onto `canvas` over its own blurred shadow."""
    small = thing.getchannel("A").resize((thing.width // 4, thing.height // 4))
    blurred = small.filter(ImageFilter.GaussianBlur(4)).resize(thing.size)
    canvas.paste((40, 38, 48), (corner[0] + 8, corner[1] + 14), blurred.point(lambda value: value * 2 // 5))
    canvas.paste(thing, corner, thing)


def _tile(scene: Scene, rng: Random) -> Image.Image:
    """Draw one thing upright on a transparent square."""
    body: Colour = mix(COLOURS[scene.colour], rng.choice((WHITE, BLACK)), rng.uniform(0, 0.07))
    textures = {Material.BODY: _texture(body, scene.pattern, rng)}
    colours, alpha = Image.new("RGB", (TILE, TILE), body), Image.new("L", (TILE, TILE))
    for part in SHAPES[scene.kind](rng.uniform):
        _draw_part(colours, alpha, part, body, textures.get(part.material))
    lit = _light(colours, alpha)
    lit.putalpha(alpha)
    return lit


def _draw_part(colours: Image.Image, alpha: Image.Image, part: Part, body: Colour, texture: Image.Image | None) -> None:
    colour = _tone(part.material, body)
    if texture is None:
        _trace(colours, part, colour)
    else:
        mask = Image.new("L", (TILE, TILE))
        _trace(mask, part, 255)
        colours.paste(texture, (0, 0), mask)
    _trace(alpha, part, 255)
    if not part.width:
        points = _pixels(part)
        edge = darken(colour, 0.26) if brightness(colour) > 60 else mix(colour, WHITE, 0.2)
        ImageDraw.Draw(colours).line([*points, points[0]], fill=edge, width=4, joint="curve")


def _pixels(part: Part) -> list[tuple[float, float]]:
    scale = TILE * (1 - 2 * MARGIN)
    return [(MARGIN * TILE + x * scale, MARGIN * TILE + y * scale) for x, y in part.points]


def _trace(image: Image.Image, part: Part, ink: Colour | int) -> None:
    pen, points = ImageDraw.Draw(image), _pixels(part)
    if not part.width:
        pen.polygon(points, fill=ink)
        return
    width = max(2, round(part.width * TILE))
    pen.line(points, fill=ink, width=width)
    for x, y in points:
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=ink)


def _tone(material: Material, body: Colour) -> Colour:
    match material:
        case Material.BODY | Material.PLAIN:
            return body
        case Material.SHADE:
            return darken(body, 0.22) if brightness(body) > 60 else mix(body, WHITE, 0.16)
        case Material.TINT:
            return mix(body, WHITE, 0.35)
        case _:
            red, green, blue = material.value
            return red, green, blue


def _light(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """Darken towards the rim and the lower right, brighten the upper left."""
    size = (TILE // 8, TILE // 8)
    rim = alpha.resize(size).filter(ImageFilter.GaussianBlur(4)).point(lambda value: 182 + value * 73 // 255)
    shade = ImageChops.multiply(rim, _slope(size)).resize((TILE, TILE), Image.Resampling.BILINEAR)
    shaded = ImageChops.multiply(colours, Image.merge("RGB", (shade, shade, shade)))
    shaded.paste(WHITE, (-TILE // 6, -TILE // 5), _shine())
    return shaded


@cache
def _slope(size: tuple[int, int]) -> Image.Image:
    return Image.linear_gradient("L").rotate(25).resize(size).point(lambda value: 255 - value // 7)


@cache
def _shine() -> Image.Image:
    return Image.radial_gradient("L").resize((TILE, TILE)).point(lambda value: max(0, 190 - value) // 3)


def _texture(body: Colour, pattern: str, rng: Random) -> Image.Image:
    texture = Image.new("RGB", (TILE, TILE), body)
    ink = darken(body, 0.42) if brightness(body) > 185 else (250, 247, 240)
    match pattern:
        case "striped":
            _stripe(texture, ink, rng)
        case "dotted":
            _dot(texture, ink, rng)
        case "checked":
            _check(texture, mix(body, ink, 0.55), mix(body, ink, 0.85), rng)
        case "floral":
            _flower(texture, ink, darken(body, 0.45), rng)
    return texture


def _stripe(texture: Image.Image, ink: Colour, rng: Random) -> None:
    period = rng.randint(58, 84)
    band, lean = round(period * rng.uniform(0.3, 0.42)), rng.choice((0, 0, TILE // 3))
    pen, start = ImageDraw.Draw(texture), rng.randint(0, period)
    for y in range(start - TILE, 2 * TILE, period):
        pen.line([(-10, y), (TILE + 10, y + lean)], fill=ink, width=band)
    if not lean and rng.random() < 0.4:
        texture.paste(texture.transpose(Image.Transpose.ROTATE_90))


def _dot(texture: Image.Image, ink: Colour, rng: Random) -> None:
    period = rng.randint(56, 76)
    radius, pen = period * rng.uniform(0.2, 0.27), ImageDraw.Draw(texture)
    for x, y in _staggered_grid(period):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)


def _check(texture: Image.Image, light: Colour, crossing: Colour, rng: Random) -> None:
    period, pen = rng.randint(64, 88), ImageDraw.Draw(texture)
    half = period // 2
    for start in range(0, TILE, period):
        pen.rectangle((start, 0, start + half, TILE), fill=light)
        pen.rectangle((0, start, TILE, start + half), fill=light)
    for x in range(0, TILE, period):
        for y in range(0, TILE, period):
            pen.rectangle((x, y, x + half, y + half), fill=crossing)


def _flower(texture: Image.Image, petal: Colour, heart: Colour, rng: Random) -> None:
    period, pen = rng.randint(96, 124), ImageDraw.Draw(texture)
    reach = period * 0.15
    for x, y in _staggered_grid(period):
        for step_x, step_y in ((0, -1), (0.95, -0.31), (0.59, 0.81), (-0.59, 0.81), (-0.95, -0.31)):
            left, top = x + (step_x - 0.85) * reach, y + (step_y - 0.85) * reach
            pen.ellipse((left, top, left + 1.7 * reach, top + 1.7 * reach), fill=petal)
        pen.ellipse((x - reach * 0.6, y - reach * 0.6, x + reach * 0.6, y + reach * 0.6), fill=heart)


def _staggered_grid(period: int) -> list[tuple[float, float]]:
    rows = range(TILE // period * 2 + 3)
    return [
        (column * period + (row % 2) * period / 2, row * period / 2)
        for row in rows
        for column in range(TILE // period + 2)
    ]
