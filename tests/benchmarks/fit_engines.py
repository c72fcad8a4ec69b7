"""Fit the profiles of `problems/catalogue/frameworks/` to measured serving results.

Run: ``python tests/benchmarks/fit_engines.py [E2E.csv.gz]`` (the results that come with
the project if none is given; about ten minutes). Per engine and generation it takes the
mean TTFT and TPOT of closed loops, and the latencies of static batches, on NPUs whose
architecture was measured; moves each parameter a little to see what it does to every
figure; and minimises the median ``|ln(predicted / measured)|`` of each group of
results, groups alike. It prints the parameters, how many they are beside how many
results, and the errors: as they are, fitted, and of groups that were left out.

The files hold these parameters rounded; where engines could not be told apart by what
was published (few groups, or one source) they share a figure.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from model_ops.platform.npu import Npu
from problems import catalogue
from problems.measured.names import engine_name, npu_name
from problems.measured.shipped import FOLDER
from problems.measured.tables import Row, read_table
from sizing.validate.served import answers

Floats = npt.NDArray[np.float64]

METRICS = ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms")
FOLDS = 4
FEWEST = 4
"""Groups without which an engine is not fitted."""


@dataclass(frozen=True)
class Parameter:
    """A figure of a profile, and the little that it is moved by."""

    name: str
    step: float
    least: float
    most: float

    def moved(self, npu: Npu) -> Npu:
        """Return an NPU with the figure moved."""
        changed: dict[str, Any] = {self.name: getattr(npu, self.name) + self.step}
        return replace(npu, **changed)


PARAMETERS = (
    Parameter("step_overhead", 1e-3, 0.0, 0.02),
    Parameter("sequence_overhead", 2e-5, 0.0, 3e-4),
    Parameter("pace", 0.1, 0.7, 2.5),
    Parameter("prefill_pace", 0.3, 0.7, 3.0),
    Parameter("request_overhead", 1e-2, 0.0, 0.3),
    Parameter("host_time", 5e-3, 0.0, 0.1),
)


@dataclass(frozen=True)
class Results:
    """Results of one engine: what is measured and predicted, and what moves it.

    Parameters
    ----------
    measured, predicted
        Milliseconds; shaped [result].
    slopes
        Milliseconds per unit of each parameter; shaped [parameter, result].
    groups
        Number of the group of each result, TTFT apart; shaped [result].
    """

    measured: Floats
    predicted: Floats
    slopes: Floats
    groups: npt.NDArray[np.int64]

    def error(self, moves: Floats) -> Floats:
        """Return ``|ln(predicted / measured)|`` with the parameters moved so."""
        found = self.predicted + moves @ self.slopes
        least = 0.05 * self.predicted
        return np.abs(np.log(np.maximum(found, least) / self.measured))

    def score(self, moves: Floats, some: npt.NDArray[np.bool_] | None = None) -> float:
        """Return the mean over groups of the median error."""
        errors = self.error(moves)
        kept = np.ones(len(errors), bool) if some is None else some
        groups = np.unique(self.groups[kept])
        return float(
            np.mean([np.median(errors[kept & (self.groups == g)]) for g in groups])
        )


def predictions(rows: Sequence[Row], change: Callable[[Npu], Npu]) -> Floats:
    """Return what is predicted for rows with every NPU changed."""
    usual, under = catalogue.load_npu, catalogue.load_npu_under
    with (
        mock.patch.object(catalogue, "load_npu", cache(lambda n: change(usual(n)))),
        mock.patch.object(
            catalogue, "load_npu_under", cache(lambda n, f: change(under(n, f)))
        ),
    ):
        return np.array([answer.predicted for answer in answers(rows)])


def usable(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    """Yield engine and row of every result that an engine can be fitted to."""
    for row in rows:
        kept = row["load_mode"] in ("closed_loop", "static_batch")
        mean = row["stat"] in ("mean", "unspecified")
        if not (kept and mean and row["metric"] in METRICS and row["trust"] in "AB"):
            continue
        engine = engine_name(row["framework"], row.get("date", ""))
        if engine and known(row["hardware"]):
            yield engine, row


@cache
def known(hardware: str) -> bool:
    """Return whether kernels of the hardware's architecture were measured."""
    file = catalogue.npu_file(npu_name(hardware))
    return bool(catalogue.efficiency_file(file.efficiency).measured_on)


def results(rows: Sequence[Row]) -> Results:
    """Return an engine's results, and what each parameter does to them."""
    usual = predictions(rows, lambda npu: npu)
    slopes = []
    for parameter in PARAMETERS:
        moved = predictions(rows, parameter.moved)
        slopes.append((moved - usual) / parameter.step)
    kinds = [(row["group_id"], row["metric"] == "ttft_ms") for row in rows]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    good = np.isfinite(usual) & np.all(np.isfinite(slopes), axis=0)
    return Results(
        measured=np.array([float(row["value"]) for row in rows])[good],
        predicted=usual[good],
        slopes=np.array(slopes)[:, good],
        groups=np.array([numbers[kind] for kind in kinds])[good],
    )


def fitted(
    found: Results,
    now: Mapping[str, float],
    some: npt.NDArray[np.bool_] | None = None,
) -> Floats:
    """Return the moves of the parameters that leave the least error."""
    start = np.array([now[p.name] for p in PARAMETERS])
    least = np.array([p.least for p in PARAMETERS]) - start
    most = np.array([p.most for p in PARAMETERS]) - start
    scale = np.array([p.step for p in PARAMETERS])

    def loss(scaled: Floats) -> float:
        moves = np.clip(scaled * scale, least, most)
        return found.score(moves, some) + 0.01 * float(np.mean(np.abs(scaled)))

    origin = np.zeros(len(scale))
    best = minimize(
        loss,
        origin,
        method="Nelder-Mead",
        options={
            "initial_simplex": np.vstack([origin, np.eye(len(scale))]),
            "maxiter": 2000,
            "xatol": 1e-3,
            "fatol": 1e-5,
        },
    )
    return np.clip(best.x * scale, least, most)


def left_out(found: Results, now: Mapping[str, float]) -> float:
    """Return the error of groups that the fit had not seen."""
    groups = np.unique(found.groups)
    fold = np.random.default_rng(0).permutation(len(groups)) % FOLDS
    errors = []
    for number in range(FOLDS):
        out = np.isin(found.groups, groups[fold == number])
        errors.append(found.score(fitted(found, now, ~out), out))
    return float(np.mean(errors))


def main(path: Path) -> None:
    """Print each engine's parameters and errors."""
    by_engine: dict[str, list[Row]] = {}
    for engine, row in usable(read_table(path).rows):
        by_engine.setdefault(engine, []).append(row)
    for engine, rows in sorted(by_engine.items()):
        groups = len({row["group_id"] for row in rows})
        if groups < FEWEST:
            continue
        npu = catalogue.load_npu_under(npu_name(rows[0]["hardware"]), engine)
        now = {p.name: float(getattr(npu, p.name)) for p in PARAMETERS}
        found = results(rows)
        moves = fitted(found, now)
        fits = "; ".join(
            f"{p.name} {now[p.name]:.4g} -> {now[p.name] + move:.4g}"
            for p, move in zip(PARAMETERS, moves, strict=True)
        )
        print(  # noqa: T201
            f"{engine}: {len(PARAMETERS)} parameters, {len(rows)} results of {groups} "
            f"groups; error {found.score(0 * moves):.3f} now, "
            f"{found.score(moves):.3f} fitted, {left_out(found, now):.3f} left out\n"
            f"  {fits}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER / "e2e.csv.gz")
