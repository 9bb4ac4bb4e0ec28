"""Ways in which a file comes to be wrong, each drawn at random: (what was done, the bytes after it)."""

import csv
import io
import json
import random

ODD = [None, True, -1, 0, 1.5, 1e300, 10**12, "", "x", "NaN", [], {}, [None], float("nan"), float("inf")]
CELLS = ["", "null", "NaN", "-1", "0", "1e9", "99999999999999999999", "x", "1 2 3", "a,b", "ü", '"', "\x00", "1.5"]
SCALARS = "null,-1,0,1.5,1e-4,.nan,.inf,1000000000000,99999999999999999999999,x,'',true,[],[1],{},{a: 1},off,1_000,0x10"

Damage = tuple[str, bytes]


def of_bytes(data: bytes, drawn: random.Random) -> Damage:
    """Whatever the file is."""
    start = drawn.randrange(max(1, len(data)))
    end = min(len(data), start + drawn.choice([1, 64, 4096]))
    flipped = bytes(byte ^ (1 << drawn.randrange(8)) for byte in data[start : start + drawn.choice([1, 1, 8, 100])])
    return drawn.choice(
        [
            ("truncated", data[:start]),
            ("flipped", data[:start] + flipped + data[start + len(flipped) :]),
            ("zeroed", data[:start] + bytes(end - start) + data[end:]),
            ("cut out", data[:start] + data[end:]),
            ("repeated", data[:end] + data[start:]),
            ("junk after", data + drawn.randbytes(drawn.choice([1, 1000]))),
            ("junk", drawn.randbytes(1000)),
            ("empty", b""),
            ("another CSV", b"a,b\n1,2\n"),
            ("another JSON", b'{"a": [1]}'),
        ]
    )


def of_text(data: bytes, drawn: random.Random) -> Damage:
    """How other programs save text."""
    text = data.decode()
    return drawn.choice(
        [
            ("byte order mark", b"\xef\xbb\xbf" + data),
            ("CRLF", data.replace(b"\n", b"\r\n")),
            ("CR", data.replace(b"\n", b"\r")),
            ("UTF-16", text.encode("utf-16")),
            ("latin-1", f"{text}é".encode("latin-1")),
            ("blank lines", data.replace(b"\n", b"\n\n", 3)),
            ("blanks", data.replace(b",", b", ", 3)),
        ]
    )


def of_table(data: bytes, drawn: random.Random) -> Damage:
    """A CSV: some rows, some cells, or a column."""
    header, *rows = csv.reader(io.StringIO(data.decode()))
    some = drawn.sample(range(len(rows)), drawn.choice([1, 1, 2, max(1, len(rows) // 2)]))
    at = drawn.randrange(len(header))
    kind = drawn.choice(
        ["rows dropped", "rows doubled", "rows shuffled", *["cells"] * 3, "no column", "renamed", "first"]
    )
    if kind == "rows dropped":
        rows = [row for number, row in enumerate(rows) if number not in some]
    elif kind == "rows doubled":
        rows += [rows[number] for number in some]
    elif kind == "rows shuffled":
        drawn.shuffle(rows)
    elif kind == "cells":
        for number in some[:3]:
            rows[number][drawn.randrange(len(header))] = drawn.choice(CELLS)
    elif kind == "no column":
        header, *rows = [row[:at] + row[at + 1 :] for row in (header, *rows)]
    elif kind == "renamed":
        header[at] = drawn.choice(["", "x", header[at].lower()])
    else:
        header, *rows = [[row[at], *row[:at], *row[at + 1 :]] for row in (header, *rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return kind, text.getvalue().encode()


def of_document(data: bytes, drawn: random.Random) -> Damage:
    """A JSON file: one place of it, however deep."""
    value = json.loads(data)
    inner, places = value, []
    while isinstance(inner, dict | list) and inner:
        places.append((inner, drawn.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))))
        inner = inner[places[-1][1]]
    holder, key = drawn.choice(places)
    old, kind = holder[key], drawn.choice(["gone", "moved", "value", "value", "number"])
    if kind == "gone":
        del holder[key]
    elif kind == "moved" and isinstance(holder, list):
        holder.append(old)
    elif kind == "moved":
        holder[f"{key}x"] = holder.pop(key)
    elif kind == "number" and type(old) in (int, float):
        holder[key] = old * drawn.choice([-1, 2, 1000])
    else:
        holder[key] = drawn.choice(ODD)
    return f"{key}: {kind} {str(holder[key])[:20] if kind in ('value', 'number') else ''}", json.dumps(value).encode()


def of_params(data: bytes, drawn: random.Random) -> Damage:
    """params.yaml: one line of it."""
    lines = data.decode().splitlines()
    at = drawn.choice([number for number, line in enumerate(lines) if ": " in line.partition("#")[0]])
    key = lines[at].partition(": ")[0]
    kind = drawn.choice(["gone", "twice", "renamed", *drawn.choices(SCALARS.split(","), k=9)])
    new = {"gone": [], "twice": [lines[at]] * 2, "renamed": [lines[at].replace(": ", "x: ", 1)]}
    lines[at : at + 1] = new.get(kind, [f"{key}: {kind}"])
    return f"{key.strip()}: {kind}", ("\n".join(lines) + "\n").encode()
