"""Results of batches on the disk."""

import json

import pytest

from fashionseg.core import files, stage
from fashionseg.core.errors import UserError
from fashionseg.core.files import remove
from fashionseg.predict.parts import parts_of


def test_parts_stay_where_dvc_would_record_the_file_wrongly(tmp_path, monkeypatch):
    def changed():
        raise UserError("params.yaml (predict) changed")

    target, result = tmp_path / "val.json", {"image_id": 1, "score": 0.5}
    with monkeypatch.context() as patch, pytest.raises(UserError, match="changed"), parts_of(target, "a") as parts:
        patch.setattr(stage, "check", changed)
        parts.add(0, [result])
        parts.join()
    target.unlink()  # as DVC removes an out before it runs the stage again
    with parts_of(target, "a") as parts:
        assert parts.count() == 1
        parts.join()
    assert json.loads(target.read_text()) == [result]
    assert not (tmp_path / ".val.unfinished").exists()


@pytest.mark.parametrize("left", [[1, 2, 4], [0, 1, 4], [0, 3], []])
def test_a_kill_while_parts_are_removed_loses_no_batch(tmp_path, monkeypatch, left):
    """A folder's entries are removed in any order."""
    target = tmp_path / "val.json"

    def killed(folder):
        for batch in {*range(5)} - {*left}:
            (folder / f"{batch:06}.jsonl").unlink()
        raise KeyboardInterrupt

    def predicted():
        with parts_of(target, "a") as parts:
            for batch in range(parts.count(), 5):
                parts.add(batch, [{"batch": batch}])
            parts.join()

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "remove", lambda path: killed(path) if path.suffix == ".unfinished" else remove(path))
        predicted()
    target.unlink()  # by DVC
    predicted()
    assert json.loads(target.read_text()) == [{"batch": batch} for batch in range(5)]
