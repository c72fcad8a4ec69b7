"""A kernel's parameters from measured rows: robust, seeded, cross-validated.

The parameters' logarithms minimise a soft-L1 loss of ``ln(predicted / measured)``
(scipy ``least_squares``), from several seeded starts; rows weigh the same, so that the
error is the one a typical shape sees and a few broken rows decide nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model_ops.errors import ProblemError
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import Efficiency, KernelKey
from model_ops.platform.kernels import FORMS, Kernel
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from problems.measured.operators import OperatorRows, WeightCache

Floats = npt.NDArray[np.float64]

STARTS = 8
"""Seeded starting points; the best end counts."""

FOLDS = 5
"""Parts that whole groups of shapes are dealt to, each left out once."""

_KNEE = 0.1
"""|ln| from which on a row's pull grows no more: a tenth is a good kernel model."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A kernel with the parameters that its rows were fitted to.

    Parameters
    ----------
    kernel
        The form with its parameters.
    rows
        Measurements.
    error
        Median ``|ln(predicted / measured)|`` of the rows themselves.
    left_out
        The same of rows whose shapes the fit had not seen.
    bias
        Median ``ln(predicted / measured)`` of those.
    cache
        Where the benchmark found small weights; None if it ran nothing repeatedly.
    """

    kernel: Kernel
    rows: int
    error: float
    left_out: float
    bias: float
    cache: WeightCache | None = None


_CACHE = {"capacity": (3e5, 3e8), "speedup": (1.0001, 6.0)}
"""Bounds of the cache that repeated problems find their weights in."""


@dataclass(frozen=True, slots=True)
class _Trial:
    """An NPU's kernels with one of them on trial."""

    key: KernelKey
    on_trial: Kernel
    others: Efficiency

    def covers(self, family: KernelFamily) -> bool:
        """Return what the NPU's own say."""
        return self.others.covers(family)

    def kernel(self, key: KernelKey) -> Kernel:
        """Return the kernel on trial for its key, the NPU's own for any other."""
        return self.on_trial if key == self.key else self.others.kernel(key)


def fit(
    key: KernelKey, rows: Sequence[OperatorRows], npu: Npu, seed: int = 0
) -> Fitted:
    """Return the kernel of a key as its rows show it.

    Parameters
    ----------
    key
        Family, format and engine; the family says which form is fitted.
    rows
        Measurements on one NPU under one software stack.
    npu
        Its peak rates, and its kernels of all other keys.
    seed
        Of the starting points and of the folds.

    Raises
    ------
    ProblemError
        If there are fewer rows than parameters, or scipy is not installed.
    """
    form = FORMS[key.family]
    shapes = np.concatenate([each.shapes for each in rows])
    if len(shapes) <= len(form.BOUNDS):
        raise ProblemError(
            f"{key.family.label} {key.format}: {len(shapes)} rows are too few for "
            f"{len(form.BOUNDS)} parameters"
        )
    table = _Table(key, rows, npu)
    everything = np.ones(len(shapes), dtype=bool)
    whole = table.best(everything, seed, STARTS)
    own = table.errors(whole)
    held = _held_out(table, shapes, whole, seed)
    return Fitted(
        kernel=table.kernel(whole),
        cache=table.cache(whole),
        rows=len(shapes),
        error=float(np.median(np.abs(own))),
        left_out=float(np.median(np.abs(held))),
        bias=float(np.median(held)),
    )


def _held_out(
    table: "_Table", shapes: npt.NDArray[np.int64], start: Floats, seed: int
) -> Floats:
    """Return each row's error under the fit that had not seen its group of shapes."""
    rng = np.random.default_rng(seed)
    groups = np.unique(shapes)
    fold = dict(zip(groups, rng.permutation(len(groups)) % FOLDS, strict=True))
    folds = np.array([fold[shape] for shape in shapes])
    held = np.empty(len(shapes))
    for number in np.unique(folds):
        out = folds == number
        seen = table.best(~out, seed, starts=1, first=start)
        held[out] = table.errors(seen)[out]
    return held


@dataclass(frozen=True)
class _Table:
    """The rows of a key, and the errors that parameters leave on them."""

    key: KernelKey
    rows: Sequence[OperatorRows]
    npu: Npu

    @property
    def _bounds(self) -> Mapping[str, tuple[float, float]]:
        return FORMS[self.key.family].BOUNDS

    @property
    def _limits(self) -> tuple[Floats, Floats]:
        """Logarithms of the bounds of everything that is searched."""
        cache = _CACHE.values() if any(each.repeated for each in self.rows) else ()
        low, high = np.log(np.array([*self._bounds.values(), *cache])).T
        return low, high

    def kernel(self, logs: Floats) -> Kernel:
        """Return the form with parameters given as logarithms."""
        values = dict(zip(self._bounds, np.exp(logs).tolist(), strict=False))
        form: Any = FORMS[self.key.family]
        kernel: Kernel = form(**values)
        return kernel

    def cache(self, logs: Floats) -> WeightCache | None:
        """Return the cache whose parameters follow the kernel's."""
        own = np.exp(logs[len(self._bounds) :]).tolist()
        return WeightCache(*own) if own else None

    def errors(self, logs: Floats) -> Floats:
        """Return ``ln(predicted / measured)`` of every row."""
        trial = _Trial(self.key, self.kernel(logs), self.npu.efficiency)
        supply = Supply.of(replace(self.npu, efficiency=trial))
        cache = self.cache(logs)
        return np.concatenate(
            [np.log(each.predicted(supply, cache) / each.seconds) for each in self.rows]
        )

    def best(
        self,
        some: npt.NDArray[np.bool_],
        seed: int,
        starts: int,
        first: Floats | None = None,
    ) -> Floats:
        """Return the logs of the parameters that fit some rows best."""
        low, high = self._limits
        rng = np.random.default_rng(seed)
        middle = (low + high) / 2
        drawn = [middle + (high - low) * rng.uniform(-0.3, 0.3) for _ in range(starts)]
        begins = [middle if first is None else first, *drawn[1:]]
        ends = [self._descend(begin, low, high, some) for begin in begins]
        return min(ends, key=lambda end: end[0])[1]

    def _descend(
        self, begin: Floats, low: Floats, high: Floats, some: npt.NDArray[np.bool_]
    ) -> tuple[float, Floats]:
        try:
            from scipy.optimize import least_squares
        except ImportError:
            raise ProblemError(
                "calibrate needs scipy: pip install 'genz-size[calibrate]'"
            ) from None
        inside = np.clip(begin, low + 1e-9, high - 1e-9)
        found = least_squares(
            lambda logs: self.errors(logs)[some],
            inside,
            bounds=(low, high),
            loss="soft_l1",
            f_scale=_KNEE,
            max_nfev=60,
        )
        return float(found.cost), found.x
