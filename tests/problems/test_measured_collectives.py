"""Rows of measured collectives: what they say, by hand, and what the links answer."""

import numpy as np
import pytest

from model_ops.errors import GenzSizeError
from model_ops.opcost import CollectiveKind
from model_ops.platform.supply import Supply
from problems import catalogue
from problems.catalogue.measured_collectives import CollectiveFit, collective_kernels
from problems.measured.collectives import MeasuredCollective, measured_collective
from problems.measured.operators import operator_rows, reader_of

LIBRARY = {
    "system": "h100_sxm",
    "library": "nccl",
    "version": "2.29.2",
    "collective": "all_reduce",
    "nccl_dtype": "half",
    "num_gpus": "8",
    "message_elements": "134217728",
    "bytes_per_element": "2",
    "latency_ms": "1.0921",
}
CUSTOM = {
    "system": "h100_sxm",
    "framework": "trtllm",
    "version": "1.3.0rc20",
    "kernel_source": "TRTLLM",
    "allreduce_dtype": "bfloat16",
    "num_gpus": "8",
    "message_size": "256",
    "latency_ms": "0.0031",
}
EXCHANGE = {
    "system": "h100_sxm",
    "framework": "vllm",
    "version": "0.24.0",
    "comm_backend": "deepep_ll",
    "phase": "dispatch",
    "comm_dtype": "fp8",
    "ep_size": "8",
    "node_num": "1",
    "hidden_size": "1000",
    "topk": "1",
    "num_tokens": "64",
    "latency_us": "60",
}
VIDUR = {
    "hardware": "A100-80GB DGX (NVSwitch)",
    "op": "send_recv",
    "num_workers": "2",
    "devices_per_node": "1",
    "size_bytes": "2048",
    "median_ms": "0.024",
}
APEX = {
    "hardware": "H200-SXM-141GB",
    "op": "alltoall",
    "num_gpus": "4",
    "num_nodes": "1",
    "size_bytes": "1048576",
    "time_us": "14",
}


def test_a_librarys_row_counts_elements() -> None:
    found = measured_collective("nccl", LIBRARY)
    assert (found.npu, found.framework) == ("h100-sxm", None)
    assert found.collective.kind is CollectiveKind.ALL_REDUCE
    assert found.collective.payload == 2**27 * 2
    assert found.collective.ranks == 8
    assert found.seconds == pytest.approx(1.0921e-3)


def test_a_frameworks_row_counts_elements_of_16_bits() -> None:
    found = measured_collective("custom_allreduce", CUSTOM)
    assert found.framework == "tensorrt-llm"
    assert found.collective.payload == 256 * 2


def test_a_dispatch_in_fp8_and_a_combine_in_16_bits() -> None:
    # One expert a token: one rank gets it. A scale of 4 bytes for 128 elements.
    found = measured_collective("moe_a2a", EXCHANGE)
    assert found.collective.kind is CollectiveKind.DISPATCH
    assert found.collective.payload == pytest.approx(64 * 1000 * (1 + 4 / 128))
    assert found.seconds == pytest.approx(60e-6)
    back = measured_collective("moe_a2a", EXCHANGE | {"phase": "combine", "topk": "2"})
    # Two of eight ranks with replacement: 8 (1 - (7/8)^2) = 1.875 copies.
    assert back.collective.payload == pytest.approx(64 * 1.875 * 1000 * 2)


def test_workers_in_two_nodes_stand_a_node_apart() -> None:
    found = measured_collective("ops_vidur", VIDUR).collective
    assert (found.kind, found.ranks, found.stride) == (CollectiveKind.SEND, 2, 8)
    inside = measured_collective("ops_extra", APEX)
    assert inside.collective.stride == 1
    assert inside.collective.kind is CollectiveKind.ALL_TO_ALL
    assert inside.seconds == pytest.approx(14e-6)


@pytest.mark.parametrize(
    ("table", "row", "message"),
    [
        ("nccl", LIBRARY | {"collective": "all_redoce"}, "did you mean 'all_reduce'"),
        ("nccl", LIBRARY | {"latency_ms": ""}, "latency_ms"),
        ("nccl", LIBRARY | {"num_gpus": "0"}, "num_gpus"),
        ("nccl", LIBRARY | {"system": "h1000_sxm"}, "unknown npu"),
        ("custom_allreduce", CUSTOM | {"framework": "mlc"}, "no kernels of 'mlc'"),
        ("custom_allreduce", CUSTOM | {"kernel_source": "x_eager"}, "the host"),
        ("moe_a2a", EXCHANGE | {"num_tokens": "4096"}, "4096 tokens"),
        ("moe_a2a", EXCHANGE | {"comm_backend": "deepep_ht"}, "64 tokens"),
        ("moe_a2a", EXCHANGE | {"comm_backend": "deepep_v2_context"}, "default"),
    ],
)
def test_rows_that_say_nothing_are_refused(
    table: str, row: dict[str, str], message: str
) -> None:
    with pytest.raises(GenzSizeError, match=message):
        measured_collective(table, row)


@pytest.mark.parametrize(
    ("table", "row"), [("nccl", LIBRARY), ("custom_allreduce", CUSTOM)]
)
def test_a_table_goes_through_the_model_as_its_rows_do(
    table: str, row: dict[str, str]
) -> None:
    column = "message_elements" if table == "nccl" else "message_size"
    rows = [row | {column: str(2**power), "num_gpus": "4"} for power in (9, 18, 27)]
    reader = reader_of(tuple(row))
    assert reader is not None
    assert not reader.fitted
    (group,) = operator_rows(reader, rows)
    supply = Supply.of(catalogue.load_npu_as(group.npu, group.stack))
    alone = [measured_collective(table, each).predicted() for each in rows]
    np.testing.assert_allclose(group.predicted(supply), alone, rtol=1e-12)
    assert np.all(np.diff(alone) > 0)


def test_a_framework_never_loses_to_its_library() -> None:
    for elements in ("1000", "100000", "10000000", "1000000000"):
        found = measured_collective("nccl", LIBRARY | {"message_elements": elements})
        alone = found.predicted()
        own = MeasuredCollective(found.npu, "vllm", found.collective, found.seconds)
        assert own.predicted() <= alone


FIT = {
    "library": "nccl",
    "version": "2",
    "kinds": ("all_to_all",),
    "rows": 9,
    "error": 0.1,
    "left_out": 0.1,
    "lines": ({"launch": 1e-6, "hop": 0, "share": 0.5, "contention": 0},),
}


def fit(**changes: object) -> CollectiveFit:
    return CollectiveFit.model_validate(FIT | changes)


def test_whose_kernels_run() -> None:
    all_to_all, dispatch = CollectiveKind.ALL_TO_ALL, CollectiveKind.DISPATCH
    own = fit(framework="vllm", kinds=(dispatch,))
    fits = [fit(), own]
    # A framework's own exchange; the library's for one without.
    mine = collective_kernels([fits], "nccl", "vllm")
    assert mine[dispatch] == (own.lines[0].kernel(),)
    other = collective_kernels([fits], "nccl", "sglang")
    assert other[dispatch] == other[all_to_all]
    # Another vendor's library has none of these.
    assert collective_kernels([fits], "rccl", "vllm") == {}
    # What a link lacks comes from the one that it is like, and only that.
    better = fit(lines=({"launch": 2e-6, "hop": 0, "share": 0.9, "contention": 0},))
    found = collective_kernels([[better], fits], "nccl", "vllm")
    assert found[all_to_all] == (better.lines[0].kernel(),)
    assert found[dispatch] == mine[dispatch]
