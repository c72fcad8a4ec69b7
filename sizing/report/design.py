"""A design as text and JSON."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from model_ops.estimate import Estimate
from model_ops.units import BYTE, SECOND, WATT
from problems.design.answer import Design, ServedUseCase
from problems.design.cost import NpuCost, coefficients
from problems.design.parameters import PARAMETERS
from sizing.design import DesignAnswer, DesignedUseCase, TodaysUseCase
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.counts import count, counted
from sizing.report.data import json_text
from sizing.report.design_none import TARGETS, print_why_none
from sizing.report.text import usd
from solver.design.explain import DesignBinding


def as_text(answer: DesignAnswer) -> str:
    """Return the design as readable text."""
    console = new_console()
    if answer.design is not None and answer.npu is not None:
        _design(console, answer, answer.design, answer.npu)
    elif answer.why_none is not None:
        print_why_none(console, answer.problem, answer.why_none)
    else:
        console.print(
            "No answer in time: no platform was found, and none was ruled out. "
            "Give more --time-limit, fewer --levels, or fewer figures to vary."
        )
    return text_of(console)


def _design(
    console: Console, answer: DesignAnswer, design: Design, npu: NpuCost
) -> None:
    console.print(_sentence(answer, design, npu))
    console.print(_proof(answer))
    section(console, "The accelerator, beside today's part", _figures(answer, design))
    section(console, "How each use case runs on it", _use_cases(answer))
    title = "Predicted at its share of the rate, by constants of kernels"
    section(console, title, _estimates(answer, design))
    if answer.todays_use_cases:
        title = (
            f"Today's {answer.problem.base} instead, predicted by its measured kernels "
            "(`genz-size estimate`)"
        )
        section(console, title, _todays(answer))
    section(console, "What one NPU costs by this model", _costs(answer, npu))
    bound = [each for each in answer.bindings if each.binds]
    if bound:
        section(
            console, "What binds: one level less, all else as designed", _binding(bound)
        )
    console.print()
    for line in (*_today(answer), *_notes(answer)):
        console.print(f"- {line}")
    console.print()
    console.print(_timing(answer))


def _sentence(answer: DesignAnswer, design: Design, npu: NpuCost) -> str:
    names = ", ".join(each.use_case.name for each in answer.use_cases)
    models = ", ".join(dict.fromkeys(u.model for u in answer.problem.use_case))
    total = design.npus * npu.usd_per_hour
    each = f" at {usd(npu.usd_per_hour)} each" if design.npus > 1 else ""
    return (
        f"For {models} ({names}): {counted(design.npus, 'NPU')} of the accelerator "
        f"below, {usd(total)} an hour{each}, to build and to run."
    )


def _proof(answer: DesignAnswer) -> str:
    certificate = answer.outcome.certificate
    lost = f"up to {certificate.loss:.2g} lost to integers"
    if answer.status == "optimal" and certificate.points == 1:
        fewer = (
            "; fewer NPUs do not serve" if answer.problem.objective == "cost" else ""
        )
        return f"Proved: the only platform on the ladders{fewer} ({lost})."
    if answer.status == "optimal":
        what = "costs less" if answer.problem.objective == "cost" else "is nearer"
        return (
            f"Proved: none of the {count(certificate.points)} platforms on the ladders "
            f"{what} ({lost})."
        )
    gap = "unknown" if certificate.gap is None else f"{certificate.gap:.1%}"
    return f"Not proved in time: a better platform may exist; the gap is {gap}."


def _figures(answer: DesignAnswer, design: Design) -> RichTable:
    table = plain_table("figure", ">design", ">today", ">ratio", ">ladder")
    ladders, today = answer.problem.ladders, answer.problem.today.figures
    for name, value in design.platform.figures.items():
        one, levels = PARAMETERS[name], ladders.values(name)
        ladder = "fixed"
        if len(levels) > 1:
            ends = f"{one.text(levels[0])} to {one.text(levels[-1])}"
            follows = "" if ladders.source(name) == name else ", follows"
            ladder = f"{ends}, {len(levels)}{follows}"
        table.add_row(
            one.label,
            one.text(value),
            one.text(today[name]),
            f"{value / today[name]:.3g}",
            ladder,
        )
    return table


def _use_cases(answer: DesignAnswer) -> RichTable:
    table = plain_table(
        "use case", "replica", ">batch", ">chunk", ">replicas", ">NPUs", ">TTFT",
        ">at most", ">TPOT", ">at most",
    )  # fmt: skip
    for each in answer.use_cases:
        served, limits = each.served, each.use_case.targets
        table.add_row(
            *_replicas_of(each.use_case.name, served),
            SECOND.format(each.ttft),
            _limit(limits["ttft"]),
            SECOND.format(each.tpot),
            _limit(limits["tpot"]),
        )
    return table


def _estimates(answer: DesignAnswer, design: Design) -> RichTable:
    table = plain_table("use case", ">TTFT", ">TPOT", ">batch", ">memory", ">of")
    for each in answer.use_cases:
        found = each.estimate
        table.add_row(
            each.use_case.name,
            SECOND.format(float(found.ttft)),
            SECOND.format(float(found.tpot)),
            f"{float(found.batch):.3g}",
            BYTE.format(float(found.memory.total)),
            BYTE.format(design.platform.memory_capacity),
        )
    return table


def _todays(answer: DesignAnswer) -> RichTable:
    table = plain_table(
        "use case", "replica", ">batch", ">chunk", ">replicas", ">NPUs", ">TTFT",
        ">TPOT", "misses",
    )  # fmt: skip
    for each in answer.todays_use_cases:
        served, found = each.served, each.measured
        table.add_row(
            *_replicas_of(each.use_case.name, served),
            SECOND.format(float(found.ttft)),
            SECOND.format(float(found.tpot)),
            ", ".join(_missed(each)) or "nothing",
        )
    return table


def _missed(each: TodaysUseCase) -> Iterator[str]:
    for name in each.missed:
        if name in each.use_case.targets:
            over = float(getattr(each.measured, name)) / each.use_case.targets[name]
            yield f"{TARGETS[name]} by {over - 1:.1%}"
        else:
            yield TARGETS[name]


def _replicas_of(use_case: str, served: ServedUseCase) -> tuple[str, ...]:
    """Return the cells that say how a use case runs."""
    return (
        use_case,
        f"{served.split.text} {served.precision}",
        f"{served.batch:,}",
        f"{served.chunk_tokens:,}",
        f"{served.replicas:,}",
        f"{served.npus:,}",
    )


def _limit(seconds: float) -> str:
    return SECOND.format(seconds) if math.isfinite(seconds) else "-"


def _costs(answer: DesignAnswer, npu: NpuCost) -> RichTable:
    table = plain_table("", ">design", ">today")
    today = answer.todays_npu
    for label, name in (
        ("dies", "dies_usd"),
        ("memory", "memory_usd"),
        ("test and assembly", "test_usd"),
        ("links", "links_usd"),
        ("server", "server_usd"),
        ("capital", "capital_usd"),
        ("an hour", "usd_per_hour"),
    ):
        table.add_row(label, usd(getattr(npu, name)), usd(getattr(today, name)))
    table.add_row("power", WATT.format(npu.watts), WATT.format(today.watts))
    area = (f"{each.area_mm2:,.0f} mm2" for each in (npu, today))
    table.add_row("die area", *area)
    table.add_row("memory stacks", f"{npu.stacks}", f"{today.stacks}")
    return table


def _binding(bound: list[DesignBinding]) -> RichTable:
    table = plain_table(
        "figure", ">level", ">one less", "use case", "its replicas miss", "so that it"
    )
    for each in bound:
        one = PARAMETERS[each.figure]
        table.add_row(
            one.label,
            one.text(each.level),
            one.text(each.lower),
            each.use_case,
            ", ".join(TARGETS[name] for name in each.misses),
            _then(each),
        )
    return table


def _then(each: DesignBinding) -> str:
    if each.breaks == ("stacks",):
        return "cannot be built"
    if each.npus_lower is None:
        return "cannot run: " + " and ".join(TARGETS[n] for n in each.breaks)
    return f"needs {counted(each.npus_lower, 'NPU')} instead of {count(each.npus)}"


def _today(answer: DesignAnswer) -> Iterator[str]:
    base, today = answer.problem.base, answer.today
    if today.design is None:
        yield f"Today's {base} cannot serve {', '.join(today.missing)} at any count."
        return
    assert today.usd_per_hour is not None
    yield (
        f"Today's {base} would need {counted(today.design.npus, 'NPU')}, "
        f"{usd(today.usd_per_hour)} an hour by the same model, on constants of kernels "
        "and at the same batches and chunks. `genz-size size` goes by measured kernels "
        "and tries more of both, so that its count differs."
    )


def _notes(answer: DesignAnswer) -> Iterator[str]:
    base = answer.problem.base
    yield (
        f"Shares of the peak rates, launch times and host time are those of {base} "
        f"under {answer.problem.framework}; kernels are its constants, not its "
        "measured forms."
    )
    for each in (one.use_case for one in answer.use_cases):
        if each.is_too_long:
            yield (
                f"{each.model} was made for {each.arch.max_position_embeddings:,} "
                f"tokens; {each.name} is of the same model with a longer reach."
            )
    changes = ", ".join(
        f"{each.use_case.name} {each.form - 1:+.1%}"
        for each in answer.use_cases
        if each.form is not None
    )
    if changes:
        yield (
            f"On {base} itself measured kernels and collectives change TPOT by: "
            f"{changes}."
        )
    yield (
        "TTFT and TPOT are held at the stated batch, as if a newcomer found a step "
        "with prompts running, the longest; at its share of the rate they are a little "
        "less."
    )
    yield (
        f"Costs are of the cost model {answer.problem.cost.file}: what it takes to "
        "build and run, not what a vendor asks (`--set markup=8`)."
    )


def _timing(answer: DesignAnswer) -> str:
    c = answer.outcome.certificate
    return (
        f"{counted(c.shapes, 'shape')} and {counted(c.points, 'platform')}; "
        f"bounds left {count(c.shapes_left)} and {count(c.points_left)} in "
        f"{c.forms_s + c.prune_s:.2f} s, proof {c.prove_s:.2f} s, "
        f"all {answer.seconds:.1f} s."
    )


def as_json(answer: DesignAnswer) -> str:
    """Return the design as one JSON object in SI units."""
    return json_text(as_dict(answer))


def as_dict(answer: DesignAnswer) -> dict[str, Any]:
    """Return the design as plain dictionaries and lists."""
    problem, certificate = answer.problem, answer.outcome.certificate
    found: dict[str, Any] = {
        "status": answer.status,
        "objective": problem.objective,
        "base": problem.base,
        "problem": problem.model_dump(mode="json", by_alias=True),
        "ladders": {n: list(problem.ladders.values(n)) for n in problem.today.figures},
        "today": {
            "figures": problem.today.figures,
            "npu": asdict(answer.todays_npu),
            "usd_per_hour": answer.today.usd_per_hour,
            "npus": answer.today.design.npus if answer.today.design else None,
            "missing": list(answer.today.missing),
            "use_cases": [_todays_use_case(each) for each in answer.todays_use_cases],
        },
        "certificate": asdict(certificate),
        "provenance": {
            name: asdict(each) for name, each in coefficients(problem.cost.file).items()
        },
        "seconds": answer.seconds,
    }
    return found | (_found(answer) if answer.design else _missing(answer))


def _found(answer: DesignAnswer) -> dict[str, Any]:
    assert answer.design is not None
    assert answer.npu is not None
    return {
        "platform": answer.design.platform.figures,
        "npu": asdict(answer.npu),
        "total_npus": answer.design.npus,
        "cost": {
            "usd_per_hour": answer.design.usd_per_hour(answer.problem),
            "bound": answer.outcome.certificate.bound,
            "gap": answer.outcome.certificate.gap,
        },
        "use_cases": [_use_case(each) for each in answer.use_cases],
        "binding": [asdict(b) | {"binds": b.binds} for b in answer.bindings],
    }


def _served(served: ServedUseCase) -> dict[str, Any]:
    degrees = {name: int(n) for name, n in served.split.degrees.items()}
    return {
        "name": served.name,
        **({"tp": 1, "pp": 1, "ep": 1, "dp": 1} | degrees),
        "precision": served.precision,
        "batch": served.batch,
        "chunk_tokens": served.chunk_tokens,
        "replicas": served.replicas,
        "npus": served.npus,
    }


def _estimate(found: Estimate) -> dict[str, float | None]:
    ttft = float(found.ttft)
    return {
        "ttft_s": ttft if math.isfinite(ttft) else None,
        "tpot_s": float(found.tpot),
        "batch": float(found.batch),
        "memory_bytes": float(found.memory.total),
    }


def _todays_use_case(each: TodaysUseCase) -> dict[str, Any]:
    measured = _estimate(each.measured) | {"misses": list(each.missed)}
    return _served(each.served) | {"measured": measured}


def _use_case(each: DesignedUseCase) -> dict[str, Any]:
    return _served(each.served) | {
        "ttft_s": each.ttft,
        "tpot_s": each.tpot,
        "estimate": _estimate(each.estimate),
        "measured_over_constant_tpot": each.form,
    }


def _missing(answer: DesignAnswer) -> dict[str, Any]:
    why = answer.why_none
    return {
        "platform": None,
        "total_npus": 0,
        "use_cases": [],
        "explanation": None
        if why is None
        else {
            "clashes": {name: list(each) for name, each in why.clashes},
            "floors": [
                asdict(floor) | {"impossible": floor.is_above} for floor in why.floors
            ],
        },
    }


FORMATS: dict[str, Callable[[DesignAnswer], str]] = {"text": as_text, "json": as_json}
