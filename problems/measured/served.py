"""Measured serving results: one latency or throughput of one deployment per row."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from model_ops.dtypes import Dtype
from model_ops.errors import ProblemError, nearest
from problems import catalogue
from problems.measured import cells
from problems.measured.names import dtype, engine_name, model_name, npu_name
from problems.measured.tables import Row


class Arrival(StrEnum):
    """How a benchmark's requests come."""

    STATIC_BATCH = "static_batch"
    CLOSED_LOOP = "closed_loop"
    OFFLINE = "offline"
    OPEN_LOOP = "open_loop"
    BURST = "burst"
    MLPERF_SERVER = "poisson_server"


_ARRIVALS = {
    "static_batch": Arrival.STATIC_BATCH,
    "single_stream": Arrival.STATIC_BATCH,
    "closed_loop": Arrival.CLOSED_LOOP,
    "offline_max": Arrival.OFFLINE,
    "offline": Arrival.OFFLINE,
    "open_loop": Arrival.OPEN_LOOP,
    "open_loop_poisson": Arrival.OPEN_LOOP,
    "open_loop_overload": Arrival.OPEN_LOOP,
    "poisson_server": Arrival.MLPERF_SERVER,
    "production": Arrival.OPEN_LOOP,
}
_BURST = re.compile(r"burst_(\d+)")
_DISAGGREGATED = "_disagg"

_METRICS = {
    "ttft_ms": "ttft",
    "tpot_ms": "tpot",
    "itl_ms": "tpot",
    "e2e_ms": "e2e",
    "latency_ms": "e2e",
    "request_latency_ms": "e2e",
    "output_tok_s": "output_tok_s",
    "mlperf_offline_tok_s": "output_tok_s",
    "mlperf_server_tok_s": "output_tok_s",
    "total_tok_s": "total_tok_s",
    "input_tok_s": "input_tok_s",
    "req_s": "req_s",
    "mlperf_server_req_s": "req_s",
    "mlperf_offline_req_s": "req_s",
}
_PERCENTILE = re.compile(r"p(\d{1,2})")


@dataclass(frozen=True, slots=True)
class Layout:
    """How a deployment is spread over accelerators; None: not published."""

    npus: int
    tp: int | None
    pp: int | None
    ep: int | None
    dp: int | None


@dataclass(frozen=True, slots=True)
class Served:
    """A deployment, its load, and one figure of what it did.

    Parameters
    ----------
    model, npu, framework
        Names in the catalogue; the framework's is blank where it has none.
    layout
        Accelerators and degrees; of a disaggregated one, its decode workers'.
    disaggregated
        Whether prompts have workers of their own.
    attention_dp
        Whether attention of a mixture of experts is split over requests, on the
        accelerators that ``tp`` counts.
    weights, kv_cache
        Formats; None: the checkpoint's own.
    arrival, burst
        How requests come; how many at once, of a burst.
    input_tokens, output_tokens
        Means over the requests; None: not published.
    concurrency, rate
        Requests in flight on the whole, and arriving per second; None: no limit.
    metric, statistic
        ``ttft``, ``tpot``, ``e2e`` (milliseconds), ``output_tok_s``, ``total_tok_s``,
        ``input_tok_s`` or ``req_s``; ``mean``, ``p50``, ``p90``, ``p99`` and so on.
    alike
        Whether all requests are of one length, as far as is known.
    notes
        What else the source says.
    """

    model: str
    npu: str
    framework: str
    layout: Layout
    disaggregated: bool
    attention_dp: bool
    weights: Dtype | None
    kv_cache: Dtype | None
    arrival: Arrival
    burst: int | None
    input_tokens: float | None
    output_tokens: float | None
    concurrency: float | None
    rate: float | None
    metric: str
    statistic: str
    alike: bool
    notes: str


def served(row: Row) -> Served:
    """Return what a row says.

    Raises
    ------
    GenzSizeError
        If a cell is wrong, or the catalogue lacks the model or the accelerator.
    """
    npu = npu_name(row["hardware"])
    vendor = catalogue.npu_file(npu).vendor
    arrival, burst, disaggregated = _arrival(cells.text(row, "load_mode"))
    users = cells.finite(row, "batch_or_concurrency") or None
    if arrival is Arrival.CLOSED_LOOP and users is None:
        arrival = Arrival.OFFLINE  # as many users as it takes
    drawn = _mean_share(row)
    tokens = (cells.finite(row, name) for name in ("isl", "osl"))
    prompt, answer = (None if each is None else each * drawn for each in tokens)
    return Served(
        model=model_name(row["model"]),
        npu=npu,
        framework=engine_name(cells.text(row, "framework"), cells.text(row, "date")),
        layout=_layout(row),
        disaggregated=disaggregated,
        attention_dp="enable_attention_dp" in cells.text(row, "notes"),
        weights=dtype(cells.text(row, "weight_dtype"), vendor=vendor),
        kv_cache=dtype(cells.text(row, "kv_dtype"), vendor=vendor),
        arrival=arrival,
        burst=burst,
        input_tokens=prompt,
        output_tokens=answer,
        concurrency=users,
        rate=cells.finite(row, "request_rate") or None,
        metric=_metric(cells.text(row, "metric")),
        statistic=_statistic(cells.text(row, "stat")),
        alike=_alike(row),
        notes=cells.text(row, "notes"),
    )


def _arrival(given: str) -> tuple[Arrival, int | None, bool]:
    """Return how requests come, of a burst how many, and whether it is split."""
    name = given.lower()
    disaggregated = name.endswith(_DISAGGREGATED)
    name = name.removesuffix(_DISAGGREGATED)
    if burst := _BURST.fullmatch(name):
        return Arrival.BURST, int(burst[1]), disaggregated
    if name not in _ARRIVALS:
        raise ProblemError(f"load_mode: unknown '{given}'{nearest(name, _ARRIVALS)}")
    return _ARRIVALS[name], None, disaggregated


def _layout(row: Row) -> Layout:
    """Return the degrees; those of cores are taken back to accelerators.

    Sources count ``tp`` in NeuronCores or TensorCores where an accelerator has
    several: it then exceeds the accelerators by a whole factor.
    """
    degrees: Mapping[str, int | None] = {
        name: cells.degree(row, name) for name in ("tp", "pp", "ep", "dp")
    }
    npus = cells.count(row, "num_accelerators")
    tp, pp, dp = (degrees[name] or 1 for name in ("tp", "pp", "dp"))
    if npus is None:
        npus = tp * pp * dp
    named = tp * pp * dp
    cores = named // npus if named > npus and named % npus == 0 else 1
    if degrees["tp"] is not None and cores > 1 and tp % cores == 0:
        degrees = {**degrees, "tp": tp // cores}
    return Layout(npus, degrees["tp"], degrees["pp"], degrees["ep"], degrees["dp"])


_RANGE = re.compile(r"uniform in \[([\d.]+), ?([\d.]+)\] ?x nominal")


def _mean_share(row: Row) -> float:
    """Return the mean length over the one stated, where lengths are drawn below it."""
    drawn = _RANGE.search(row.get("notes", ""))
    return (float(drawn[1]) + float(drawn[2])) / 2 if drawn else 1.0


def _alike(row: Row) -> bool:
    """Return whether both lengths are published, and nothing says that they vary."""
    known = all(cells.finite(row, name) for name in ("isl", "osl"))
    return known and _RANGE.search(row.get("notes", "")) is None


def _metric(given: str) -> str:
    name = given.lower()
    if name not in _METRICS:
        raise ProblemError(f"metric: unknown '{given}'{nearest(name, _METRICS)}")
    return _METRICS[name]


def _statistic(given: str) -> str:
    """Return ``p90`` and its like for a percentile, ``mean`` for all else."""
    found = _PERCENTILE.match(given.lower().replace("median", "p50"))
    return f"p{found[1]}" if found else "mean"
