"""From a model to its best values and best bound, by whichever solver is best at it.

CP-SAT goes first: what it proves at once, nobody else is asked. Where it does not, its
bound is what is weak: the classes by themselves (`solver.decomposition`) and the MIP
solvers (`solver.mip`) bound the linear part of the model far better, a few classes at a
time (`solver.neighbourhoods`) improve its plan, and CP-SAT ends with both.
"""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ortools.sat.python import cp_model

from model_ops.errors import SolverError
from solver.decomposition import decomposed
from solver.linear import LinearModel
from solver.mip import SOLVERS, MipResult, multipliers, solved
from solver.neighbourhoods import improved
from solver.options import SolveOptions
from solver.variables import Variables

CP_SAT = "CP-SAT"
BY_CLASSES = "CP-SAT, class by class"

FIRST_EFFORT = 0.5
"""Deterministic seconds of CP-SAT alone; what takes longer needs better bounds."""

_FIRST_SHARE = 0.2
"""Share of the time left that this may take at most."""

_HINTED_EFFORT = 0.5
"""The same for making a plan of what the classes choose by themselves."""

_NEIGHBOURS, _MIPS = 0.7, 0.5
"""Shares of the time then left for better plans, and of the rest for MIP bounds."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a search stands.

    Parameters
    ----------
    status
        ``"optimal"``, ``"feasible"``, ``"infeasible"`` or ``"timed_out"``.
    values
        Of all variables of the model, by index; empty without a plan.
    value, bound
        The objective, and what no plan undercuts, in steps.
    proved_by
        Who proved the bound.
    """

    status: str
    values: tuple[int, ...] = ()
    value: float = math.inf
    bound: float = -math.inf
    proved_by: str = CP_SAT

    def bounded(self, bound: float, by: str, step: int = 1) -> "Found":
        """Return the same with a bound if it is better; values are multiples of a step.

        A plan as cheap as the bound is optimal.
        """
        if not bound > self.bound or math.isinf(bound):
            return self
        least = -(-math.ceil(bound) // step) * step
        found = replace(self, bound=least, proved_by=by)
        if self.values and found.bound >= self.value:
            return replace(found, bound=self.value, status="optimal")
        return found

    def planned(self, values: Sequence[int], value: float) -> "Found":
        """Return the same with a plan, if it is better."""
        if not value < self.value:
            return self
        status = "optimal" if value <= self.bound else "feasible"
        return replace(self, status=status, values=tuple(values), value=value)

    @property
    def settled(self) -> bool:
        """Whether nothing is left to prove."""
        return self.status in ("optimal", "infeasible")


def search(
    model: cp_model.CpModel, variables: Variables, options: SolveOptions
) -> Found:
    """Return the best values and bound of a model that minimises, in the time given."""
    first = options.at_most(_FIRST_SHARE)
    found = _by_cp_sat(model, first, Found("timed_out"), effort=FIRST_EFFORT)
    if found.settled or not options.remaining:
        return found
    linear = LinearModel.of(model)
    owner = variables.owners + (None,) * (len(linear.costs) - len(variables.owners))
    step = math.gcd(*linear.costs) or 1
    found = _by_classes(model, linear, owner, options, found)
    if found.values and not found.settled:
        deadline = time.monotonic() + _NEIGHBOURS * options.remaining
        values = improved(
            linear,
            owner,
            found.values,
            bound=math.ceil(found.bound),
            deadline=deadline,
            seed=options.seed,
        )
        found = found.planned(values, linear.value(values))
    if found.settled:
        return found
    for name, result in _by_mips(linear, found, options):
        found = found.bounded(result.bound, name, step)
        if result.values and linear.admits(result.values):
            found = found.planned(result.values, linear.value(result.values))
    if found.settled or not options.remaining:
        return found
    return _by_cp_sat(model, options, found)


def _by_classes(
    model: cp_model.CpModel,
    linear: LinearModel,
    owner: Sequence[int | None],
    options: SolveOptions,
    found: Found,
) -> Found:
    """Return what is found with the bound, and the plan, of the classes one by one."""
    prices = multipliers(linear) if len(set(owner) - {None}) > 1 else []
    if not prices:
        return found
    parts = decomposed(linear, owner, prices, options.remaining / 2)
    if parts is None:
        return found
    found = found.bounded(parts.bound, BY_CLASSES, math.gcd(*linear.costs) or 1)
    counts = [model.get_int_var_from_proto_index(i) for i in range(len(owner))]
    cost = cp_model.LinearExpr.weighted_sum(counts, linear.costs)
    model.add(cost >= math.ceil(found.bound)).with_name("bound")
    if found.settled:
        return found
    choices = zip(parts.values, owner, strict=True)
    _hint(model, [None if who is None else value for value, who in choices])
    return _by_cp_sat(model, options, found, effort=_HINTED_EFFORT, hinted=True)


def _by_mips(
    linear: LinearModel, found: Found, options: SolveOptions
) -> Iterator[tuple[str, MipResult]]:
    """Yield what each MIP solver finds; side by side where there are threads for it."""
    threads = min(options.workers, len(SOLVERS))
    seconds = _MIPS * options.remaining * threads / len(SOLVERS)
    with ThreadPoolExecutor(threads) as pool:
        asked = {
            name: pool.submit(solved, linear, name, seconds, found.values, options.seed)
            for name in SOLVERS
        }
        for name, result in asked.items():
            yield name, result.result()


def _by_cp_sat(
    model: cp_model.CpModel,
    options: SolveOptions,
    found: Found,
    *,
    effort: float = math.inf,
    hinted: bool = False,
) -> Found:
    """Return what CP-SAT adds to what is found, from there if not from another hint."""
    if found.values and not hinted:
        _hint(model, found.values)
    solver = cp_sat(options, effort if found.values or not hinted else math.inf)
    solver.parameters.stop_after_first_solution = hinted and not found.values
    status = status_of(solver, model)
    if status == "infeasible":
        return replace(found, status=status)
    if status in ("optimal", "feasible"):
        size = len(model.proto.variables)
        values = [
            solver.value(model.get_int_var_from_proto_index(i)) for i in range(size)
        ]
        found = found.planned(values, solver.objective_value)
    if status == "optimal":
        by = CP_SAT if solver.objective_value > found.bound else found.proved_by
        return replace(found, status=status, bound=found.value, proved_by=by)
    return found.bounded(solver.best_objective_bound, CP_SAT)


def _hint(model: cp_model.CpModel, values: Sequence[int | None]) -> None:
    model.clear_hints()  # type: ignore[no-untyped-call]
    for index, value in enumerate(values):
        if value is not None:
            model.add_hint(model.get_int_var_from_proto_index(index), value)


def cp_sat(options: SolveOptions, effort: float = math.inf) -> cp_model.CpSolver:
    """Return a CP-SAT solver for the time left, or so many deterministic seconds."""
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = options.remaining
    solver.parameters.max_deterministic_time = effort
    solver.parameters.num_workers = options.workers
    solver.parameters.random_seed = options.seed
    solver.parameters.catch_sigint_signal = False
    # A covering problem is proved by its linear relaxation, all of it.
    solver.parameters.linearization_level = 2
    return solver


def status_of(solver: cp_model.CpSolver, model: cp_model.CpModel) -> str:
    """Solve, and return how it ended.

    Raises
    ------
    SolverError
        If CP-SAT refuses the model, which is a fault of ours.
    """
    status = _searched(solver, model)
    names = {
        cp_model.OPTIMAL: "optimal",
        cp_model.FEASIBLE: "feasible",
        cp_model.INFEASIBLE: "infeasible",
        cp_model.UNKNOWN: "timed_out",
    }
    if status not in names:
        raise SolverError(f"CP-SAT refuses the model: {model.validate()}")
    return names[status]


def _searched(
    solver: cp_model.CpSolver, model: cp_model.CpModel
) -> "cp_model.CpSolverStatus":
    """Search beside the main thread: CP-SAT would answer Ctrl-C with what it has."""
    with ThreadPoolExecutor(1) as beside:
        try:
            return beside.submit(solver.solve, model).result()
        except KeyboardInterrupt:
            solver.stop_search()
            raise
