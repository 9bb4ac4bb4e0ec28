"""A page on which a photograph is dropped and its garments are seen: `fashionseg serve`."""

import base64
import io
import json
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

from fashionseg.core import documents, pictures
from fashionseg.core.errors import UserError, first_line
from fashionseg.deploy.model import Model
from fashionseg.deploy.result import Result
from fashionseg.draw import overlay

PAGE = Path(__file__).with_name("page.html")
MOST_BYTES = 2**26  # of a picture; a photograph of 100 megapixels has half of it as a JPEG
DIGITS = 18  # of a Content-Length; Python refuses to read thousands
SECONDS = 60  # that a browser may be silent


def serve(model: Model, host: str, port: int) -> None:
    """Serves the page until it is interrupted. Raises UserError where the address is taken or none of this machine."""
    model.result(np.zeros((64, 64, 3), np.uint8))  # compiles here, and not while somebody waits
    with server(model, host, port) as running:
        print(f"http://{host}:{running.server_port}; Ctrl-C ends it", flush=True)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            print()


def server(model: Model, host: str, port: int) -> ThreadingHTTPServer:
    """A server bound to its address: GET / is the page; POST /predict with a picture file as its body gives `answer` as
    JSON, or {"error": sentence} with a status from 400 on."""
    if not host:
        raise UserError("--host is empty, which would be every address of this machine; name one, as 127.0.0.1.")
    lock = Lock()  # one picture at a time

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS

        def handle(self) -> None:
            with suppress(ConnectionError):  # the page was closed while it sent
                super().handle()

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/":  # editors add a query
                return self.refuse(404, f"there is no {self.path}")
            self.reply(200, "text/html; charset=utf-8", PAGE.read_bytes())

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return self.refuse(411, "the request has no Content-Length")
            if len(length) > DIGITS:
                return self.refuse(413, "the request's Content-Length is no size of a file")
            known = self.path.partition("?")[0] == "/predict"
            if int(length) > MOST_BYTES or not known:
                left = int(length)  # an answer before the end of the file would not be read
                while left > 0 and (part := self.rfile.read(min(left, 2**20))):
                    left -= len(part)
                if not known:
                    return self.refuse(404, f"there is no {self.path}")
                return self.refuse(413, f"the file has more than {MOST_BYTES >> 20} MB")
            sent = self.rfile.read(int(length))
            try:
                with NamedTemporaryFile() as file, lock:
                    file.write(sent)
                    file.flush()
                    told = answer(model.result(Path(file.name)))
            except UserError:
                formats = ", ".join(sorted(suffix[1:].upper() for suffix in pictures.SUFFIXES))
                return self.refuse(400, f"this file is damaged or no picture; formats are {formats}")
            except Exception as error:
                print(f"error: {first_line(error)}", flush=True)
                return self.refuse(500, f"this picture cannot be shown ({first_line(error)})")
            self.reply(200, "application/json", json.dumps(told).encode())

        def refuse(self, status: int, sentence: str) -> None:
            self.reply(status, "application/json", json.dumps({"error": f"{sentence}."}).encode())

        def reply(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            with suppress(ConnectionError):  # the page was closed
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Whose picture was looked at is nobody's business."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port} cannot be served ({reason}); name another --port or --host.") from None


def answer(result: Result) -> dict[str, Any]:
    """width and height in pixels; instances, best first, with name, score, attributes by name, bbox and segmentation as
    COCO has them, and the colour they are drawn in; overlay, a JPEG as a data URL."""
    places = documents.places_of(result.labels)
    instances = [
        {
            "name": name,
            "attributes": attributes,
            **{key: one[key] for key in ("score", "bbox", "segmentation")},
            "colour": "#{:02x}{:02x}{:02x}".format(*overlay.colour_of(places[one["category_id"]])),
        }
        for name, attributes, one in zip(result.names, result.attributes, result.instances, strict=True)
    ]
    jpeg = io.BytesIO()
    Image.fromarray(result.draw()).save(jpeg, "JPEG", quality=90)
    drawn = "data:image/jpeg;base64," + base64.b64encode(jpeg.getvalue()).decode()
    height, width = result.size
    return {"width": width, "height": height, "instances": instances, "overlay": drawn}
