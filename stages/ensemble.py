"""ensemble: the trained networks of other experiments that predict merges with the one of this run."""

import sys

from fashionseg import params
from fashionseg.core.stage import running
from fashionseg.ensemble import networks


def main(models: str, split: str, folder: str) -> None:
    origins = networks.bring(params.load("predict").predict.models, models, split, folder)
    for name, origin in origins.items():
        print(f"{folder}/{name}: the network of {origin.commit[:10]}")
        if origin.seen is None:
            print("  how many of today's validation pictures it was trained on is not known; AP may be too high")
        elif origin.seen:
            print(
                f"  trained on {origin.seen} of today's validation pictures: AP is too high, and tune goes by it; see "
                "docs/experiments.md, Ensembles"
            )
    if not origins:
        print(f"{folder}: predict.models names no other network")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
