"""params.yaml: what DVC reads we read alike, and every mistake is one sentence that names the key."""

import re
from pathlib import Path
from unittest import mock

import pytest
import yaml
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from fashionseg import params
from fashionseg.__main__ import main
from fashionseg.core.errors import UserError

ROOT = Path(__file__).parents[1]
WHOLE = (ROOT / "params.yaml").read_text()
PRESETS = {path.stem: path for path in sorted((ROOT / "presets").glob("*.yaml"))}


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


@given(
    st.one_of(
        st.sampled_from(
            ["off", "yes", "null", "~", "True", "FALSE", "1.", ".5", "-.inf", "0x1F", "0o10", "010", "12:30"]
        ),
        st.floats(allow_nan=False).map(repr),
        st.integers().map(str),
        st.from_regex(r"[a-z0-9.+-]{1,6}", fullmatch=True),
    )
)
def test_plain_scalars_as_dvc_reads_them(text):
    assume(text not in ("-", "--", "---", "...") and not re.fullmatch(r"[+-]?0b[01]+|\d{4}-\d+-\d+|[+-]*\._*", text))
    try:
        expected = parse_yaml(f"key: {text}", "params.yaml")
    except YAMLFileCorruptedError:
        return
    read = yaml.load(f"key: {text}", params._Loader)
    assert repr(read["key"]) == repr(expected["key"])


def test_only_the_named_sections(write):
    assert vars(params.load("seed", "split", path=write(WHOLE))).keys() == {"seed", "split"}


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  epochs: 10", "  epoch: 6", "unknown key 'train.epoch'; did you mean 'epochs'?"),
        ("train:", "training:", "unknown key 'training'; did you mean 'train'?"),
        ("  epochs: 10", "  epochs: six", "train.epochs should be a whole number from 1 on, not 'six'"),
        ("  epochs: 10", "  epochs: 6.5", "train.epochs should be a whole number from 1 on, not 6.5"),
        ("  epochs: 10", "  epochs: true", "train.epochs should be a whole number from 1 on, not True"),
        ("  epochs: 10", "  epochs: 0", "train.epochs should be a whole number from 1 on, not 0"),
        ("nms_iou: 0.4", "nms_iou: 40", "predict.nms_iou should be a number from 0 to 1, not 40"),
        ("frozen_stages: 2", "frozen_stages: 5", "model.frozen_stages should be a whole number from 0 to 4, not 5"),
        ("  epochs: 10", "", "train lacks epochs"),
        ("box_stages: 1", "box_stages: 4", "model.box_stages should be a whole number from 1 to 3, not 4"),
        ("models: []", "models: [a, b, a]", "predict.models should name each network once, not ['a', 'b', 'a']"),
        ("drops: [0.8333]", "drops: 0.8", "train.drops should be a list of numbers, not 0.8"),
        ("drops: [0.8333]", "drops: [5]", "train.drops should be ascending shares of the training, above 0 and below"),
        ("drops: [0.8333]", "drops: [-0.3]", "above 0 and below 1, not [-0.3]"),
        ("drops: [0.8333]", "drops: [0.9, 0.8]", "above 0 and below 1, not [0.9, 0.8]"),
        ("schedule: steps", "schedule: linear", "train.schedule should be steps or cosine, not 'linear'"),
        ("ema: 0.0", "ema: 1.0", "train.ema should be below 1, else the average never moves"),
        ("ema: 0.0", "ema: 1.5", "train.ema should be a number from 0 to 1, not 1.5"),
        ("heads_only: 0.0", "heads_only: 1", "train.heads_only should be below 1, else the backbone never learns;"),
        ("accumulate: 1", "accumulate: 0", "train.accumulate should be a whole number from 1 on, not 0"),
        (
            "loss_weights: {mask: 2.0}",
            "loss_weights: {masks: 2}",
            "train.loss_weights has masks; losses are objectness, rpn_box",
        ),
        (
            "loss_weights: {mask: 2.0}",
            "loss_weights: {mask: -1}",
            "should be {name: value}, each a number from 0 on, not {'mask'",
        ),
        ("learning_rate: 3.0e-4", "learning_rate: .nan", "train.learning_rate should be a number from 0 on, not nan"),
        (
            "scale: [1.0, 1.0]",
            "scale: [2.0, 1.0]",
            "augment.scale should be two ascending numbers above 0, not [2.0, 1.0]",
        ),
        ("  - Fliplr: 0.5", "  - Fliplr", "augment.imgaug should be a list of mappings, not ["),
        ("source: demo", "source: disk", "data.source should be demo or local or kaggle, not 'disk'"),
        ("path: null", "path: 3", "data.path should be text or null, not 3"),
        ("fold: 0 ", "fold: 5 ", "split.fold should be 0 to split.folds - 1, not 5 of 5"),
        ("fold: 0 ", "fold: -1 ", "split.fold"),
        ("folds: 5", "folds: 1", "split.folds"),
        ("side: 320", "side: 300", "images.side should be a multiple of 32 from 64 to 8192, not 300"),
        ("seed: 2020", "seed: [", "line "),
        ("seed: 2020", "seed: !!int ten", "has a value that is not what it is called: invalid literal for int"),
        ("seed: 2020", "seed: !!timestamp 2020", "has a value that is not what it is called"),
        ("learning_rate: 3.0e-4", "learning_rate: 1" + "0" * 400, "train.learning_rate should be a number"),
        ("epochs: 10", "epochs: 1" + "0" * 400, "train.epochs should be a whole number"),
        ("side: 320", "side: 8224", "images.side should be a multiple of 32 from 64 to 8192, not 8224"),
        ("seed: 2020", "seed: 4294967296", "seed should be a whole number from 0 to 4294967295, not 4294967296"),
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
    with pytest.raises(UserError, match=r"none\.yaml is missing; `git checkout"):
        params.load("seed", path=tmp_path / "none.yaml")
    with pytest.raises(UserError, match="should hold sections"):
        params.load("seed", path=write("- 1\n"))
    with pytest.raises(UserError, match="section 'train' should hold epochs"):
        params.load("train", path=write("train: 3\n"))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (WHOLE.replace("# What", "# für").encode("latin-1"), "cannot be read as UTF-8 text"),
        (WHOLE.replace("# What", "# \x07").encode(), "cannot be read as UTF-8 text"),
        (b"", "is empty; `git checkout"),
        ((WHOLE + "seed: 3\n").encode(), "'seed' stands twice"),
        (WHOLE.replace("  epochs: 10", "  epochs: 6\n  epochs: 7").encode(), "'epochs' stands twice"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        params.load("seed", path=tmp_path / "params.yaml")
    assert "\n" not in str(caught.value)


def test_patience_needs_validations(write):
    text = WHOLE.replace("validate_epochs: 2", "validate_epochs: 0")
    assert params.load("train", path=write(text)).train.patience == 0
    with pytest.raises(UserError, match=r"train\.patience is 2, but with train\.validate_epochs = 0 there is no AP"):
        params.load("train", path=write(text.replace("patience: 0", "patience: 2")))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_a_whole_params_file(name, write):
    path = write(WHOLE)
    changed = params.apply(PRESETS[name], path)
    config = params.load(*params.SECTIONS, path=path)
    values = {(section, key): value for section, part in keys_of(name).items() for key, value in part.items()}
    assert {place: getattr(getattr(config, place[0]), place[1]) for place in values} == values
    before, after = WHOLE.splitlines(), path.read_text().splitlines()
    assert len(before) == len(after)
    assert [line.partition("#")[2] for line in before] == [line.partition("#")[2] for line in after]
    assert sum(one != other for one, other in zip(before, after, strict=True)) == len(changed)


@pytest.mark.parametrize("name", PRESETS)
def test_the_next_preset_leaves_nothing_of_the_last(name, write):
    """All presets have the same keys, and `demo` brings back what params.yaml came with."""
    places = {(section, key) for section, part in keys_of(name).items() for key in part}
    assert places == {(section, key) for section, part in keys_of("demo").items() for key in part}
    path = write(WHOLE)
    params.apply(PRESETS[name], path)
    params.apply(PRESETS["demo"], path)
    assert params.load(*params.SECTIONS, path=path) == params.load(*params.SECTIONS, path=ROOT / "params.yaml")


def keys_of(preset):
    return yaml.load(PRESETS[preset].read_text(), params._Loader)


@pytest.mark.parametrize("name", ["", "competition"])
def test_a_preset_that_is_none_is_told_with_those_there_are(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=rf"^there is no presets/{name}\.yaml; presets are .*, demo, .*, one_class\.$"):
        main(["preset", name])


def test_a_preset_that_does_not_fit_changes_nothing(write, tmp_path):
    path = write(WHOLE)
    for text, sentence in (
        ("train: {epoch: 3}", "has no key 'train.epoch'"),
        ("train: {epochs: x}", rf"^{tmp_path}/preset\.yaml: train\.epochs should .* not 'x'"),
        ("trian: 3", "has no key 'trian'"),
        ("trian: {epochs: 3}", r"has no key 'trian\.epochs'"),
        ("seed: {epochs: 3}", r"has no key 'seed\.epochs'"),
        ("train:", "section 'train' should hold epochs, .* not None"),
    ):
        (tmp_path / "preset.yaml").write_text(text)
        with pytest.raises(UserError, match=sentence):
            params.apply(tmp_path / "preset.yaml", path)
        assert path.read_text() == WHOLE


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty; `git checkout"),
        (f"{WHOLE}seed: 3\n", "'seed' stands twice"),
        (f"<<<<<<< HEAD\n{WHOLE}", "line "),
        (None, "is missing"),
    ],
)
def test_a_preset_into_a_file_that_is_no_params_is_one_sentence(write, text, sentence):
    path = write(text or "")
    if text is None:
        path.unlink()
    with pytest.raises(UserError, match=sentence):
        params.apply(PRESETS["demo"], path)


def test_a_preset_replaces_a_wrong_value(write):
    path = write(WHOLE.replace("scales: [1.0, 1.2]", "scales: 1.5"))
    params.apply(PRESETS["demo"], path)
    assert params.load("predict", path=path).predict.scales == [1.0, 1.2]


def test_what_a_preset_changes_is_shown_as_yaml(write, tmp_path):
    (tmp_path / "preset.yaml").write_text("data: {path: street}\nmachine: {allow_cpu: true, dask: null}")
    changed = params.apply(tmp_path / "preset.yaml", write(WHOLE))
    assert changed == ["data.path: null -> street", "machine.allow_cpu: false -> true"]


def test_a_preset_sets_what_has_no_section_and_empties_lists(write, tmp_path):
    (tmp_path / "preset.yaml").write_text("seed: 3\naugment: {imgaug: []}\npredict: {scales: [0.5], models: []}")
    path = write(WHOLE)
    changed = params.apply(tmp_path / "preset.yaml", path)
    assert [line.split(":")[0] for line in changed] == ["seed", "augment.imgaug", "predict.scales"]
    config = params.load("seed", "augment", "predict", path=path)
    assert (config.seed, config.augment.imgaug, config.predict.scales) == (3, [], [0.5])


@pytest.mark.parametrize(
    ("scales", "sentence"),
    [
        ([1.0, 1.04], r"1\.04 gives 320 px, as another scale does"),
        ([0.1], "0.1 gives images of 32 px; 64 to 8192 are possible"),
        ([1e300], r"1e\+300 gives images of 1e\+09 px; 64 to 8192 are possible"),
    ],
)
def test_views_are_refused_before_the_training(write, scales, sentence):
    assert "scales: [1.0, 1.2]" in WHOLE
    with pytest.raises(UserError, match=sentence):
        params.load("seed", path=write(WHOLE.replace("scales: [1.0, 1.2]", f"scales: {scales}")))


def test_params_without_the_right_to_them_are_no_broken_ones(monkeypatch):
    """Root may read any file, so it is refused here."""
    monkeypatch.setattr(Path, "read_bytes", mock.Mock(side_effect=PermissionError))
    with pytest.raises(PermissionError):
        params.load("seed")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("  ema: 0.0", "  ema: true", "train.ema should be a number from 0 to 1, not True"),
        ("learning_rate: 3.0e-4", "learning_rate: .inf", "train.learning_rate should be a number from 0 on, not inf"),
        ("seed: 2020", "seed: 1\nseed: 2", f"line {WHOLE[: WHOLE.index('seed: 2020')].count(chr(10)) + 2}: 'seed'"),
    ],
)
def test_flags_infinity_and_the_line_of_a_mistake(write, old, new, sentence):
    assert old in WHOLE
    with pytest.raises(UserError) as caught:
        params.load(*params.SECTIONS, path=write(WHOLE.replace(old, new, 1)))
    assert sentence in str(caught.value)
