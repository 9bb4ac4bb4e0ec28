"""The commands behind `make`: `python -m fashionseg --help` lists them. Each reads params and calls one function."""

import argparse
from inspect import Parameter, signature
from pathlib import Path

import fashionseg
from fashionseg import params
from fashionseg.core import backend, documents, files
from fashionseg.core.errors import UserError, reported


def preset(name: str) -> None:
    """the values of presets/NAME.yaml into params.yaml"""
    folder = Path("presets")
    path = folder / f"{name.removesuffix('.yaml')}.yaml"
    if not path.exists():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.yaml")))
        raise UserError(f"there is no {path}; presets are {names}.")
    print("\n".join(params.apply(path)) or "params.yaml has these values already")


def check(path: str, document: str, sample: str | None) -> None:
    """every error of a submission of DOCUMENT's pictures (data/coco/test.json); with truth there its score, too"""
    from fashionseg.submit import submission

    settings = params.load("tune", "submission")
    truth = submission.read_document(document)
    form = submission.read_sample(sample) if sample else None
    faults = submission.check(path, truth, form, settings.submission)
    print("\n".join(map(str, faults)) or f"{path} is valid")
    if faults:
        raise UserError(f"{path} has {len(faults)} errors.")
    if truth.get("annotations"):
        score = submission.score_file(path, truth, settings.tune, settings.submission)
        print(f"{settings.tune.formula} {score:.5f} (average: {settings.tune.average}, f1: {settings.tune.f1})")


def compare(names: list[str], *, path: str = "reports/compare.html") -> None:
    """experiments, tags or commits on one page; without names the workspace and the last commit's experiments"""
    from fashionseg.report import compare

    runs = compare.collect(names)
    if not runs:
        raise UserError("there is no run with scores yet; `dvc repro` or `dvc exp run` makes one.")
    print(compare.table(runs).to_string(index=False, float_format="%.3f", na_rep="-"))
    files.write_text(path, compare.build(runs, Path("plots/dvc.yaml")))
    print(f"{path}: {len(runs)} runs, to be opened in a browser")


def compare_submissions(first: str, second: str, document: str) -> None:
    """how many instances of two submissions differ, class by class"""
    from fashionseg.submit import submission

    if not (first and second):
        raise UserError("name two submissions: make compare-submissions FIRST=a.csv SECOND=b.csv.")
    print(submission.compare(first, second, submission.read_document(document)).to_string(index=False))


def send(path: str, document: str, sample: str, message: str) -> None:
    """a submission to Kaggle, after a check that it has no errors"""
    from fashionseg.submit.send import send, zipped
    from fashionseg.submit.submission import check, read_sample

    settings = params.load("data", "submission", "sending")
    if settings.data.source == "demo":
        raise UserError("data.source is demo: Kaggle has none of its images; nothing was sent.")
    if not message:
        raise UserError("say what is sent: make submit MESSAGE='forest, 12 epochs'.")
    if faults := check(path, documents.read(document), read_sample(sample), settings.submission):
        raise UserError(f"{path} has {len(faults)} errors, the first: {faults[0]}; nothing was sent.")
    print(send(zipped(path) if settings.sending.gzip else path, message, settings.data.competition))


def predict(models: str, pictures: list[str], *, folder: str = "results/predict", score: float = 0.5) -> None:
    """overlays and a COCO file of what the network in MODELS finds on pictures, folders or globs"""
    model = fashionseg.load(models, score=score)
    from fashionseg.deploy import run

    run.run(model, pictures, folder)


def serve(models: str, *, host: str = "127.0.0.1", port: int = 8000, score: float = 0.5) -> None:
    """a page on which photographs are dropped; --host 0.0.0.0 lets other machines in"""
    model = fashionseg.load(models, score=score)
    from fashionseg.deploy import serve

    serve.serve(model, host, port)


def inspect(models: str, image: str, folder: str) -> None:
    """a network at work on one picture, step by step"""
    backend.choose(params.load("machine").machine.backend)
    from fashionseg.predict.inspect import inspect

    print(f"{inspect(Path(models), image, folder)} steps: {folder}")


def sheet(folder: str, path: str) -> None:
    """the pictures of a folder in one image"""
    from fashionseg.draw.preview import sheet

    print(f"{sheet(folder, path)} pictures of {folder}: {path}")


def export(models: str, path: str) -> None:
    """the trained network as a TensorFlow SavedModel, or as ONNX where the path ends in .onnx"""
    config = params.load("machine", "predict")
    backend.choose(config.machine.backend)
    from fashionseg.predict.export import export

    export(models, path, config.predict)
    use = (
        f"onnxruntime.InferenceSession('{path}').run(None, {{'images': ..., 'sizes': ...}})"
        if path.endswith(".onnx")
        else f"tf.saved_model.load('{path}').serve({{'images': ..., 'sizes': ...}})"
    )
    print(f"{path}: {use}")


def summary() -> None:
    """the scores of the run in this folder and where its files lie"""
    from fashionseg.report import summary

    summary.show()


# What stands on the command line: PATH? may be missing, PATHS+ are one or more,
# NAMES* any number. Keyword-only arguments are options.
COMMANDS = {
    predict: ("models", "pictures+"),
    serve: ("models",),
    preset: ("name",),
    check: ("path", "document", "sample?"),
    compare: ("names*",),
    compare_submissions: ("first", "second", "document"),
    send: ("path", "document", "sample", "message"),
    inspect: ("models", "image", "folder"),
    sheet: ("folder", "path"),
    export: ("models", "path"),
    summary: (),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("fashionseg", description="Mask R-CNN for fashion photographs: single commands.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command, names in COMMANDS.items():
        sub = commands.add_parser(command.__name__.replace("_", "-"), help=command.__doc__, description=command.__doc__)
        for name in names:
            sub.add_argument(name.rstrip("?+*"), nargs=name[-1] if name[-1] in "?+*" else None)
        for option in signature(command).parameters.values():
            if option.kind is Parameter.KEYWORD_ONLY:
                sub.add_argument(
                    f"--{option.name}",
                    type=type(option.default),
                    default=option.default,
                    help="default: %(default)s",
                )
        sub.set_defaults(command=command)
    values = vars(parser.parse_args(arguments))
    values.pop("command")(**values)


def console() -> None:
    """The command `fashionseg`."""
    with reported():
        main()


if __name__ == "__main__":
    console()
