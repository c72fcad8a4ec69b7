"""A disaggregated deployment's prediction as text and JSON."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.table import Table as RichTable

from model_ops.binding import bounds
from model_ops.estimate import LoadMode
from model_ops.serving.queueing import Latencies
from model_ops.units import BYTE, BYTE_PER_SECOND, SECOND
from problems.accuracy import latency_intervals, untested
from sizing.intervals import BETWEEN, METRICS, weakness, widening
from sizing.pair import PairPrediction, PoolFacts
from sizing.report.console import new_console, plain_table, section, text_of
from sizing.report.data import json_text
from sizing.report.estimate import (
    PERCENTILES,
    breakdown,
    breakdown_table,
    memory_as_dict,
    memory_text,
    spent,
)


def _latencies(prediction: PairPrediction) -> dict[str, dict[str, float]]:
    """Return each latency's mean, interval and percentiles in seconds."""
    estimate, pair = prediction.estimate, prediction.pair
    seen = _tails(prediction)
    around = latency_intervals(
        pair.prefill.replica,
        estimate,
        prediction.mode,
        answering=pair.decode.replica,
        wider=widening(seen),
    )
    found: dict[str, dict[str, float]] = {}
    for metric in METRICS if estimate.shape.decode_steps else ("ttft", "e2e"):
        low, high = around[metric]
        mean = float(getattr(estimate, metric))
        found[metric] = {"mean": mean, "low": float(low), "high": float(high)}
        if seen is not None:
            figures = getattr(seen, metric)
            more = {name: float(getattr(figures, name)) for name in PERCENTILES}
            found[metric] |= more | {"mean": float(figures.mean)}
    return found


def _tails(prediction: PairPrediction) -> Latencies | None:
    """Return what is known beside the means."""
    return prediction.seen if isinstance(prediction.seen, Latencies) else None


def as_text(prediction: PairPrediction, *, operators: bool = False) -> str:
    """Return the prediction as readable text, on request operator by operator."""
    console = new_console()
    console.print(prediction.title)
    section(console, f"Predicted; {BETWEEN}", _figures(prediction))
    title = "What each part takes before its queue grows without end"
    section(console, title, _parts(prediction))
    console.print()
    console.print(f"The {_binding(prediction)} binds. {_transfer_text(prediction)}")
    for name, facts in prediction.pools.items():
        used = memory_text(facts.memory, float(facts.pool.replica.room.own))
        console.print(f"Peak memory per NPU of the {name} pool: {used}.")
    console.print(
        f"A decode replica decodes {prediction.decoding:.4g} sequences on average. "
        + _TRANSFER_IN[prediction.mode]
    )
    console.print(
        "The intervals were measured on deployments that are not disaggregated."
    )
    for line in (*weakness(_tails(prediction)), *_unmeasured(prediction)):
        console.print(line)
    title = "What a step's time goes to, per NPU"
    section(console, title, _bounds_table(prediction))
    for facts in prediction.pools.values() if operators else ():
        rows = breakdown(facts.pool.replica, facts.step)
        whole = SECOND.format(sum(row.seconds for row in rows))
        one = f"{facts.step_name[0].upper()}{facts.step_name[1:]}: {whole} per NPU"
        section(console, one, breakdown_table(rows))
    return text_of(console)


_TRANSFER_IN = {
    LoadMode.OPEN_LOOP: "TPOT holds what follows the first token, transfer and wait "
    "for a step too.",
    LoadMode.CLOSED_LOOP: "TTFT holds the transfer too: the first token comes through "
    "the decode pool. All users start at once and make ten requests each.",
}


def as_long_text(prediction: PairPrediction) -> str:
    """Return the prediction as readable text with every operator."""
    return as_text(prediction, operators=True)


def _unmeasured(prediction: PairPrediction) -> Iterable[str]:
    """Return which kernels nobody measured on the pools' NPUs, each line once."""
    lines: list[str] = []
    for facts in prediction.pools.values():
        replica = facts.pool.replica
        lines += untested(replica.arch, replica.supply.npus[0])
    return dict.fromkeys(lines)


def _figures(prediction: PairPrediction) -> RichTable:
    named = PERCENTILES if _tails(prediction) is not None else ()
    columns = (f">{name}" for name in named)
    table = plain_table("figure", ">predicted", ">low", ">high", *columns)
    for metric, cells in _latencies(prediction).items():
        table.add_row(metric.upper(), *(SECOND.format(cell) for cell in cells.values()))
    tokens = float(prediction.estimate.output_tokens_per_s)
    table.add_row("requests/s", f"{prediction.rate:,.4g}")
    table.add_row("output tokens/s", f"{tokens:,.4g}")
    return table


def _parts(prediction: PairPrediction) -> RichTable:
    table = plain_table("part", "what", ">at most", ">used")
    what = {name: facts.name for name, facts in prediction.pools.items()}
    what["transfer"] = prediction.pair.link.technology
    for name, most in prediction.pair.rates.items():
        share = prediction.rate / most
        table.add_row(name, what[name], f"{most:,.4g} req/s", f"{share:.1%}")
    return table


def _bounds_table(prediction: PairPrediction) -> RichTable:
    kinds = (f">{kind}" for kind in bounds([], 0.0))
    table = plain_table("step", ">time", *kinds)
    for facts in prediction.pools.values():
        parts = spent(facts.pool.replica, facts.step)
        whole = sum(parts.values())
        shares = (f"{seconds / whole:.1%}" for seconds in parts.values())
        table.add_row(facts.step_name, SECOND.format(whole), *shares)
    return table


def _binding(prediction: PairPrediction) -> str:
    name = prediction.pair.binding
    return "transfer" if name == "transfer" else f"{name} pool"


def _transfer_text(prediction: PairPrediction) -> str:
    pair = prediction.pair
    transfer = pair.transfer(prediction.rate)
    ends = (
        f"sends {BYTE_PER_SECOND.format(transfer.sent)} of "
        f"{BYTE_PER_SECOND.format(pair.link.send)}",
        f"receives {BYTE_PER_SECOND.format(transfer.received)} of "
        f"{BYTE_PER_SECOND.format(pair.link.receive)}",
    )
    seconds = transfer.seconds(pair.profile.prompt.mean)
    return (
        f"The KV cache of a prompt, {BYTE.format(pair.bytes_per_request)}, travels for "
        f"{SECOND.format(seconds)}; on average a prefill NPU {ends[0]}, and a decode "
        f"NPU {ends[1]}."
    )


def as_json(prediction: PairPrediction) -> str:
    """Return the prediction as one JSON object in SI units."""
    pair, rate = prediction.pair, prediction.rate
    transfer, rates = pair.transfer(rate), pair.rates
    result: dict[str, Any] = {
        f"{metric}_s": cells for metric, cells in _latencies(prediction).items()
    }
    result["requests_per_s"] = rate
    result["output_tokens_per_s"] = float(prediction.estimate.output_tokens_per_s)
    result["bound_by"] = pair.binding
    for name, facts in prediction.pools.items():
        result[name] = _pool(facts, rate)
    result["decode"]["batch"] = prediction.decoding
    result["transfer"] = {
        "technology": pair.link.technology,
        "most_req_per_s": rates["transfer"],
        "utilisation": transfer.utilisation,
        "bytes_per_request": pair.bytes_per_request,
        "seconds": transfer.seconds(pair.profile.prompt.mean),
        "sent_bytes_per_s_per_npu": transfer.sent,
        "received_bytes_per_s_per_npu": transfer.received,
        "send_bandwidth_bytes_per_s_per_npu": pair.link.send,
        "receive_bandwidth_bytes_per_s_per_npu": pair.link.receive,
        "latency_s": pair.link.latency,
    }
    return json_text(result)


def _pool(facts: PoolFacts, rate: float) -> dict[str, Any]:
    replica = facts.pool.replica
    (npu,) = replica.supply.npus
    rows = breakdown(replica, facts.step)
    return {
        "npu": npu.name,
        **replica.parallelism.degrees,
        "replicas": facts.pool.replicas,
        "npus": facts.pool.npus,
        "most_req_per_s": facts.rate,
        "utilisation": rate / facts.rate,
        "peak_memory_bytes": memory_as_dict(facts.memory, replica),
        "step": {
            "name": facts.step_name,
            "bound_s": spent(replica, facts.step),
            "operators": [asdict(row) for row in rows],
        },
    }


FORMATS: Mapping[str, Callable[[PairPrediction], str]] = {
    "text": as_text,
    "json": as_json,
}
