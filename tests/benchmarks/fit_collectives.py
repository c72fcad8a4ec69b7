"""Fit the lines of `problems/catalogue/links/` to measured collectives; score them.

Run: ``python tests/benchmarks/fit_collectives.py TABLE.csv.gz...`` on AIConfigurator's
``nccl``, ``custom_allreduce`` and ``moe_a2a`` tables and, for sends, on ``ops_extra``
(the file's name says which). It
prints the ``[[collectives]]`` of each link technology, the error on the rows fitted,
and on message sizes that were left out (every fourth size, in turn).
"""

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from model_ops.errors import GenzSizeError
from model_ops.opcost import CollectiveKind
from model_ops.platform.collective_kernel import CollectiveKernel
from problems import catalogue
from problems.measured.collectives import MeasuredCollective, measured_collective

Array = npt.NDArray[np.float64]
FOLDS = 4
STARTS = 8
SENDS = ("ops_extra",)
"""Serve for sends only: their other rows check what others were fitted to."""
EXCHANGE = (CollectiveKind.DISPATCH, CollectiveKind.COMBINE)
GATHERS = (CollectiveKind.ALL_GATHER, CollectiveKind.REDUCE_SCATTER)


@dataclass(frozen=True)
class Rows:
    """Measured collectives of one group, as arrays [row]."""

    sent: Array
    members: Array
    bandwidth: Array
    seconds: Array
    payload: Array

    @classmethod
    def of(cls, found: Sequence[MeasuredCollective]) -> "Rows":
        """Return the rows of one group."""
        tiers = [catalogue.load_fabric(m.npu, None).tiers[0] for m in found]
        return cls(
            np.array([float(m.collective.cost().link_bytes) for m in found]),
            np.array([float(m.collective.ranks) for m in found]),
            np.array([float(tier.bandwidth) for tier in tiers]),
            np.array([m.seconds for m in found]),
            np.array([float(m.collective.payload) for m in found]),
        )

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        """Return some of the rows."""
        return Rows(*(array[chosen] for array in vars(self).values()))

    def times(self, kernel: CollectiveKernel) -> Array:
        """Return the seconds of each row by one kernel."""
        slower = kernel.excess(self.members) / self.bandwidth
        return np.asarray(kernel.latency(self.members) + self.sent * slower)

    def error(self, kernels: Sequence[CollectiveKernel]) -> Array:
        """Return ln(predicted / measured) by the fastest kernel."""
        times = np.min([self.times(kernel) for kernel in kernels], axis=0)
        return np.log(times / self.seconds)


@dataclass(frozen=True)
class Free:
    """What the rows of a group can tell: sizes of group, and how many lines."""

    lines: int
    hop: bool
    contention: bool

    @classmethod
    def of(cls, rows: Rows, lines: int) -> "Free":
        """Return what can be fitted: hops need three sizes, contention two."""
        sizes = len(set(rows.members))
        return cls(lines, hop=sizes > 2, contention=sizes > 1)

    def kernels(self, parameters: Array) -> list[CollectiveKernel]:
        """Return the kernels that a vector of parameters stands for."""
        return [
            CollectiveKernel(
                np.exp(launch),
                np.exp(hop) if self.hop else 0.0,
                1.0 / (1.0 + np.exp(-share)),
                contention if self.contention else 0.0,
            )
            for launch, hop, share, contention in parameters.reshape(-1, 4)
        ]


LOW = [np.log(1e-7), np.log(1e-8), -5.0, -0.7]
HIGH = [np.log(1e-3), np.log(1e-4), 4.0, 1.6]


def bounds(lines: int) -> tuple[Array, Array]:
    """Return the least and the largest parameters."""
    return np.tile(LOW, lines), np.tile(HIGH, lines)


def fit_lines(
    rows: Rows, lines: int, beside: Sequence[CollectiveKernel]
) -> list[CollectiveKernel]:
    """Return the lines that, with others beside, are nearest to the rows.

    A weak pull towards hops of 1 us and no contention settles what no row tells.
    """
    rng = np.random.default_rng(0)
    free = Free.of(rows, lines)
    centre = np.tile([0.0, -14.0, 0.0, 0.0], lines)
    weight = np.tile([0.0, 0.01, 0.0, 0.05], lines)

    def residuals(parameters: Array) -> Array:
        error = rows.error([*free.kernels(parameters), *beside])
        return np.concatenate([error, weight * (parameters - centre)])

    def start(index: int) -> list[float]:
        launch = np.log(rows.seconds.min()) + index * rng.uniform(0.1, 1.2)
        share = rng.uniform(-3, 0) + index
        return [launch, rng.uniform(-16, -12), share, rng.uniform(-0.6, 1.0)]

    found = [
        least_squares(
            residuals,
            np.clip(np.concatenate([start(k) for k in range(lines)]), *bounds(lines)),
            bounds=bounds(lines),
            loss="soft_l1",
            f_scale=0.05,
            max_nfev=150,
        )
        for _ in range(STARTS)
    ]
    return free.kernels(min(found, key=lambda each: each.cost).x)


def fit(rows: Rows, beside: Sequence[CollectiveKernel]) -> list[CollectiveKernel]:
    """Return as few lines as serve: none, one or two.

    A framework's own must halve the error of the library's; a second line must lower
    that of one by a fifth.
    """
    one, two = (fit_lines(rows, lines, beside) for lines in (1, 2))
    first, second = (median(rows.error([*own, *beside])) for own in (one, two))
    if beside and min(first, second) > 0.5 * median(rows.error(beside)):
        return []
    return two if second < 0.8 * first else one


def median(error: Array) -> float:
    """Return the median |ln|."""
    return float(np.median(np.abs(error)))


def left_out(rows: Rows, lines: int, beside: Sequence[CollectiveKernel]) -> Array:
    """Return the error of each row where its message size took no part."""
    fold = np.unique(rows.payload, return_inverse=True)[1] % FOLDS
    error = np.empty(len(fold))
    for k in range(FOLDS):
        own = fit_lines(rows.where(fold != k), lines, beside) if lines else []
        error[fold == k] = rows.where(fold == k).error([*own, *beside])
    return error


Group = tuple[str, str, str, tuple[CollectiveKind, ...]]
RELATIVE = {
    "nvlink3": "nvlink4",
    "nvlink5": "nvlink5-nvl72",
    "nvlink5-nvl72": "nvlink5",
    "pcie4": "pcie5",
    "pcie5": "pcie4",
}
"""Whose lines a link takes whose only device is left out."""


def group_of(measured: MeasuredCollective) -> Group:
    """Return link, library, framework (blank: the library's own) and kinds."""
    file = catalogue.npu_file(measured.npu)
    library = catalogue.efficiency_file(file.efficiency).collective_library or ""
    kind = measured.collective.kind
    together = kind in GATHERS and library == "nccl"  # rings run either way
    link = file.fabric[0].link
    if kind not in EXCHANGE:
        link = catalogue.link_file(link).like or link
    kinds = GATHERS if together else (kind,)
    return link, library, measured.framework or "", kinds


def read(paths: Sequence[str]) -> Iterator[MeasuredCollective]:
    """Yield every row that can be read and lies inside one node."""
    for path in paths:
        table = Path(path).name.split(".")[0]
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    measured = measured_collective(table, row)
                except GenzSizeError:
                    continue
                send = measured.collective.kind is CollectiveKind.SEND
                if measured.collective.stride == 1 and send is (table in SENDS):
                    yield measured


def entry(
    group: Group, rows: Rows, own: Sequence[CollectiveKernel], errors: Sequence[float]
) -> str:
    """Return a group's table as the catalogue writes it."""
    link, library, framework, kinds = group
    quoted = ", ".join(f'"{kind}"' for kind in kinds)
    head = [f"# {link}", "[[collectives]]", f'library = "{library}"']
    lines = [
        f'    {{ launch = "{kernel.launch * 1e6:.3g} us", '
        f'hop = "{kernel.hop * 1e6:.2g} us", share = {kernel.share:.2g}, '
        f"contention = {kernel.contention + 0.0:.2f} }},"
        for kernel in sorted(own, key=lambda each: float(each.launch))
    ]
    fitted, kept_back = errors
    return "\n".join(
        [
            *head,
            *([f'framework = "{framework}"'] if framework else []),
            f"kinds = [{quoted}]",
            f"rows = {len(rows.seconds)}",
            f"error = {fitted:.3f}",
            f"left_out = {kept_back:.3f}",
            *("lines = [", *lines, "]\n"),
        ]
    )


class Fits:
    """Every group's rows and lines."""

    def __init__(self, measured: Iterable[MeasuredCollective]) -> None:
        self.measured: dict[Group, list[MeasuredCollective]] = defaultdict(list)
        for each in measured:
            self.measured[group_of(each)].append(each)
        self.lines: dict[Group, list[CollectiveKernel]] = {}
        for group in sorted(self.measured):
            rows = Rows.of(self.measured[group])
            self.lines[group] = fit(rows, self.beside(group))

    def beside(self, group: Group) -> list[CollectiveKernel]:
        """Return the library's lines, which a framework has beside its own."""
        link, library, framework, kinds = group
        return self.lines.get((link, library, "", kinds), []) if framework else []

    def without(self, npu: str, group: Group) -> list[CollectiveKernel]:
        """Return the lines fitted to the other devices; a relative link's if none."""
        others = [m for m in self.measured.get(group, ()) if m.npu != npu]
        if not others:
            link = RELATIVE.get(group[0], "")
            return self.lines.get((link, *group[1:]), [])
        count = len(self.lines[group])
        return fit_lines(Rows.of(others), count, self.beside(group)) if count else []


def main(paths: Sequence[str]) -> None:
    """Print every group's lines, then the error by device."""
    fits = Fits(read(paths))
    kept_back: dict[tuple[object, ...], list[tuple[float, float]]] = defaultdict(list)
    for group, found in fits.measured.items():
        rows, own, beside = Rows.of(found), fits.lines[group], fits.beside(group)
        error = left_out(rows, len(own), beside)
        if own:
            fitted = median(rows.error([*own, *beside]))
            print(entry(group, rows, own, (fitted, median(error))))  # noqa: T201
        foreign = np.full(len(error), np.nan)
        for npu in {m.npu for m in found}:
            at = np.array([m.npu == npu for m in found])
            library = (*group[:2], "", group[3])
            others = fits.without(npu, group)
            others = others + (fits.without(npu, library) if group[2] else [])
            if others:
                foreign[at] = rows.where(at).error(others)
        for each, size, device in zip(found, error, foreign, strict=True):
            key = (each.npu, group[2] or group[1], each.collective.kind.value)
            kept_back[*key, each.collective.ranks].append((size, device))
    report(kept_back)


def report(errors: dict[tuple[object, ...], list[tuple[float, float]]]) -> None:
    """Print the medians by device, software and kind, and their mean over groups."""
    medians = {
        key: np.median(np.abs(np.array(pairs)), axis=0) for key, pairs in errors.items()
    }
    together: dict[tuple[object, ...], list[Array]] = defaultdict(list)
    for key, pair in medians.items():
        together[key[:3]].append(pair)
    for name, pairs in sorted(together.items()):
        size, device = np.mean(pairs, axis=0)
        print(f"{' '.join(map(str, name)):50s} {size:6.3f} {device:6.3f}")  # noqa: T201
    every = np.array(list(medians.values()))
    size, device = np.nanmean(every, axis=0)
    unknown = int(np.isnan(every[:, 1]).sum())
    print(  # noqa: T201
        f"mean of {len(every)} groups' medians: {size:.3f} sizes left out, "
        f"{device:.3f} devices left out ({unknown} groups without a relative)"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
