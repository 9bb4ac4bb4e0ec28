"""Paths that a user writes into params.yaml, and the kinds of folders that they may name."""

from pathlib import Path

EXPERIMENTS = (".dvc", "tmp", "exps")  # where DVC checks out queued and --temp experiments
NETWORK = ("mask_rcnn.json", "mask_rcnn.weights.h5")  # of models/, all that rebuilds a network
ANNOTATIONS = "annotations"  # of a folder in COCO's layout


def in_coco(folder: str | Path) -> bool:
    """Whether a folder is in COCO's layout; else it is a competition with a train.csv."""
    return Path(folder, ANNOTATIONS).is_dir() and not Path(folder, "train.csv").exists()


def project() -> Path:
    """The folder that the user works in: of a queued or --temp experiment the one that its checkout lies in."""
    for folder in Path.cwd().parents:
        if folder.parts[-len(EXPERIMENTS) :] == EXPERIMENTS:
            return folder.parents[len(EXPERIMENTS) - 1]
    return Path()


def of_user(path: str) -> Path:
    """A file or folder that params name: `~` is the home folder, a relative path counts from here or, where a checkout
    lacks it since Git does not track it, from `project`."""
    path = Path(path).expanduser()
    return path if path.exists() else project() / path
