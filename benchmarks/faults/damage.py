"""Ways in which a file comes to be wrong: `bytes`, `table`, `document` and `params` each give one, drawn at random."""

import csv
import io
import json
import random
from collections.abc import Callable
from typing import Any

ODD = [None, True, -1, 0, 1.5, 1e300, 10**12, "", "x", "NaN", [], {}, [None], float("nan"), float("inf")]
CELLS = ["", "null", "NaN", "-1", "0", "1e9", "99999999999999999999", "x", "1 2 3", "a,b", "ü", '"', "\x00", "1.5"]
SCALARS = "null,-1,0,1.5,1e-4,.nan,.inf,1000000000000,99999999999999999999999,x,'',true,[],[1],{},{a: 1},off,1_000,0x10"

Damage = tuple[str, bytes]


def of_bytes(data: bytes, drawn: random.Random, others: list[bytes]) -> Damage:
    """Whatever the file is. others: files of other kinds."""
    place = drawn.randrange(max(1, len(data)))
    kind = drawn.choice(["truncated", "flipped", "zeroed", "empty", "swapped", "junk after", "cut out", "repeated"])
    if kind == "truncated":
        return kind, data[:place]
    if kind == "flipped":
        changed = bytearray(data)
        for _ in range(drawn.choice([1, 1, 8, 100])):
            changed[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
        return kind, bytes(changed)
    if kind == "zeroed":
        end = min(len(data), place + drawn.choice([1, 64, 4096]))
        return kind, data[:place] + bytes(end - place) + data[end:]
    if kind == "empty":
        return kind, b""
    if kind == "swapped":
        return kind, drawn.choice(others)
    if kind == "junk after":
        return kind, data + drawn.randbytes(drawn.choice([1, 1000]))
    end = min(len(data), place + drawn.randrange(1, 200))
    return kind, data[:place] + data[end:] if kind == "cut out" else data[:end] + data[place:]


def of_text(data: bytes, drawn: random.Random) -> Damage:
    """How other programs save text."""
    kind = drawn.choice(["byte order mark", "CRLF", "CR", "UTF-16", "latin-1", "blank lines", "blanks"])
    text = data.decode()
    return kind, {
        "byte order mark": b"\xef\xbb\xbf" + data,
        "CRLF": data.replace(b"\n", b"\r\n"),
        "CR": data.replace(b"\n", b"\r"),
        "UTF-16": text.encode("utf-16"),
        "latin-1": f"{text}é".encode("latin-1"),
        "blank lines": data.replace(b"\n", b"\n\n", 3),
        "blanks": data.replace(b",", b", ", 3),
    }[kind]


def of_table(data: bytes, drawn: random.Random) -> Damage:
    """A CSV."""
    header, *rows = csv.reader(io.StringIO(data.decode()))
    some = drawn.sample(range(len(rows)), drawn.choice([1, 1, 2, max(1, len(rows) // 2)]))
    kind = drawn.choice(["rows dropped", "rows doubled", "rows shuffled", "cells", "cells", "cells", "column"])
    if kind == "rows dropped":
        rows = [row for at, row in enumerate(rows) if at not in some]
    elif kind == "rows doubled":
        rows += [rows[at] for at in some]
    elif kind == "rows shuffled":
        drawn.shuffle(rows)
    elif kind == "cells":
        for at in some[:3]:
            rows[at][drawn.randrange(len(header))] = drawn.choice(CELLS)
    else:
        at, kind = drawn.randrange(len(header)), drawn.choice(["column dropped", "column renamed", "columns swapped"])
        if kind == "column dropped":
            header, *rows = [row[:at] + row[at + 1 :] for row in (header, *rows)]
        elif kind == "column renamed":
            header[at] = drawn.choice(["", "x", header[at].lower()])
        else:
            header, *rows = [[row[at], *row[:at], *row[at + 1 :]] for row in (header, *rows)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    return kind, text.getvalue().encode()


def of_document(data: bytes, drawn: random.Random) -> Damage:
    """A JSON file: one place of it."""
    value = json.loads(data)
    parent, keys = value, []
    while isinstance(parent, dict | list) and parent:
        key = drawn.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        keys.append((parent, key))
        parent = parent[key]
    holder, key = drawn.choice(keys)
    if isinstance(holder, list):
        kind = drawn.choice(["item dropped", "item doubled", "items shuffled", "value", "value"])
    else:
        kind = drawn.choice(["key missing", "key renamed", "value", "value"])
    if kind.endswith(("dropped", "missing")):
        del holder[key]
    elif kind == "item doubled":
        holder.append(holder[key])
    elif kind == "items shuffled":
        drawn.shuffle(holder)
    elif kind == "key renamed":
        holder[key + "x"] = holder.pop(key)
    else:
        new: Any = drawn.choice([*ODD, "number"])
        if new == "number":
            old = holder[key]
            numeric = isinstance(old, int | float) and not isinstance(old, bool)
            new = old * drawn.choice([-1, 2, 1000]) if numeric else f"{old}!"
        holder[key], kind = new, f"value {str(new)[:20]!r}"
    return kind, json.dumps(value).encode()


def of_params(data: bytes, drawn: random.Random) -> Damage:
    """params.yaml: one line of it."""
    lines = data.decode().splitlines()
    at = drawn.choice([number for number, line in enumerate(lines) if ": " in line.partition("#")[0]])
    kind = drawn.choice(["line dropped", "line doubled", "key renamed", *["value"] * 9])
    key, _, rest = lines[at].partition(": ")
    if kind == "line dropped":
        del lines[at]
    elif kind == "line doubled":
        lines.insert(at, lines[at])
    elif kind == "key renamed":
        lines[at] = f"{key}x: {rest}"
    else:
        value = drawn.choice(SCALARS.split(","))
        lines[at], kind = f"{key}: {value}", f"{key.strip()}: {value}"
    return kind, ("\n".join(lines) + "\n").encode()


def drawn_of(*ways: Callable[[bytes, random.Random], Damage]) -> Callable[[bytes, random.Random], Damage]:
    """One of these ways, each as likely as another."""
    return lambda data, drawn: drawn.choice(ways)(data, drawn)
