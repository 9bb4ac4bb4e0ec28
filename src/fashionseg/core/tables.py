"""The only reader of CSV files, the competition's and the pipeline's. Cells stay text, so that an id NA is not NaN."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fashionseg.core.errors import UserError


def read(path: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV's cells as text, '' if empty, and a column `row`, the line number; lines without any value are left out.
    Raises UserError where it is missing, not a CSV, lacks one of `columns` or has no rows."""
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            table = pd.read_csv(path, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; run `dvc repro` to make it.") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder; it should be a CSV.") from None
    except pd.errors.EmptyDataError:
        raise UserError(f"{path} is empty; it should start with {','.join(columns)}.") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}).") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        hint = "every row needs as many fields as the header, lists of ids in quotes"
        raise UserError(f"{path} is not a valid CSV: {' '.join(str(error).split())}; {hint}.") from None
    table = table.fillna("").assign(row=np.arange(len(table)) + 2)
    table = table[(table.drop(columns="row") != "").any(axis=1)].reset_index(drop=True)
    _explain_other_layouts(path, table)
    if lacking := [name for name in columns if name not in table]:
        header = ", ".join(map(str, table.columns[:-1]))
        raise UserError(f"{path} lacks the columns {', '.join(lacking)}; its header is {header}.")
    if table.empty:
        raise UserError(f"{path} has no rows below its header.")
    return table


def _explain_other_layouts(path: str | Path, table: pd.DataFrame) -> None:
    start = table.head(100).astype(str)
    if (
        start.drop(columns="AttributesIds", errors="ignore")
        .apply(lambda cells: cells.str.startswith("["))
        .to_numpy()
        .any()
    ):
        raise UserError(
            f"{path} groups the instances of an image into lists; expected is one row per instance: explode the lists."
        )
