"""Training and validation: whole images, every class in about the same share on both sides."""

import numpy as np
import pandas as pd

from fashionseg.data.competition import Competition
from fashionseg.errors import UserError


def assign(competition: Competition, folds: int, fold: int, seed: int) -> pd.DataFrame:
    """Columns image_id (sorted), subset ("train" | "val"): fold number `fold` of `folds` is held out.

    Images are dealt one by one, the hardest to even out first, each to the fold that leaves the least variance of the
    classes' shares over the folds, as in scikit-learn's StratifiedGroupKFold; rare and frequent classes weigh alike.
    Depends on the ids and classes and on the seed, not on the order of the rows. Raises UserError where the numbers
    cannot be.
    """
    images = sorted(competition.train_images)
    if folds < 2 or not 0 <= fold < folds:
        raise UserError(f"split.fold should be 0 to split.folds - 1 and split.folds 2 at least, not {fold} of {folds}.")
    if len(images) < folds:
        raise UserError(
            f"{competition.folder} has {len(images)} usable training images, fewer than split.folds = {folds}."
        )
    classes, columns = np.unique(competition.instances["class_id"], return_inverse=True)
    # One column more, a class that every image has once: the folds get even numbers of images, empty ones included.
    counts = np.ones((len(images), len(classes) + 1), np.int64)
    counts[:, :-1] = 0
    np.add.at(counts, (pd.Index(images).get_indexer(competition.instances["image_id"]), columns), 1)
    weights = counts / counts.sum(0) ** 2
    order = np.random.default_rng(seed).permutation(len(images))
    order = order[np.argsort(-(weights * counts).sum(1)[order], kind="stable")]
    dealt = np.zeros((folds, counts.shape[1]), np.int64)
    folds_of = np.empty(len(images), np.int64)
    for image in order:
        # An image with the shares a of the classes adds a * (2 b + a) to the squares of a fold that holds the shares b.
        folds_of[image] = np.argmin((dealt * weights[image]).sum(1))
        dealt[folds_of[image]] += counts[image]
    return pd.DataFrame({"image_id": images, "subset": np.where(folds_of == fold, "val", "train")})
