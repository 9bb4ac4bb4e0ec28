"""params.yaml: what DVC reads we read alike, and every mistake is one sentence that names the key."""

import subprocess
import sys
from pathlib import Path

import pytest
from dvc.utils.serialize import parse_yaml

from fashionseg import params
from fashionseg.core.errors import UserError

WHOLE = (Path(__file__).parents[1] / "params.yaml").read_text()


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("number", ["1e-4", "0.00001", "1", "1.0e-05", "2E3"])
def test_numbers_as_dvc_reads_them(write, number):
    text = WHOLE.replace("weight_decay: 0.01", f"weight_decay: {number}")
    read = params.load("train", path=write(text)).train.weight_decay
    assert read == parse_yaml(text, "params.yaml")["train"]["weight_decay"] == float(number)
    assert isinstance(read, float)


def test_only_the_named_sections(write):
    assert vars(params.load("seed", "split", path=write(WHOLE))).keys() == {"seed", "split"}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  epochs: 6", "  epoch: 6", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("train:", "training:", "unknown key 'training'; did you mean 'train'?"),
        ("  epochs: 6", "  epochs: six", "train.epochs should be a whole number from 1 on, not 'six'"),
        ("  epochs: 6", "  epochs: 6.5", "train.epochs should be a whole number from 1 on, not 6.5"),
        ("  epochs: 6", "  epochs: true", "train.epochs should be a whole number from 1 on, not True"),
        ("  epochs: 6", "  epochs: 0", "train.epochs should be a whole number from 1 on, not 0"),
        ("nms_iou: 0.5", "nms_iou: 50", "predict.nms_iou should be a number from 0 to 1, not 50"),
        ("frozen_stages: 2", "frozen_stages: 5", "model.frozen_stages should be a whole number from 0 to 4, not 5"),
        ("  epochs: 6", "", "train lacks epochs"),
        (
            "drop_epochs: [5]",
            "drop_epochs: 4",
            "train.drop_epochs should be a list of whole numbers, not 4",
        ),
        ("learning_rate: 3.0e-4", "learning_rate: .nan", "train.learning_rate should be a number from 0 on, not nan"),
        ("source: demo", "source: disk", "data.source should be demo or local or kaggle, not 'disk'"),
        ("path: null", "path: 3", "data.path should be text or null, not 3"),
        ("side: 320", "side: 300", "images.side should be a multiple of 32 from 64 on, not 300"),
        ("seed: 2020", "seed: [", "line "),
        ("seed: 2020", "", "'seed' is missing"),
    ],
)
def test_a_mistake_is_one_sentence(write, old, new, sentence):
    assert old in WHOLE
    with pytest.raises(UserError, match=r"params\.yaml") as caught:
        params.load(*params.SECTIONS, path=write(WHOLE.replace(old, new, 1)))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_sections(write, tmp_path):
    with pytest.raises(UserError, match=r"is missing; copy one from presets/"):
        params.load("seed", path=tmp_path / "none.yaml")
    with pytest.raises(UserError, match="should hold sections"):
        params.load("seed", path=write("- 1\n"))
    with pytest.raises(UserError, match="section 'train' should hold epochs"):
        params.load("train", path=write("train: 3\n"))


def test_what_the_user_sees():
    code = "from fashionseg.core.errors import *\nwith reported(): raise UserError('train.csv, row 3: no class.')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (1, "", "error: train.csv, row 3: no class.\n")


def test_a_full_disk_is_one_line():
    raised = "OSError(28, 'No space left on device', 'data/raw/a.jpg')"
    code = f"from fashionseg.core.errors import *\nwith reported(): raise {raised}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: No space left on device for data/raw/a.jpg; make room, then run again.\n"
    other = subprocess.run([sys.executable, "-c", code.replace("28", "2")], capture_output=True, text=True)
    assert "Traceback" in other.stderr
