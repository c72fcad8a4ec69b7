"""Parameters of the catalogue's models against what their makers publish.

`tests/reference/published_parameters.csv` holds total and active parameters, whether
the active ones count the embedding, and how coarsely the maker rounds.
"""

import csv
import math
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

from model_ops.profiler.arch import ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.moe import MoeFfn
from problems.catalogue import load_model

FILE = Path(__file__).parent.parent / "reference" / "published_parameters.csv"

WITHIN = 0.01

# What is further off than 1 %, and why; within half a unit of the published figure's
# last digit unless a bound is given.
ROUNDED = "the maker's figure is rounded more coarsely than 1 %"
TOTALS: dict[str, tuple[str, float | None]] = {
    "deepseek-v4-pro*": (f"{ROUNDED}: 1.6 T", 50.0),
    "kimi-k2-thinking": (f"{ROUNDED}: 1 T", 50.0),
    "kimi-k2.5*": (f"{ROUNDED}: 1 T", 50.0),
    "kimi-k2": (
        "the paper says 1.04 T, the card 1 T; the tensors sum to 1.026 T",
        14.0,
    ),
    "kimi-linear-48b-a3b": ("the name says 48 B, the checkpoint has 49.1 B", 1.2),
    "llama-4-scout": ("the card counts the vision tower, which is left out", 1.3),
    "mamba-2.8b": (ROUNDED, None),
}
ACTIVE: dict[str, tuple[str, float | None]] = {
    "deepseek-r1": (ROUNDED, None),
    "deepseek-v2-lite": ("the paper leaves out more than the embedding", 0.06),
    "deepseek-v3*": (f"{ROUNDED}; V3.2's card gives V3's figure", None),
    "deepseek-v4-flash*": (ROUNDED, None),
    "glm-4.5-air": (ROUNDED, None),
    "granite-4.0-h-*": (ROUNDED, None),
    "kimi-linear-48b-a3b": (ROUNDED, None),
    "llama-4-*": (ROUNDED, None),
    "mimo-v2-flash": (ROUNDED, None),
    "minimax-m2*": (f"{ROUNDED}: 10 B", None),
    "minimax-m3": ("the card says about 23 B; without embeddings it is 23.5 B", 0.6),
    "olmoe-1b-7b": (ROUNDED, None),
    "qwen3-30b-a3b*": ("3.35 B, which the card rounds down", 0.06),
    "qwen3-coder-480b-a35b": (ROUNDED, None),
    "qwen3-next-80b-a3b": (ROUNDED, None),
    "qwen3.5-*": (ROUNDED, None),
}


@dataclass(frozen=True)
class Row:
    """One model's published figures, in billions."""

    model: str
    total: str
    active: str
    counts_embedding: str

    @property
    def arch(self) -> ModelArch:
        return load_model(self.model)


with FILE.open(encoding="utf-8", newline="") as lines:
    ROWS = [
        Row(row["model"], row["total_b"], row["active_b"], row["counts_embedding"])
        for row in csv.DictReader(lines)
    ]
NAMED = [pytest.param(row, id=row.model) for row in ROWS]


def half_unit(figure: str) -> float:
    """Return half of the last digit that the figure gives."""
    return 0.5 * 10.0 ** -len(figure.partition(".")[2])


def conventions(row: Row) -> list[float]:
    """Return the active parameters as makers count them, in billions.

    With all matrices, without the input embedding, or without the head too.
    """
    arch = row.arch
    ends = 0 if arch.tie_word_embeddings else 1
    all_ = arch.active_parameters
    without = [all_ - arch.embedding_parameters * n for n in range(1, 2 + ends)]
    counted = {"yes": [all_], "no": without}
    return [n / 1e9 for n in counted.get(row.counts_embedding, [all_, *without])]


def total_off(row: Row) -> float:
    return abs(row.arch.parameters / 1e9 - float(row.total))


def active_off(row: Row) -> float:
    return min(abs(found - float(row.active)) for found in conventions(row))


def bound(row: Row, figure: str, reasons: dict[str, tuple[str, float | None]]) -> float:
    """Return how far off a figure may be: 1 %, or what its reason allows."""
    allowed = WITHIN * float(figure)
    for pattern, (_, limit) in reasons.items():
        if fnmatch(row.model, pattern):
            allowed = max(allowed, half_unit(figure) if limit is None else limit)
    return allowed


@pytest.mark.parametrize("row", NAMED)
def test_total_parameters(row: Row) -> None:
    assert total_off(row) <= bound(row, row.total, TOTALS)


@pytest.mark.parametrize("row", [p for p in NAMED if p.values[0].active])
def test_active_parameters(row: Row) -> None:
    assert active_off(row) <= bound(row, row.active, ACTIVE)


@pytest.mark.parametrize(
    ("reasons", "figure", "off"),
    [(TOTALS, "total", total_off), (ACTIVE, "active", active_off)],
    ids=["total", "active"],
)
def test_every_reason_is_needed(reasons, figure, off) -> None:  # type: ignore[no-untyped-def]
    for pattern in reasons:
        rows = [row for row in ROWS if fnmatch(row.model, pattern)]
        assert any(off(row) > WITHIN * float(getattr(row, figure)) for row in rows)


def plain(arch: ModelArch) -> bool:
    """Return whether a model is attention and dense feed-forwards alone."""
    return all(
        isinstance(half, Attention | DenseFfn)
        for run in arch.runs
        for half in run.layer.halves
    )


def test_forty_models_beyond_dense_ones_are_within_one_percent() -> None:
    kinds = [row for row in ROWS if not plain(row.arch)]
    close = [
        row
        for row in kinds
        if total_off(row) <= WITHIN * float(row.total)
        and (not row.active or active_off(row) <= WITHIN * float(row.active))
    ]
    assert len(kinds) >= 60
    assert len(close) >= 40


def test_a_model_without_experts_passes_all_its_parameters() -> None:
    for row in ROWS:
        if not any(isinstance(layer.ffn, MoeFfn) for layer in row.arch.layers):
            assert row.arch.active_parameters == row.arch.parameters
            assert math.isclose(
                float(row.total), row.arch.parameters / 1e9, rel_tol=0.02
            )
