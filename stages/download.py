"""download: the competition's files into data/raw."""

import sys

from fashionseg import params
from fashionseg.core import pictures
from fashionseg.core.errors import reported
from fashionseg.download import sources


def main(listing: str, raw: str) -> None:
    config = params.load("seed", "data")
    sources.fetch(config.data, config.seed, listing, raw)
    folder = pictures.originals(raw)
    counts = [f"{len(pictures.find(folder / name))} {name} pictures" for name in ("train", "test")]
    print(f"{raw}: {', '.join(counts)} from source {config.data.source}" + f", read in {folder}" * (str(folder) != raw))


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
