"""tune: what to claim, chosen on the validation images."""

import sys

from fashionseg import io, params, tuning
from fashionseg.errors import reported


def main(document: str, predictions: str, claims: str, table: str, metrics: str) -> None:
    settings = params.load("tune", "submission")
    rule, rules = tuning.tune(
        io.read_json(document), io.read_json(predictions), settings.tune.metric, settings.submission
    )
    io.write_json(claims, rule, indent=1)
    io.write_csv(table, rules)
    io.write_json(metrics, {name: rule[name] for name in ("value", "value_of_all")}, indent=1)
    which = f"the best {rule['claims_per_image']} of an image" if rule["claims_per_image"] else "all"
    print(f"claim {which} from score {rule['score']} on: {rule['metric']} {rule['value']:.4f}; the rule is in {claims}")


if __name__ == "__main__":
    with reported():
        main(*sys.argv[1:])
