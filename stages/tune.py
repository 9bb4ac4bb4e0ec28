"""tune: what to claim, chosen on the validation images."""

import sys
from pathlib import Path

from fashionseg import params
from fashionseg.core import documents, files
from fashionseg.core.errors import reported
from fashionseg.submit import postprocess
from fashionseg.submit.tune.crossfit import tune


def main(document: str, predictions: str, claims: str, tables: str, metrics: str) -> None:
    settings = params.load("tune", "submission", "seed", "machine")
    chosen, way, values, made = tune(
        documents.read(document),
        documents.read(predictions, documents.PREDICTIONS),
        settings.tune,
        settings.submission,
        settings.seed,
        settings.machine.workers,
    )
    postprocess.write(claims, chosen, {"formula": settings.tune.formula, "way": way, "values": values})
    for name, table in made.items():
        files.write_csv(Path(tables) / f"{name}.csv", table)
    files.write_json(metrics, values, indent=1)
    print(made["ways"].round(4).to_string(index=False))
    print(
        f"best for {settings.tune.formula}: {way}; such a choice is worth {values['value']:.4f} on new images: {claims}"
    )


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
