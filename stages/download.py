"""download: the competition's files into data/raw."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.core import pictures
from fashionseg.core.errors import reported
from fashionseg.download import sources


def main(raw: str) -> None:
    config = params.load("seed", "data")
    sources.fetch(config.data, config.seed, raw)
    counts = [f"{len(pictures.find(Path(raw, name)))} {name} pictures" for name in ("train", "test")]
    print(f"{raw}: {', '.join(counts)} from source {config.data.source}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
