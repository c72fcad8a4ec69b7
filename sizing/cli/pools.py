"""Options of a disaggregated deployment: a prefill pool and a decode pool."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from model_ops.errors import ProblemError
from model_ops.units import BYTE_PER_SECOND
from sizing.cli.values import quantity

F = TypeVar("F", bound=Callable[..., Any])

POOLS = ("prefill", "decode")
_DEGREE = click.IntRange(1, 4096)
_FIELDS: Mapping[str, tuple[click.ParamType[Any], str]] = {
    "npu": (click.STRING, "NPU name or alias"),
    "tp": (_DEGREE, "tensor parallel ranks"),
    "pp": (_DEGREE, "pipeline stages"),
    "ep": (_DEGREE, "expert parallel groups"),
    "dp": (_DEGREE, "data parallel groups"),
    "cp": (_DEGREE, "context parallel ranks"),
    "replicas": (click.IntRange(1, 1_000_000), "replicas"),
    "chunk_tokens": (click.IntRange(16, 1_000_000), "tokens of one engine step"),
}
"""What each pool may have of its own, where it differs from the plain option."""


def _option(pool: str, field: str) -> str:
    return f"--{pool}-{field.replace('_', '-')}"


KV_BANDWIDTH = click.option(
    "--kv-bandwidth",
    callback=quantity(BYTE_PER_SECOND, 1e15),
    metavar="RATE",
    help="What transfers of the KV cache between prefill and decode pools reach, per "
    "NPU and direction, e.g. '25 GB/s' [what the network between the pools does].",
)

SIZED_MODE = click.option(
    "--mode",
    multiple=True,
    type=click.Choice(["aggregated", "disaggregated"]),
    help="Replicas that both read prompts and answer (aggregated), or a prefill pool "
    "that reads and a decode pool that answers (disaggregated); repeat it to try both "
    "[aggregated].",
)


def pool_options(function: F) -> F:
    """Add the options of both pools."""
    for pool in reversed(POOLS):
        for field, (kind, what) in reversed(tuple(_FIELDS.items())):
            said = f"The {pool} pool's {what} [--{field.replace('_', '-')}]."
            function = click.option(_option(pool, field), type=kind, help=said)(
                function
            )
    function = KV_BANDWIDTH(function)
    return click.option(
        "--serving",
        type=click.Choice(["aggregated", "disaggregated"]),
        default="aggregated",
        help="Replicas that both read prompts and answer, or a prefill pool that reads "
        "and a decode pool that answers [aggregated].",
    )(function)


def pools_given(
    options: dict[str, Any], *, disaggregated: bool
) -> dict[str, dict[str, Any]]:
    """Take the pools' options out of all; return each pool's values.

    Raises
    ------
    ProblemError
        If one is given of a deployment that has no pools.
    """
    stated = {
        pool: {field: options.pop(f"{pool}_{field}") for field in _FIELDS}
        for pool in POOLS
    }
    alone = [
        _option(pool, field)
        for pool in POOLS
        for field in _FIELDS
        if stated[pool][field] is not None
    ]
    alone += ["--kv-bandwidth"] * (options["kv_bandwidth"] is not None)
    if alone and not disaggregated:
        raise ProblemError(f"{alone[0]} goes with --serving disaggregated")
    plain = {field: options.pop(field) for field in _FIELDS} if disaggregated else {}
    return {
        pool: {
            field: plain.get(field) if own is None else own
            for field, own in stated[pool].items()
        }
        for pool in POOLS
    }
