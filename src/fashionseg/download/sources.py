"""The competition's files: the drawn demo, the tables of a local folder, or Kaggle's archive."""

import shutil
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.progress import Progress, track

from fashionseg.core import files, paths, pictures
from fashionseg.core.errors import UserError
from fashionseg.download.config import Data
from fashionseg.download.kaggle import signed_in
from fashionseg.download.survey import FILES, FOLDERS, NEEDED_FILES, tables
from fashionseg_demo import competition

DEMO_IMAGES = 250
BLOCK = 4096  # bytes, the smallest block of common file systems


def fetch(data: Data, listing: str | Path, folder: str | Path, cache: str | Path = "downloads") -> None:
    """Puts the competition's files from `data.source` into `folder`, all or none.

    listing: of `survey`. Of a local folder only the tables and the listing are copied; pictures are read where they
    are (`pictures.originals`). An interrupted download from Kaggle stays in `cache` and is resumed the
    next time. Raises UserError where the source is missing, incomplete or not accessible, and where the disk is too
    small, before anything is written.
    """
    folder = Path(folder)
    listed = files.read_json(listing)
    if data.source == "demo":
        seed = listed["seed"]
        with files.replacing(folder) as beside:
            competition.draw_competition(beside, seed, DEMO_IMAGES, lambda numbers: track(numbers, "drawing pictures"))
    elif place := listed.get("folder"):
        if not tables(paths.of_user(place)):
            raise UserError(
                f"{place} (data.path) is not there, or without its tables; bring it back, or set data.path."
            )
        with files.replacing(folder) as beside:
            beside.mkdir()
            for name in tables(paths.of_user(place)):
                (beside / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(paths.of_user(place) / name, beside / name)  # DVC would make a linked file read-only
            shutil.copyfile(listing, beside / pictures.IN_PLACE)
    else:
        _unzip(_download(data.competition, paths.project() / cache, folder), folder)


def _download(competition: str, cache: Path, folder: Path) -> Path:
    """The competition's archive in `cache`, downloaded or resumed by the official client."""
    for needed in (cache, folder.parent):
        needed.mkdir(parents=True, exist_ok=True)
    broken = f"the download from Kaggle broke off ({{error}}); run again, it goes on from {cache}/."
    archive = cache / f"{competition}.zip"
    with signed_in(competition, broken) as api:
        write = api.download_file

        def write_where_it_fits(response: Any, *settings: Any) -> None:
            size = int(response.headers.get("Content-Length", 0))
            partial = archive.stat().st_size if archive.exists() else 0
            # JPEG is not compressed further in an archive: unpacked it takes the same space again.
            _check_room([(cache, size - partial), (folder.parent, size)], f"{archive} and its files")
            write(response, *settings)

        api.download_file = write_where_it_fits  # the client gets the size from the server only here
        api.competition_download_files(competition, path=str(cache), quiet=False)
    return archive


def _check_room(needs: list[tuple[Path, int]], what: str) -> None:
    """Raises UserError where the given bytes do not fit into their folders, which may share a disk."""
    by_disk = Counter()
    for folder, size in needs:
        by_disk[folder.stat().st_dev] += size
    for folder, _ in needs:
        needed, free = by_disk[folder.stat().st_dev], shutil.disk_usage(folder).free
        if needed > free:
            raise UserError(
                f"{what} need {needed / 1e9:.1f} GB on the disk of {folder.resolve()}, where {free / 1e9:.1f} GB are "
                "free; free some space, or move the project to a larger disk, and run again."
            )


def _blocks(sizes: Iterable[int]) -> int:
    """Bytes that files of these sizes take on the disk."""
    return sum(-(-size // BLOCK) * BLOCK for size in sizes)


def _unzip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as zipped, files.replacing(folder) as beside, Progress() as progress:
            members = _members(zipped, archive)
            _check_room([(folder.parent, _blocks(member.file_size for member in members))], f"the files of {archive}")
            task = progress.add_task(f"unpacking {archive}", total=sum(member.file_size for member in members))
            for member in members:
                zipped.extract(member, beside)
                progress.advance(task, member.file_size)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: password or method
        raise UserError(f"{archive} is broken ({error}); delete it and run again.") from None


def _members(zipped: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The competition's files in an archive, with names to unpack to: without the folders around train.csv."""
    packed = [member for member in zipped.infolist() if not member.is_dir()]
    roots = [m.filename.removesuffix(FILES[0]) for m in packed if Path(m.filename).name == FILES[0]]
    root = min(roots, key=len, default="")
    members = [member for member in packed if member.filename.startswith(root)]
    for member in members:
        member.filename = member.filename.removeprefix(root)
    tops = {member.filename.partition("/")[0] for member in members}
    if lacking := [name for name in (*NEEDED_FILES, *FOLDERS) if name not in tops]:
        has_archives = any(name.endswith(".zip") for name in tops)
        hint = "it contains archives: unpack them all into a folder, then set data.source to local and data.path to it"
        raise UserError(
            f"{archive} lacks {', '.join(lacking)}; {hint if has_archives else 'is data.competition the right one?'}"
        )
    return [member for member in members if member.filename.partition("/")[0] in (*FILES, *FOLDERS)]
