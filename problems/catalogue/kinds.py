"""The kinds of items that the catalogue holds, and the schema of each one's files."""

from pydantic import BaseModel

from problems.catalogue.measured_kernels import KernelsFile
from problems.catalogue.schema import (
    EfficiencyFile,
    FrameworkFile,
    LinkFile,
    ModelFile,
    NpuFile,
    PriceFile,
    TraceFile,
    UseCaseFile,
)

KINDS: dict[str, type[BaseModel]] = {
    "npus": NpuFile,
    "links": LinkFile,
    "efficiencies": EfficiencyFile,
    "kernels": KernelsFile,
    "frameworks": FrameworkFile,
    "prices": PriceFile,
    "models": ModelFile,
    "use_cases": UseCaseFile,
    "traces": TraceFile,
}
"""Folder of the catalogue and the schema of its files."""
