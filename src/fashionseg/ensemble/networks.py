"""Trained networks of other experiments, read from DVC's cache or remote as they were in their commit."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.scm import SCM, RevError, resolve_rev
from scmrepo.git import Git

from fashionseg.core import files, paths, tables
from fashionseg.core.errors import UserError

SPLIT = "split.csv"  # beside a network, where it is known


@dataclass(frozen=True)
class Origin:
    """Where a network is from, and how many of today's validation pictures it was trained on; None: nobody knows."""

    commit: str
    seen: int | None


def bring(names: Sequence[str], models: str, split: str, folder: str | Path) -> dict[str, Origin]:
    """Puts what `models` held in each experiment, tag or commit into `folder`/<name>; returns where they are from.

    split: today's table of pictures and their subsets; that of a commit comes with its network. Raises UserError for a
    name that means nothing, that may mean another commit tomorrow, as a branch does, or whose network is nowhere.
    """
    root = paths.project()
    commits = {name: _commit(SCM(str(root)), name) for name in names}
    origins = {}
    with files.replacing(folder) as beside:
        for name, commit in commits.items():
            (beside / name).mkdir(parents=True)
            try:
                then = DVCFileSystem(str(root), rev=commit)
                for file in paths.NETWORK:
                    then.get_file(f"{models}/{file}", str(beside / name / file))
                with suppress(DvcException, FileNotFoundError):
                    then.get_file(split, str(beside / name / SPLIT))
            except (DvcException, FileNotFoundError):
                raise UserError(
                    f"predict.models: {name} has no trained network, or DVC's cache no longer holds it; bring it with "
                    f"`dvc exp pull origin {name}` or `dvc pull`, or leave it out."
                ) from None
            origins[name] = Origin(commit, _seen(split, beside / name / SPLIT))
        listed = {name: asdict(origin) for name, origin in origins.items()}
        files.write_json(beside / "origins.json", listed, indent=1)  # and so there is a folder without any network
    return origins


def _seen(today: str | Path, before: Path) -> int | None:
    """Pictures to validate in one split that were to train on in another one."""
    if not before.exists():
        return None
    validated, trained = (
        {row.image_id for row in tables.read(path, ["image_id", "subset"]).itertuples() if row.subset == subset}
        for path, subset in ((today, "val"), (before, "train"))
    )
    return len(validated & trained)


def _commit(scm: Git, name: str) -> str:
    try:
        commit = resolve_rev(scm, name)
    except RevError:
        raise UserError(
            f"predict.models: {name} is no experiment, tag or commit; `dvc exp show` lists the experiments."
        ) from None
    experiment = any(ref.endswith(f"/{name}") for ref in scm.iter_refs("refs/exps"))
    if not (experiment or scm.get_ref(f"refs/tags/{name}") or re.fullmatch("[0-9a-f]{7,40}", name)):
        raise UserError(f"predict.models: {name} is another commit tomorrow; name the one of today, {commit[:10]}.")
    return commit
