"""Sizing with a check: simulate the plan, correct what misses a target, size again.

The formulas behind a plan are approximations. Where a simulation shows that a
deployment misses a target at its load, the load that it does take is found by
bisection, and its rate is lowered in that proportion before the next plan is sought.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from model_ops.serving.confidence import Progress, Verdict
from problems.plan import PlannedDeployment
from problems.problem import SizingProblem
from problems.serve import Served
from sizing.api import Answer, size
from sizing.simulate import (
    Settings,
    SimulatedDeployment,
    Simulation,
    keeps_targets,
    simulated,
)
from sizing.simulated_traffic import Place
from solver.corrections import Corrections, Deployed
from solver.model import SolveOptions
from solver.settings import Setting
from solver.solve import Feasible, Optimal

MOST_ROUNDS = 3
"""Corrections of a plan, each followed by another plan."""

_HALVINGS = 8
_FEWER = 4
"""Of the bisection: its runs, and how many times fewer requests they have."""


@dataclass(frozen=True, slots=True)
class Correction:
    """A rate that was lowered.

    Parameters
    ----------
    deployed
        Class, NPU, split, precision, setting and mode.
    predicted, confirmed
        Requests per second of a replica within the targets: as the formulas had it (or
        an earlier correction), and as the simulation has it.
    missed
        Labels of the targets that failed.
    """

    deployed: Deployed
    predicted: float
    confirmed: float
    missed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """An answer whose plan has been simulated.

    Parameters
    ----------
    answer
        The last one.
    simulations
        Of every plan on the way; the last is that of the answer, if it has a plan.
    corrections
        What followed from each simulation but the last, in order.
    """

    answer: Answer
    simulations: tuple[Simulation, ...]
    corrections: tuple[tuple[Correction, ...], ...]

    @property
    def failed(self) -> bool:
        """Whether the answer's plan surely misses a target."""
        return len(self.corrections) < len(self.simulations) and (
            self.simulations[-1].verdict is Verdict.FAIL
        )


def checked_size(
    problem: SizingProblem,
    options: SolveOptions | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
) -> Checked:
    """Return the cheapest plan whose targets hold in a simulation too.

    After `MOST_ROUNDS` corrections the plan is returned as it is; `Checked.failed`
    says whether it misses a target even then.

    Raises
    ------
    GenzSizeError
        As `sizing.api.size` does.
    """
    settings = settings or Settings()
    shares: dict[Deployed, float] = {}
    simulations: list[Simulation] = []
    corrections: list[tuple[Correction, ...]] = []
    while True:
        answer = size(problem, options, shares)
        if not isinstance(answer.outcome, Optimal | Feasible):
            break
        plan = answer.outcome.plan
        simulations.append(simulated(answer.problem, plan, settings, progress))
        failed = simulations[-1].failed
        if not failed or len(corrections) == MOST_ROUNDS:
            break
        corrections.append(
            tuple(
                correction
                for each in failed
                for correction in _corrections(
                    each, simulations[-1].sharing(each), settings
                )
            )
        )
        shares = _corrected(shares, corrections[-1])
    return Checked(answer, tuple(simulations), tuple(corrections))


def _corrections(
    found: SimulatedDeployment, places: Sequence[Place], settings: Settings
) -> list[Correction]:
    """Return the rate at which a deployment that failed keeps its targets.

    Of a route those of the pools whose latencies failed.

    Parameters
    ----------
    places
        The deployment's, and those that share its replicas.
    """
    fewer = replace(settings, requests=max(1, settings.requests // _FEWER))
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        kept = keeps_targets(places, fewer, middle)
        low, high = (middle, high) if kept else (low, middle)
    failed = [j for j in found.measured.targets if j.verdict is Verdict.FAIL]
    missed = tuple(judged.label for judged in failed)
    metrics = {judged.metric for judged in failed}
    served = found.place.served
    rows = [served.deployment]
    if served.decode is not None:
        pools = ((served.deployment, "ttft"), (served.decode, "tpot"))
        rows = [row for row, own in pools if metrics != {_OTHER[own]}]
    return [
        Correction(
            deployed=(
                row.traffic,
                row.npu,
                row.parallelism,
                row.precision,
                Setting(row.batch, row.chunk_tokens),
                row.mode,
            ),
            predicted=row.rate,
            confirmed=_load_of(row, served) * low,
            missed=missed,
        )
        for row in rows
    ]


def _load_of(row: PlannedDeployment, served: Served) -> float:
    """Return what each of a row's replicas gets at its share of the demand."""
    most = row.rate if served.pair is None else served.pair.load(row)
    return most * served.utilisation


_OTHER = {"ttft": "tpot", "tpot": "ttft"}
"""The latency that the other pool of a pair keeps alone."""


def _corrected(
    shares: Corrections, found: tuple[Correction, ...]
) -> dict[Deployed, float]:
    """Return the shares of the rates that are left after some corrections.

    Of two deployments alike but for the offer they stand on, the lower counts.
    """
    lowered: Mapping[Deployed, list[float]] = {
        c.deployed: [
            other.confirmed / other.predicted
            for other in found
            if other.deployed == c.deployed
        ]
        for c in found
    }
    return dict(shares) | {
        deployed: shares.get(deployed, 1.0) * min(each)
        for deployed, each in lowered.items()
    }
