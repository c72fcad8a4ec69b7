"""A kernel's parameters from measured rows: robust, seeded, cross-validated.

The parameters' logarithms minimise a soft-L1 loss of ``ln(predicted / measured)``
(scipy ``least_squares``), from several seeded starts; rows weigh the same, so that the
error is the one a typical shape sees and a few broken rows decide nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from model_ops.errors import ProblemError
from model_ops.opcost import Collective, Number, Operator
from model_ops.platform.efficiency import KernelKey
from model_ops.platform.kernels import FORMS, Kernel, Work
from model_ops.platform.npu import Npu
from model_ops.platform.roofline import ideal_work, op_time
from model_ops.platform.supply import Supply
from problems.measured.operators import OperatorRows, WeightCache
from problems.measured.operators.rows import key_of

Floats = npt.NDArray[np.float64]

STARTS = 8
"""Seeded starting points; the best end counts."""

FOLDS = 5
"""Parts that whole groups of shapes are dealt to, each left out once."""

_KNEE = 0.1
"""|ln| from which on a row's pull grows no more: a tenth is a good kernel model."""

_PULL = 0.003
"""Pull of a parameter to the middle of its bounds, where no row says anything of it."""


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
    table = _Table.of(key, rows, npu).chosen_best(seed)
    everything = np.ones(len(shapes), dtype=bool)
    whole = table.best(everything, seed)
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


def errors_of(
    key: KernelKey, rows: Sequence[OperatorRows], npu: Npu, kernel: Kernel
) -> Floats:
    """Return ``ln(predicted / measured)`` of each row with a kernel that is given.

    Parameters
    ----------
    key, rows, npu
        As of `fit`.
    kernel
        Form and parameters; the benchmark's caches are left out.
    """
    return _Table.of(key, rows, npu).errors_with(kernel)


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
        seen = table.best(~out, seed, first=start)
        held[out] = table.errors(seen)[out]
    return held


@dataclass(frozen=True)
class _Table:
    """The rows of a key, and the errors that parameters leave on them.

    Parameters
    ----------
    form, chosen
        The form on trial, and its parameters that are one thing or another.
    works, rows
        The form's work, and the row of each piece of it.
    found
        Bytes of each piece that a cache may hold.
    npu, others, seconds
        The NPU; predicted seconds of each row's other operators; measured seconds.
    """

    form: Any
    chosen: Mapping[str, float]
    works: Work
    rows: npt.NDArray[np.int64]
    found: Floats
    npu: Npu
    others: Floats
    seconds: Floats

    @classmethod
    def of(cls, key: KernelKey, rows: Sequence[OperatorRows], npu: Npu) -> "_Table":
        """Return the table of some rows; what does not change is computed once."""
        supply = Supply.of(npu)
        first = np.cumsum([0, *(len(each.seconds) for each in rows)])
        seconds = np.concatenate([each.seconds for each in rows])
        others, works, numbers, found = np.zeros(len(seconds)), [], [], []
        for start, each in zip(first, rows, strict=False):
            own = np.arange(start, start + len(each.seconds))
            for operator in each.operators:
                if isinstance(operator, Collective) or _key_on(npu, operator) != key:
                    others[own] += op_time(operator, supply).total
                    continue
                cost = operator.cost()
                held = (cost.weights + cost.cache) if each.repeated else 0.0
                works.append(ideal_work(cost, operator.shape(), supply))
                numbers.append(own)
                found.append(np.broadcast_to(held, own.shape))
        lengths = [len(own) for own in numbers]
        return cls(
            form=FORMS[key.family],
            chosen={},
            works=_joined(works, lengths),
            rows=np.concatenate(numbers),
            found=np.concatenate(found),
            npu=npu,
            others=others,
            seconds=seconds,
        )

    @property
    def _limits(self) -> tuple[Floats, Floats]:
        """Logarithms of the bounds of everything that is searched."""
        cache = _CACHE.values() if np.any(self.found > 0) else ()
        low, high = np.log(np.array([*self.form.BOUNDS.values(), *cache])).T
        return low, high

    @property
    def middle(self) -> Floats:
        """Logarithms of the parameters halfway between their bounds."""
        low, high = self._limits
        return (low + high) / 2

    def kernel(self, logs: Floats) -> Kernel:
        """Return the form with parameters given as logarithms."""
        values = dict(zip(self.form.BOUNDS, np.exp(logs).tolist(), strict=False))
        kernel: Kernel = self.form(**values, **self.chosen)
        return kernel

    def cache(self, logs: Floats) -> WeightCache | None:
        """Return the cache whose parameters follow the kernel's."""
        own = np.exp(logs[len(self.form.BOUNDS) :]).tolist()
        return WeightCache(*own) if own else None

    def errors(self, logs: Floats) -> Floats:
        """Return ``ln(predicted / measured)`` of every row."""
        return self.errors_with(self.kernel(logs), self.cache(logs))

    def errors_with(self, kernel: Kernel, cache: WeightCache | None = None) -> Floats:
        """Return the same with a kernel and a benchmark's cache."""
        works = self.works
        if cache is not None:
            saved = (1.0 - 1.0 / cache.speedup) / self.npu.memory_bandwidth
            moved = self.found * cache.share(self.found)
            works = replace(works, memory=works.memory - moved * saved)
        time = kernel.time(works).times(self.npu.pace).total
        pieces = np.bincount(self.rows, time, len(self.seconds))
        return np.log((self.others + pieces) / self.seconds)

    def best(
        self, some: npt.NDArray[np.bool_], seed: int, first: Floats | None = None
    ) -> Floats:
        """Return the logs of the parameters that fit some rows best.

        Parameters
        ----------
        some
            The rows.
        seed
            Of the starting points.
        first
            Where to start; None: from several points.
        """
        return min(self.ends(some, seed, first), key=lambda end: end[0])[1]

    def chosen_best(self, seed: int) -> "_Table":
        """Return the table whose form makes the choices that fit all rows best."""
        names, values = self.form.CHOICES.keys(), self.form.CHOICES.values()
        tables = [
            replace(self, chosen=dict(zip(names, combination, strict=True)))
            for combination in product(*values)
        ]
        if len(tables) == 1:
            return tables[0]
        every = np.ones(len(self.seconds), dtype=bool)
        costs = [table.ends(every, seed, table.middle)[0][0] for table in tables]
        return tables[int(np.argmin(costs))]

    def ends(
        self, some: npt.NDArray[np.bool_], seed: int, first: Floats | None
    ) -> list[tuple[float, Floats]]:
        """Return the loss and the parameters' logs where each descent ended."""
        low, high = self._limits
        rng = np.random.default_rng(seed)
        middle = self.middle
        drawn = [
            middle + (high - low) * rng.uniform(-0.3, 0.3) for _ in range(STARTS - 1)
        ]
        begins = [middle, *drawn] if first is None else [first]
        return [self._descend(begin, low, high, some) for begin in begins]

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
        middle = self.middle
        found = least_squares(
            lambda logs: np.append(self.errors(logs)[some], _PULL * (logs - middle)),
            inside,
            bounds=(low, high),
            loss="soft_l1",
            f_scale=_KNEE,
            max_nfev=60,
        )
        return float(found.cost), found.x


def _key_on(npu: Npu, operator: Operator) -> KernelKey:
    """Return the kernel that runs an operator; an NPU may lack its arithmetic."""
    key = key_of(operator)
    return key._replace(engine=key.engine and npu.engine(key.engine))


def _joined(works: Sequence[Work], lengths: Sequence[int]) -> Work:
    """Return several works as one, whose numbers are arrays over all their rows."""

    def all_of(read: Callable[[Any], Number], each: Sequence[Any]) -> Floats:
        parts = zip(each, lengths, strict=True)
        return np.concatenate([np.broadcast_to(read(w), n).ravel() for w, n in parts])

    def numbers(each: Sequence[Any], but: str) -> dict[str, Any]:
        names = (f.name for f in fields(each[0]) if f.name != but)
        return {name: all_of(attrgetter(name), each) for name in names}

    shapes = [work.shape for work in works]
    shape = replace(shapes[0], **numbers(shapes, "format"))
    return Work(shape=shape, **numbers(works, "shape"))
