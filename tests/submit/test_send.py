"""Sending a submission; a local server stands in for Kaggle."""

import gzip
import json
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
from test_submission import FILLERS, HEADER, IDS, TEST, written

from fashionseg.__main__ import main
from fashionseg.core import files
from fashionseg.core.errors import UserError

NAME = "some-competition"


class Kaggle(BaseHTTPRequestHandler):
    """Signs in every token and takes a file in three steps: an address to upload to, the upload, the submission."""

    protocol_version = "HTTP/1.1"
    statuses: ClassVar[dict[str, int]] = {}  # by the last part of the path, where it is not 200
    uploads: ClassVar[list] = []
    submitted: ClassVar[list] = []

    def log_message(self, *_):
        pass

    def answer(self, name, body):
        self.send_response(self.statuses.get(name, 200))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self):
        name = self.path.rpartition("/")[2]
        body = self.body()
        if name == "CreateSubmission":
            self.submitted.append(json.loads(body))
        answers = {
            "IntrospectToken": {"active": True, "username": "someone"},
            "StartSubmissionUpload": {"token": "t1", "createUrl": f"http://localhost:{self.server.server_port}/upload"},
            "CreateSubmission": {"message": f"Successfully submitted to {NAME}", "ref": 7},
        }
        self.answer(name, json.dumps(answers[name]).encode())

    def do_PUT(self):
        self.uploads.append(self.body())
        self.answer("upload", b"{}")


@pytest.fixture
def kaggle(serve_kaggle):
    """The handler class of the server."""
    handler = type("Handler", (Kaggle,), {"statuses": {}, "uploads": [], "submitted": []})
    serve_kaggle(handler)
    return handler


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A folder as `make submit` finds it; gives the arguments of the command."""
    monkeypatch.chdir(tmp_path)
    params = (Path(__file__).parents[2] / "params.yaml").read_text()
    params = params.replace("imaterialist-fashion-2020-fgvc7", NAME).replace("source: demo", "source: kaggle")
    Path("params.yaml").write_text(params)
    files.write_json("test.json", {**TEST, "annotations": []})
    Path("sample.csv").write_text("\n".join([HEADER, *FILLERS]) + "\n")
    return [str(written(Path("s.csv"))), "test.json", "sample.csv"]


def test_a_valid_file_is_sent(kaggle, workspace, capsys):
    main(["send", *workspace, "forest, 12 epochs"])
    assert capsys.readouterr().out == f"Successfully submitted to {NAME}\n"
    assert kaggle.uploads == [Path("s.csv").read_bytes()]
    (sent,) = kaggle.submitted
    assert (sent["competitionName"], sent["blobFileTokens"]) == (NAME, "t1")
    assert sent["submissionDescription"] == "forest, 12 epochs"


def test_gzip_where_params_ask_for_it(kaggle, workspace):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("gzip: false", "gzip: true"))
    main(["send", *workspace, "zipped"])
    assert gzip.decompress(kaggle.uploads[0]) == Path("s.csv").read_bytes()
    assert Path("s.csv.gz").read_bytes() == kaggle.uploads[0]


def test_an_invalid_file_is_not_sent(kaggle, workspace):
    written(Path("s.csv"), rest=FILLERS[1:])
    with pytest.raises(UserError, match=rf"s\.csv has 1 errors, the first: .*no row of {IDS[0]}.*; nothing was sent"):
        main(["send", *workspace, "faulty"])
    with pytest.raises(UserError, match="say what is sent"):
        main(["send", *workspace, ""])
    assert kaggle.uploads == kaggle.submitted == []


def test_the_demo_is_not_sent(kaggle, workspace):
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("source: kaggle", "source: demo"))
    with pytest.raises(UserError, match="Kaggle has none of its images; nothing was sent"):
        main(["send", *workspace, "demo"])
    assert kaggle.uploads == kaggle.submitted == []


@pytest.mark.parametrize(
    ("step", "status", "sentence"),
    [
        ("StartSubmissionUpload", 401, "did not accept the credentials"),
        ("StartSubmissionUpload", 403, "accept its rules"),
        ("upload", 500, "did not accept the upload of s.csv"),
        ("CreateSubmission", 400, "answered with status 400"),
    ],
)
def test_refusals_are_sentences(kaggle, workspace, step, status, sentence):
    kaggle.statuses[step] = status
    with pytest.raises(UserError, match=sentence):
        main(["send", *workspace, "refused"])


def test_without_credentials(kaggle, workspace, monkeypatch, capsys):
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    with pytest.raises(UserError, match="no valid credentials; put a token"):
        main(["send", *workspace, "unsigned"])
    assert capsys.readouterr().out == ""
    assert kaggle.uploads == []


def test_an_answer_that_is_not_kaggles_is_one_sentence(kaggle, workspace, monkeypatch):
    """The client itself ends in a TypeError on this one."""
    monkeypatch.setattr(kaggle, "answer", lambda self, name, _: Kaggle.answer(self, name, b'{"code": [1]}'))
    with pytest.raises(UserError, match=r"Kaggle could not be reached \(.*\); nothing was submitted"):
        main(["send", *workspace, "refused"])
