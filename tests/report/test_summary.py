"""The end of `make repro`: scores, and where things lie."""

from fashionseg.core import files
from fashionseg.report import summary


def test_scores_and_places(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scores = {"AP": 0.4567, "AP50": 0.8, "AP75": None}
    whole = {"segm": scores, "bbox": scores, "iou_f1": {"AP": 0.25}, "attributes": {"macro_f1": None}}
    files.write_json("metrics/evaluate.json", whole)
    files.write_json("metrics/tune.json", {"value": 0.7})
    files.write_text("submissions/submission.csv", "")
    summary.show()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        "masks  AP 0.457   AP50 0.800   AP75 -",
        "boxes  AP 0.457   AP50 0.800   AP75 -",
        "attributes  AP with F1 0.250   macro F1 of the frequent ones -",
        "score  0.700, the competition's, cross-validated",
    ]
    assert [line.split() for line in lines[4:-1]] == [["submission", "submissions/submission.csv"]]  # what is there
