"""A server on this machine that speaks Kaggle's protocol and fails: with each status, halfway, with junk.

Download and submission must each end in one sentence, or be right. A download must go on once the server is sound.
"""

import contextlib
import io
import json
import os
import random
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import project
from mutations import said

STATUSES = (400, 401, 403, 404, 409, 413, 429, 500, 502, 503)
JUNK = {"junk": b"<html>\xff\x00 Sorry", "another JSON": b'{"code": [1], "a": null}', "nothing": b""}
HOW = (*STATUSES, *JUNK, "no answer", "half an answer")


class Kaggle(BaseHTTPRequestHandler):
    """Takes every token; answers each call rightly but `fault[0]`, which goes wrong as `fault[1]` says."""

    protocol_version = "HTTP/1.1"
    archive, submitted = b"", b""
    fault: tuple[str, int | str] = ("", "")

    def log_message(self, *_):
        pass

    def do_POST(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        here, call = f"http://localhost:{self.server.server_port}", self.path.rpartition("/")[2]
        if call == "upload":
            Kaggle.submitted = body
        answers = {
            "IntrospectToken": {"active": True, "username": "someone"},
            "StartSubmissionUpload": {"token": "t", "createUrl": f"{here}/upload"},
            "CreateSubmission": {"message": "Successfully submitted", "ref": 7},
        }
        moved = {"Location": f"{here}/archive.zip?s=1"} if call == "DownloadDataFiles" else {}
        self._answer(call, 302 if moved else 200, json.dumps(answers.get(call, {})).encode(), **moved)

    do_PUT = do_POST

    def do_GET(self):
        start = int(re.sub(r"\D", "", self.headers.get("Range", "0").partition("-")[0]) or 0)
        headers = {"Content-Type": "application/zip", "Last-Modified": "Mon, 01 Jun 2020 00:00:00 GMT"}
        self._answer(
            "archive.zip", 206 if start else 200, self.archive[start:], **headers, **{"Accept-Ranges": "bytes"}
        )

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _answer(self, call: str, status: int, body: bytes, **headers: str) -> None:
        how = self.fault[1] if call == self.fault[0] else ""
        self.close_connection = how in ("no answer", "half an answer")
        if how == "no answer":
            return
        if how in STATUSES:
            status, headers, body = how, {}, json.dumps({"code": how, "message": "no"}).encode()
        body = JUNK.get(how, body)
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if how == "half an answer" else body)


def faults(work: Path, count: int, seed: int, only: str):
    """Yields (what was called, outcome, what to look at or '') of `count` failures, drawn of all calls and ways."""
    shutil.rmtree(work / "kaggle", ignore_errors=True)
    project.make(work / "kaggle", seed, images=6)
    server = ThreadingHTTPServer(("localhost", 0), Kaggle)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        del os.environ[name]
    os.environ |= {"KAGGLE_API_TOKEN": "token", "KAGGLE_API_ENVIRONMENT": "LOCALHOST", "NO_PROXY": "localhost"}
    from kagglesdk import kaggle_env

    for name in kaggle_env._env_to_endpoint:
        kaggle_env._env_to_endpoint[name] = f"http://localhost:{server.server_port}"
    with contextlib.chdir(work / "kaggle"), mock.patch("time.sleep"):  # the client's pauses before it tries again
        Kaggle.archive = Path(shutil.make_archive("packed", "zip", "competition")).read_bytes()
        every = [(job, call, how) for job, calls in JOBS.items() if only in job for call in calls for how in HOW]
        for job, call, how in random.Random(seed).choices(every, k=count):
            Kaggle.fault = call, how
            outcome, finding = _try(job)
            if job == "download" and not finding:
                Kaggle.fault = "", ""  # the server is sound again
                after, finding = _try(job)
                finding = finding or (after != "right" and f"and then {after}")
            yield job, f"{call}: {outcome}", finding and f"{call} {how}: {finding}"


def _try(job: str) -> tuple[str, str]:
    """Outcome, and what to look at where it is no good one."""
    done: list[bool] = []
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        sentence = said(lambda _: done.append(_download() if job == "download" else _send()), "")
    if "downloads/some.zip is broken" in sentence and "delete it and run again" in sentence:
        Path("downloads/some.zip").unlink()
    if sentence:
        fine = sentence.startswith("error: ") and "\n" not in sentence
        return ("refused", "") if fine else ("traceback", sentence)
    return ("right", "") if done[0] else ("silently wrong", "not what was sent")


def _download() -> bool:
    """As the stage does; whether all files are those of the competition."""
    from fashionseg.download import config, sources

    project.remove(Path(), "raw")
    Path("none.json").write_text("{}")
    sources.fetch(config.Data("kaggle", None, "times", "some"), "none.json", "raw", cache="downloads")
    project.remove(Path(), "downloads")
    found, there = ({p.relative_to(f): p.read_bytes() for p in Path(f).rglob("*.*")} for f in ("raw", "competition"))
    return found == there


def _send() -> bool:
    """As `make submit` does; whether Kaggle has the file."""
    from fashionseg.submit import send

    Kaggle.submitted, sent = b"", Path("params.yaml")
    answer = send.send(sent, "a message", "some")
    return Kaggle.submitted == sent.read_bytes() and answer == "Successfully submitted"


JOBS = {
    "download": ("IntrospectToken", "DownloadDataFiles", "archive.zip"),
    "send": ("IntrospectToken", "StartSubmissionUpload", "upload", "CreateSubmission"),
}
