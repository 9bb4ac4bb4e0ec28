"""report: one HTML page of the run, to be opened, kept or sent as it is."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.core import files
from fashionseg.core.stage import running
from fashionseg.report import page


def main(declared: str, results: str, metrics: str, split: str, target: str) -> None:
    shown = params.load(
        "seed",
        "data",
        "split",
        "images",
        "model",
        "augment",
        "train",
        "predict",
        "evaluate",
        "tune",
        "submission",
    )
    text = page.build(page.Outputs(Path(declared), Path(results), Path(metrics), Path(split), shown))
    files.write_text(target, text)
    print(f"{target}: {len(text) / 1e6:.1f} MB, to be opened in a browser")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
