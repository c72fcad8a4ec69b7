import dataclasses
import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

import model_ops
from model_ops import units
from model_ops.errors import GenzSizeError, UnitError
from model_ops.units import (
    BYTE,
    BYTE_PER_SECOND,
    FLOP,
    FLOP_PER_SECOND,
    REQUEST_PER_SECOND,
    SECOND,
    USD_PER_HOUR,
    WATT,
    Bytes,
    Unit,
)

ALL_UNITS = [unit for unit in vars(units).values() if isinstance(unit, Unit)]
MINUTES_PER_HOUR, HOURS_PER_DAY, DAYS_PER_YEAR, MONTHS = 60, 24, 365, 12


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        (BYTE, "141 GB", 141e9),
        (BYTE, "141 GiB", 141 * 2**30),
        (BYTE, "1 KiB", 2**10),
        (BYTE, "3TiB", 3 * 2**40),
        (BYTE, "0 B", 0),
        (BYTE, "  7  B ", 7),
        (BYTE, "1_000 kB", 1e6),
        (BYTE, "1_000_000.5 kB", 1_000_000_500),
        (BYTE, "12,345 TB", 12_345e12),
        (BYTE, "1,234,567.5 kB", 1_234_567_500),
        (BYTE, "1.5e3 MB", 1.5e9),
        (BYTE_PER_SECOND, "4.8 TB/s", 4.8e12),
        (FLOP_PER_SECOND, "989 TFLOP/s", 989e12),
        (FLOP_PER_SECOND, "1979 TOP/s", 1979e12),
        (FLOP, "2 TFLOP", 2e12),
        (SECOND, "50 ms", 0.05),
        (SECOND, "3 us", 3e-6),
        (SECOND, "3 µs", 3e-6),
        (SECOND, "2 h", 2 * MINUTES_PER_HOUR * 60),
        (WATT, "1.2 kW", 1200),
        (REQUEST_PER_SECOND, "10 req/s", 10),
        (REQUEST_PER_SECOND, "30 requests/min", 30 / 60),
        (REQUEST_PER_SECOND, "86400 req/day", 1),
        (USD_PER_HOUR, "55.04 USD/h", 55.04),
        (USD_PER_HOUR, "24 USD/day", 24 / HOURS_PER_DAY),
        (USD_PER_HOUR, "1 MUSD/year", 1e6 / (HOURS_PER_DAY * DAYS_PER_YEAR)),
        (USD_PER_HOUR, "1 kUSD/month", 1e3 * MONTHS / (HOURS_PER_DAY * DAYS_PER_YEAR)),
    ],
)
def test_parse(unit: Unit, text: str, value: float) -> None:
    assert unit.parse(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "text", "said"),
    [
        (BYTE, "141", "has no unit"),
        (BYTE, "141 GB/s", "not a quantity in B;"),
        (BYTE_PER_SECOND, "141 GB", "not a quantity in B/s;"),
        (BYTE, "141 gb", "not a quantity in B;"),  # case tells mega from milli
        (BYTE, "GB", "is not a quantity;"),
        (BYTE, "", "is not a quantity;"),
        (BYTE, "nan GB", "is not a quantity;"),
        (BYTE, "inf GB", "is not a quantity;"),
        (BYTE, "1e999 GB", "must be a finite quantity"),
        (BYTE, "-1 GB", "zero or more"),
        (BYTE, "1 2 GB", "not a quantity in B;"),
        (BYTE, "1_ GB", "not a quantity in B;"),
        (BYTE, "1__0 GB", "not a quantity in B;"),
        (BYTE, "_1 GB", "is not a quantity;"),
        (BYTE, "1,23 GB", "not a quantity in B;"),  # a decimal comma?
        (BYTE, "0,123 GB", "not a quantity in B;"),
        (BYTE, "1,2345 GB", "not a quantity in B;"),
        (BYTE, "1234,567 GB", "not a quantity in B;"),
        (BYTE, "1,234,56 GB", "not a quantity in B;"),
        (BYTE, "1,234_567 GB", "not a quantity in B;"),
        (BYTE, ",123 GB", "is not a quantity;"),
        (SECOND, "5 m", "not a quantity in s;"),  # minutes or metres?
        (USD_PER_HOUR, "5 EUR/h", "not a quantity in USD/h;"),
    ],
)
def test_parse_refuses(unit: Unit, text: str, said: str) -> None:
    with pytest.raises(UnitError) as caught:
        unit.parse(text)
    assert said in str(caught.value)
    assert f"'{text}'" in str(caught.value)
    assert isinstance(caught.value, GenzSizeError)


@pytest.mark.parametrize("unit", ALL_UNITS, ids=lambda unit: unit.base)
def test_every_unit_reads_its_own_example_and_names_it_in_errors(unit: Unit) -> None:
    assert unit.parse(unit.example) > 0
    with pytest.raises(UnitError, match="write it like '") as caught:
        unit.parse("5 parsec")
    assert unit.example in str(caught.value)


@pytest.mark.parametrize("unit", ALL_UNITS, ids=lambda unit: unit.base)
def test_shown_units_are_accepted_and_grow(unit: Unit) -> None:
    scales = [unit.parse(f"1 {shown}") for shown in unit.shown]
    assert scales == sorted(set(scales))
    assert unit.scales[unit.base] == 1.0


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        (BYTE, 141e9, "141 GB"),
        (BYTE, 0, "0 B"),
        (BYTE, 1e3, "1 kB"),
        (BYTE, 999, "999 B"),
        (BYTE, 999.6, "1 kB"),  # not "1e+03 B"
        (BYTE, 12_345e12, "12,345 TB"),
        (BYTE_PER_SECOND, 4.8e12, "4.8 TB/s"),
        (BYTE_PER_SECOND, 12_345, "12.3 kB/s"),
        (SECOND, 0.05, "50 ms"),
        (SECOND, 65, "65 s"),  # not in minutes: a target is asked for in seconds
        (SECOND, 7200, "7,200 s"),
        (SECOND, 1.2345e-6, "1.23 us"),
        (WATT, 1234, "1.23 kW"),
        (USD_PER_HOUR, 55.04, "55 USD/h"),
        (USD_PER_HOUR, 999.4, "999 USD/h"),
        (USD_PER_HOUR, 999.5, "1,000 USD/h"),  # not "1e+03 USD/h"
        (USD_PER_HOUR, 999.99, "1,000 USD/h"),
        (REQUEST_PER_SECOND, 1234.4, "1,234 req/s"),
    ],
)
def test_format(unit: Unit, value: float, text: str) -> None:
    assert unit.format(value) == text


def test_format_takes_digits() -> None:
    assert USD_PER_HOUR.format(55.04, digits=4) == "55.04 USD/h"
    assert USD_PER_HOUR.format(9999.7, digits=4) == "10,000 USD/h"
    assert BYTE.format(999.6, digits=4) == "999.6 B"


@pytest.mark.parametrize("unit", ALL_UNITS, ids=lambda unit: unit.base)
def test_round_trip(unit: Unit) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    numbers = hypothesis.strategies.floats(
        unit.scales[unit.shown[0]] * 1e-3, unit.scales[unit.shown[-1]] * 1e7
    )

    @hypothesis.settings(derandomize=True, deadline=None)
    @hypothesis.given(numbers, hypothesis.strategies.integers(3, 12))
    def formatted_then_parsed(value: float, digits: int) -> None:
        text = unit.format(value, digits)
        assert "e+" not in text
        assert unit.parse(text) == pytest.approx(value, rel=5.1 * 10.0**-digits)

    formatted_then_parsed()


def test_pydantic_reads_text_anywhere_and_bare_numbers_outside_files() -> None:
    quantity = TypeAdapter(Bytes)
    file = {"source": "file"}
    assert quantity.validate_python("141 GB") == 141e9
    assert quantity.validate_python("141 GB", context=file) == 141e9
    assert quantity.validate_python(141) == 141.0
    with pytest.raises(ValidationError, match="'141' has no unit"):
        quantity.validate_python(141, context=file)


@pytest.mark.parametrize("value", [True, None, [], -1, float("nan"), float("inf")])
def test_pydantic_refuses(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Bytes).validate_python(value)


# ---- every float field of the model says its unit or is known to have none ----

DIMENSIONLESS = {
    # Counts, which may be fractional in the mean or arrays over deployments.
    "AttentionCore.branches",
    "AttentionCore.context",
    "AttentionCore.heads",
    "AttentionCore.key_elements",
    "AttentionCore.key_shares",
    "AttentionCore.queries",
    "AttentionCore.query_shares",
    "AttentionCore.seen",
    "AttentionCore.sequences",
    "CausalConv.rows",
    "CausalConv.sequences",
    "CausalConv.width",
    "Collective.ranks",
    "Collective.stride",
    "Counters.cached_tokens",
    "Counters.running",
    "Elementwise.elements",
    "Engine.cache_tokens",
    "Engine.chunk_tokens",
    "Engine.groups",
    "Engine.max_sequences",
    "Engine.tokens_per_step",
    "Estimate.batch",
    "Gemm.cached",
    "Gemm.k",
    "Gemm.m",
    "Gemm.matrices",
    "Gemm.n",
    "Lengths.tokens",
    "Part.stages",
    "Part.whole",
    "Waits.chunks",
    "Waits.queued",
    "Waits.running",
    "Waits.share",
    "Load.cached",
    "Load.cached_deviation",
    "Load.chunk_tokens",
    "Load.concurrency",
    "Load.moments",
    "Load.more_tokens",
    "Mix.carried",
    "Mix.decoding",
    "Mix.room",
    "AttentionCore.kv_heads",
    "KernelShape.columns",
    "Load.requests_per_user",
    "KernelShape.depth",
    "KernelShape.groups",
    "KernelShape.rows",
    "Npu.processors",
    "OpCost.launches",
    "Work.launches",
    "Work.processors",
    "Parallelism.cp",
    "Parallelism.dp",
    "Parallelism.ep",
    "Parallelism.pp",
    "Parallelism.tp",
    "Recurrence.conv_width",
    "Recurrence.inputs",
    "Recurrence.outputs",
    "Recurrence.state_elements",
    "ReplicaState.cached_seconds",
    "ReplicaState.pairs",
    "ReplicaState.running_seconds",
    "RequestShape.beams",
    "RequestShape.cached_tokens",
    "RequestShape.input_tokens",
    "RequestShape.output_tokens",
    "Scan.queries",
    "Scan.sequences",
    "Scan.states_written",
    "Schedule.groups",
    "Schedule.slots",
    "RoutedExperts.distinct",
    "RoutedExperts.inner",
    "RoutedExperts.num_experts_per_tok",
    "RoutedExperts.passed",
    "RoutedExperts.rows",
    "RoutedExperts.up_matrices",
    "RoutedExperts.width",
    "Schedule.tokens_per_step",
    "Segment.branches",
    "Segment.context",
    "Segment.queries",
    "Segment.sampled",
    "Segment.sequences",
    "Stage.counts",
    "SteadyState.batch",
    "Step.elsewhere",
    "Tier.npus",
    "Tier.dimensions",
    "Tier.links",
    "_Leg.members",
    "TimedOperator.count",
    "Workload.batch",
    # Shares, and other quotients.
    "CollectiveKernel.contention",
    "CollectiveKernel.share",
    "ExpertLoad.alpha",
    "KernelEfficiency.compute",
    "KernelEfficiency.memory",
    "GemmKernel.compute",
    "GemmKernel.exposed",
    "GemmKernel.idle",
    "GemmKernel.memory",
    "GemmKernel.padding",
    "GemmKernel.prologue",
    "GemmKernel.slowdown",
    "DecodeKernel.alone_above",
    "DecodeKernel.compute",
    "DecodeKernel.exposed",
    "DecodeKernel.lead",
    "DecodeKernel.memory",
    "DecodeKernel.slots",
    "DecodeKernel.stream",
    "DecodeKernel.tile",
    "DecodeKernel.vector",
    "DecodeKernel.window_alone",
    "LatentDecodeKernel.full",
    "KernelShape.cut",
    "KernelShape.repeats",
    "PrefillKernel.compute",
    "PrefillKernel.cut_lead",
    "PrefillKernel.exposed",
    "PrefillKernel.lead",
    "PrefillKernel.memory",
    "PrefillKernel.packing",
    "PrefillKernel.padding",
    "PrefillKernel.size_192",
    "PrefillKernel.size_256",
    "PrefillKernel.size_64",
    "PrefillKernel.tile",
    "ScanKernel.compute",
    "ScanKernel.exposed",
    "ScanKernel.memory",
    "OpTime.exposed",
    "Lengths.levels",
    "Load.alike",
    "Load.computed",
    "Mix.prompt_load",
    "Mix.share",
    "Npu.activation_factor",
    "Npu.exposed_launch",
    "Npu.link_efficiency",
    "Npu.memory_usable",
    "Npu.pace",
    "Npu.prefill_pace",
    "Pair.arrival_variation",
    "Pair.decode_share",
    "Pair.prefill_share",
    "PairLoop.batch",
    "Placement.cache",
    "Placement.weights",
    "Profile.cached_share",
    "Speculation.acceptance",
    "Tier.oversubscription",
    "Transfer.utilisation",
    "_Leg.efficiency",
    "SteadyState.prompt_load",
    # Of whatever the runs measured.
    "Interval.half_width",
    "Interval.mean",
    # What one of each text is in the base unit.
    "Unit.scales",
}

UNIT_IN_THE_DOCSTRING = {
    # Declared as a bare Number although each is bytes, seconds or FLOP.
    "AlphaBeta.latency",
    "AlphaBeta.per_byte",
    "Collective.payload",
    "Elementwise.read",
    "Elementwise.written",
    "OpCost.flop",
    "OpCost.link_bytes",
    "OpCost.read",
    "OpCost.written",
    # Fields of the array in which compiled code keeps its state.
    "ReplicaState.clock",
    "ReplicaState.stop",
}
"""A new field may not join these: give it an alias of `model_ops.units`."""


def _dataclasses() -> Iterator[type]:
    for found in pkgutil.walk_packages(model_ops.__path__, "model_ops."):
        module = importlib.import_module(found.name)
        for item in vars(module).values():
            here = getattr(item, "__module__", None) == found.name
            if here and isinstance(item, type) and dataclasses.is_dataclass(item):
                yield item


def _holds_float(hint: Any) -> bool:
    return hint is float or any(_holds_float(part) for part in get_args(hint))


def _has_unit(hint: Any) -> bool:
    marks = getattr(hint, "__metadata__", ())
    return any(isinstance(mark, Unit) for mark in marks) or any(
        _has_unit(part) for part in get_args(hint)
    )


def _float_fields() -> dict[str, Any]:
    found = {}
    for owner in _dataclasses():
        hints = get_type_hints(owner, include_extras=True)
        for field in dataclasses.fields(owner):
            if _holds_float(hints[field.name]):
                found[f"{_declarer(owner, field.name)}.{field.name}"] = hints[
                    field.name
                ]
    return found


def _declarer(owner: type, name: str) -> str:
    """Return the class that declares a field, of those that have it."""
    declaring = [c for c in owner.__mro__ if name in vars(c).get("__annotations__", {})]
    return declaring[-1].__name__


def test_every_float_field_names_its_unit_or_is_dimensionless() -> None:
    unnamed = {name for name, hint in _float_fields().items() if not _has_unit(hint)}
    assert unnamed - DIMENSIONLESS - UNIT_IN_THE_DOCSTRING == set()


def test_no_field_with_a_unit_is_called_dimensionless() -> None:
    fields = _float_fields()
    assert set(fields) >= DIMENSIONLESS  # none is stale
    assert [name for name in DIMENSIONLESS if _has_unit(fields[name])] == []


def test_the_reflection_sees_fields_of_every_kind() -> None:
    fields = _float_fields()
    assert _has_unit(fields["Npu.memory_capacity"])
    assert _has_unit(fields["Npu.tdp"])  # Watts | None
    assert _has_unit(fields["Npu.flop_per_s"])  # Mapping[Dtype, FlopPerSecond]
    assert _has_unit(fields["Estimate.ttft"])  # Seconds | Number
    assert not _has_unit(fields["Npu.link_efficiency"])
    assert "Npu.node_npus" not in fields
