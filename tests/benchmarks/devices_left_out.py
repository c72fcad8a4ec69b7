"""Measured kernels on devices that they were not fitted to: the nearest relative's.

Run: ``python tests/benchmarks/devices_left_out.py OPS.csv...``, tables of measured
operators. Every kernel of a device is predicted with the parameters that another device
has for it under the same stack, scaled by peak rates and processors alone.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from problems import catalogue
from problems.catalogue.measured_kernels import kernels_file, measured_npus
from problems.measured.operators import OperatorRows
from sizing.calibration.calibrate import measured_on, read_operators
from sizing.calibration.fit import errors_of

RELATIVES = {
    "h100-sxm": "h200-sxm",
    "h200-sxm": "h100-sxm",
    "b200-sxm": "gb200-nvl72",
    "gb200-nvl72": "b200-sxm",
    "l40s": "rtx-pro-6000-server",
    "rtx-pro-6000-server": "l40s",
    "a100-80gb-sxm": "h100-sxm",
}
"""The measured device that is most like each."""


def main(paths: list[Path]) -> None:
    """Print the median |ln(predicted / measured)| by family and device."""
    tables = [read_operators(path) for path in paths]
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for npu in sorted(set(RELATIVES) & set(measured_npus())):
        groups: dict[tuple[object, str], list[OperatorRows]] = defaultdict(list)
        for rows in measured_on(npu, tables):
            groups[rows.key, rows.stack].append(rows)
        fits = {(fit.key, fit.stack): fit for fit in kernels_file(RELATIVES[npu]).fits}
        for (key, stack), some in groups.items():
            if (fit := fits.get((key, stack))) is None:  # type: ignore[call-overload]
                continue
            chip = catalogue.load_npu_as(npu, stack)
            errors = np.abs(errors_of(fit.key, some, chip, fit.kernel()))
            found[fit.family.value, npu].append(float(np.median(errors)))
    for (family, npu), medians in sorted(found.items()):
        print(  # noqa: T201 - a benchmark prints
            f"{family:18} {npu:20} from {RELATIVES[npu]:20} kernels "
            f"{len(medians):2}, mean of medians {np.mean(medians):.3f}"
        )


if __name__ == "__main__":
    main([Path(each) for each in sys.argv[1:]])
