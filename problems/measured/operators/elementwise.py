"""Tables of passes over tensors: copies and sums."""

from collections.abc import Iterator

from model_ops.opcost import Collective, Operator
from model_ops.profiler.ops import Elementwise
from problems.measured.operators.rows import Columns, Reader


def _passes(rows: Columns) -> Iterator[Operator | Collective]:
    yield Elementwise(
        name=rows.rows[0]["op_name"],
        elements=rows["elements"],
        read=rows.only("read_bytes"),
        written=rows.only("written_bytes"),
    )


ELEMENTWISE = Reader(
    table="elementwise",
    needs=("op_name", "elements", "read_bytes", "written_bytes"),
    alike=("op_name", "read_bytes", "written_bytes"),
    shape=("elements",),
    label=("op_name",),
    build=_passes,
)
