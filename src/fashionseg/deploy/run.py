"""Overlays and COCO results of picture files: `fashionseg predict`."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import track

from fashionseg.core import files
from fashionseg.core.errors import UserError
from fashionseg.deploy.model import Model, find

RESULTS = "predictions.json"


def run(model: Model, sources: Sequence[str | Path], folder: str | Path) -> None:
    """Writes into `folder` an overlay of each picture, NUMBER_NAME.jpg, and predictions.json, a COCO document whose
    images have these numbers as ids and whose annotations are what was found, with scores.

    sources: files, folders and globs. A broken picture is named and counted, the others go on. Raises UserError where
    none can be read, where `folder` holds other things than an earlier run's, and while another run writes it.
    """
    folder, paths = Path(folder), find(sources)
    files.check_replaceable(folder, RESULTS, paths)
    images, annotations, broken = [], [], 0
    with files.locked(folder.with_name(f".{folder.name}.lock")), files.replacing(folder) as beside:
        beside.mkdir()
        for number, path in enumerate(track(paths, "predict"), 1):
            try:
                result = model.result(path)
                result.save(beside / f"{number:04}_{files.shortened(path.stem)}.jpg")
            except (UserError, OSError) as error:  # OSError: a JPEG has no side above 65,500 pixels
                if isinstance(error, OSError) and error.errno is not None:
                    raise  # of the disk
                shown = str(error) if isinstance(error, UserError) else f"{path} cannot be drawn ({error})."
                print(shown.encode(errors="backslashreplace").decode())
                broken += 1
                continue
            height, width = result.size
            images.append({"id": number, "file_name": str(path), "height": height, "width": width})
            annotations += result.coco(number)
        if not images:
            raise UserError(f"none of {len(paths)} pictures can be read; nothing was written.")
        for number, annotation in enumerate(annotations, 1):
            annotation |= {"id": number, "iscrowd": 0}
        labels = {kind: model.labels.get(kind, []) for kind in ("categories", "attributes")}
        files.write_json(beside / RESULTS, {"images": images, **labels, "annotations": annotations})
    without = f", {broken} unreadable ones left out" * bool(broken)
    print(f"{len(annotations)} instances on {len(images)} pictures{without}: {folder}/*.jpg, {folder / RESULTS}")
