"""Tables of collectives as operator tables: compared with the links', never fitted."""

from collections.abc import Callable, Iterator

import numpy as np

from model_ops.opcost import Collective, Operator
from problems.measured.collectives import READERS as ROWS
from problems.measured.operators.rows import Columns, Reader


def _built(table: str) -> Callable[[Columns], Iterator[Operator | Collective]]:
    def build(columns: Columns) -> Iterator[Operator | Collective]:
        found = [ROWS[table](row).collective for row in columns.rows]
        yield Collective(
            name=found[0].name,
            kind=found[0].kind,
            payload=np.array([float(each.payload) for each in found]),
            ranks=np.array([int(each.ranks) for each in found]),
            stride=np.array([int(each.stride) for each in found]),
        )

    return build


NCCL = Reader(
    table="nccl",
    needs=("collective", "nccl_dtype", "num_gpus", "message_elements"),
    alike=("collective",),
    shape=("message_elements",),
    label=("collective",),
    build=_built("nccl"),
    fitted=False,
)

CUSTOM_ALL_REDUCE = Reader(
    table="custom_allreduce",
    needs=("allreduce_dtype", "kernel_source", "num_gpus", "message_size"),
    alike=("kernel_source",),
    shape=("message_size",),
    label=("kernel_source",),
    build=_built("custom_allreduce"),
    fitted=False,
)

EXPERTS_EXCHANGE = Reader(
    table="moe_a2a",
    needs=("comm_backend", "phase", "comm_dtype", "ep_size", "num_tokens"),
    # A back end serves some numbers of tokens: rows of others are refused together.
    alike=("comm_backend", "phase", "comm_dtype", "num_tokens"),
    shape=("num_tokens",),
    label=("comm_backend", "phase", "comm_dtype"),
    build=_built("moe_a2a"),
    seconds_per=1e-6,
    measured="latency_us",
    fitted=False,
)
