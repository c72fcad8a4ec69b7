"""How many figures of the catalogue were fitted, and to how many measurements."""

from collections.abc import Iterator
from dataclasses import dataclass

from problems import catalogue
from problems.catalogue.measured_kernels import kernels_file, measured_npus

ENGINE_PARAMETERS = (
    "step_overhead",
    "sequence_overhead",
    "layer_time",
    "pace",
    "prefill_pace",
    "exposed_launch",
    "request_overhead",
    "host_time",
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Parameters of a kind, and the measurements that they were fitted to.

    Parameters
    ----------
    what
        The kind.
    parameters
        Numbers that a fit chose.
    measurements
        Rows that it was given; None where they are the serving results themselves.
    """

    what: str
    parameters: int
    measurements: int | None


def fitted() -> Iterator[Fitted]:
    """Yield each kind of fitted figures."""
    kernels = [fit for npu in measured_npus() for fit in kernels_file(npu).fits]
    yield Fitted(
        "kernels",
        sum(len(fit.parameters) for fit in kernels),
        sum(fit.rows for fit in kernels),
    )
    links = [catalogue.link_file(name) for name in catalogue.names("links")]
    lines = [fit for link in links for fit in link.collectives]
    yield Fitted(
        "collectives",
        sum(len(fit.lines) * len(type(fit.lines[0]).model_fields) for fit in lines),
        sum(fit.rows for fit in lines),
    )
    frameworks = [
        catalogue.framework_file(name) for name in catalogue.names("frameworks")
    ]
    stated = [
        name
        for file in frameworks
        if file.is_fitted
        for name in ENGINE_PARAMETERS
        if getattr(file, name) is not None
    ]
    yield Fitted("engines", len(stated), None)
