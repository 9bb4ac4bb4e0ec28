"""The people of the demo: what they wear, and how each garment is drawn; (0, 0) is the base of the neck."""

from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass

import numpy as np

from fashionseg_demo.canvas import (
    Canvas,
    Item,
    Shape,
    box,
    closed,
    ellipse,
    flipped,
    outline,
    smooth,
    stretch,
    tube,
)
from fashionseg_demo.cloths import CHECK, CHEVRON, DOT, FLORAL, PLAIN, STRIPE, WHITE, Cloth, palette

PASTEL = palette("f4f1ea dce8f2 f7d9dc fbe8c8 d9ecd9 e6dcf2 ffffff")
BRIGHT = palette("e4572e f3a712 2e86ab 3fa34d d81e5b 8f3fa8 17bebb ef6f9b ffd23f")
DARK = palette("23262e 2d3047 3b2f2f 1f3d36 4a1f2d 3c3c44 5a3a22")
WOOL = palette("b98b5e 8c5a3c a33b3b 46657d 5d6d4b 7d6b8d c9a878 d0c4b0")
DENIM = palette("2f4b7c 4a6c9b 6d8fb8 24344d")
KNIT = palette("e8dcc8 c8553d 588b8b d9a441 7a9e7e 93748a ead2ac")
LEATHER = palette("2b1d14 7a4a22 d8c9a3 b02a30 1b1b20")
STOCKING = palette("2a2230 4a1f2d 1f3d36 7b2d52 2d3070")
SKIN = palette("f6d7c3 eebd9b d99d74 b5764c 8a5434 5f3a26")
HAIR = palette("1d1a1a 3a2417 6b3f1f a86b32 d9b36c b0432a 8d8d93")
BLUSH = np.float32([1, 0.85, 0.82]).reshape(3, 1, 1)
INK, LIPS, GOLD, STEEL = palette("3a2a2a a8323e e6c35c d9d9de")

NECKLINES = {  # from left to right
    "round (neck)": outline("-.3 .08  -.2 .34  0 .42  .2 .34  .3 .08"),
    "v-neck": outline("-.3 .08  -.15 .45  0 .8  .15 .45  .3 .08"),
    "square (neckline)": outline("-.36 .1  -.34 .5  0 .52  .34 .5  .36 .1"),
    "turtle (neck)": outline("-.24 .04  0 .12  .24 .04"),
}
SLEEVES = {"short (length)": 0.4, "elbow-length": 0.52, "wrist-length": 0.97}  # fraction of the arm
LEGS = {"mini (length)": 0.26, "above-the-knee (length)": 0.42, "maxi (length)": 0.99}  # fraction of the leg
HEMS = {"above-the-hip (length)": 2.15, "hip (length)": 2.55, "mini (length)": 3.05, "above-the-knee (length)": 3.3,
        "knee (length)": 3.7, "below the knee (length)": 4.1, "midi": 4.4}  # height  # fmt: skip
SILHOUETTES = {"tight (fit)": (0.33, 0.23, 0.16), "straight": (0.34, 0.28, 0.26), "wide leg": (0.36, 0.36, 0.42),
               "bell bottom": (0.33, 0.23, 0.42)}  # radii of a trouser leg  # fmt: skip
POSES = {"hanging": (10, 4), "slack": (20, -8), "hip": (42, -98), "belly": (20, -72), "reach": (48, 18),
         "wave": (78, 88)}  # degrees outward: upper arm from straight down, forearm from upper arm  # fmt: skip
LAPEL = outline(".14 -.02  .34 0  .5 .32  .38 .42  .52 .56  .08 1.3  .06 .9")
COLLARS = {
    "shirt (collar)": outline("0 .26  .05 .12  .2 -.12  .34 0  .42 .26  .24 .5"),
    "banded (collar)": outline("0 .3  0 .06  .22 -.18  .3 -.14  .36 .18  .2 .32"),
}
TURTLE = outline("-.25 -.2  0 -.18  .25 -.2  .32 .14  0 .24  -.32 .14")
TIE = outline("-.1 .2  .1 .2  .07 .42  .2 1.5  0 1.75  -.2 1.5  -.07 .42")
SLASH = outline(".2 1.85  .62 1.85  .7 2.4  .5 2.38  .3 2.2")
FOOT = outline("-.17 -.14  .16 -.16  .24 .04  .5 .14  .52 .3  -.18 .3")
BAG = outline("-.4 -.28  .4 -.28  .5 .35  -.5 .35")
SCARF = outline("-.5 .02  -.3 -.2  .3 -.2  .5 .02  .4 .3  0 .42  -.4 .3")
MANE = outline("-.5 -.9  0 -1.3  .5 -.9  .62 .1  .45 .6  -.45 .6  -.62 .1")
FRINGE = outline("-.43 -.55  -.46 -.95  -.2 -1.2  .2 -1.2  .46 -.95  .43 -.55  .3 -.85  -.05 -.92  -.32 -.8")
CROWN = outline("-.46 -.85  -.46 -1.2  -.3 -1.5  .3 -1.5  .46 -1.2  .46 -.85")
STAR = outline("0 .83  .08 1.04  .3 1.05  .13 1.19  .19 1.41  0 1.29  -.19 1.41  -.13 1.19  -.3 1.05  -.08 1.04")


@dataclass(frozen=True)
class Style:
    """The options of a kind of garment; one of each is chosen. attributes: those that all of the kind have."""

    name: str
    colours: Sequence[np.ndarray]
    patterns: tuple[str, ...]
    weaves: tuple[str, ...]
    _: KW_ONLY
    lengths: tuple[str, ...]
    sleeves: tuple[str, ...]
    attributes: tuple[str, ...]


SHORT, LONG, NONE = "short (length)", "wrist-length", "sleeveless"
HIP, MINI, ABOVE, KNEE, BELOW, MIDI = "hip (length)", "mini (length)", *list(HEMS)[3:]
STYLES = {
    "shirt": Style("shirt, blouse", PASTEL, (PLAIN, STRIPE, CHECK), ("smooth",),
                   lengths=(HIP,), sleeves=(LONG, SHORT),
                   attributes=("single breasted", "regular (fit)")),
    "top": Style("top, t-shirt, sweatshirt", BRIGHT, (PLAIN, STRIPE, DOT), ("smooth",),
                 lengths=("above-the-hip (length)",), sleeves=(SHORT, SHORT, NONE),
                 attributes=("no opening",)),
    "sweater": Style("sweater", KNIT, (PLAIN, CHEVRON), ("knit",),
                     lengths=(HIP,), sleeves=(LONG,),
                     attributes=("no opening", "loose (fit)")),
    "blazer": Style("jacket", DARK, (PLAIN,), ("smooth",),
                    lengths=(HIP,), sleeves=(LONG,),
                    attributes=("blazer", "single breasted")),
    "puffer": Style("jacket", BRIGHT + DARK, (PLAIN,), ("quilted",),
                    lengths=(HIP,), sleeves=(LONG,),
                    attributes=("puffer (jacket)", "zip-up", "quilted")),
    "coat": Style("coat", WOOL, (PLAIN, PLAIN, CHECK), ("smooth",),
                  lengths=(ABOVE, KNEE, BELOW), sleeves=(LONG,),
                  attributes=()),
    "dress": Style("dress", BRIGHT + PASTEL, (FLORAL, DOT, PLAIN, STRIPE), ("smooth", "pleat"),
                   lengths=(MINI, KNEE, MIDI), sleeves=(NONE, SHORT, "elbow-length"),
                   attributes=("no opening", "flare")),
    "pants": Style("pants", DENIM + DARK, (PLAIN, PLAIN, PLAIN, CHECK), ("denim",),
                   lengths=("maxi (length)",), sleeves=(NONE,),
                   attributes=("fly (opening)", "normal waist")),
    "shorts": Style("shorts", DENIM + WOOL, (PLAIN, PLAIN, STRIPE), ("denim",),
                    lengths=(MINI, ABOVE), sleeves=(NONE,),
                    attributes=("fly (opening)", "normal waist")),
    "skirt": Style("skirt", BRIGHT + KNIT, (PLAIN, CHECK, DOT), ("smooth", "pleat"),
                   lengths=(MINI, KNEE, MIDI), sleeves=(NONE,),
                   attributes=("no opening", "normal waist")),
}  # fmt: skip


@dataclass(frozen=True)
class Garment:
    kind: str
    item: Item
    cloth: Cloth
    length: str
    sleeve: str


class Figure:
    """A person; `draw` paints the layers from back to front."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator):
        self.canvas, self.rng, self.paint = canvas, rng, canvas.paint
        self.shoulder = rng.uniform(0.68, 0.84)
        self.waist, self.hip = self.shoulder * rng.uniform(0.62, 0.82), rng.uniform(0.56, 0.68)
        self.skin, self.hair = Cloth(self.pick(SKIN)), Cloth(self.pick(HAIR), weave="pleat")
        self.arms, self.legs = {}, {}  # by side, 1 on the right: a line from shoulder to wrist, from hip to ankle
        spread = rng.uniform(0.02, 0.4)
        for side in (-1, 1):
            upper, elbow = np.radians(self.pick(list(POSES.values()))) + rng.normal(0, 0.1, 2)
            steps = [(1.1 * np.sin(upper), 1.1 * np.cos(upper)), (np.sin(upper + elbow), np.cos(upper + elbow))]
            arm = np.cumsum([(self.shoulder - 0.12, 0.45), *steps], 0)
            leg = np.array([(0.3, 2.35), (0.32 + spread / 2 + rng.uniform(-0.06, 0.1), 3.6), (0.26 + spread, 4.9)])
            self.arms[side], self.legs[side] = (smooth(limb * [side, 1], closed=False) for limb in (arm, leg))

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, options: Sequence):
        return options[self.rng.integers(len(options))]

    def two(self, colours: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Two colours that differ enough for a visible pattern."""
        one, other = self.pick(colours), self.pick(colours)
        return one, other if np.abs(one - other).mean() > 70 else WHITE if one.mean() < 140 else INK

    def garment(self, kind: str) -> Garment:
        style = STYLES[kind]
        pattern, weave, length, sleeve = map(self.pick, (style.patterns, style.weaves, style.lengths, style.sleeves))
        colours = self.two(style.colours)
        period, turned = self.rng.uniform(0.24, 0.4), self.chance(0.4)
        cloth = Cloth(*colours, pattern, weave, period=period, turned=turned)
        seen = ("pleat",) if weave == "pleat" else ()
        item = self.canvas.item(style.name, *style.attributes, "symmetrical", pattern, length, *seen)
        return Garment(kind, item, cloth, length, sleeve)

    def profile(self, bottom: float, ease: float, hem: float | None = None, top: float = 0.85) -> np.ndarray:
        """The right side of the body at a distance of `ease`; below the waist it widens to `hem`."""
        y = np.linspace(top, bottom, 10)
        body = [self.shoulder, self.shoulder * 0.84, self.waist, self.hip]
        x = np.interp(y, [0.4, 0.8, 1.7, 2.25], body) + ease
        if hem:
            x += (hem - x[-1]) * np.clip((y - 1.75) / (bottom - 1.75), 0, 1)
        return np.stack([x, y], 1)

    def trunk(self, neck: str, side: np.ndarray, ease: float, sleeveless: bool = False) -> Shape:
        shoulders = [(self.shoulder * 0.9, 0.24), (self.shoulder + ease, 0.45)]
        right = np.vstack([NECKLINES[neck][-1:], outline(".44 .12  .5 .3  .5 .62") if sleeveless else shoulders, side])
        return [smooth(np.vstack([closed(right), NECKLINES[neck][1:-1]]))]

    def draw(self) -> None:
        dressed = self.chance(0.27)
        upper = self.garment("dress" if dressed else self.pick(("shirt", "shirt", "top", "top", "sweater")))
        lower = None if dressed else self.garment(self.pick(("pants", "pants", "shorts", "skirt", "skirt")))
        outer = self.pick(("blazer", "puffer", "puffer", "coat", "coat")) if self.chance(0.44) else None
        outer = self.garment(outer) if outer else None
        gloves = Cloth(self.pick(BRIGHT + DARK), weave="rib") if self.chance(0.16) else None
        bag, tucked, mane = self.pick((0, 0, 0, -1, 1)), self.chance(0.6), self.chance(0.45)
        behind = [side for side in self.arms if self.chance(0.2)]
        if mane:
            self.paint([smooth(MANE)], self.hair)
        for side in behind:
            self.arm(side, outer or upper, gloves)
        self.stand(stockings=dressed or lower.kind != "pants")
        self.paint(self.trunk("turtle (neck)", self.profile(2.7, -0.02), 0), self.skin)
        self.paint(tube(outline("0 -.4  0 .35"), 0.17, 0.2), self.skin)
        layers = [upper, lower] if tucked else [lower, upper]
        for garment in filter(None, [*layers, outer]):
            getattr(self, garment.kind)(garment)
            if garment is lower and tucked and self.chance(0.55):
                self.belt(garment, 1.79)
        if not outer and self.chance(0.12):
            self.bag(self.pick((-1, 1)) * (self.hip + 0.1), 2.35, 0.75, strap=True)
        if self.chance(0.16):
            self.scarf()
        self.head(mane)
        for side in self.arms:
            if side == bag:
                self.bag(*(self.arms[side][-1] + (0, 0.7)))
            if side not in behind:
                self.arm(side, outer or upper, gloves)

    def arm(self, side: int, garment: Garment, glove: Cloth | None) -> None:
        arm = self.arms[side]
        ahead = arm[-1] - arm[-2]
        hand = arm[-1] + ahead / np.hypot(*ahead) * 0.12
        self.paint([*tube(arm, 0.17, 0.14, 0.1), ellipse(*hand, 0.14, 0.16)], self.skin)
        if garment.sleeve != NONE:
            item = self.canvas.item("sleeve", garment.sleeve, "set-in sleeve", garment.cloth.pattern)
            radii = np.array([0.26, 0.2, 0.17] if garment.sleeve == LONG else [0.25, 0.23])
            radii *= 1.15 if garment.kind == "puffer" else 1
            line = stretch(arm, 0, SLEEVES[garment.sleeve])
            self.paint([ellipse(*arm[0], 0.22, 0.22), *tube(line, *radii)], garment.cloth, item, garment.item)
            self.paint(tube(line[-3:], radii[-1] + 0.01), garment.cloth.trim(0.7), item, garment.item)
        if glove:
            mitten = [*tube(stretch(arm, 0.8, 1), 0.16, 0.15), ellipse(*hand, 0.19, 0.21)]
            self.paint(mitten, glove, self.canvas.item("glove"))

    def stand(self, stockings: bool) -> None:
        """Legs, tights, socks and shoes."""
        tights, socks, boots = stockings and self.chance(0.35), self.chance(0.55), self.chance(0.25)
        sock, shoe = Cloth(*self.two(BRIGHT + PASTEL), self.pick((PLAIN, STRIPE)), period=0.2), self.pick(BRIGHT + WOOL)
        both = [quadrangle for leg in self.legs.values() for quadrangle in tube(leg, 0.3, 0.2, 0.13)]
        self.paint(both, self.skin)
        if tights:
            self.paint(both, Cloth(self.pick(STOCKING), weave="rib"), self.canvas.item("tights, stockings"))
        for side, leg in self.legs.items():
            if socks and not tights:
                self.paint(tube(stretch(leg, 0.58, 1), 0.19, 0.15), sock, self.canvas.item("sock"))
            item, shaft = self.canvas.item("shoe"), tube(stretch(leg, 0.76, 1), 0.22, 0.18) if boots else []
            self.paint([smooth(FOOT * [side, 1] + leg[-1], rounds=1), *shaft], Cloth(shoe), item)
            self.paint([box(*(leg[-1] + (side * 0.17, 0.28)), 0.34, 0.04)], Cloth(shoe * 0.4), item)

    def skirt(self, garment: Garment) -> None:
        hem = self.hip + self.rng.uniform(0.05, 0.74)
        flare = int((hem - self.hip) * 4)  # 0, 1, 2
        garment.item.attributes += (("pencil", "a-line", "flare")[flare],)
        low = HEMS[garment.length]
        hem = max(hem, np.interp(low, [2.4, 4.9], [self.hip, self.legs[1][-1][0] + 0.2]))  # over the knees
        right = np.vstack([(self.waist + 0.06, 1.7), self.profile(low, 0.07, hem, top=1.9)])
        wave = outline(".75 .14  .5 .04  .25 .14  0 .04  -.25 .14  -.5 .04  -.75 .14") * [hem, 1] + [0, low]
        self.paint([smooth(closed(right, wave), rounds=1)], garment.cloth, garment.item)

    def pants(self, garment: Garment) -> None:
        silhouette = self.pick(list(SILHOUETTES)) if garment.kind == "pants" else "wide leg"
        garment.item.attributes += (silhouette,)
        radii = SILHOUETTES[silhouette] if garment.kind == "pants" else (0.36, 0.38)
        right = np.array([(self.waist + 0.06, 1.7), (self.hip + 0.07, 2.2), (self.hip + 0.05, 2.5), (0.12, 2.8)])
        shape = [closed(right)]
        for leg in self.legs.values():
            shape += tube(stretch(leg, 0, LEGS[garment.length]), *radii)
        self.paint(shape, garment.cloth, garment.item)
        self.paint(tube(outline("0 1.75  .02 2.75"), 0.025), garment.cloth.trim(0.55), None, garment.item, clip=True)
        self.pockets(garment, SLASH, "slash (pocket)")

    shorts = pants

    def top(self, garment: Garment) -> None:
        neck = self.pick(("round (neck)", "v-neck", "square (neckline)"))
        garment.item.attributes += ("tank (top)" if garment.sleeve == NONE else "classic (t-shirt)",)
        side = self.profile(HEMS[garment.length], 0.05)
        self.paint(self.trunk(neck, side, 0.05, garment.sleeve == NONE), garment.cloth, garment.item)
        if garment.cloth.pattern == PLAIN and self.chance(0.5):
            self.paint([STAR], Cloth(PASTEL[0]), None, garment.item, clip=True)
            garment.item.attributes += ("printed",)
        self.neckline(garment, neck)

    def sweater(self, garment: Garment) -> None:
        neck, hem = self.pick(("turtle (neck)", "turtle (neck)", "round (neck)", "v-neck")), HEMS[garment.length]
        self.paint(self.trunk(neck, self.profile(hem, 0.13), 0.13), garment.cloth, garment.item)
        self.paint([box(0, hem - 0.06, 1, 0.1)], garment.cloth.trim(0.75, "rib"), None, garment.item, clip=True)
        self.neckline(garment, neck)

    def shirt(self, garment: Garment) -> None:
        side = self.profile(HEMS[garment.length], 0.07)
        self.paint(self.trunk("turtle (neck)", side, 0.07), garment.cloth, garment.item)
        self.paint([box(0, 1.4, 0.06, 1.2)], Cloth(garment.cloth.colour * 0.88), None, garment.item, clip=True)
        self.buttons(garment, (0,), np.linspace(0.6, 2.4, 6))
        if self.chance(0.3):
            self.pocket(garment, box(0.36, 0.95, 0.18, 0.2), "patch (pocket)")
        if self.chance(0.5):
            cloth = Cloth(self.pick(BRIGHT + DARK), WHITE, self.pick((PLAIN, STRIPE, DOT)), period=0.2)
            self.paint([TIE], cloth, self.canvas.item("tie"))
        self.collar(garment, garment.cloth, "shirt (collar)")

    def dress(self, garment: Garment) -> None:
        neck, bare = self.pick(("round (neck)", "v-neck", "square (neckline)")), garment.sleeve == NONE
        side = self.profile(HEMS[garment.length], 0.05, self.rng.uniform(0.95, 1.3))
        self.paint(self.trunk(neck, side, 0.05, bare), garment.cloth, garment.item)
        self.neckline(garment, neck)
        if self.chance(0.45):
            self.belt(garment, 1.72)

    def blazer(self, garment: Garment) -> None:
        self.open_front(garment, self.profile(HEMS[garment.length], 0.12))
        self.pockets(garment, box(0.46, 1.85, 0.2, 0.2), "flap (pocket)")

    def puffer(self, garment: Garment) -> None:
        item, hem = garment.item, HEMS[garment.length] - 0.2
        self.paint(self.trunk("turtle (neck)", self.profile(hem, 0.2), 0.2), garment.cloth, item)
        self.paint([box(0, hem - 0.07, 1, 0.12)], garment.cloth.trim(0.5, "rib"), None, item, clip=True)
        self.paint([box(0, 1.3, 0.1, 1.4)], Cloth(STEEL, weave="teeth"), self.canvas.item("zipper"), item, clip=True)
        self.collar(garment, garment.cloth.trim(0.6, "rib"), "banded (collar)")
        self.pockets(garment, box(0.46, 1.85, 0.2, 0.2), "patch (pocket)")

    def coat(self, garment: Garment) -> None:
        side = self.profile(HEMS[garment.length], 0.17, self.rng.uniform(0.9, 1.2))
        if self.chance(0.35):
            garment.item.attributes += ("single breasted",)
            self.open_front(garment, side)
        else:
            garment.item.attributes += ("double breasted",)
            self.paint(self.trunk("v-neck", side, 0.17), garment.cloth, garment.item)
            self.lapels(garment)
            self.buttons(garment, (-0.2, 0.2), np.linspace(1.4, 2.7, 4))
            if self.chance(0.5):
                self.belt(garment, 1.78)
        self.pockets(garment, box(0.52, 2.35, 0.2, 0.24), "flap (pocket)")

    def open_front(self, garment: Garment, side: np.ndarray) -> None:
        shoulders = [(0.24, 0.03), (self.shoulder * 0.9, 0.22), (self.shoulder + 0.12, 0.45)]
        right = smooth(np.vstack([shoulders, side, [(0.34, side[-1, 1]), (0.14, 1.6), (0.16, 0.6)]]))
        self.paint([right, flipped(right)], garment.cloth, garment.item)
        self.lapels(garment)

    def lapels(self, garment: Garment) -> None:
        for side in (-1, 1):
            item = self.canvas.item("lapel", "notched (lapel)")
            self.paint([LAPEL * [side, 1]], garment.cloth.trim(0.65), item, garment.item)

    def collar(self, garment: Garment, cloth: Cloth, kind: str) -> None:
        flap = smooth(COLLARS[kind], rounds=1)
        self.paint([flap, flipped(flap)], cloth, self.canvas.item("collar", kind), garment.item)

    def neckline(self, garment: Garment, kind: str) -> None:
        band = tube(smooth(NECKLINES[kind], closed=False), 0.08)
        if kind == "turtle (neck)":
            band = [smooth(TURTLE, rounds=1)]
        self.paint(band, garment.cloth.trim(0.6, "rib"), self.canvas.item("neckline", kind), garment.item)

    def pockets(self, garment: Garment, right: np.ndarray, kind: str) -> None:
        for side in (-1, 1):
            self.pocket(garment, right * [side, 1], kind)

    def pocket(self, garment: Garment, corners: np.ndarray, kind: str) -> None:
        item = self.canvas.item("pocket", kind)
        self.paint([corners], garment.cloth.trim(0.78), item, garment.item, clip=True)
        if kind == "flap (pocket)":
            x, y = corners.mean(0)
            self.paint([box(x, y - 0.12, 0.22, 0.09)], garment.cloth.trim(0.5), item, garment.item, clip=True)

    def buttons(self, garment: Garment, columns: Iterable[float], rows: Iterable[float]) -> None:
        dots = [ellipse(x, y, 0.05, 0.05) for y in rows for x in columns]
        self.paint(dots, garment.cloth.trim(0.25), None, garment.item, clip=True)

    def belt(self, garment: Garment, y: float) -> None:
        item = self.canvas.item("belt")
        self.paint([box(0, y, 1.2, 0.1)], Cloth(self.pick(LEATHER)), item, garment.item, clip=True)
        self.paint([box(0, y, 0.12, 0.1)], Cloth(GOLD), item, garment.item)

    def scarf(self) -> None:
        item, cloth = self.canvas.item("scarf"), Cloth(*self.two(BRIGHT), self.pick((PLAIN, STRIPE, CHECK)))
        tail = np.array([(0.2, 0.2), (0.3, 0.9), (0.24, self.rng.uniform(1.4, 2))]) * [self.pick((-1, 1)), 1]
        self.paint(tube(smooth(tail, closed=False), 0.15, 0.2), cloth, item)
        self.paint([smooth(SCARF)], cloth, item)

    def bag(self, x: float, y: float, size: float = 1, strap: bool = False) -> None:
        item, cloth = self.canvas.item("bag, wallet"), Cloth(self.pick(BRIGHT + WOOL))
        handle = ellipse(x, y - 0.25, 0.28, 0.5, start=180)
        if strap:
            handle = np.array([(-np.sign(x) * 0.45, 0.25), (0, 1), (x, y)])
        self.paint(tube(handle, 0.05), cloth.trim(0.6), item)
        self.paint([smooth(BAG * size + [x, y], rounds=1)], cloth, item)
        self.paint([box(x, y - 0.02, 0.09, 0.09)], Cloth(GOLD), item)

    def head(self, mane: bool) -> None:
        if not mane and self.chance(0.35):
            self.paint([ellipse(0, -1.25, 0.22, 0.2)], self.hair)
        self.paint([ellipse(0, -0.63, 0.4, 0.5)], self.skin)
        for side in (-1, 1):
            self.paint([ellipse(side * 0.15, -0.62, 0.04, 0.05)], Cloth(INK))
            self.paint(tube(np.array([(side * 0.08, -0.76), (side * 0.22, -0.75)]), 0.02), self.hair)
            self.paint([ellipse(side * 0.26, -0.46, 0.07, 0.05)], Cloth(self.skin.colour * BLUSH))
        self.paint(tube(ellipse(0, -0.42, 0.11, 0.08, start=20, end=160), 0.025), Cloth(LIPS))
        self.paint([smooth(FRINGE * [self.pick((-1, 1)), 1])], self.hair)
        if self.chance(0.28):
            item, lenses = self.canvas.item("glasses"), self.pick((INK, PASTEL[1]))
            frame = [box(0, -0.64, 0.42, 0.035), *(ellipse(x, -0.6, 0.19, 0.165) for x in (-0.2, 0.2))]
            self.paint(frame, Cloth(self.pick(LEATHER)), item)
            self.paint([ellipse(x, -0.6, 0.13, 0.11) for x in (-0.2, 0.2)], Cloth(lenses), item)
        if self.chance(0.28):
            self.hat()

    def hat(self) -> None:
        item, felt = self.canvas.item("hat"), Cloth(self.pick(KNIT + DARK + BRIGHT))
        if self.chance(0.5):  # a woollen cap with a bobble
            self.paint([smooth(CROWN), ellipse(0, -1.5, 0.16, 0.15)], felt._replace(weave="knit"), item)
            self.paint([box(0, -0.92, 0.47, 0.12)], felt.trim(0.7, "rib"), item)
        else:
            self.paint([smooth(CROWN, rounds=1)], felt, item)
            self.paint([ellipse(0, -0.92, 0.85, 0.13)], felt, item)
            self.paint([box(0, -1.06, 0.45, 0.07)], felt.trim(0.4), item)
