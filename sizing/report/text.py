"""An answer as text: what to say in the meeting first, what it rests on last."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table as RichTable

from model_ops.accuracy import untested
from model_ops.units import BYTE, SECOND, WATT
from problems import catalogue
from problems.offers import GIVEN
from problems.plan import Plan, PlannedDeployment, Purchase
from problems.requirements import requirements
from problems.serve import Served, memory_needed
from sizing.api import Answer
from sizing.facts import (
    ClassFacts,
    class_facts,
    emulated,
    provenance,
    unmeasured,
    usd_per_million_tokens,
    usd_per_month,
)
from sizing.report.console import new_console, plain_table, section, text_of
from solver.explain import Explanation
from solver.floors import MEMORY
from solver.solve import Feasible, Optimal


def as_text(answer: Answer) -> str:
    """Return the answer as readable text."""
    console = new_console()
    if isinstance(answer.outcome, Optimal | Feasible):
        _plan(console, answer, answer.outcome.plan)
    elif answer.explanation is not None:
        _infeasible(console, answer, answer.explanation)
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
        "Predicted means at this traffic; 9 of 10 measurements should lie from low "
        "to high",
        _predictions(facts),
    )
    console.print()
    for line in _risks(facts):
        console.print(f"- {line}")
    for line in (
        *_notes(answer, plan, facts),
        *emulated(plan),
        *unmeasured(plan),
        *untested(catalogue.load_model(plan.model)),
    ):
        console.print(f"- {line}")
    if answer.runners_up:
        title = "The best plans with one NPU type only"
        section(console, title, _runners_up(answer))
    section(console, "Where the figures come from", _provenance(answer, plan))
    console.print()
    console.print(_timing(answer))


def _sentence(answer: Answer, plan: Plan, facts: list[ClassFacts]) -> str:
    bought = " and ".join(_bought(purchase) for purchase in plan.purchases)
    asked = "; ".join(_asked(fact) for fact in facts)
    per_output, _ = usd_per_million_tokens(plan, facts)
    return (
        f"To serve {answer.problem.model} ({asked}), rent {bought}: "
        f"{usd(plan.usd_per_hour)} an hour, {usd(usd_per_month(plan))} a month, "
        f"{usd(per_output)} per million generated tokens."
    )


def _bought(purchase: Purchase) -> str:
    what = f"{purchase.npus:,} x {catalogue.npu_file(purchase.npu).title}"
    if purchase.provider == GIVEN:
        return f"{what} (at your price)"
    term = purchase.term.replace("_", "-")
    return (
        f"{what} ({purchase.provider} {purchase.instance}, {term}, price: "
        f"{purchase.as_of.split(';')[0]})"
    )


def _asked(fact: ClassFacts) -> str:
    traffic = fact.traffic
    tokens = f"{traffic.input_tokens:,} tokens in and {traffic.output_tokens:,} out"
    if traffic.rate is not None:
        return f"{traffic.rate:,.10g} req/s of {tokens}"
    return f"{traffic.concurrency:,} requests in flight, each of {tokens}"


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
            f"no combination that meets the targets {what[objective]}."
        )
    return (
        f"Not proved optimal in the time given: a plan could be up to "
        f"{certificate.gap:.2%} better, none can be better than that."
    )


def _deployments(plan: Plan) -> RichTable:
    used = {name for d in plan.deployments for name in d.parallelism.degrees}
    degrees = [name for name in ("tp", "pp", "ep", "dp", "cp") if name in used]
    table = plain_table(
        "traffic", ">replicas", "NPU", *(f">{name}" for name in degrees), ">batch",
        "precision", ">NPUs", ">nodes", ">USD/h",
    )  # fmt: skip
    for d in plan.deployments:
        table.add_row(
            d.traffic, f"{d.replicas:,}", d.npu,
            *(str(getattr(d, name)) for name in degrees), str(d.batch),
            d.precision, f"{d.npus:,}", f"{d.nodes:,}", f"{d.usd_per_hour:,.2f}",
        )  # fmt: skip
    return table


def _predictions(facts: list[ClassFacts]) -> RichTable:
    table = plain_table(
        "traffic", "latency", ">predicted", ">low", ">high", ">target", "mostly",
    )  # fmt: skip
    for fact in facts:
        for p in fact.predictions:
            target = "" if p.target is None else SECOND.format(p.target)
            values = (SECOND.format(v) for v in (p.mean, p.low, p.high))
            name = p.metric.upper()
            table.add_row(fact.traffic.name, name, *values, target, p.bound_by)
    return table


def _notes(answer: Answer, plan: Plan, facts: list[ClassFacts]) -> list[str]:
    lines = []
    for fact in facts:
        for served in fact.served:
            lines += [_load_of(fact, served), _memory_of(plan, fact, served)]
    for binding in answer.bindings:
        lines.append(
            f"What keeps {binding.where} from more: {binding.requirement} "
            f"({binding.reason})."
        )
    if plan.optimisations.text:
        lines.append(f"As the problem states: {plan.optimisations.text}.")
    lines.append(_headroom(answer.problem.headroom))
    if plan.power is not None:
        lines.append(
            f"Power to provision: {WATT.format(plan.power)}, host and cooling included."
        )
    _, per_token = usd_per_million_tokens(plan, facts)
    lines.append(f"Cost per million tokens, prompts included: {usd(per_token)}.")
    return lines


def _risks(facts: list[ClassFacts]) -> Iterator[str]:
    """Yield what the interval says of each target that its high end misses."""
    for fact in facts:
        for p in fact.predictions:
            if p.target is not None and p.high > p.target:
                safe = SECOND.format(p.target * p.mean / p.high)
                yield (
                    "The proof is about the model: the measured mean "
                    f"{p.metric.upper()} of {fact.traffic.name} may reach "
                    f"{SECOND.format(p.high)}, above the target. To hold the target "
                    f"there too, ask for {safe}."
                )


def _headroom(free: float) -> str:
    kept = f"{free:.0%} of it is kept free" if free else "none is kept free"
    return (
        "Targets are on means of steady traffic. Bursts, failures and percentiles need "
        f"spare capacity: {kept} (--headroom)."
    )


def _load_of(fact: ClassFacts, served: Served) -> str:
    return (
        f"{_place(served.deployment)} for {fact.traffic.name}: each replica gets "
        f"{_share(served)}, {served.utilisation:.0%} of what targets and memory allow."
    )


def _memory_of(plan: Plan, fact: ClassFacts, served: Served) -> str:
    memory = memory_needed(plan, served.deployment, fact.traffic)
    usable = float(served.estimate.room.own)
    parts = {
        "weights": memory.weights,
        "KV cache": memory.kv_cache,
        "activations": memory.activations,
    }
    listed = ", ".join(f"{k} {BYTE.format(float(v))}" for k, v in parts.items())
    return (
        f"Its memory per NPU, batch full: {BYTE.format(float(memory.total))} of "
        f"{BYTE.format(usable)} usable ({listed})."
    )


def _share(served: Served) -> str:
    batch = float(served.estimate.batch)
    return f"{float(served.estimate.rate):.3g} req/s ({batch:.3g} decoding)"


def _place(deployment: PlannedDeployment) -> str:
    return f"{deployment.npu} {deployment.parallelism.text}"


def _runners_up(answer: Answer) -> RichTable:
    unit = {"cost": "USD", "npus": "NPUs", "power": "power"}[answer.problem.objective]
    table = plain_table("NPU", "replicas", ">NPUs", ">USD/h", f">more {unit}")
    for runner in answer.runners_up:
        replicas = ", ".join(
            f"{d.replicas} x ({d.parallelism.text})" for d in runner.plan.deployments
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
    for row in provenance(answer, plan):
        table.add_row(row["fact"], row["as_of"], row["source"])
    return table


def _timing(answer: Answer) -> str:
    certificate = answer.outcome.certificate
    seconds = answer.seconds
    return (
        f"{certificate.points:,} deployment points in {seconds['candidates']:.2f} s, "
        f"{certificate.candidates} candidates, {certificate.kept} after the bound, "
        f"solved and verified in {seconds['solve']:.2f} s."
    )


def _infeasible(console: Console, answer: Answer, explanation: Explanation) -> None:
    conflicts = explanation.conflicts
    if conflicts == (MEMORY,):
        console.print(
            f"No plan: {answer.problem.model} does not fit in the memory of any "
            "replica that these NPUs and prices allow."
        )
    elif len(conflicts) == 1:
        console.print(f"No plan: {_alone(answer, conflicts[0])}.")
    else:
        console.print(
            f"No plan: {_and(conflicts)} cannot be met together; "
            "without any one of them the others can."
        )
    table = plain_table(
        "requirement", ">asked", ">least", "possible", "where, and what binds"
    )
    for f in explanation.floors:
        possible = "yes" if f.possible else "no"
        table.add_row(f.requirement, f.wanted, f.least, possible, f.reason)
    section(console, "The least that each could be by itself", table)
    if explanation.relaxations:
        table = plain_table("requirement", ">asked", ">needed", ">then USD/h", ">NPUs")
        for relaxed in explanation.relaxations:
            cost = f"{relaxed.usd_per_hour:,.2f}"
            table.add_row(
                relaxed.requirement,
                relaxed.wanted,
                relaxed.to,
                cost,
                f"{relaxed.npus:,}",
            )
        title = "What to give up: any one of these alone makes a plan possible"
        section(console, title, table)
    elif len(requirements(answer.problem)) > 1 and conflicts != (MEMORY,):
        console.print("No single relaxation suffices; more than one must move.")
    if not explanation.complete:
        console.print()
        console.print(
            "The time was up before all was known: the conflict may be smaller, and "
            "more may help. Give more --time-limit."
        )


def _alone(answer: Answer, label: str) -> str:
    """Return why a requirement cannot be met even by itself."""
    (broken,) = (r for r in requirements(answer.problem) if r.label == label)
    asked = f"{label} of {broken.text(broken.value)}"
    if broken.target is not None:
        return f"no hardware that these filters allow reaches a {asked}"
    return f"the {asked} is too small for this traffic, whatever the targets"


def _and(words: tuple[str, ...]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]
