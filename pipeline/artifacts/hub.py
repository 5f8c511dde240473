"""What goes wrong with the Hugging Face hub, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A repository of the hub that somebody asked for, and where."""

    kind: str  # "model" or "data set"
    id: str
    revision: str | None
    id_place: str  # where the configuration names it
    revision_place: str

    def __str__(self) -> str:
        """Return what it is called in a message."""
        return f"the {self.kind} {self.id}" + ("" if self.revision is None else f" at revision {self.revision}")


def hub_errors() -> tuple[type[Exception], ...]:
    """Return what the clients of the hub raise where a connection breaks off or is refused.

    The errors of its HTTP client are no `OSError`, and Xet, the storage of large files, raises a bare `RuntimeError`.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (*cast("tuple[type[Exception], ...]", HfHubHTTPError.__bases__), RuntimeError)  # HTTPError and OSError


def explain(error: Exception, wanted: Wanted) -> str:
    """Say in one line why a model or a data set was not to be had, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    chain = list(_causes(error))
    told = " ".join(
        " ".join(str(one) for one in chain).split()
    )  # `datasets` keeps the text of a cause and drops the rest
    status = next((code for one in chain if (code := _status(one))), None)
    page = f"{constants.ENDPOINT}/{'datasets/' if wanted.kind == 'data set' else ''}{wanted.id}"

    def is_any(*types: type[Exception]) -> bool:
        return any(isinstance(one, types) for one in chain)

    if constants.HF_HUB_OFFLINE:
        repository = "--repo-type dataset " if wanted.kind == "data set" else ""
        return (
            f"{wanted} is not, or not wholly, in the local cache of the hub, and HF_HUB_OFFLINE is set. Unset it, or "
            f"bring the files there: `hf download {repository}{wanted.id}`."
        )
    if is_any(GatedRepoError) or "gated dataset" in told:
        return (
            f"{wanted} is gated. Accept its terms at {page}, and set HF_TOKEN to a token of the account that did; "
            "where its authors grant access by hand, wait until they have."
        )
    if "Invalid credentials" in told:
        return f"the hub refuses the token (HF_TOKEN, or that of `hf auth login`) for {wanted}. Replace it or unset it."
    if is_any(RevisionNotFoundError) or "Revision '" in told:
        return f"the {wanted.kind} {wanted.id} has no revision {wanted.revision}. Correct {wanted.revision_place}."
    if is_any(RepositoryNotFoundError) or "doesn't exist on the Hub" in told:
        return (
            f"the hub knows no {wanted.kind} {wanted.id}, or it is private. Correct {wanted.id_place}, or set HF_TOKEN "
            "to a token that may read it."
        )
    if status == 429:
        return f"the hub asks to be left alone for a while (429) about {wanted}. Run the command again later."
    if status is not None:
        return f"the hub answers with {status} for {wanted}. Run the command again later."
    last = f"{type(chain[-1]).__name__}: {' '.join(str(chain[-1]).split())}".rstrip(".")
    reason = "no answer, or only errors" if "LocalEntryNotFoundError" in told else last
    plain = " HF_HUB_DISABLE_XET=1 downloads without Xet." if is_any(RuntimeError) else ""
    return (
        f"{wanted} could not be read from {constants.ENDPOINT} ({reason}). Files that came whole are kept: run the "
        f"command again where the hub can be reached.{plain}"
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _status(error: BaseException) -> int | None:
    """Return the status of the answer that an error is about."""
    return getattr(getattr(error, "response", None), "status_code", None)
