# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Mask R-CNN, one step after the other
#
# From the pixels of one validation picture to a row of `submission.csv`, with the project's own functions and a trained
# network: run `make repro` first, then this notebook in `.venv` (`.venv/bin/pip install jupyterlab`,
# `.venv/bin/jupyter lab`). The paper: He et al. 2017, https://arxiv.org/abs/1703.06870.

# %% tags=["parameters"]
MODELS = "models"
PICTURE = 0  # of data/coco/val.json

# %%
import os
from pathlib import Path

os.chdir(next(folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "params.yaml").exists()))
from fashionseg import params
from fashionseg.core import backend, documents, pictures, rle

backend.choose(params.load("machine").machine.backend)
import numpy as np
from IPython.display import display
from keras import ops
from PIL import Image

from fashionseg.coco import masks
from fashionseg.data.batches import padded
from fashionseg.draw import overlay
from fashionseg.model import boxes, roi_align
from fashionseg.predict import inference
from fashionseg.submit.candidates import grid_size


def show(*images):
    """Images side by side, as high as the highest."""
    high = max(image.shape[0] for image in images)
    display(
        Image.fromarray(
            np.hstack([np.pad(i, ((0, high - len(i)), (0, 8), (0, 0)), constant_values=255) for i in images])
        )
    )


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), np.float32)


network, labels = inference.load(Path(MODELS))
truth = documents.read("data/coco/val.json")
names = [category["name"] for category in truth["categories"]]

# %% [markdown]
# ## 1. The picture
# Resized so that its long side is `images.side`, padded at the right and bottom, here to a square.

# %%
record = truth["images"][PICTURE]
side = network.config.side
picture = pictures.read(Path("data/images", record["file_name"]), side)
batch = padded([picture], side)
print(
    "in the file",
    (record["height"], record["width"]),
    "resized",
    picture.shape[:2],
    "in the batch",
    batch["images"].shape,
)
index = documents.places_of(truth)
annotations = [annotation for annotation in truth["annotations"] if annotation["image_id"] == record["id"]]
instances = overlay.DrawnInstances.of_coco(annotations, index, *picture.shape[:2])
show(batch["images"][0], overlay.draw(picture, instances, names))

# %% [markdown]
# ## 2. Backbone and feature pyramid
# The backbone halves the resolution five times. The FPN adds each coarse map to the finer one below it, so that all
# levels know what the coarse ones know. One cell of P2 stands for 4 x 4 pixels, one of P6 for 64 x 64. Drawn is the
# channel of each level that varies most.

# %%
pyramid, logits, deltas, anchors = network.first_stage(batch["images"])
maps = []
for level, features in enumerate(map(array, pyramid), 2):
    print(f"P{level}: {features.shape[1:]}, a cell is {side // features.shape[1]} pixels wide")
    strongest = features[0].std(axis=(0, 1)).argmax()
    maps.append(overlay.heat(batch["images"][0], features[0, ..., strongest]))
show(*maps)

# %% [markdown]
# ## 3. Anchors
# Every cell of every level has boxes of `model.anchor_ratios`; their side doubles from level to level. They cover the
# picture so densely that each garment overlaps one of them well. Drawn are those of the middle cell of each level.

# %%
ratios = len(network.config.anchor_ratios)
middles, shades = [], []
for level, (boxes_of_level, features) in enumerate(zip(map(array, anchors), pyramid, strict=True)):
    height, width = features.shape[1:3]
    first = (height // 2 * width + width // 2) * ratios
    middles.append(boxes_of_level[first : first + ratios])
    shades += [level / 4] * ratios
    print(f"P{level + 2}: {len(boxes_of_level)} anchors = {height} x {width} cells x {ratios} ratios")
show(overlay.boxes(batch["images"][0], np.concatenate(middles), np.array(shades)))

# %% [markdown]
# ## 4. Region proposal network
# For each anchor a logit (is there an object?) and four deltas that move and stretch the anchor onto it:
# $x = a_x + d_x a_w$, $\;w = a_w e^{d_w}$, the same for $y$ and $h$. The heat maps show the best
# objectness of each cell.

# %%
heats = []
for scores, features in zip(logits, pyramid, strict=True):
    of_cells = array(ops.sigmoid(scores))[0].reshape(*features.shape[1:3], ratios)
    heats.append(overlay.heat(batch["images"][0], of_cells.max(axis=-1)))
show(*heats)
flat = array(ops.concatenate(logits, axis=1))[0]
best = np.argsort(-flat)[:50]
best_anchors = array(ops.concatenate(anchors, axis=0))[best]
moved = array(boxes.decode(array(ops.concatenate(deltas, axis=1))[0][best], best_anchors, boxes.RPN_WEIGHTS))
probabilities = 1 / (1 + np.exp(-flat[best]))
show(
    overlay.boxes(batch["images"][0], best_anchors, probabilities),
    overlay.boxes(batch["images"][0], moved, probabilities),
)

# %% [markdown]
# ## 5. Proposals
# Many anchors end at the same garment. Non-maximum suppression goes from the best to the worst and drops each box that
# overlaps a better one by an IoU above 0.7. What is left, at most `model.proposals`, are the proposals.

# %%
proposals, scores = network.rpn.propose(logits, deltas, anchors, batch["sizes"])
used = int((array(scores) > 0).sum())
print(used, "proposals of", len(flat), "anchors")
show(overlay.boxes(batch["images"][0], array(proposals)[0, :50], array(scores)[0, :50]))

# %% [markdown]
# ## 6. RoIAlign
# Each proposal becomes a grid of 7 x 7 features, whatever its size: bilinear samples, without rounding to cells. Large
# boxes look at coarse levels: $k = \lfloor 4 + \log_2(\sqrt{wh} / 224) \rfloor$. Drawn is the strongest channel of the
# five best proposals.

# %%
levels = array(roi_align.levels(proposals, 4)).astype(int)[0]
print("proposals by level:", {f"P{level + 2}": int((levels[:used] == level).sum()) for level in range(4)})
(features,) = network.roi_heads.align(pyramid)((proposals, 7))
crops = []
for box, grid in zip(array(proposals)[0, :5].round().astype(int), array(features)[0], strict=False):
    crop = batch["images"][0][box[1] : max(box[3], box[1] + 1), box[0] : max(box[2], box[0] + 1)]
    crops.append(
        overlay.heat(np.array(Image.fromarray(crop).resize((140, 140))), grid[..., grid.std(axis=(0, 1)).argmax()])
    )
show(*crops)

# %% [markdown]
# ## 7. Box head
# Two dense layers say for each proposal which class it is (0 is background) and how to move the box: in the same way
# for all classes, with `model.class_agnostic_boxes: false` in one for each. With `model.box_stages` of 2 or 3 as many
# heads do so, one after the other.

# %%
probabilities, _, _ = network.roi_heads.classify(pyramid, proposals, batch["sizes"])
probabilities = array(probabilities)[0, :used]
classes = probabilities.argmax(axis=1)
print("background:", int((classes == 0).sum()), "of", used)
for place in np.argsort(-probabilities[:, 1:].max(axis=1))[:5]:
    print(
        f"  proposal {place}:",
        ", ".join(
            f"{(['background', *names])[c]} {probabilities[place, c]:.2f}"
            for c in np.argsort(-probabilities[place])[:3]
        ),
    )

# %% [markdown]
# ## 8. Detections and masks
# Suppression again, now within each class. Then the mask head gives each detection 28 x 28 probabilities, a soft mask
# for its class alone. Drawn are the five best, and all of a score of at least 0.5 pasted into the picture.

# %%
params_of_predict = params.load("predict").predict
found = network.roi_heads.detect(
    pyramid,
    proposals,
    scores,
    batch["sizes"],
    score_threshold=params_of_predict.score,
    nms_iou=params_of_predict.nms_iou,
)
found = {name: array(values)[0] for name, values in found.items()}
count = int((found["classes"] > 0).sum())
print(count, "detections of a score of at least", params_of_predict.score)
soft = [np.repeat((255 * mask[..., None]).astype(np.uint8), 3, axis=-1) for mask in found["masks"][:5]]
show(*[np.array(Image.fromarray(image).resize((140, 140), Image.Resampling.NEAREST)) for image in soft])
instances = overlay.DrawnInstances.of_detections(found, found["scores"] >= 0.5)
show(overlay.draw(picture, instances, names))

# %% [markdown]
# ## 9. Run lengths
# A pasted mask becomes Kaggle's `EncodedPixels`: start and length of each run, column by column, counted from 1, on a
# grid that `submission` of `params.yaml` gives: its long side is `longest_side`.

# %%
height, width = grid_size(record["height"], record["width"], params.load("submission").submission)
left, top, right, bottom = found["boxes"][0] * np.tile([width / picture.shape[1], height / picture.shape[0]], 2)
runs, _ = masks.paste(found["masks"][0], (left, top, right - left, bottom - top), height, width, 0.5)
(encoded,) = runs.to_kaggle()
print(f"{record['ImageId']},{encoded[:60]}...,{labels.category_ids[int(found['classes'][0]) - 1] if count else '-'}")
again = rle.from_kaggle([encoded], np.array([height]), np.array([width]))
assert (again.decode(0) == runs.decode(0)).all()
show(
    np.repeat(255 * runs.decode(0)[..., None].astype(np.uint8), 3, axis=-1)[
        :: max(1, height // 320), :: max(1, height // 320)
    ]
)

# %% [markdown]
# `tune` and `submit` choose which detections go into the file and give each pixel to one instance of a class:
# `docs/submission.md`. `make inspect IMAGE=photo.jpg` draws steps 2 to 5, 7 and 8 of any photograph.
