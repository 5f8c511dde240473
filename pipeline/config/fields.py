"""How a configuration field states its default, its bounds and whether it changes results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import field
from typing import Any

MISSING: Any = "???"  # OmegaConf's sign for a value that must be given; its own constant would import all of it


def option(
    default: Any = NO_DEFAULT,
    *,
    factory: Callable[[], Any] | None = None,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    affects_results: bool = True,
) -> Any:
    """Declare a field of a configuration dataclass.

    Args:
        default: The value where nothing else is said.
        factory: Makes the default where it is a list, a dict or a section.
        ge: Inclusive lower bound.
        gt: Exclusive lower bound.
        le: Inclusive upper bound.
        lt: Exclusive upper bound.
        affects_results: False keeps the field out of fingerprints: changing it recomputes nothing.

    Returns:
        A dataclass field; bounds and the flag lie in its metadata and are read by ``validation`` and ``fingerprint``.
    """
    bounds = {name: bound for name, bound in {"ge": ge, "gt": gt, "le": le, "lt": lt}.items() if bound is not None}
    metadata = {"bounds": bounds, "affects_results": affects_results}
    if factory is not None:
        return field(default_factory=factory, metadata=metadata)
    return field(default=default, metadata=metadata)
