"""Reads the CSV files of competition and pipeline. Cells stay text, so that an id NA is not NaN."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from fashionseg.core.errors import UserError

NEEDED = ("ImageId", "EncodedPixels")
SUBMITTED = (*NEEDED, "ClassId", "AttributesIds")  # in this order unless a sample has another
SEPARATORS = {";": "semicolons", "\t": "tabs"}  # as programs of some countries write them
CHUNK = 2000  # rows whose cells are in memory at once; those of run lengths have thousands of letters


def read(
    path: str | Path, columns: Sequence[str], of_chunk: Callable[[pd.DataFrame], pd.DataFrame] = lambda chunk: chunk
) -> pd.DataFrame:
    """A CSV's cells as text, '' if empty, and a column `row`, the line number; lines without any value are left out.
    of_chunk: what is kept of CHUNK rows, whose index counts from 0 over the whole file.

    Raises UserError where it is missing, not a CSV, lacks one of `columns`, has a column twice or has no rows.
    """
    options = {"dtype": str, "keep_default_na": False, "skip_blank_lines": False, "index_col": False}
    line, rows, kept = 2, 0, []
    try:
        with (
            warnings.catch_warnings(action="error", category=pd.errors.ParserWarning),
            pd.read_csv(path, chunksize=CHUNK, **options) as chunks,
        ):
            for chunk in chunks:
                chunk = chunk.fillna("").assign(row=np.arange(len(chunk)) + line)
                line += len(chunk)
                chunk = chunk[(chunk.drop(columns="row") != "").any(axis=1)]
                chunk.index = pd.RangeIndex(rows, rows + len(chunk))
                if not kept:
                    _check_columns(path)
                    _check_layout(path, chunk, columns)
                if len(chunk):
                    kept.append(of_chunk(chunk))
                    rows += len(chunk)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; it should be a CSV.") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; it should start with {','.join(columns)}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        with suppress(pd.errors.ParserError):
            _check_separator(path, list(pd.read_csv(path, nrows=0)))
        hint = "every row needs as many fields as the header, lists of ids in quotes"
        raise UserError(f"{path} is not a valid CSV: {' '.join(str(error).split())}; {hint}.") from None
    if not rows:
        raise UserError(f"{path} has no rows below its header.")
    return pd.concat(kept)


def _check_columns(path: str | Path) -> None:
    """Of two columns of a name pandas calls one otherwise; `row` is ours."""
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False).iloc[0].tolist()
    if repeated := [name for name, count in Counter(header).items() if count > 1 and name]:
        raise UserError(f"{path} has the column {repeated[0]} twice; leave one out.")
    if "row" in header:
        raise UserError(f"{path} has a column row, which has no meaning here; leave it out.")


def _check_layout(path: str | Path, table: pd.DataFrame, columns: Sequence[str]) -> None:
    start = table.head(100).astype(str)
    if (
        start[[name for name in ("EncodedPixels", "ClassId") if name in start]]
        .apply(lambda cells: cells.str.startswith("["))
        .to_numpy()
        .any()
    ):
        raise UserError(
            f"{path} groups the instances of an image into lists; expected is one row per instance: explode the lists."
        )
    if lacking := [name for name in columns if name not in table]:
        header = [*map(str, table.columns[:-1])]
        _check_separator(path, header)
        raise UserError(f"{path} lacks the columns {', '.join(lacking)}; its header is {', '.join(header)}.")


def _check_separator(path: str | Path, header: list[str]) -> None:
    for sign, name in SEPARATORS.items():
        if len(header) == 1 and sign in header[0]:
            raise UserError(f"{path} has {name} between its columns; save it with commas.")
