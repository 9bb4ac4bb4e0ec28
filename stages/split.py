"""split: whole images into training and validation."""

import sys

from fashionseg import params
from fashionseg.convert import competition, split
from fashionseg.core import files
from fashionseg.core.errors import reported


def main(raw: str, table: str) -> None:
    config = params.load("seed", "split")
    assigned = split.assign(competition.read(raw), config.split.folds, config.split.fold, config.seed)
    files.write_csv(table, assigned)
    counts = assigned["subset"].value_counts()
    print(f"{table}: {counts['train']} images to train on, {counts['val']} to validate")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
