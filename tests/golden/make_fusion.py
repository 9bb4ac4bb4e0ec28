"""Makes fusion.json: boxes of three views and what the package ensemble-boxes makes of them.

python -m venv /tmp/fusionenv
/tmp/fusionenv/bin/pip install ensemble-boxes==1.0.9
/tmp/fusionenv/bin/python tests/golden/make_fusion.py
"""

import json
from pathlib import Path

import numpy as np
from ensemble_boxes import weighted_boxes_fusion


def main() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 0.7, (12, 2))
    truth = np.concatenate([corners, corners + random.uniform(0.1, 0.3, (12, 2))], axis=1)
    classes = random.integers(1, 4, 12)
    views = []
    for _ in range(3):
        seen = np.flatnonzero(random.random(12) < 0.8)
        boxes = np.clip(truth[seen] + random.normal(0, 0.015, (len(seen), 4)), 0, 1)
        views.append(
            {"boxes": boxes.round(4).tolist(), "scores": random.uniform(0.1, 1, len(seen)).round(4).tolist(),
             "classes": classes[seen].tolist()}
        )  # fmt: skip
    boxes, scores, labels = weighted_boxes_fusion(
        *([view[name] for view in views] for name in ("boxes", "scores", "classes")), iou_thr=0.55
    )
    fused = {"boxes": boxes.tolist(), "scores": scores.tolist(), "classes": labels.astype(int).tolist()}
    file = Path(__file__).parent / "fusion.json"
    file.write_text(json.dumps({"views": views, "fused": fused}) + "\n")


if __name__ == "__main__":
    main()
