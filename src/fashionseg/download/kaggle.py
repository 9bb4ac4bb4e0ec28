"""Kaggle's official client, with its errors as one sentence."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from fashionseg.core.errors import UserError

CREDENTIALS = (
    "put a token from https://www.kaggle.com/settings/api into KAGGLE_API_TOKEN or ~/.kaggle/access_token, "
    "or kaggle.json into ~/.kaggle; in a Kaggle notebook add the competition as an input"
)


@contextlib.contextmanager
def signed_in(competition: str, failure: str) -> Iterator[Any]:
    """The client, `KaggleApi`. Raises UserError without valid credentials, where Kaggle refuses the competition, and
    where the connection breaks: the message is then `failure`, which contains {error}."""
    from requests.exceptions import HTTPError  # half a second, so only where it is needed

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # drops the client's page of help
            from kaggle.api.kaggle_api_extended import KaggleApi  # importing signs in as well

            api = KaggleApi()
            api.authenticate()
        yield api
    except SystemExit:
        raise UserError(f"Kaggle found no valid credentials; {CREDENTIALS}.") from None
    except HTTPError as error:
        raise UserError(_refusal(error.response.status_code, competition)) from None
    except UserError:
        raise
    except Exception as error:  # the client trips over answers that are not Kaggle's in many ways
        raise UserError(failure.format(error=error)) from None


def _refusal(status: int, competition: str) -> str:
    """The message for an HTTP status."""
    page = f"https://www.kaggle.com/competitions/{competition}"
    return {
        401: f"Kaggle did not accept the credentials (401); {CREDENTIALS}.",
        403: f"Kaggle refuses {competition} to this account (403); accept its rules at {page}/rules and run again.",
        404: f"Kaggle has no competition '{competition}' (404); data.competition is the last part of its address.",
    }.get(status, f"Kaggle answered with status {status}; see {page} and run again later.")
