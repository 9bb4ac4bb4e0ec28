"""download: the competition's files into data/raw."""

import sys

from fashionseg import params
from fashionseg.core import pictures
from fashionseg.core.stage import running
from fashionseg.download import sources


def main(listing: str, raw: str) -> None:
    config = params.load("data")
    sources.fetch(config.data, listing, raw)
    folder = pictures.originals(raw)
    where = f", read in {folder}" if str(folder) != raw else ""
    print(f"{raw}: {len(pictures.below(folder))} pictures from source {config.data.source}{where}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
