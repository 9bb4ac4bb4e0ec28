"""tune: what to claim, chosen on the validation images."""

import sys
from pathlib import Path

from fashionseg import io, params
from fashionseg.claiming import rule
from fashionseg.errors import reported
from fashionseg.tuning.crossfit import tune


def main(document: str, predictions: str, claims: str, tables: str, metrics: str) -> None:
    settings = params.load("tune", "submission", "seed", "machine")
    chosen, way, values, made = tune(
        io.read_json(document),
        io.read_json(predictions),
        settings.tune,
        settings.submission,
        settings.seed,
        settings.machine.workers,
    )
    rule.write(claims, chosen, {"formula": settings.tune.formula, "way": way, "values": values})
    for name, table in made.items():
        io.write_csv(Path(tables) / f"{name}.csv", table)
    io.write_json(metrics, values, indent=1)
    print(made["ways"].round(4).to_string(index=False))
    print(
        f"best for {settings.tune.formula}: {way}; such a choice is worth {values['value']:.4f} on new images: {claims}"
    )


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
