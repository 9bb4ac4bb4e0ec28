"""Where the files come from; Kaggle is a server on this machine that speaks its protocol."""

import hashlib
import io
import json
import os
import shutil
import zipfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import SimpleNamespace

import pytest

from competition_folder import HEADER, dropped
from fashionseg.convert.competition import read
from fashionseg.core import pictures
from fashionseg.core.errors import UserError
from fashionseg.download import sources, survey
from fashionseg.download.config import Data

NAME = "some-competition"


def fetch_local(path, folder, watch="times"):
    """The folder, as the stages source and download leave it; returns the listing."""
    data, listing = Data("local", None if path is None else str(path), watch, NAME), Path(folder).with_suffix(".json")
    survey.survey(data, 0, listing)
    sources.fetch(data, listing, folder)
    return json.loads(listing.read_text())


def fetch(source, seed, folder, **options):
    data, listing = Data(source, None, "times", NAME), Path(folder).with_suffix(".json")
    survey.survey(data, seed, listing)
    sources.fetch(data, listing, folder, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def free(monkeypatch, *sizes: int):
    """Lets the disk have these numbers of bytes left, one after the other, the last one from then on."""
    left = list(sizes)
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=left.pop(0) if len(left) > 1 else left[0])
    )


def test_demo_is_a_competition_of_its_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DEMO_IMAGES", 5)
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        fetch("demo", seed, tmp_path / name)
    competition = read(tmp_path / "one")
    assert len(competition.train_images) + len(competition.test_images) == 5
    assert dropped(competition) == {}
    assert contents(tmp_path / "one") == contents(tmp_path / "again") != contents(tmp_path / "other")


def tables(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(folder).items() if "/" not in name}


def test_local_copies_tables_and_reads_pictures_in_place(folder, tmp_path):
    listing = fetch_local(folder.path, tmp_path / "raw")
    assert set(listing["files"]) == set(contents(folder.path))
    picture = folder.path / "train/image000.jpg"
    assert listing["files"]["train/image000.jpg"] == [picture.stat().st_size, picture.stat().st_mtime_ns]
    listed = {pictures.IN_PLACE: (tmp_path / "raw.json").read_bytes()}
    assert contents(tmp_path / "raw") == tables(folder.path) | listed
    competition = read(tmp_path / "raw")
    assert len(competition.instances) == 60
    assert competition.train_images["image000"] == picture


@pytest.mark.parametrize("name", ["mine", "more data/raw"])
def test_faults_of_tables_name_those_of_the_user(folder, tmp_path, monkeypatch, name):
    """Not DVC's copies, in which it undoes every edit; also where the name of the copies stands within the user's."""
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / name / "theirs"
    theirs.parent.mkdir(parents=True)
    folder.path.rename(theirs)
    folder.path = theirs
    folder.rows[5] = "image002,1 3 81 4,40,30,99,"
    folder.write()
    fetch_local(theirs, Path("data/raw"))
    assert read("data/raw").drops["place"].tolist() == [f"{theirs}/train.csv:7"]
    folder.write(HEADER.replace("ClassId", "Classid"))
    fetch_local(theirs, Path("data/raw"))
    with pytest.raises(UserError, match=rf"^{theirs}/label_descriptions\.json names 3 .*, but {theirs}/train\.csv has"):
        read("data/raw")
    folder.write()
    (theirs / "train/Image000.jpg").write_bytes((theirs / "train/image000.jpg").read_bytes())
    fetch_local(theirs, Path("data/raw"))
    with pytest.raises(UserError, match=rf"^{theirs}: the images Image000 and image000 differ in case"):
        read("data/raw")
    (theirs / "train/Image000.jpg").rename(theirs / "train/image000.png")
    fetch_local(theirs, Path("data/raw"))
    with pytest.raises(UserError, match=rf"^{theirs}/train holds image000\.jpg and image000\.png"):
        read("data/raw")


def test_a_folder_that_nobody_may_write_into_is_read(folder, tmp_path):
    """As Kaggle mounts data. Links are followed; of root, who may write anywhere, the contents tell."""
    (folder.path / "train/image000.jpg").rename(tmp_path / "elsewhere.jpg")
    (folder.path / "train/image000.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    places = [folder.path, *folder.path.rglob("*")]
    before = contents(folder.path)
    for place in places:
        place.chmod(0o555 if place.is_dir() else 0o444)
    try:
        fetch_local(folder.path, tmp_path / "raw")
        assert len(read(tmp_path / "raw").train_images) == 30
    finally:
        for place in places:
            place.chmod(0o755 if place.is_dir() else 0o644)
    assert contents(folder.path) == before
    (tmp_path / "raw/train.csv").write_text("ours")


def test_a_change_is_noticed_by_size_time_or_contents(folder, tmp_path):
    picture = folder.path / "test/a.jpg"

    def noticed() -> set[str]:
        before = dict(listings)
        for watch in survey.STATES:
            listings[watch] = fetch_local(folder.path, tmp_path / "raw", watch)
        return {watch for watch in before if before[watch] != listings[watch]}

    listings = {}
    noticed()
    assert listings["contents"]["files"]["test/a.jpg"] == hashlib.md5(picture.read_bytes()).hexdigest()
    assert noticed() == set()
    os.utime(picture, ns=(1, 1))
    assert noticed() == {"times"}
    picture.write_bytes(picture.read_bytes()[:-1] + b"x")
    os.utime(picture, ns=(1, 1))
    assert noticed() == {"contents"}
    picture.write_bytes(picture.read_bytes() + b"x")
    assert noticed() == {"sizes", "times", "contents"}


def test_a_team_mate_without_the_pictures_keeps_the_list(folder, tmp_path, capsys):
    listing = fetch_local(folder.path, tmp_path / "raw")
    folder.path.rename(tmp_path / "gone")
    data = Data("local", str(folder.path), "times", NAME)
    survey.survey(data, 0, tmp_path / "raw.json")
    assert "is not on this machine; it is assumed to be as listed" in capsys.readouterr().out
    assert json.loads((tmp_path / "raw.json").read_text()) == listing
    with pytest.raises(UserError, match=r"whose pictures are read in place, is not there; set data\.path"):
        read(tmp_path / "raw")
    with pytest.raises(UserError, match=r"\(data\.path\) is no folder"):
        survey.survey(data, 0, tmp_path / "new.json")


def test_a_folder_that_went_away_after_it_was_listed_leaves_the_old_tables(folder, tmp_path):
    fetch_local(folder.path, tmp_path / "raw")
    folder.path.rename(tmp_path / "gone")
    data = Data("local", str(folder.path), "times", NAME)
    with pytest.raises(UserError, match=r"\(data\.path\) is not there, or without its tables; bring it back"):
        sources.fetch(data, tmp_path / "raw.json", tmp_path / "raw")
    assert (tmp_path / "raw/train.csv").exists()


def test_annotations_of_other_names_are_one_sentence(tmp_path):
    (tmp_path / "coco/annotations").mkdir(parents=True)
    (tmp_path / "coco/annotations/train.json").write_text("{}")
    with pytest.raises(UserError, match=r"annotations \(data\.path\) holds no instances\*\.json or image_info\*"):
        fetch_local(tmp_path / "coco", tmp_path / "raw")


def test_a_relative_folder_counts_from_the_project_in_a_queued_run(folder, tmp_path, monkeypatch):
    checkout = tmp_path / ".dvc/tmp/exps/tmpabc"
    checkout.mkdir(parents=True)
    monkeypatch.chdir(checkout)
    fetch_local(folder.path.relative_to(tmp_path), "data/raw")
    assert len(read("data/raw").train_images) == 30


def test_a_name_that_is_no_text_is_refused_before_anything_else(folder, tmp_path):
    """As of an archive from Windows."""
    (folder.path / "train/image000.jpg").rename(os.fsdecode(os.fsencode(folder.path / "train") + b"/caf\xe9.jpg"))
    with pytest.raises(UserError, match=r"^the name of '.*caf\\udce9\.jpg' is not UTF-8; rename the file\.$"):
        fetch_local(folder.path, tmp_path / "raw")


@pytest.mark.parametrize("path", [".", "data", "data/raw", "data/raw/mine"])
def test_files_where_dvc_would_remove_them_are_refused(folder, tmp_path, monkeypatch, path):
    """The outs of a stage go before it runs."""
    place = tmp_path / "project" / path
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(folder.path, place)
    monkeypatch.chdir(tmp_path / "project")
    outs = ["data/raw", "data/train"] if path == "data" else ["data/raw", {"train/image001.csv": {"persist": True}}]
    Path("dvc.yaml").write_text(
        json.dumps({"stages": {"download": {"outs": outs}, "evaluate": {"metrics": ["m.json"]}}})
    )
    if path == ".":
        survey.survey(Data("local", path, "times", NAME), 0, tmp_path / "listing.json")
        return
    out = "data/train" if path == "data" else "data/raw"
    with pytest.raises(
        UserError, match=rf"^{path} \(data\.path\) has files in {out}, which DVC removes before a stage"
    ):
        survey.survey(Data("local", path, "times", NAME), 0, tmp_path / "listing.json")


@pytest.mark.parametrize("mount", ["competitions/{}", "{}"])
def test_kaggle_mounts_are_read_in_place(folder, tmp_path, monkeypatch, mount):
    monkeypatch.setattr(survey, "MOUNTS", [f"{tmp_path}/input/{form}" for form in ("competitions/{}", "{}")])
    place = tmp_path / "input" / mount.format(NAME)
    place.parent.mkdir(parents=True)
    folder.path.rename(place)
    fetch("kaggle", 0, tmp_path / "raw", cache=tmp_path / "downloads")
    assert pictures.originals(tmp_path / "raw") == place
    assert not (tmp_path / "downloads").exists()


def test_local_takes_pictures_of_any_suffix_and_passes_over_the_rest(folder, tmp_path, capsys):
    for number, suffix in enumerate((".JPG", ".jpeg", ".png")):
        (folder.path / f"train/image{number:03}.jpg").rename(folder.path / f"train/image{number:03}{suffix}")
    (folder.path / "test/more.jpg").mkdir()
    (folder.path / "train/gone.jpg").symlink_to("moved/gone.jpg")
    (folder.path / "train/Thumbs.db").touch()
    fetch_local(folder.path, tmp_path / "raw")
    said = capsys.readouterr().out
    assert all(name in said for name in ("test/more.jpg", "train/gone.jpg", "train/Thumbs.db", "(3 in all)"))
    competition = read(tmp_path / "raw")
    assert (len(competition.train_images), len(competition.instances)) == (30, 60)
    assert competition.train_images["image001"].name == "image001.jpeg"
    assert dropped(competition) == {}


@pytest.mark.parametrize("name", ["train.csv", "train"])
def test_local_wants_files_and_folders(folder, tmp_path, name):
    path = folder.path / name
    path.rename(tmp_path / "elsewhere")
    path.mkdir() if path.suffix else path.touch()
    with pytest.raises(UserError, match=rf"lacks {name}"):
        fetch_local(folder.path, tmp_path / "raw")


def test_local_says_what_is_missing_and_leaves_the_old_folder(folder, tmp_path):
    fetch_local(folder.path, tmp_path / "raw")
    (folder.path / "train.csv").unlink()
    with pytest.raises(UserError, match=r"lacks train\.csv"):
        fetch_local(folder.path, tmp_path / "raw")
    assert (tmp_path / "raw/train.csv").exists()
    with pytest.raises(UserError, match=r"data\.path is null"):
        fetch_local(None, tmp_path / "raw")
    with pytest.raises(
        UserError, match=r"nowhere \(data\.path\) is no folder; expected is the one that holds train\.csv"
    ):
        fetch_local(tmp_path / "nowhere", tmp_path / "raw")
    with pytest.raises(
        UserError, match=r"^~nobody-here/x begins with the home folder of a user who is not on this machine"
    ):
        fetch_local("~nobody-here/x", tmp_path / "raw")
    folder.write()
    with pytest.raises(UserError, match=r"lacks train\.csv, .*; .*/competition may be meant"):
        fetch_local(folder.path.parent, tmp_path / "raw")


class Kaggle(BaseHTTPRequestHandler):
    """Signs in every token, redirects the archive's address to the file and serves ranges of it."""

    protocol_version = "HTTP/1.1"
    archive, status, ranges = b"", 200, []

    def log_message(self, *_):
        pass

    def answer(self, status: int, body: bytes, **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("IntrospectToken"):
            body = json.dumps({"active": True, "username": "someone"}).encode()
            self.answer(200, body, Content_Type="application/json")
        elif self.status != 200:
            body = json.dumps({"code": self.status, "message": "no"}).encode()
            self.answer(self.status, body, Content_Type="application/json")
        else:
            self.answer(302, b"", Location=f"http://localhost:{self.server.server_port}/archive.zip?signed=1")

    def do_GET(self):
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        if start:
            self.ranges.append(start)
        body = self.archive[start:]
        modified = "Mon, 01 Jun 2020 00:00:00 GMT"
        self.answer(206 if start else 200, body, Accept_Ranges="bytes", Last_Modified=modified)


@pytest.fixture
def kaggle(folder, serve_kaggle):
    """The handler class of the server."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in contents(folder.path).items():
            archive.writestr(name, data)
    handler = type("Handler", (Kaggle,), {"archive": buffer.getvalue(), "ranges": []})
    serve_kaggle(handler)
    return handler


def fetch_kaggle(tmp_path):
    fetch("kaggle", 0, tmp_path / "raw", cache=tmp_path / "downloads")


def test_kaggle_downloads_once_and_unpacks(kaggle, folder, tmp_path):
    fetch_kaggle(tmp_path)
    assert contents(tmp_path / "raw") == contents(folder.path)
    assert (tmp_path / f"downloads/{NAME}.zip").read_bytes() == kaggle.archive


def test_another_seed_and_a_queued_run_ask_kaggle_for_nothing(kaggle, tmp_path, monkeypatch):
    """`download` goes by the listing, which has the seed of the demo alone; the archive lies in the project."""
    listings = []
    for seed in (1, 2):
        survey.survey(Data("kaggle", None, "times", NAME), seed, tmp_path / "source.json")
        listings.append((tmp_path / "source.json").read_text())
    assert listings[0] == listings[1]
    checkout = tmp_path / ".dvc/tmp/exps/tmpabc"
    checkout.mkdir(parents=True)
    for place in (tmp_path, checkout):
        monkeypatch.chdir(place)
        fetch("kaggle", 0, "data/raw")
        assert contents(Path("data/raw"))
    assert (tmp_path / f"downloads/{NAME}.zip").exists()
    assert not (checkout / "downloads").exists()


def test_kaggle_resumes_a_partial_download(kaggle, folder, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / f"downloads/{NAME}.zip").write_bytes(kaggle.archive[:1000])
    fetch_kaggle(tmp_path)
    assert kaggle.ranges == [1000]
    assert contents(tmp_path / "raw") == contents(folder.path)


def test_kaggle_asks_for_room_before_it_downloads(kaggle, tmp_path, monkeypatch):
    free(monkeypatch, 2 * len(kaggle.archive) - 1)
    with pytest.raises(UserError, match=r"zip and its files need .* on the disk of .*/downloads, where 0\.0 GB"):
        fetch_kaggle(tmp_path)
    assert not list((tmp_path / "downloads").iterdir())
    assert not (tmp_path / "raw").exists()


def test_kaggle_asks_for_room_before_it_unpacks(kaggle, folder, tmp_path, monkeypatch):
    blocks = sum(-(-len(data) // 4096) * 4096 for data in contents(folder.path).values())
    free(monkeypatch, 2 * len(kaggle.archive), 2 * len(kaggle.archive), blocks - 1)
    with pytest.raises(UserError, match=r"the files of .*zip need 0\.0 GB on the disk of "):
        fetch_kaggle(tmp_path)
    assert not (tmp_path / "raw").exists()
    free(monkeypatch, blocks)  # the archive stays and is not asked for again
    fetch_kaggle(tmp_path)
    assert contents(tmp_path / "raw") == contents(folder.path)


def test_kaggle_needs_no_room_for_what_is_there(kaggle, tmp_path, monkeypatch):
    (tmp_path / "downloads").mkdir()
    (tmp_path / f"downloads/{NAME}.zip").write_bytes(kaggle.archive[:1000])
    free(monkeypatch, 2 * len(kaggle.archive) - 1001)
    with pytest.raises(UserError, match="and its files need"):
        fetch_kaggle(tmp_path)
    free(monkeypatch, 2 * len(kaggle.archive) - 1000, 2 * len(kaggle.archive) - 1000, 10**9)
    fetch_kaggle(tmp_path)
    assert kaggle.ranges == [1000]


def test_room_is_counted_by_disk(tmp_path, monkeypatch):
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second disk")
    free(monkeypatch, 23_700_000_000)
    sources._check_room([(tmp_path, 23_700_000_000), (memory, 23_700_000_000)], "all")
    with pytest.raises(UserError, match=r"all need 47\.4 GB on the disk of .*, where 23\.7 GB are free; free some"):
        sources._check_room([(tmp_path, 23_700_000_000), (tmp_path, 23_700_000_000)], "all")


@pytest.mark.parametrize(
    ("status", "sentence"),
    [(401, "did not accept the credentials"), (403, "accept its rules"), (404, "has no competition"), (500, "500")],
)
def test_kaggle_refusals_are_sentences(kaggle, tmp_path, status, sentence):
    kaggle.status = status
    with pytest.raises(UserError, match=sentence):
        fetch_kaggle(tmp_path)
    assert not (tmp_path / "raw").exists()


def test_kaggle_without_credentials(kaggle, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    with pytest.raises(UserError, match="no valid credentials; put a token"):
        fetch_kaggle(tmp_path)
    assert capsys.readouterr().out == ""


def packed(folder: Path, top: str = "", **others: bytes) -> bytes:
    """An archive in another order than `contents`, with the files below `top`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {**others, **dict(reversed(contents(folder).items()))}.items():
            archive.writestr(top + name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("top", ["", "imaterialist/", "data/2020/"])
def test_kaggle_archives_with_folders_around_the_files(kaggle, folder, tmp_path, top):
    """As other programs pack them, with what macOS adds."""
    kaggle.archive = packed(folder.path, top, **{"__MACOSX/._train.csv": b"", "notes/train.csv": b""})
    fetch_kaggle(tmp_path)
    assert contents(tmp_path / "raw") == contents(folder.path)


def test_kaggle_archives_in_an_archive_are_one_sentence(kaggle, folder, tmp_path):
    shutil.rmtree(folder.path / "test")
    kaggle.archive = packed(folder.path, **{"test.zip": b""})
    with pytest.raises(UserError, match="lacks test; it contains archives: unpack them all into a folder"):
        fetch_kaggle(tmp_path)


def test_kaggle_locked_archives_are_one_sentence(kaggle, folder, tmp_path):
    locked = bytearray(packed(folder.path))
    for header, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        at = -1
        while (at := locked.find(header, at + 1)) >= 0:
            locked[at + flags] |= 1
    kaggle.archive = bytes(locked)
    with pytest.raises(UserError, match=r"is broken .*password required.*; delete it and run again"):
        fetch_kaggle(tmp_path)


def test_kaggle_broken_or_incomplete_archive(kaggle, tmp_path):
    kaggle.archive = kaggle.archive[:-100]
    with pytest.raises(UserError, match="is broken"):
        fetch_kaggle(tmp_path)
    (tmp_path / f"downloads/{NAME}.zip").unlink()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("train.csv", "")
    kaggle.archive = buffer.getvalue()
    with pytest.raises(UserError, match=r"lacks sample_submission\.csv"):
        fetch_kaggle(tmp_path)
    assert not (tmp_path / "raw").exists()
