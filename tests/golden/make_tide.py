"""Makes tide.json: random rectangles, and what the authors' package says of the errors in them.

    python -m venv /tmp/tideenv
    /tmp/tideenv/bin/pip install tidecv==1.0.1 pycocotools==2.0.11
    PYTHONPATH=tests/evaluate /tmp/tideenv/bin/python tests/golden/make_tide.py

A case: `truth` rows image, class, x, y, width, height; `found` rows the same and a score; for each kind of error its
count and dAP in per cent; `ap` at IoU 0.5. Every class that is predicted occurs in the truth.
"""

import json
from pathlib import Path

from documents import random_document
from tidecv import TIDE, Data

KINDS = {"Cls": "class", "Loc": "location", "Both": "both", "Dupe": "duplicate", "Bkg": "background", "Miss": "missed"}


def main() -> None:
    cases = []
    for seed, size in enumerate([(16, 6, 12), (12, 3, 8), (6, 9, 4)]):
        document, results = random_document(seed, [3, 4, 8], [3, 4, 8], [0, 1, 2, 3], *size, ties=False)
        results = [{**result, "score": round(result["score"], 6)} for result in results]
        results.sort(key=lambda result: -result["score"])
        truth, found = Data("truth"), Data("found")
        for row in document["annotations"]:
            truth.add_ground_truth(row["image_id"], row["category_id"], mask=row["segmentation"])
        for row in results:
            found.add_detection(row["image_id"], row["category_id"], row["score"], mask=row["segmentation"])
        for image in document["images"]:
            truth.add_image(image["id"], str(image["id"]))
        tide = TIDE()
        run = tide.evaluate(truth, found, mode=TIDE.MASK)
        cases.append(
            {
                "truth": [[row["image_id"], row["category_id"], *row["bbox"]] for row in document["annotations"]],
                "found": [[row["image_id"], row["category_id"], *row["bbox"], row["score"]] for row in results],
                "ap": run.ap,
                "dAP": {KINDS[name]: value for name, value in tide.get_main_errors()[found.name].items()},
                "count": {KINDS[kind.short_name]: number for kind, number in run.count_errors().items()},
            }
        )
        print(cases[-1]["ap"], cases[-1]["dAP"], cases[-1]["count"])
    path = Path(__file__).with_name("tide.json")
    path.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]\n")


if __name__ == "__main__":
    main()
