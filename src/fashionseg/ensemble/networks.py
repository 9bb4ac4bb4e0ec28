"""Trained networks of other experiments, read from DVC's cache or remote as they were in their commit."""

import re
from collections.abc import Sequence
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.scm import SCM, RevError, resolve_rev
from scmrepo.git import Git

from fashionseg.core import files, paths
from fashionseg.core.errors import UserError


def bring(names: Sequence[str], models: str, folder: str | Path) -> dict[str, str]:
    """Puts what `models` held in each experiment, tag or commit into `folder`/<name>; returns their commits by name.

    Raises UserError for a name that means nothing, that may mean another commit tomorrow, as a branch does, or whose
    network is nowhere.
    """
    root = paths.project()
    commits = {name: _commit(SCM(str(root)), name) for name in names}
    with files.replacing(folder) as beside:
        files.write_json(beside / "commits.json", commits, indent=1)  # and so there is a folder without any network
        for name, commit in commits.items():
            (beside / name).mkdir(parents=True)
            try:
                with Repo(str(root), rev=commit) as repo:
                    for file in paths.NETWORK:
                        repo.dvcfs.get_file(f"{models}/{file}", str(beside / name / file))
            except (DvcException, FileNotFoundError):
                raise UserError(
                    f"predict.models: {name} has no trained network, or DVC's cache no longer holds it; bring it with "
                    f"`dvc exp pull origin {name}` or `dvc pull`, or leave it out."
                ) from None
    return commits


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
