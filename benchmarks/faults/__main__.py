"""Faults, tried and counted: python benchmarks/faults KIND [--seed N] [--count N] [--only NAME] [--work FOLDER]

kills      COUNT times kill -9, one in each stage and the others in train, and the run to its end after
mutations  COUNT of each kind of file that a user or a stage may find damaged
disk       COUNT times each stage on a disk with too little room (root runs this, and the next)
rights     COUNT times each stage as a user without the right to read or write something
kaggle     COUNT failures of a server that speaks Kaggle's protocol

Each is tried on a small pipeline in FOLDER; kills, disk and rights first run it undisturbed, for some minutes. Prints a
table of outcomes, and whatever needs a look: a traceback, a wrong result, an epoch lost; ends with status 1 where there
was any.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import kaggle_server
import kills
import mutations
import refusals

KINDS = {
    "kills": kills.faults,
    "mutations": mutations.faults,
    "disk": refusals.disk,
    "rights": refusals.rights,
    "kaggle": kaggle_server.faults,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--only", default="", help="the stages, or the kinds of files, with this in their names")
    parser.add_argument("--work", default=Path(tempfile.gettempdir(), "faults"), type=Path)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    outcomes, findings = Counter(), 0
    for what, outcome, finding in KINDS[arguments.kind](work, arguments.count, arguments.seed, arguments.only):
        outcomes[what, outcome] += 1
        findings += bool(finding)
        print(f"--- {what}: {outcome}\n{finding}" if finding else f"{what}: {outcome}", flush=True)
    print("| | outcome | times |\n| --- | --- | --- |")
    for (what, outcome), times in sorted(outcomes.items()):
        print(f"| {what} | {outcome} | {times} |")
    raise SystemExit(findings > 0)


if __name__ == "__main__":
    main()
