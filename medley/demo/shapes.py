"""Outlines of the demo catalogue's products, in a unit square with y downwards.

A shape is a list of parts, drawn in order. `vary(low, high)` gives each drawing its own proportions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from math import cos, pi, sin

Point = tuple[float, float]
Vary = Callable[[float, float], float]


class Material(Enum):
    """What a part is made of. The first four follow the product's colour, the others are always the same."""

    BODY = "the product's colour and pattern"
    PLAIN = "the product's colour without its pattern"
    SHADE = "a darker tone of the product's colour"
    TINT = "a lighter tone of the product's colour"
    CREAM = (247, 242, 230)
    WOOD = (176, 128, 84)
    METAL = (172, 178, 186)
    INK = (62, 60, 66)
    SOIL = (94, 70, 56)
    LEAF = (92, 150, 88)


@dataclass(frozen=True, slots=True)
class Part:
    """A filled outline, or with `width` a line of that thickness along `points`."""

    points: Sequence[Point]
    material: Material
    width: float = 0.0


Shape = Callable[[Vary], list[Part]]


def smooth(points: Sequence[Point], steps: int = 8, *, closed: bool = True) -> list[Point]:
    """Return a Catmull-Rom curve through `points`."""
    around = [points[-1], *points, points[0], points[1]] if closed else [points[0], *points, points[-1]]
    windows = zip(around, around[1:], around[2:], around[3:], strict=False)
    return [_between(window, step / steps) for window in windows for step in range(steps + (not closed))]


def _between(window: tuple[Point, Point, Point, Point], t: float) -> Point:
    before, start, end, after = window
    weights = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    x, y = (
        sum(weight * point[axis] for weight, point in zip(weights, (before, start, end, after), strict=True)) / 2
        for axis in (0, 1)
    )
    return x, y


def mirror(half: Sequence[Point]) -> list[Point]:
    """Return the outline whose right half, from top to bottom, is `half`."""
    return [*half, *((1 - x, y) for x, y in reversed(half))]


def ellipse(x: float, y: float, width: float, height: float) -> list[Point]:
    """Return an ellipse around (x, y) with these half axes."""
    return arc(x, y, width, height, (0, 360))


def arc(x: float, y: float, width: float, height: float, angles: tuple[float, float]) -> list[Point]:
    """Return the part of an ellipse between two `angles` in degrees, clockwise from three o'clock."""
    start, end = angles
    turns = [(start + (end - start) * step / 48) * pi / 180 for step in range(49)]
    return [(x + width * cos(turn), y + height * sin(turn)) for turn in turns]


def box(left: float, top: float, right: float, bottom: float) -> list[Point]:
    """Return a rectangle."""
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def rounded_box(left: float, top: float, right: float, bottom: float, radius: float) -> list[Point]:
    """Return a rectangle with round corners."""
    corners = [(right, top, 270), (right, bottom, 0), (left, bottom, 90), (left, top, 180)]
    outline: list[Point] = []
    for x, y, start in corners:
        centre_x = x - radius if x == right else x + radius
        centre_y = y - radius if y == bottom else y + radius
        outline += arc(centre_x, centre_y, radius, radius, (start, start + 90))
    return outline


def t_shirt(vary: Vary) -> list[Part]:
    """A T-shirt with short sleeves."""
    sleeve, hem = vary(0.36, 0.46), vary(0.84, 0.92)
    half = [(0.6, 0.13), (0.72, 0.16), (0.97, sleeve), (0.85, sleeve + 0.09), (0.75, 0.36), (0.755, hem)]
    collar = arc(0.5, 0.125, 0.105, 0.085, (0, 180))
    return [
        Part(mirror(half), Material.BODY),
        Part([*collar, (0.4, 0.1), (0.6, 0.1)], Material.SHADE),
        Part(collar, Material.TINT, 0.025),
        Part([(0.75, 0.36), (0.73, 0.22)], Material.SHADE, 0.008),
        Part([(0.25, 0.36), (0.27, 0.22)], Material.SHADE, 0.008),
    ]


def dress(vary: Vary) -> list[Part]:
    """A sleeveless dress with a waistband."""
    flare, waist = vary(0.8, 0.93), vary(0.4, 0.45)
    top = mirror([(0.57, 0.06), (0.64, 0.06), (0.63, 0.16), (0.67, 0.24), (0.61, waist)])
    neck = arc(0.5, 0.06, 0.075, 0.1, (0, 180))
    hem = [(flare, 0.88), *((flare + (1 - 2 * flare) * step / 8, 0.92 + 0.02 * (step % 2)) for step in range(1, 8))]
    skirt = [(0.39, waist), (0.61, waist), (0.7, 0.62), *hem, (1 - flare, 0.88), (0.3, 0.62)]
    return [
        Part(skirt, Material.BODY),
        Part([*top[:5], *top[5:]], Material.BODY),
        Part([*neck], Material.CREAM),
        Part(box(0.385, waist - 0.02, 0.615, waist + 0.03), Material.SHADE),
        Part([(0.45, 0.5), (0.4, 0.88)], Material.SHADE, 0.006),
        Part([(0.55, 0.5), (0.6, 0.88)], Material.SHADE, 0.006),
    ]


def trousers(vary: Vary) -> list[Part]:
    """Long trousers, legs slightly apart."""
    ankle = vary(0.11, 0.17)
    half = [(0.7, 0.06), (0.76, 0.45), (0.78, 0.95), (0.78 - ankle, 0.95), (0.53, 0.34)]
    return [
        Part(mirror(half), Material.BODY),
        Part(box(0.297, 0.05, 0.703, 0.115), Material.SHADE),
        Part([(0.5, 0.115), (0.5, 0.34)], Material.SHADE, 0.01),
        Part([(0.35, 0.12), (0.31, 0.24)], Material.SHADE, 0.01),
        Part([(0.65, 0.12), (0.69, 0.24)], Material.SHADE, 0.01),
        Part(ellipse(0.5, 0.083, 0.014, 0.014), Material.METAL),
    ]


def hat(vary: Vary) -> list[Part]:
    """A hat with a brim and a band."""
    crown = vary(0.2, 0.3)
    dome = smooth([(0.27, 0.66), (0.3, crown + 0.1), (0.42, crown), (0.58, crown), (0.7, crown + 0.1), (0.73, 0.66)])
    return [
        Part(ellipse(0.5, 0.67, 0.47, 0.14), Material.BODY),
        Part(ellipse(0.5, 0.65, 0.25, 0.06), Material.SHADE),
        Part(dome, Material.BODY),
        Part(
            [(0.27, 0.54), *arc(0.5, 0.54, 0.235, 0.05, (180, 0)), *arc(0.5, 0.64, 0.24, 0.05, (0, 180))],
            Material.SHADE,
        ),
    ]


def shoe(vary: Vary) -> list[Part]:
    """A laced sports shoe from the side."""
    heel = vary(0.3, 0.36)
    upper = [(0.06, 0.68), (0.07, heel), (0.14, heel - 0.03), (0.2, 0.42), (0.4, 0.36), (0.47, 0.36), (0.64, 0.54)]
    upper += [(0.85, 0.58), (0.95, 0.66), (0.95, 0.72), (0.06, 0.72)]
    laces = [
        Part([(0.4 + d, 0.45 + d * 0.75), (0.5 + d, 0.38 + d * 0.85)], Material.CREAM, 0.022) for d in (0, 0.07, 0.14)
    ]
    return [
        Part(upper, Material.BODY),
        Part([*arc(0.86, 0.7, 0.1, 0.13, (180, 360))], Material.SHADE),
        Part([(0.06, 0.7), (0.07, heel + 0.05), (0.17, 0.5), (0.18, 0.7)], Material.SHADE),
        Part(rounded_box(0.04, 0.7, 0.97, 0.79, 0.04), Material.CREAM),
        *laces,
    ]


def boot(vary: Vary) -> list[Part]:
    """A tall boot with a heel."""
    top = vary(0.06, 0.2)
    leg = [(0.28, top), (0.6, top), (0.58, 0.56), (0.72, 0.66), (0.88, 0.72), (0.92, 0.84), (0.26, 0.84), (0.3, 0.6)]
    return [
        Part(leg, Material.BODY),
        Part([(0.25, 0.83), (0.93, 0.83), (0.93, 0.89), (0.46, 0.89), (0.45, 0.96), (0.25, 0.96)], Material.INK),
        Part(box(0.265, top - 0.02, 0.615, top + 0.07), Material.SHADE),
        Part([(0.3, 0.62), (0.58, 0.58)], Material.SHADE, 0.025),
    ]


def glove(vary: Vary) -> list[Part]:
    """A knitted glove, palm down."""
    spread = vary(0.0, 0.03)
    fingers = [(0.33, 0.24 + spread), (0.44, 0.12), (0.55, 0.1), (0.66, 0.17 + spread)]
    parts = [Part([(x, 0.5), (x + (x - 0.5) * 0.25, top)], Material.PLAIN, 0.105) for x, top in fingers]
    return [
        *parts,
        Part([(0.7, 0.64), (0.88, 0.42 + spread)], Material.PLAIN, 0.115),
        Part(smooth([(0.28, 0.4), (0.71, 0.4), (0.76, 0.6), (0.68, 0.8), (0.34, 0.8), (0.27, 0.6)]), Material.BODY),
        Part(rounded_box(0.32, 0.76, 0.7, 0.93, 0.03), Material.SHADE),
        *(Part([(x, 0.78), (x, 0.91)], Material.TINT, 0.012) for x in (0.39, 0.46, 0.53, 0.6)),
    ]


def sock(vary: Vary) -> list[Part]:
    """A long sock with cuff, heel and toe in another tone."""
    top = vary(0.05, 0.15)
    outline = [(0.34, top), (0.6, top), (0.6, 0.54), (0.78, 0.68), (0.86, 0.8), (0.8, 0.93), (0.66, 0.95), (0.42, 0.82)]
    return [
        Part([*outline[:3], *smooth([*outline[2:], (0.33, 0.7)], closed=False), (0.335, 0.6)], Material.BODY),
        Part(smooth([(0.34, 0.58), (0.45, 0.66), (0.44, 0.8), (0.35, 0.73)]), Material.TINT),
        Part(smooth([(0.74, 0.66), (0.86, 0.78), (0.81, 0.93), (0.68, 0.955), (0.66, 0.8)]), Material.TINT),
        Part(rounded_box(0.325, top - 0.03, 0.615, top + 0.1, 0.03), Material.SHADE),
    ]


def bag(vary: Vary) -> list[Part]:
    """A handbag with one round handle."""
    flap, grip = vary(0.58, 0.66), vary(0.1, 0.2)
    return [
        Part(arc(0.5, 0.42, 0.22, 0.42 - grip, (180, 360)), Material.SHADE, 0.045),
        Part([(0.17, 0.4), (0.83, 0.4), (0.92, 0.88), (0.88, 0.92), (0.12, 0.92), (0.08, 0.88)], Material.BODY),
        Part([(0.16, 0.385), (0.84, 0.385), (0.8, flap), *arc(0.5, flap, 0.3, 0.05, (0, 180))], Material.PLAIN),
        Part([(0.2, flap), *reversed(arc(0.5, flap, 0.3, 0.05, (0, 180))), (0.8, flap)], Material.SHADE, 0.01),
        Part(rounded_box(0.46, flap - 0.01, 0.54, flap + 0.08, 0.015), Material.METAL),
    ]


def backpack(vary: Vary) -> list[Part]:
    """A backpack from the front."""
    pocket = vary(0.56, 0.62)
    return [
        Part(arc(0.5, 0.14, 0.1, 0.09, (180, 360)), Material.INK, 0.035),
        Part(rounded_box(0.12, 0.56, 0.3, 0.86, 0.06), Material.SHADE),
        Part(rounded_box(0.7, 0.56, 0.88, 0.86, 0.06), Material.SHADE),
        Part(
            [*arc(0.5, 0.36, 0.29, 0.25, (180, 360)), *rounded_box(0.21, 0.5, 0.79, 0.93, 0.08)[49:147]], Material.BODY
        ),
        Part(rounded_box(0.28, pocket, 0.72, 0.87, 0.05), Material.PLAIN),
        Part([(0.3, pocket + 0.07), (0.7, pocket + 0.07)], Material.INK, 0.014),
        Part(arc(0.5, 0.42, 0.24, 0.2, (190, 350)), Material.INK, 0.012),
        Part(box(0.485, pocket + 0.06, 0.515, pocket + 0.13), Material.METAL),
    ]


def mug(vary: Vary) -> list[Part]:
    """A mug with its handle on the right."""
    top, side = vary(0.18, 0.26), vary(0.0, 0.04)
    body = [(0.16, top), *arc(0.42, 0.84, 0.26 - side, 0.07, (180, 0)), (0.68, top)]
    return [
        Part(arc(0.68, (top + 0.84) / 2, 0.2, 0.19, (-90, 95)), Material.PLAIN, 0.075),
        Part(body, Material.BODY),
        Part(ellipse(0.42, top, 0.26, 0.065), Material.TINT),
        Part(ellipse(0.42, top + 0.012, 0.225, 0.047), Material.SOIL),
    ]


def teapot(vary: Vary) -> list[Part]:
    """A round teapot, spout on the left."""
    belly = vary(0.27, 0.31)
    return [
        Part(arc(0.77, 0.56, 0.17, 0.17, (-100, 110)), Material.PLAIN, 0.055),
        Part([(0.3, 0.72), (0.1, 0.42), (0.04, 0.4), (0.1, 0.36), (0.16, 0.38), (0.36, 0.5)], Material.PLAIN),
        Part(ellipse(0.5, 0.6, 0.3, belly), Material.BODY),
        Part(box(0.36, 0.855, 0.64, 0.9), Material.SHADE),
        Part(arc(0.5, 0.375, 0.17, 0.09, (180, 360)), Material.SHADE),
        Part(ellipse(0.5, 0.27, 0.035, 0.035), Material.SHADE),
    ]


def bottle(vary: Vary) -> list[Part]:
    """A bottle with a cap and a label."""
    shoulder = vary(0.34, 0.44)
    neck = [(0.56, 0.14), (0.56, shoulder - 0.1), (0.66, shoulder), (0.68, shoulder + 0.08), (0.68, 0.93), (0.64, 0.96)]
    return [
        Part(mirror(neck), Material.BODY),
        Part(rounded_box(0.42, 0.04, 0.58, 0.16, 0.02), Material.INK),
        Part(box(0.32, 0.56, 0.68, 0.76), Material.CREAM),
        Part([(0.4, 0.63), (0.6, 0.63)], Material.SHADE, 0.02),
        Part([(0.44, 0.69), (0.56, 0.69)], Material.SHADE, 0.014),
    ]


def lamp(vary: Vary) -> list[Part]:
    """A table lamp with a conical shade."""
    narrow, height = vary(0.12, 0.18), vary(0.44, 0.5)
    return [
        Part([(0.5, height), (0.5, 0.9)], Material.WOOD, 0.05),
        Part(ellipse(0.5, 0.72, 0.065, 0.09), Material.WOOD),
        Part(ellipse(0.5, 0.92, 0.19, 0.045), Material.WOOD),
        Part([(0.5 - narrow, 0.06), (0.5 + narrow, 0.06), (0.85, height), (0.15, height)], Material.BODY),
        Part(ellipse(0.5, height, 0.35, 0.035), Material.SHADE),
    ]


def chair(vary: Vary) -> list[Part]:
    """An upholstered chair on four wooden legs, half from the side."""
    seat = vary(0.52, 0.58)
    legs = [(0.27, 0.27, 0.95), (0.66, 0.69, 0.95), (0.42, 0.43, 0.85), (0.8, 0.83, 0.85)]
    return [
        *(Part([(x, seat), (foot, end)], Material.WOOD, 0.04) for x, foot, end in legs),
        Part(smooth([(0.25, 0.1), (0.62, 0.06), (0.64, seat), (0.28, seat + 0.04)], 12), Material.BODY),
        Part([(0.22, seat), (0.68, seat), (0.86, seat - 0.08), (0.42, seat - 0.09)], Material.PLAIN),
        Part(
            [(0.22, seat), (0.68, seat), (0.86, seat - 0.08), (0.86, seat), (0.68, seat + 0.09), (0.22, seat + 0.09)],
            Material.SHADE,
        ),
    ]


def clock(vary: Vary) -> list[Part]:
    """A round wall clock."""
    hour, minute = vary(0, 2 * pi), vary(0, 2 * pi)
    ticks = [(cos(turn * pi / 6), sin(turn * pi / 6)) for turn in range(12)]
    hands = [(hour, 0.17, 0.03), (minute, 0.26, 0.02)]
    return [
        Part(ellipse(0.5, 0.5, 0.46, 0.46), Material.BODY),
        Part(ellipse(0.5, 0.5, 0.35, 0.35), Material.CREAM),
        *(
            Part([(0.5 + x * 0.28, 0.5 + y * 0.28), (0.5 + x * 0.32, 0.5 + y * 0.32)], Material.INK, 0.016)
            for x, y in ticks
        ),
        *(Part([(0.5, 0.5), (0.5 + cos(a) * r, 0.5 + sin(a) * r)], Material.INK, width) for a, r, width in hands),
        Part(ellipse(0.5, 0.5, 0.025, 0.025), Material.SHADE),
    ]


def umbrella(vary: Vary) -> list[Part]:
    """An open umbrella with a hooked handle."""
    crown = vary(0.36, 0.42)
    scallops = [point for x in (0.8467, 0.6156, 0.3844, 0.1533) for point in arc(x, 0.52, 0.1156, 0.055, (0, -180))]
    ribs = [(0.27, 0.5), (0.5, 0.5), (0.73, 0.5)]
    return [
        Part([(0.5, 0.08), (0.5, 0.14)], Material.INK, 0.02),
        Part([(0.5, 0.3), (0.5, 0.86), *arc(0.565, 0.86, 0.065, 0.07, (180, 20))], Material.WOOD, 0.03),
        Part([*arc(0.5, 0.52, 0.4623, crown, (180, 360)), *scallops], Material.BODY),
        *(
            Part(
                smooth([(0.5, 0.52 - crown), ((x + 0.5) / 2 + (x - 0.5) * 0.3, 0.26), (x, y)], closed=False),
                Material.SHADE,
                0.008,
            )
            for x, y in ribs
        ),
    ]


def ball(vary: Vary) -> list[Part]:
    """A ball with a seam."""
    lean = vary(-0.08, 0.08)
    return [
        Part(ellipse(0.5, 0.5, 0.44, 0.44), Material.BODY),
        Part(
            smooth([(0.26 + lean / 2, 0.2), (0.4, 0.45), (0.38 - lean / 2, 0.9)], closed=False), Material.SHADE, 0.014
        ),
        Part(smooth([(0.75, 0.2 + lean / 4), (0.62, 0.48), (0.69, 0.86)], closed=False), Material.SHADE, 0.014),
    ]


def book(vary: Vary) -> list[Part]:
    """A closed book, slightly from above."""
    title = vary(0.26, 0.34)
    return [
        Part([(0.2, 0.88), (0.78, 0.88), (0.84, 0.93), (0.26, 0.95)], Material.SHADE),
        Part([(0.78, 0.08), (0.84, 0.13), (0.84, 0.92), (0.78, 0.88)], Material.CREAM),
        Part(rounded_box(0.17, 0.06, 0.79, 0.89, 0.025), Material.BODY),
        Part(box(0.17, 0.07, 0.25, 0.88), Material.SHADE),
        Part(rounded_box(0.34, title - 0.09, 0.7, title + 0.1, 0.015), Material.CREAM),
        Part([(0.39, title - 0.03), (0.65, title - 0.03)], Material.INK, 0.018),
        Part([(0.43, title + 0.04), (0.61, title + 0.04)], Material.INK, 0.012),
    ]


def plant_pot(vary: Vary) -> list[Part]:
    """A plant with long leaves in a pot."""
    rim = vary(0.56, 0.62)
    tips = [(0.14, 0.26), (0.3, 0.1), (0.5, vary(0.03, 0.1)), (0.7, 0.12), (0.87, 0.28)]
    return [
        *(_leaf((0.5 + (x - 0.5) * 0.25, rim), (x, y)) for x, y in tips),
        Part([(0.27, rim + 0.05), (0.73, rim + 0.05), (0.66, 0.95), (0.34, 0.95)], Material.BODY),
        Part(rounded_box(0.24, rim, 0.76, rim + 0.1, 0.02), Material.SHADE),
    ]


def _leaf(root: Point, tip: Point) -> Part:
    (x, y), (tip_x, tip_y) = root, tip
    side_x, side_y = (tip_y - y) * 0.14, (x - tip_x) * 0.14
    middle_x, middle_y = x + (tip_x - x) * 0.55, y + (tip_y - y) * 0.6
    left, right = (middle_x + side_x, middle_y + side_y), (middle_x - side_x, middle_y - side_y)
    return Part([*smooth([root, left, tip], closed=False), *smooth([tip, right, root], closed=False)], Material.LEAF)


SHAPES: Mapping[str, Shape] = {
    "t-shirt": t_shirt,
    "dress": dress,
    "trousers": trousers,
    "hat": hat,
    "shoe": shoe,
    "boot": boot,
    "glove": glove,
    "sock": sock,
    "bag": bag,
    "backpack": backpack,
    "mug": mug,
    "teapot": teapot,
    "bottle": bottle,
    "lamp": lamp,
    "chair": chair,
    "clock": clock,
    "umbrella": umbrella,
    "ball": ball,
    "book": book,
    "plant pot": plant_pot,
}
"""How to draw each kind of product."""
