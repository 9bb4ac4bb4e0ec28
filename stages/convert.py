"""convert: run lengths to COCO documents, pictures to the model's size, tables of what there is."""

import sys

from fashionseg import params
from fashionseg.convert import coco, competition
from fashionseg.convert.resizing import resizing
from fashionseg.core import cluster, files
from fashionseg.core.documents import apart
from fashionseg.core.stage import running


def main(raw: str, split_table: str, documents_folder: str, images_folder: str, tables_folder: str) -> None:
    config = params.load("images", "machine")
    source = competition.read(raw)
    assigned = coco.read_split(split_table, source)
    side, machine = config.images.side, config.machine
    with cluster.joined(machine.dask), resizing(source, images_folder, side, machine.workers) as source:
        documents = coco.documents(source, assigned)
        with files.replacing(documents_folder) as beside:
            for subset, document in documents.items():
                files.write_json(beside / f"{subset}.json", document)
            files.write_csv(beside / "sample_submission.csv", source.sample)
        dropped, counted = coco.dropped_table(source), {subset: apart(d) for subset, d in documents.items()}
        with files.replacing(tables_folder) as beside:
            files.write_csv(beside / "classes.csv", coco.class_table(counted))
            files.write_csv(beside / "sizes.csv", coco.size_table(counted))
            files.write_csv(beside / "dropped.csv", dropped)
    print(*source.notes, sep="\n", end="\n" * bool(source.notes))
    for row in dropped.itertuples():
        print(f"left out {row.count} times: {row.reason} (first: {row.first})")
    if empty := source.empty_images:
        print(f"kept {len(empty)} training pictures without instances (first: {empty[0]})")
    parts = [f"{name} {len(d['images'])} images, {len(d['annotations'])} instances" for name, d in counted.items()]
    print(f"{documents_folder}: {'; '.join(parts)}; pictures in {images_folder}")


if __name__ == "__main__":
    with running():
        main(*sys.argv[1:])
