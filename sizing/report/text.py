"""An answer as text: what to say in the meeting first, what it rests on last."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table as RichTable

from model_ops.serving.queueing import Statistic
from model_ops.units import BYTE, BYTE_PER_SECOND, SECOND, WATT
from problems.limits_kept import used_by
from problems.plan import Plan, PlannedDeployment
from problems.problem import SizingProblem
from problems.serve import Served
from sizing.api import Answer
from sizing.facts import (
    ClassFacts,
    DeploymentFacts,
    Prediction,
    Provenance,
    class_facts,
    emulated,
    left_out,
    provenance,
    unmeasured,
    unmeasured_kernels,
    usd_per_million_tokens,
    usd_per_month,
)
from sizing.intervals import BETWEEN, weakness
from sizing.memory_use import MemoryUse
from sizing.report.certificate import certificate_text
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.infeasible import infeasible
from sizing.report.margins import print_margins
from sizing.report.quotas import beside_quotas
from sizing.report.taken import changes, taken
from solver.solve import Feasible, Optimal


def as_text(answer: Answer) -> str:
    """Return the answer as readable text."""
    console = new_console()
    if isinstance(answer.outcome, Optimal | Feasible):
        _plan(console, answer, answer.outcome.plan)
    elif answer.explanation is not None:
        infeasible(console, answer.problem, answer.explanation)
        for line in left_out(answer.problem):
            console.print()
            console.print(line)
    else:
        console.print(
            "No answer in time: no plan was found, and none was ruled out. "
            "Give more --time-limit, or fewer NPU types with --npu."
        )
    return text_of(console)


def usd(value: float) -> str:
    """Return dollars with a precision that fits their size."""
    return f"{value:,.2f} USD" if value < 1_000 else f"{value:,.0f} USD"


def _plan(console: Console, answer: Answer, plan: Plan) -> None:
    facts = class_facts(answer, plan)
    console.print(_sentence(answer, plan, facts))
    console.print(_proof(answer))
    section(console, "The plan", _deployments(plan))
    section(
        console,
        f"Predicted at this traffic; {BETWEEN}",
        _predictions(facts),
    )
    console.print()
    for line in _risks(answer, facts):
        console.print(f"- {line}")
    for line in (
        *_notes(answer, plan, facts),
        *emulated(plan),
        *unmeasured(plan),
        *unmeasured_kernels(plan),
    ):
        console.print(f"- {line}")
    if answer.runners_up:
        title = "The best plans with one NPU type only"
        section(console, title, _runners_up(answer))
    if answer.margins is not None:
        print_margins(console, answer.margins, answer.problem.objective)
    section(console, "Where the figures come from", _provenance(answer, plan))
    console.print()
    console.print(certificate_text(answer))


def _sentence(answer: Answer, plan: Plan, facts: list[ClassFacts]) -> str:
    models = " and ".join(answer.problem.models)
    asked = "; ".join(fact.traffic.text for fact in facts)
    per_output, _ = usd_per_million_tokens(plan, facts)
    bought = taken(plan, ((d.offer, d) for d in plan.deployments))
    return (
        f"To serve {models} ({asked}), {bought}: "
        f"{usd(plan.usd_per_hour)} an hour, {usd(usd_per_month(plan))} a month, "
        f"{usd(per_output)} per million generated tokens."
    )


def _proof(answer: Answer) -> str:
    certificate = answer.outcome.certificate
    what = {
        "cost": "costs less",
        "npus": "uses fewer NPUs",
        "power": "needs less power",
    }
    objective = answer.problem.objective
    if answer.status == "optimal":
        return (
            f"Proved optimal: of the {certificate.points:,} deployments evaluated, "
            "each at the highest rate its targets allow, no combination that carries "
            f"the traffic {what[objective]}."
        )
    return (
        f"Not proved optimal in the time given: a plan could be up to "
        f"{certificate.gap:.2%} better, none can be better than that."
    )


def _deployments(plan: Plan) -> RichTable:
    used = {name for d in plan.deployments for name in d.parallelism.degrees}
    degrees = [name for name in ("tp", "pp", "ep", "dp", "cp") if name in used]
    pools = ["mode"] if any(d.mode != "aggregated" for d in plan.deployments) else []
    several = len({d.model or plan.model for d in plan.deployments}) > 1
    models = ["model"] if several else []
    table = plain_table(
        "traffic", *models, *pools, ">replicas", "NPU",
        *(f">{name}" for name in degrees), ">max seqs", ">chunk", "precision",
        ">NPUs", ">nodes", ">USD/h",
    )  # fmt: skip
    for d in plan.deployments:
        table.add_row(
            d.traffic, *(d.model or plan.model for _ in models),
            *(getattr(d, name) for name in pools), f"{d.replicas:,}", d.npu,
            *(str(getattr(d, name)) for name in (*degrees, "batch", "chunk_tokens")),
            d.precision, f"{d.npus:,}", f"{d.nodes:,}", f"{d.usd_per_hour:,.2f}",
        )  # fmt: skip
    return table


def _predictions(facts: list[ClassFacts]) -> RichTable:
    table = plain_table(
        "traffic", "latency", ">mean", ">low", ">high",
        *(f">{name}" for name in _SHOWN), ">target", "mostly",
    )  # fmt: skip
    for fact in facts:
        for p in fact.predictions:
            values = (p.mean, p.low, p.high, *(p.percentiles[name] for name in _SHOWN))
            table.add_row(
                fact.traffic.name,
                p.metric.upper(),
                *(SECOND.format(value) for value in values),
                _asked(p),
                p.bound_by.removesuffix(" bandwidth"),
            )
    return table


_SHOWN: tuple[Statistic, ...] = ("p50", "p95", "p99")


def _asked(prediction: Prediction) -> str:
    """Return a latency's targets, one a line."""
    return "\n".join(
        f"{statistic} {SECOND.format(limit)}"
        for statistic, limit in prediction.targets.items()
    )


def _notes(answer: Answer, plan: Plan, facts: list[ClassFacts]) -> list[str]:
    lines = []
    for fact in facts:
        for deployment in fact.deployments:
            lines += [
                _load_of(fact, deployment),
                *_transfer_of(deployment),
                *weakness(deployment.served.latencies),
                *(_memory_of(memory) for memory in deployment.memory),
            ]
    asked = answer.problem.confidence
    slow = "" if asked is None else f"; times as slow as {asked:.0%} allow for"
    for binding in answer.bindings:
        what = "the plan from less" if binding.where == "plan" else binding.where
        more = "" if binding.where == "plan" else " from more"
        lines.append(
            f"What keeps {what}{more}: {binding.requirement} ({binding.reason}{slow})."
        )
    if plan.optimisations.text:
        lines.append(f"As the problem states: {plan.optimisations.text}.")
    lines += left_out(answer.problem)
    lines.append(_headroom(answer.problem))
    lines += changes(answer.problem, used_by(plan))
    lines += beside_quotas(answer.problem, plan)
    if "disaggregated" not in answer.problem.modes and not all(
        each.kept_whole for each in answer.problem.traffic
    ):
        lines.append(
            "Only replicas that do both prefill and decode were tried. To try separate "
            "prefill and decode pools too: --mode aggregated --mode disaggregated."
        )
    if plan.power is not None:
        lines.append(
            f"Power to provision: {WATT.format(plan.power)}, host and cooling included."
        )
    _, per_token = usd_per_million_tokens(plan, facts)
    lines.append(f"Cost per million tokens, prompts included: {usd(per_token)}.")
    return list(dict.fromkeys(lines))


def _risks(answer: Answer, facts: list[ClassFacts]) -> Iterator[str]:
    """Yield how likely the targets hold, given how far predictions have been off."""
    parts = [
        f"{statistic} {p.metric.upper()} of {fact.traffic.name} {chance:.0%}"
        for fact in facts
        for p in fact.predictions
        for statistic, chance in p.chances.items()
    ]
    if not parts:
        return
    asked = answer.problem.confidence
    sized = (
        "It is sized on predictions as they are; to be surer, ask for it "
        "(--confidence 0.9)."
        if asked is None
        else f"It is sized for {asked:.0%} (--confidence); the figures above are the "
        "predictions as they are."
    )
    yield (
        "The proof is about the model. Chance that measured figures meet the targets, "
        f"given how far predictions have been off: {', '.join(parts)}. {sized}"
    )


def _headroom(problem: SizingProblem) -> str:
    """Return what the targets leave to spare capacity, and how much there is."""
    statistics = {t.statistic for each in problem.traffic for t in each.targets}
    free = problem.headroom
    kept = f"{free:.0%} of it is kept free" if free else "none is kept free"
    redundancy = problem.redundancy
    needs = (
        f"Losing {redundancy.text} is provided for; more traffic than stated needs"
        if redundancy.domains
        else "Failures and more traffic than stated need"
    )
    spare = f"{needs} spare capacity: {kept} (--headroom)."
    if any(each.goodput for each in problem.traffic) or statistics - {"mean"}:
        return f"Percentiles hold for random arrivals at the stated rate. {spare}"
    if statistics:
        return (
            "Targets on means say nothing of the slowest requests: ask for percentiles "
            f"(--ttft 'p99 2 s'). {spare}"
        )
    return (
        "No latency is asked for: replicas may be loaded until queues grow without "
        f"end. {spare}"
    )


def _load_of(fact: ClassFacts, facts: DeploymentFacts) -> str:
    served = facts.served
    getting = "each replica gets" if served.decode is None else "together they get"
    return (
        f"{_where(served)} for {fact.traffic.name}: {getting} "
        f"{_share(served)}, {served.utilisation:.0%} of what targets and memory allow, "
        f"{facts.saturation_share:.0%} of what saturates it."
    )


def _where(served: Served) -> str:
    if served.decode is None:
        return _place(served.deployment)
    return f"{_place(served.deployment)} and {_place(served.decode)}"


def _transfer_of(facts: DeploymentFacts) -> Iterator[str]:
    """Yield what travels between the pools of a pair."""
    moved = facts.transfer
    if moved is not None:
        needed, available = (
            BYTE_PER_SECOND.format(value) for value in (moved.needed, moved.available)
        )
        yield (
            f"KV caches of {BYTE.format(moved.bytes_per_request)} a request travel "
            f"over {moved.technology}: {needed} per NPU of {available} at the busier "
            f"end, {moved.utilisation:.1%}; that of a mean prompt takes "
            f"{SECOND.format(moved.seconds)}."
        )


def _memory_of(memory: MemoryUse) -> str:
    total, usable, weights, activations, cache, room = (
        BYTE.format(value)
        for value in (
            memory.total,
            memory.usable,
            memory.weights,
            memory.activations,
            memory.cache,
            memory.cache_room,
        )
    )
    of = f"{_place(memory.deployment)} for {memory.deployment.traffic}"
    return (
        f"Mean memory of {of} per NPU: {total} of {usable} usable (weights {weights}, "
        f"KV cache {cache} of at most {room}, activations {activations})."
    )


def _share(served: Served) -> str:
    batch = float(served.estimate.batch)
    each = "" if served.decode is None else " on each that answers"
    return f"{float(served.estimate.rate):.3g} req/s ({batch:.3g} decoding{each})"


def _place(deployment: PlannedDeployment) -> str:
    pool = "" if deployment.mode == "aggregated" else f" {deployment.mode}"
    return f"{deployment.npu} {deployment.parallelism.text}{pool}"


def _runners_up(answer: Answer) -> RichTable:
    unit = {"cost": "USD", "npus": "NPUs", "power": "power"}[answer.problem.objective]
    several = len(answer.problem.traffic) > 1
    table = plain_table("NPU", "replicas", ">NPUs", ">USD/h", f">more {unit}")
    for runner in answer.runners_up:
        replicas = ", ".join(
            (f"{d.traffic}: " if several else "")
            + f"{d.replicas} x ({d.parallelism.text})"
            + ("" if d.mode == "aggregated" else f" {d.mode}")
            for d in runner.plan.deployments
        )
        table.add_row(
            runner.npu,
            replicas,
            f"{runner.plan.total_npus:,}",
            f"{runner.plan.usd_per_hour:,.2f}",
            f"{runner.distance:+.1%}",
        )
    return table


def _provenance(answer: Answer, plan: Plan) -> RichTable:
    table = plain_table("fact", "as of", "source")
    for each in provenance(answer, plan):
        table.add_row(each.fact, each.as_of, _source(each))
    return table


def _source(known: Provenance) -> str:
    """Return the first source, and how to see the others."""
    first, *others = known.sources
    if not others:
        return first
    return f"{first}; and {len(others)} more: genz-size catalogue show {known.shown}"
