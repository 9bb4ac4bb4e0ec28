"""COCO's classes, in the order that files of weights have them."""

import re

GAP = "-"
BACKGROUND = "__background__"  # as torchvision calls it; a class of the data may be called "background"
# By COCO's ids from 1 on, as torchvision's files have them; Matterport's are without the gaps.
COCO = re.split(
    ", ",
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, -, stop sign, "
    "parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, -, backpack, umbrella, "
    "-, -, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, "
    "skateboard, surfboard, tennis racket, bottle, -, wine glass, cup, fork, knife, spoon, bowl, banana, apple, "
    "sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, -, "
    "dining table, -, -, toilet, -, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, "
    "refrigerator, -, book, clock, vase, scissors, teddy bear, hair drier, toothbrush",
)


def names(count: int) -> list[str]:
    """Those of a layer for `count` classes, background included, GAP at a gap; none where that is not COCO's number."""
    known = [name for name in COCO if name != GAP]
    found = {len(COCO) + 1: COCO, len(known) + 1: known}.get(count)
    return [BACKGROUND, *found] if found else []
