"""ensemble: the trained networks of other experiments that predict merges with the one of this run."""

import sys

from fashionseg import params
from fashionseg.core.stage import running
from fashionseg.ensemble import networks


def main(models: str, folder: str) -> None:
    commits = networks.bring(params.load("predict").predict.models, models, folder)
    for name, commit in commits.items():
        print(f"{folder}/{name}: the network of {commit[:10]}")
    if not commits:
        print(f"{folder}: predict.models names no other network")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
