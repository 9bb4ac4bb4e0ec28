"""Whole images, every class on both sides, the same for the same seed."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fashionseg.convert import split
from fashionseg.convert.competition import Competition, read
from fashionseg.core.errors import UserError

CCP = Path(__file__).parents[2] / ".." / "shared" / "data" / "ccp"


def drawn(images: int, seed: int, classes: int = 8) -> Competition:
    """A competition of tables only: classes and attributes of very different frequency, some images without
    instances."""
    random = np.random.default_rng(seed)
    frequency = 0.6 ** np.arange(classes)
    counts = random.integers(0, 9, images)
    drawn = random.choice(classes, (2, counts.sum()), p=frequency / frequency.sum())
    instances = pd.DataFrame(
        {
            "image_id": np.repeat([f"{number:05}" for number in range(images)], counts),
            "class_id": drawn[0],
            "crowd": False,
            "attribute_ids": [(other,) if one == 0 else () for one, other in drawn.T.tolist()],
        }
    )
    names = {f"{number:05}": Path(f"{number:05}.jpg") for number in range(images)}
    categories, attributes = (
        [{"id": number, "name": f"{kind} {number}"} for number in range(classes)] for kind in ("class", "attribute")
    )
    return Competition(
        folder=Path("raw"),
        originals=Path("raw"),
        categories=categories,
        attributes=attributes,
        instances=instances,
        place="",
        train_images=names,
        test_images={},
        sample=pd.DataFrame(),
        numbers={},
        sizes={},
        drops=pd.DataFrame(),
        notes=[],
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_folds_part_the_images(images, folds, seed):
    competition = drawn(images, seed)
    tables, refusals = [], []
    for fold in range(folds):
        try:
            tables.append(split.assign(competition, folds, fold, seed))
        except UserError as error:
            refusals.append(str(error))
    few = "fewer than" if images < folds else "of them with instances; 2 are the least"
    assert all(few in refusal for refusal in refusals)
    for table in tables:
        assert table["image_id"].tolist() == sorted(competition.train_images)
        assert set(table["subset"]) == {"train", "val"}
    held = sum(((table["subset"] == "val").astype(int) for table in tables), start=np.zeros(images, int))
    assert max(held) <= 1
    answered = ~np.isin(sorted(competition.train_images), competition.empty_images)
    left = (answered & (held == 0)).sum()
    assert images < folds or left <= folds - len(tables)  # a fold that is refused holds one with instances at most


def test_copies_stay_on_one_side():
    competition = drawn(200, 4)
    groups = {f"{number:05}": f"{number // 4 * 4:05}" for number in range(100)}  # 25 pictures under four ids each
    subsets = split.assign(competition, 5, 1, 0, groups).set_index("image_id")["subset"]
    assert all(subsets[name] == subsets[first] for name, first in groups.items())
    assert (subsets == "val").sum() == pytest.approx(40, abs=4)
    with pytest.raises(
        UserError, match="raw has 200 usable training pictures, but with copies counted once 1, fewer than"
    ):
        split.assign(competition, 5, 0, 0, dict.fromkeys(competition.train_images, "00000"))
    with pytest.raises(
        UserError, match=r"raw has 3 usable training pictures, fewer than .* 5: add .* lower split\.folds"
    ):
        split.assign(drawn(3, 4), 5, 0, 0)


def test_shares_are_the_held_out_part_of_frequent_labels():
    competition = drawn(1000, 3)
    table = split.assign(competition, 5, 2, 0)
    shares = split.shares(competition, table, 5).set_index("name")
    namesakes = replace(competition, attributes=[{**entry, "name": "class 0"} for entry in competition.attributes])
    assert len(split.shares(namesakes, table, 5)) == len(shares)
    held = competition.instances["image_id"].isin(table["image_id"][table["subset"] == "val"])
    for number in range(6):
        of_class = competition.instances["class_id"] == number
        assert shares.loc[f"class {number}"].tolist() == [of_class.sum(), held[of_class].mean()]
        with_it = competition.instances["attribute_ids"] == (number,)
        assert shares.loc[f"attribute {number}"].tolist() == [with_it.sum(), held[with_it].mean()]
        assert held[with_it].mean() == pytest.approx(0.2, abs=0.006)
    assert shares["instances"].min() >= 50
    assert shares["held"].is_monotonic_increasing


@pytest.mark.parametrize(("images", "folds"), [(5, 5), (9, 5), (2, 2)])
def test_one_validation_image_is_refused_before_the_training(images, folds):
    """`tune` needs two, and comes after train, predict and evaluate."""
    sentence = r"raw has . usable .* [01] of them with instances; 2 are the least: .* lower split\.folds"
    with pytest.raises(UserError, match=sentence):
        for fold in range(folds):
            split.assign(drawn(images, 0), folds, fold, 0)


def test_validation_images_without_instances_or_with_crowds_alone_are_none():
    """AP cannot be computed on them: `train` took it for 0 and ended by patience, `tune` for a perfect score."""
    competition = drawn(30, 0)
    first, second = [name for name in competition.train_images if name not in competition.empty_images][:2]
    held = {first, second, *competition.empty_images}
    split.check_validation(held, competition)
    crowded = competition.instances.assign(crowd=competition.instances["image_id"] == first)
    sentence = rf"{len(held)} are held out to validate, 1 of them with instances; 2 are the least: add pictures"
    with pytest.raises(UserError, match=sentence):
        split.check_validation(held, replace(competition, instances=crowded))


def test_every_class_and_the_empty_images_get_their_share():
    competition = drawn(1000, 3)
    table = split.assign(competition, 5, 2, 0)
    held = set(table["image_id"][table["subset"] == "val"])
    assert len(held) == pytest.approx(200, abs=10)
    assert len(held & set(competition.empty_images)) == pytest.approx(len(competition.empty_images) / 5, rel=0.3)
    for class_id, rows in competition.instances.groupby("class_id"):
        assert rows["image_id"].isin(held).mean() == pytest.approx(0.2, abs=0.03), class_id


def test_depends_on_the_seed_and_not_on_the_order_of_rows():
    competition = drawn(100, 0)
    shuffled = replace(competition, instances=competition.instances.sample(frac=1, random_state=1))
    first = split.assign(competition, 5, 0, 7)
    assert first.equals(split.assign(shuffled, 5, 0, 7))
    assert not first.equals(split.assign(competition, 5, 0, 8))


def test_a_class_in_one_image_and_images_without_any(monkeypatch):
    monkeypatch.setattr(split, "MIN_VALIDATION", 0)
    competition = drawn(6, 0)
    competition = replace(competition, instances=competition.instances.iloc[:1])
    assert set(split.assign(competition, 3, 0, 0)["subset"]) == {"train", "val"}
    competition = replace(competition, instances=competition.instances.iloc[:0])
    assert (split.assign(competition, 3, 0, 0)["subset"] == "val").sum() == 2


@pytest.mark.skipif(not CCP.is_dir(), reason="shared data ccp is not here")
def test_real_classes_get_their_share():
    competition = read(CCP)
    table = split.assign(competition, 5, 0, 2020)
    held = set(table["image_id"][table["subset"] == "val"])
    assert len(held) == pytest.approx(140, abs=5)
    for class_id, rows in competition.instances.groupby("class_id"):
        assert rows["image_id"].isin(held).sum() == pytest.approx(len(rows) / 5, abs=max(1.5, len(rows) / 50)), class_id
