"""The page over the loopback: a picture goes up, names and an overlay come back."""

import base64
import http.client
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

import fashionseg
from fashionseg.__main__ import main
from fashionseg.core.errors import UserError
from fashionseg.deploy import serve

Reply = tuple[int, str, bytes]


@pytest.fixture
def ask(model) -> Iterator[Callable[..., Reply]]:
    """Sends a request; gives status, content type and body."""
    running = serve.server(model, "127.0.0.1", 0)
    threading.Thread(target=running.serve_forever, daemon=True).start()

    def send(method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", running.server_port, timeout=60)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.headers["Content-Type"], reply.read()

    yield send
    running.shutdown()
    running.server_close()


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def test_the_page_is_whole(ask):
    status, kind, page = ask("GET", "/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b'fetch("predict"' in page
    assert b"//" not in page.replace(b";  //", b"")  # it loads nothing from elsewhere
    assert ask("GET", "/?theme=dark") == (status, kind, page)


def test_a_page_that_closes_while_it_sends_is_no_traceback(ask, model, capsys):
    running = serve.server(model, "127.0.0.1", 0)
    running.daemon_threads = False  # so that closing it waits for the answer
    with socket.create_connection(("127.0.0.1", running.server_port)) as closed:
        closed.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
        closed.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as of a closed tab
    running.handle_request()
    running.server_close()
    assert "Traceback" not in capsys.readouterr().err


def test_a_picture_that_cannot_be_shown_is_one_sentence(ask, image, monkeypatch):
    def broken(self):
        raise OSError("broken data stream when writing image file")

    monkeypatch.setattr(serve.Result, "draw", broken)
    status, _, body = ask("POST", "/predict", png(image))
    assert (status, json.loads(body)["error"]) == (
        500,
        "this picture cannot be shown (broken data stream when writing image file).",
    )


def test_a_full_disk_is_one_sentence(ask, image, monkeypatch):
    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(serve, "NamedTemporaryFile", full)
    status, _, body = ask("POST", "/predict", png(image))
    assert status == 500
    assert "No space left on device" in json.loads(body)["error"]


def test_a_picture_is_answered_with_names_and_overlay(ask, model, image):
    status, kind, body = ask("POST", "/predict", png(image))
    told = json.loads(body)
    (result,) = model(image)
    assert (status, kind, told["width"], told["height"]) == (200, "application/json", 80, 60)
    assert len(told["instances"]) == len(result) > 0
    for one, name, attributes, mask in zip(
        told["instances"], result.names, result.attributes, result.masks, strict=True
    ):
        assert (one["name"], one["attributes"]) == (name, attributes)
        np.testing.assert_array_equal(coco_mask.decode(one["segmentation"]), mask)
    drawn = Image.open(io.BytesIO(base64.b64decode(told["overlay"].removeprefix("data:image/jpeg;base64,"))))
    assert np.abs(np.asarray(drawn) - result.draw().astype(float)).mean() < 8  # JPEG


def test_pictures_that_come_at_once_are_all_answered(ask, image):
    bodies = [png(np.roll(image, 9 * number, axis=1)) for number in range(3)]
    expected = [json.loads(ask("POST", "/predict", body)[2]) for body in bodies]
    found = [None] * 3

    def post(number: int) -> None:
        found[number] = json.loads(ask("POST", "/predict", bodies[number])[2])

    threads = [threading.Thread(target=post, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert expected[0] != expected[1]


def test_what_is_no_picture_is_one_sentence(ask, image, monkeypatch):
    for body in (b"", b"no picture", png(image)[:60]):
        status, _, told = ask("POST", "/predict", body)
        assert status == 400
        assert json.loads(told)["error"].startswith("this file is damaged or no picture; formats are AVIF, BMP,")
    large = b"x" * 2**24  # more than a connection holds before it is read
    for request in (("GET", "/etc/passwd"), ("GET", "/../serve.py"), ("POST", "/", b""), ("POST", "/picture", large)):
        assert ask(*request)[0] == 404
    assert ask("POST", "/predict?x=1", b"no picture")[0] == 400
    assert ask("POST", "/predict", None, **{"Content-Length": "-1"})[0] == 411
    assert ask("POST", "/predict", None, **{"Content-Length": "9" * 5000})[0] == 413
    monkeypatch.setattr(serve, "MOST_BYTES", 50)
    status, _, told = ask("POST", "/predict", large)
    assert (status, json.loads(told)["error"]) == (413, "the file has more than 0 MB.")
    assert ask("POST", "/predict", b"x" * 51)[0] == 413
    assert ask("POST", "/predict", b"x" * 50)[0] == 400


def test_the_command_serves_and_a_taken_port_is_one_sentence(model, monkeypatch, capsys):
    monkeypatch.setattr(fashionseg, "load", lambda folder, score: model)

    def interrupt(running) -> None:
        with pytest.raises(
            UserError, match=rf"^127\.0\.0\.1:{running.server_port} cannot be served \(.*in use\); name"
        ):
            main(["serve", "models", "--port", str(running.server_port)])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(serve.ThreadingHTTPServer, "serve_forever", interrupt)
        main(["serve", "models", "--port", "0"])
    assert capsys.readouterr().out.startswith("http://127.0.0.1:")
    with pytest.raises(UserError, match="--host is empty, which would be every address"):
        main(["serve", "models", "--host", ""])
    with pytest.raises(UserError, match=r"^127\.0\.0\.1:99999 cannot be served \(.*; name another --port or --host\.$"):
        main(["serve", "models", "--port", "99999"])
