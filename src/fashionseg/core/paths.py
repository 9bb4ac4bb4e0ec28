"""Paths that a user writes into params.yaml, and the layout of the folders."""

from pathlib import Path

from fashionseg.core.errors import UserError

EXPERIMENTS = (".dvc", "tmp", "exps")  # where DVC checks out queued and --temp experiments
NETWORK = DESCRIPTION, WEIGHTS = ("mask_rcnn.json", "mask_rcnn.weights.h5")  # of models/, all that rebuilds a network
ANNOTATIONS = "annotations"  # of a folder in COCO's layout


def in_coco(folder: str | Path) -> bool:
    """Whether a folder has COCO's layout, else it is a competition with a train.csv."""
    return Path(folder, ANNOTATIONS).is_dir() and not Path(folder, "train.csv").exists()


def project() -> Path:
    """The user's project folder, also from within the checkout of a queued or --temp experiment."""
    for folder in Path.cwd().parents:
        if folder.parts[-len(EXPERIMENTS) :] == EXPERIMENTS:
            return folder.parents[len(EXPERIMENTS) - 1]
    return Path()


def of_user(path: str) -> Path:
    """A file or folder from params: `~` is the home folder; a relative path is relative to the working directory or, if
    missing there because Git does not track it, to `project`. Raises UserError for the home of an unknown user."""
    try:
        found = Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path} begins with the home folder of a user who is not on this machine.") from None
    return found if found.exists() else project() / found
