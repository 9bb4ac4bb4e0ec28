"""Results of batches on the disk."""

import json

import pytest

from fashionseg.core import stage
from fashionseg.core.errors import UserError
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
