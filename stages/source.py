"""source: a list of the user's own files, by which DVC sees that one of them changed."""

import sys

from fashionseg import params
from fashionseg.core.stage import running
from fashionseg.download.survey import survey


def main(listing: str) -> None:
    config = params.load("seed", "data")
    survey(config.data, config.seed, listing)


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
