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
    before, part, after = data[:start], data[start:end], data[end:]
    ways = {
        "truncated": before,
        "flipped": before + bytes(byte ^ (1 << drawn.randrange(8)) for byte in part) + after,
        "zeroed": before + bytes(len(part)) + after,
        "cut out": before + after,
        "repeated": before + part + part + after,
        "junk after": data + drawn.randbytes(drawn.choice([1, 1000])),
        "junk": drawn.randbytes(1000),
        "empty": b"",
        "another CSV": b"a,b\n1,2\n",
        "another JSON": b'{"a": [1]}',
    }
    return drawn.choice(list(ways.items()))


def of_text(data: bytes, drawn: random.Random) -> Damage:
    """How other programs save text."""
    ways = {
        "byte order mark": b"\xef\xbb\xbf" + data,
        "CRLF": data.replace(b"\n", b"\r\n"),
        "CR": data.replace(b"\n", b"\r"),
        "UTF-16": data.decode().encode("utf-16"),
        "latin-1": f"{data.decode()}é".encode("latin-1"),
        "blank lines": data.replace(b"\n", b"\n\n", 3),
        "blanks": data.replace(b",", b", ", 3),
    }
    return drawn.choice(list(ways.items()))


def of_table(data: bytes, drawn: random.Random) -> Damage:
    """A CSV: some rows, some cells, or a column."""
    header, *rows = csv.reader(io.StringIO(data.decode()))
    some, at = drawn.sample(rows, drawn.choice([1, 1, 2, max(1, len(rows) // 2)])), drawn.randrange(len(header))
    kind = drawn.choice(
        ["rows dropped", "rows doubled", "rows shuffled", "cells", "cells", "no column", "first", "name"]
    )
    if kind == "rows dropped":
        rows = [row for row in rows if row not in some]
    elif kind == "rows doubled":
        rows += some
    elif kind == "rows shuffled":
        drawn.shuffle(rows)
    elif kind == "cells":
        for row in some[:3]:
            row[drawn.randrange(len(header))] = drawn.choice(CELLS)
    elif kind == "name":
        header[at] = drawn.choice(["", "x", header[at].lower()])
    else:
        first = kind == "first"
        header, *rows = [[row[at]] * first + row[:at] + row[at + 1 :] for row in (header, *rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return kind, text.getvalue().encode()


def of_document(data: bytes, drawn: random.Random) -> Damage:
    """A JSON file: one place of it, however deep."""
    value = inner = json.loads(data)
    places = []
    while isinstance(inner, dict | list) and inner:
        places.append((inner, drawn.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))))
        inner = inner[places[-1][1]]
    holder, key = drawn.choice(places)
    kind, new = drawn.choice(["gone", "renamed", "value", "value", "number"]), drawn.choice(ODD)
    if kind == "number" and type(holder[key]) in (int, float):
        new = holder[key] * drawn.choice([-1, 2, 1000])
    if kind == "renamed" and isinstance(holder, dict):
        holder[f"{key}x"] = holder.pop(key)
    elif kind == "gone":
        del holder[key]
    else:
        holder[key] = new
    return f"{key}: {kind} {str(new)[:20]}", json.dumps(value).encode()


def of_params(data: bytes, drawn: random.Random) -> Damage:
    """params.yaml: one line of it."""
    lines = data.decode().splitlines()
    at = drawn.choice([number for number, line in enumerate(lines) if ": " in line.partition("#")[0]])
    key, kind = lines[at].partition(": ")[0], drawn.choice(["gone", "twice", "renamed", *SCALARS.split(",")])
    new = {"gone": [], "twice": [lines[at]] * 2, "renamed": [lines[at].replace(": ", "x: ", 1)]}
    lines[at : at + 1] = new.get(kind, [f"{key}: {kind}"])
    return f"{key.strip()}: {kind}", ("\n".join(lines) + "\n").encode()
