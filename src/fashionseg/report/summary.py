"""What a run brought, in a few lines: scores, where things lie, what to try next."""

from pathlib import Path

from rich.console import Console

from fashionseg.core import files

SEEN = [
    ("report", "reports/index.html"),
    ("submission", "submissions/submission.csv"),
    ("overlays", "results/evaluate/pictures/"),
    ("training pictures", "results/preview/"),
    ("model", "models/mask_rcnn.weights.h5"),
]


def show() -> None:
    """Prints the scores of the run in this folder and where its files lie."""
    scores = files.read_json("metrics/evaluate.json")
    tuned = files.read_json("metrics/tune.json")
    console = Console(highlight=False)
    for kind, word in (("segm", "masks"), ("bbox", "boxes")):
        shown = "   ".join(f"{name} {_number(scores[kind][name])}" for name in ("AP", "AP50", "AP75"))
        console.print(f"[bold]{word}[/]  {shown}")
    if "attributes" in scores:
        average, f1 = map(_number, (scores["iou_f1"]["AP"], scores["attributes"]["macro_f1"]))
        console.print(f"[bold]attributes[/]  AP with F1 {average}   macro F1 of the frequent ones {f1}")
    console.print(f"[bold]score[/]  {tuned['value']:.3f}, the competition's, cross-validated")
    for name, path in SEEN:
        if Path(path).exists():
            console.print(f"  {name:<18} {path}")
    console.print("next: [bold]dvc exp run -S train.epochs=20[/], then [bold]make compare[/]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
