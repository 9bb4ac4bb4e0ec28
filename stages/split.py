"""split: whole images into training and validation."""

import sys

from fashionseg import params
from fashionseg.convert import competition, duplicates, split
from fashionseg.core import files
from fashionseg.core.stage import running

SHOWN = 5  # copies that are named


def main(raw: str, table: str) -> None:
    config = params.load("seed", "split", "machine")
    source = competition.read(raw)
    groups = duplicates.groups(source.train_images, config.machine.workers)
    assigned = split.assign(source, config.split.folds, config.split.fold, config.seed, groups)
    files.write_csv(table, assigned)
    copies = [f"{name} as {first}" for name, first in groups.items() if name != first]
    print("\n  ".join([f"{len(copies)} pictures show the same as another and stay on its side", *copies[:SHOWN]]))
    counts = assigned["subset"].value_counts()
    shares = split.shares(source, assigned, config.split.folds)
    for row in shares.head(1).itertuples():
        print(f"least held out of {len(shares)} frequent classes and attributes: {row.held:.1%} of {row.name}")
    print(f"{table}: {counts['train']} images to train on, {counts['val']} to validate")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
