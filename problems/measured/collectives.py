"""Measured collectives: one latency of one group, as the model states the same work.

Tables of AIConfigurator count elements, not bytes, and ``moe_a2a`` is in
microseconds; sizes are those of the whole message, as nccl-tests state them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from model_ops.errors import ProblemError, nearest
from model_ops.opcost import Collective, CollectiveKind
from model_ops.platform.collectives import collective_seconds
from model_ops.units import Seconds
from problems import catalogue
from problems.measured import cells
from problems.measured.names import npu_name
from problems.measured.tables import Row

_KINDS = {
    "all_reduce": CollectiveKind.ALL_REDUCE,
    "all_gather": CollectiveKind.ALL_GATHER,
    "reduce_scatter": CollectiveKind.REDUCE_SCATTER,
    "alltoall": CollectiveKind.ALL_TO_ALL,
    "send_recv": CollectiveKind.SEND,
    "sendrecv": CollectiveKind.SEND,
}
_FRAMEWORKS = {"trtllm": "tensorrt-llm", "vllm": "vllm"}
_DISPATCHED_BYTES = {
    "default": 2.0,
    "bfloat16": 2.0,
    "fp8": 1.0 + 4 / 128,
    "nvfp4": 0.5 + 1 / 16,
    "fp4": 0.5 + 1 / 16,
}
"""Bytes per element on the way to the experts, block scales included."""

_VIDUR = {
    "A100-80GB DGX": "a100-80gb-sxm",
    "A100-80GB PCIe pairwise-NVLink": "a100-80gb-pcie",
    "A40 pairwise-NVLink": "a40",
    "H100 DGX": "h100-sxm",
    "H100 NVL pairwise-NVLink": "h100-nvl",
}
"""Vidur's names of node types, what is in brackets left out."""

LOW_LATENCY_TOKENS = 256
"""Tokens per rank up to which DeepEP's low-latency kernels serve, as in decode."""


@dataclass(frozen=True, slots=True)
class MeasuredCollective:
    """A collective that somebody timed.

    Parameters
    ----------
    npu
        Name in the catalogue.
    framework
        Whose kernels ran; None: those of the vendor's library alone.
    collective
        Kind, payload, ranks and stride.
    seconds
        What it took.
    """

    npu: str
    framework: str | None
    collective: Collective
    seconds: Seconds

    def predicted(self) -> Seconds:
        """Return what the catalogue's links would take."""
        fabric = catalogue.load_fabric(self.npu, self.framework)
        share = catalogue.load_npu(self.npu).link_efficiency
        return float(collective_seconds(self.collective, fabric, share))


def measured_collective(table: str, row: Row) -> MeasuredCollective:
    """Return what a row of a table says.

    Parameters
    ----------
    table
        A key of `READERS`.
    row
        Cells as text.

    Raises
    ------
    GenzSizeError
        If a cell is wrong, the catalogue lacks the accelerator, or the row measures
        what no deployment would run.
    """
    return READERS[table](row)


def _library(row: Row) -> MeasuredCollective:
    elements = cells.measured(row, "message_elements")
    payload = elements * cells.measured(row, "bytes_per_element")
    kind = _kind(row, "collective")
    return MeasuredCollective(
        npu=npu_name(row["system"]),
        framework=None,
        collective=Collective(kind.value, kind, payload, _count(row, "num_gpus")),
        seconds=cells.measured(row, "latency_ms") * 1e-3,
    )


def _custom_all_reduce(row: Row) -> MeasuredCollective:
    if row["kernel_source"].endswith("_eager"):
        raise ProblemError("kernel_source: eager launches measure the host, not links")
    payload = cells.measured(row, "message_size") * 2.0
    kind = CollectiveKind.ALL_REDUCE
    return MeasuredCollective(
        npu=npu_name(row["system"]),
        framework=_framework(row),
        collective=Collective(kind.value, kind, payload, _count(row, "num_gpus")),
        seconds=cells.measured(row, "latency_ms") * 1e-3,
    )


def _experts_exchange(row: Row) -> MeasuredCollective:
    """Return DeepEP's dispatch or combine, each back end where it would be chosen.

    A token goes once to each rank with an expert that it chose, uniformly; what comes
    back is in 16 bits, whatever went there.
    """
    tokens, ranks = _count(row, "num_tokens"), _count(row, "ep_size")
    backend = row["comm_backend"]
    if "_v2_" in backend:
        raise ProblemError(f"comm_backend: '{backend}' is no framework's default")
    if backend.endswith("_ll") is not (tokens <= LOW_LATENCY_TOKENS):
        raise ProblemError(f"comm_backend: none takes '{backend}' for {tokens} tokens")
    kind = CollectiveKind(row["phase"])
    sent = _DISPATCHED_BYTES[cells.text(row, "comm_dtype")]
    width = sent if kind is CollectiveKind.DISPATCH else 2.0
    copies = ranks * -np.expm1(_count(row, "topk") * np.log1p(-1.0 / ranks))
    payload = tokens * float(copies) * _count(row, "hidden_size") * width
    npu = npu_name(row["system"])
    return MeasuredCollective(
        npu=npu,
        framework=_framework(row),
        collective=_placed(kind, payload, ranks, _count(row, "node_num"), npu),
        seconds=cells.measured(row, "latency_us") * 1e-6,
    )


def _vidur(row: Row) -> MeasuredCollective:
    workers = _count(row, "num_workers")
    nodes = workers // _count(row, "devices_per_node")
    hardware = cells.text(row, "hardware").split(" (")[0]
    npu = _VIDUR.get(hardware) or npu_name(hardware)
    payload = cells.measured(row, "size_bytes")
    return MeasuredCollective(
        npu=npu,
        framework=None,
        collective=_placed(_kind(row, "op"), payload, workers, nodes, npu),
        seconds=cells.measured(row, "median_ms") * 1e-3,
    )


def _apex(row: Row) -> MeasuredCollective:
    nodes = _count(row, "num_nodes")
    npu, payload = npu_name(row["hardware"]), cells.measured(row, "size_bytes")
    ranks = _count(row, "num_gpus") * nodes
    return MeasuredCollective(
        npu=npu,
        framework=None,
        collective=_placed(_kind(row, "op"), payload, ranks, nodes, npu),
        seconds=cells.measured(row, "time_us") * 1e-6,
    )


READERS: Mapping[str, Callable[[Row], MeasuredCollective]] = {
    "nccl": _library,
    "custom_allreduce": _custom_all_reduce,
    "moe_a2a": _experts_exchange,
    "ops_vidur": _vidur,
    "ops_extra": _apex,
}
"""How each table's rows are read; of the last two, those that are collectives."""


def _placed(
    kind: CollectiveKind, payload: float, ranks: int, nodes: int, npu: str
) -> Collective:
    """Return a collective whose ranks are spread evenly over nodes."""
    stride = 1
    if nodes > 1:
        stride = max(catalogue.npu_file(npu).node_npus * nodes // ranks, 1)
    return Collective(kind.value, kind, payload, ranks, stride)


def _kind(row: Row, column: str) -> CollectiveKind:
    given = cells.text(row, column)
    if given not in _KINDS:
        raise ProblemError(f"{column}: unknown '{given}'{nearest(given, _KINDS)}")
    return _KINDS[given]


def _framework(row: Row) -> str:
    given = cells.text(row, "framework")
    if given not in _FRAMEWORKS:
        hint = nearest(given, _FRAMEWORKS)
        raise ProblemError(f"framework: no kernels of '{given}'{hint}")
    return _FRAMEWORKS[given]


def _count(row: Row, column: str) -> int:
    value = cells.count(row, column)
    if value is None:
        raise ProblemError(f"{column}: must be a whole number above zero")
    return value
