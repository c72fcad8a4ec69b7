"""Reading plans that ``genz-size size --format json`` has written, and problems."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from model_ops.dtypes import Precision
from model_ops.errors import GenzSizeError, ProblemError
from problems import catalogue
from problems.fields import Name, messages, read_text
from problems.plan import Plan, PlannedDeployment, Positive
from problems.problem import SizingProblem, problem_of, read_toml
from problems.stated import stated_plan

_WRITE = "genz-size size --format json -o PLAN.json writes plans"


def holds_plan(path: Path) -> bool:
    """Return whether a file is JSON, as reports are, by its name or its text.

    Raises
    ------
    ProblemError
        If it cannot be read.
    """
    text = read_text(path, "PLAN.json or PROBLEM.toml")
    return path.suffix == ".json" or text.lstrip().startswith("{")


def read_stated(path: Path) -> tuple[SizingProblem, Plan | None]:
    """Return the problem of a TOML file, and the plan that it states if it does.

    Raises
    ------
    GenzSizeError
        If it cannot be read, or states no problem or what cannot be deployed.
    """
    content = read_toml(path)
    tables = content.pop("plan", None)
    problem = problem_of(content, source="file")
    if tables is None:
        return problem, None
    plan = stated_plan(problem, tables)
    if any(row.mode != "aggregated" for row in plan.deployments):
        # Whoever states a pair allows it.
        modes = dict.fromkeys((*problem.modes, "disaggregated"))
        problem = problem.model_copy(update={"modes": tuple(modes)})
    return problem, plan


class _InUse(BaseModel):
    """What a row of a report says of the NPUs that it uses."""

    npu: Name
    npus: Positive


class _Fleet(BaseModel):
    plan: Annotated[tuple[_InUse, ...], Field(min_length=1)]


def read_fleet(path: Path) -> Counter[str]:
    """Return how many NPUs of each type the plan of a report as JSON uses.

    Raises
    ------
    GenzSizeError
        If it cannot be read, has no plan, or the plan's parts contradict each other.
    """
    content = _read(path, "--current")
    used: Counter[str] = Counter()
    rows: Sequence[_InUse | PlannedDeployment]
    if "candidates" in content:  # a plan of rows of a table, which knows no model
        try:
            rows = _Fleet.model_validate(content).plan
        except ValidationError as error:
            raise ProblemError(f"--current: {messages(error, _Fleet)}") from None
    else:
        rows = read_plan(path, "--current")[1].deployments
    for row in rows:
        used[row.npu] += row.npus
    return used


def read_plan(path: Path, field: str = "plan") -> tuple[SizingProblem, Plan]:
    """Return the plan of a report as JSON, and the problem that it solves.

    Raises
    ------
    GenzSizeError
        If it cannot be read, has no plan, or the plan's parts contradict each other.
    """
    content = _read(path, field)
    if "candidates" in content:
        raise ProblemError(
            f"{field}: {path} has figures of a table ({content['candidates']}), which "
            "nothing here predicts or simulates"
        )
    stated = content.get("problem")
    if not isinstance(stated, dict):
        raise ProblemError(f"{field}: {path} is no plan: it has no problem; {_WRITE}")
    problem = problem_of(stated, source="python")
    if not content.get("plan"):
        raise ProblemError(f"{field}: {path} has no deployments; {_WRITE}")
    try:
        plan = Plan.model_validate(
            {
                "model": problem.model,
                "optimisations": problem.optimisations,
                "kv_bandwidth": problem.kv_bandwidth,
                "deployments": content["plan"],
                "purchases": content.get("purchases", ()),
            }
        )
    except ValidationError as error:
        raise ProblemError(f"{field}: {messages(error, Plan)}") from None
    _check(problem, plan)
    return problem, plan


def _read(path: Path, field: str) -> dict[str, Any]:
    try:
        content = json.loads(read_text(path, field))
    except (ValueError, RecursionError) as error:
        raise ProblemError(
            f"{field}: {path} is not valid JSON ({error}); {_WRITE}"
        ) from None
    if not isinstance(content, dict):
        raise ProblemError(f"{field}: {path} is not a JSON object; {_WRITE}")
    return content


def _check(problem: SizingProblem, plan: Plan) -> None:
    """Raise `ProblemError` if a deployment is none, or a class has none."""
    for traffic in problem.traffic:
        if not plan.of_class(traffic.name):
            raise ProblemError(f"plan: no deployment serves {traffic.name}")
        if traffic.kept_whole and plan.pairs(traffic.name):
            raise ProblemError(
                f"plan: {traffic.name} has {traffic.kept_whole}, which is not "
                "disaggregated"
            )
    for number, deployment in enumerate(plan.deployments):
        try:
            npu = catalogue.load_npu(deployment.npu)
            precision = Precision.of(deployment.precision)
            arch = catalogue.load_model(plan.model_of(deployment))
            plan.optimisations.check(arch, deployment.parallelism)
        except GenzSizeError as error:
            raise ProblemError(f"plan.{number}: {error}") from None
        if not npu.computes(precision):
            raise ProblemError(
                f"plan.{number}: {npu.name} computes no {precision.name}"
            )
