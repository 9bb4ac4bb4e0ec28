"""Faults, tried and counted: python benchmarks/faults KIND [--seed N] [--count N] [--only FILE] [--work FOLDER]

kills      COUNT times kill -9, at random moments over all stages, and the run to its end after
mutations  COUNT of each kind of file that a user or a stage may find damaged
disk       COUNT times each stage on a disk with too little room
rights     COUNT times each stage as a user without the right to read or write something (root runs this)
kaggle     COUNT failures of a server that speaks Kaggle's protocol

Each is tried on a small pipeline in FOLDER, which the first call makes in two minutes. Prints a table of outcomes, and
whatever needs a look: a traceback, a wrong result, an epoch lost; ends with status 1 where there was any.
"""

import argparse
import importlib
import tempfile
from collections import Counter
from pathlib import Path

KINDS = {
    "kills": ("kills", "faults"),
    "mutations": ("mutations", "faults"),
    "disk": ("refusals", "disk"),
    "rights": ("refusals", "rights"),
    "kaggle": ("server", "faults"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=3)
    parser.add_argument("--only", default="", help="of mutations: the kinds of files of this name")
    parser.add_argument("--work", default=Path(tempfile.gettempdir(), "faults"), type=Path)
    arguments = parser.parse_args()
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    module, function = KINDS[arguments.kind]
    tried = getattr(importlib.import_module(module), function)
    settings = {"only": arguments.only} if arguments.only else {}
    outcomes, findings = Counter(), 0
    for kind, outcome, finding in tried(
        work / "reference", work / arguments.kind, arguments.count, arguments.seed, **settings
    ):
        outcomes[kind, outcome] += 1
        if finding:
            findings += 1
            print(f"--- {kind}: {outcome}\n{finding}", flush=True)
    print("| kind | outcome | times |\n| --- | --- | --- |")
    for (kind, outcome), times in sorted(outcomes.items()):
        print(f"| {kind} | {outcome} | {times} |")
    raise SystemExit(findings > 0)


if __name__ == "__main__":
    main()
