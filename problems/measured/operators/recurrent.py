"""Tables of recurrent mixers: convolutions and scans, each by itself."""

from collections.abc import Iterator

from model_ops.dtypes import Dtype
from model_ops.opcost import Collective, Operator
from model_ops.profiler.linear_attention import GatedDeltaNet
from model_ops.profiler.mamba import Mamba2
from model_ops.profiler.scan import CausalConv, Scan
from model_ops.profiler.work import Phase, Segment, Shard, Step
from problems.measured.operators.rows import Columns, Reader
from problems.measured.tables import Row


def _part_of(
    rows: Columns, mixer: GatedDeltaNet | Mamba2
) -> Iterator[Operator | Collective]:
    """Yield the layer's convolution or its scan, whichever the rows are of."""
    first = rows.rows[0]
    phase = Phase.DECODE if first["phase"] == "generation" else Phase.PREFILL
    segment = Segment(rows["batch_size"], rows["seq_len"], 0.0, phase)
    shard = Shard(hidden_size=int(rows.only("d_model")))
    wanted = CausalConv if _convolving(first) else Scan
    every = mixer.operators(shard, Step((segment,)))
    yield from (each for each in every if isinstance(each, wanted))


def _convolving(row: Row) -> bool:
    return row["kernel_source"].startswith("causal_conv1d")


def _delta(rows: Columns) -> Iterator[Operator | Collective]:
    mixer = GatedDeltaNet(
        linear_num_key_heads=int(rows.only("num_k_heads")),
        linear_num_value_heads=int(rows.only("num_v_heads")),
        linear_key_head_dim=int(rows.only("head_k_dim")),
        linear_value_head_dim=int(rows.only("head_v_dim")),
        linear_conv_kernel_dim=int(rows.only("d_conv")),
        ssm_dtype=Dtype.FP32,
    )
    yield from _part_of(rows, mixer)


def _mamba(rows: Columns) -> Iterator[Operator | Collective]:
    mixer = Mamba2(
        num_heads=int(rows.only("nheads")),
        head_dim=int(rows.only("head_dim")),
        state_size=int(rows.only("d_state")),
        n_groups=int(rows.only("n_groups")),
        conv_kernel=int(rows.only("d_conv")),
        chunk_size=int(rows.only("chunk_size")),
    )
    yield from _part_of(rows, mixer)


def _part(name: str, row: Row) -> str:
    return f"{name}_{'conv' if _convolving(row) else 'scan'}_{row['phase']}"


GATED_DELTA = Reader(
    table="gdn",
    needs=("num_v_heads", "head_k_dim", "phase", "seq_len"),
    alike=("phase", "kernel_source", "d_model", "num_k_heads", "num_v_heads"),
    shape=("num_k_heads", "num_v_heads"),
    label=("phase",),
    build=_delta,
    part=lambda row: _part("gdn", row),
    usual=lambda row: not _convolving(row),
    repeats=True,
)

MAMBA2 = Reader(
    table="mamba2",
    needs=("nheads", "d_state", "phase", "seq_len"),
    alike=("phase", "kernel_source", "model_name"),
    shape=("nheads", "d_state"),
    label=("phase",),
    build=_mamba,
    part=lambda row: _part("mamba2", row),
    usual=lambda row: not _convolving(row),
    repeats=True,
)
