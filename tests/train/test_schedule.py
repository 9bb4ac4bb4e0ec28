"""The learning rate by step."""

from pathlib import Path

import keras
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from small import settings as section

from fashionseg import params
from fashionseg.train.config import Train
from fashionseg.train.schedule import WarmupAndCosine, WarmupAndDrops, schedule

ROOT = Path(__file__).parents[2]
PRESETS = sorted((ROOT / "presets").glob("*.yaml"))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 40), st.lists(st.integers(0, 60), max_size=3, unique=True).map(sorted))
def test_schedule_is_warmup_times_drops(warmup, drops):
    steps = np.arange(70)
    rates = ops.convert_to_numpy(WarmupAndDrops(0.3, warmup, drops)(ops.convert_to_tensor(steps)))
    linear = np.minimum((steps + 1) / warmup, 1) if warmup else 1
    np.testing.assert_allclose(rates, 0.3 * linear * 0.1 ** np.searchsorted(drops, steps, side="right"), rtol=1e-5)


@pytest.mark.parametrize(
    "preset", [path for path in PRESETS if "schedule: steps" in path.read_text()], ids=lambda p: p.stem
)
@pytest.mark.parametrize("longer", [1, 2])
def test_drops_keep_their_share_of_a_longer_training(preset, longer):
    """What each file asks for in epochs, and as much of the training when it is twice as long."""
    asked = {6: [5], 8: [6], 10: [25 / 3], 12: [8, 11], 36: [27, 33]}
    values = {
        **vars(params.load("train", path=ROOT / "params.yaml").train),
        **yaml.safe_load(preset.read_text())["train"],
    }
    epochs = values["epochs"] * longer
    rates = ops.convert_to_numpy(
        schedule(Train(**values | {"epochs": epochs}), 1000 * epochs)(np.arange(1000 * epochs))
    )
    dropped = 1 + np.flatnonzero(rates[1:] < rates[:-1])
    assert [round(step / 1000, 1) for step in dropped] == [
        round(epoch * longer, 1) for epoch in asked[values["epochs"]]
    ]


def test_schedule_is_keras_after_the_warmup():
    schedule = WarmupAndDrops(0.3, 2, [5, 8])
    # PiecewiseConstantDecay changes after its boundary, ours at it.
    pieces = keras.optimizers.schedules.PiecewiseConstantDecay([4, 7], [0.3, 0.03, 0.003])
    again = WarmupAndDrops.from_config(schedule.get_config())
    for step in (1, 2, 4, 5, 7, 8, 20):
        assert float(schedule(step)) == float(again(step)) == pytest.approx(float(pieces(step)))


def test_cosine_is_keras_after_the_warmup():
    ours = schedule(section(schedule="cosine", warmup_steps=5, learning_rate=0.3), 40)
    again = WarmupAndCosine.from_config(ours.get_config())
    keras_own = keras.optimizers.schedules.CosineDecay(0.0, 35, warmup_target=0.3, warmup_steps=5)
    steps = np.arange(45)
    np.testing.assert_allclose([float(ours(s)) for s in steps[:5]], 0.06 * (steps[:5] + 1), rtol=1e-6)
    for step in steps[5:]:
        assert float(ours(step)) == float(again(step)) == pytest.approx(float(keras_own(step)), abs=1e-7)


def test_with_accumulation_the_schedule_counts_steps_of_the_optimizer():
    """The step after batch 3, 7, 11 ... has the rate that the step after batch 0, 1, 2 ... has without."""
    plain, fourfold = (schedule(section(warmup_steps=4, drops=[0.5, 0.75], accumulate=n), 20 * n) for n in (1, 4))
    for step in range(20):
        assert float(fourfold(4 * step + 3)) == pytest.approx(float(plain(step)))
