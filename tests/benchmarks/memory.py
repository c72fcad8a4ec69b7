"""Predicted against measured memory: bytes used, KV cache capacity, fits or not.

Run: ``python tests/benchmarks/memory.py [CSV]``. The table has a row per figure with
model, hardware, num_accelerators, tp, pp, weight_dtype, kv_dtype, framework, batch,
isl, osl, max_num_batched_tokens, kind and value; see tests/reference/README.md.
"""

import csv
import gzip
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from model_ops.dtypes import Dtype
from model_ops.errors import GenzSizeError
from model_ops.platform.supply import Supply
from model_ops.profiler.memory import cache_tokens, kv_bytes_per_sequence
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.step import Replica
from problems import catalogue

DATA = Path(__file__).parents[1] / "reference" / "memory_truths.csv.gz"

LARGE_NPU = 70 * 2**30
"""From here on vLLM's default ``max_num_seqs`` is 1024, below it 256."""

LONGEST_CHUNK = 8192
"""Tokens of a step where the source does not say."""


@dataclass(frozen=True)
class Compared:
    """One figure of the table, and what is predicted for it; 1 and 0 for fits."""

    kind: str
    where: str
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted / self.measured - 1.0


def compare(row: Mapping[str, str]) -> Compared:
    """Return a row's figure beside its prediction.

    Raises
    ------
    GenzSizeError
        If the catalogue lacks the model or the hardware.
    """
    kind = row["kind"]
    names = (row["model"], row["hardware"], row["weight_dtype"], row["framework"])
    measured = float(row["value"]) * _UNITS.get(row["unit"].split()[0], 1.0)
    return Compared(kind, " ".join(names), measured, _KINDS[kind](row, _replica(row)))


_UNITS = {"GB": 2**30, "MB": 2**20}
"""The tools print binary units under decimal names."""


def _replica(row: Mapping[str, str]) -> Replica:
    arch = catalogue.load_model(row["model"])
    stored, kept = (
        Dtype.of(row[name]) if row[name] else None
        for name in ("weight_dtype", "kv_dtype")
    )
    framework = row["framework"].split()[0]
    npu = catalogue.load_npu_under(row["hardware"], framework)
    split = Parallelism(int(row["tp"]), int(row["pp"] or 1))
    precision = arch.precision.stored(stored, kept)
    return Replica(arch, split, precision, Supply.of(npu))


def _number(row: Mapping[str, str], name: str, default: float) -> float:
    return float(row[name]) if row[name] else default


def _used(row: Mapping[str, str], replica: Replica) -> float:
    shape = RequestShape(float(row["isl"]), _number(row, "osl", 1))
    needed = replica.lockstep_footprint(shape, _number(row, "batch", 1))
    return float(needed.total + replica.supply.runtime_reserve)


def _capacity(row: Mapping[str, str], replica: Replica) -> float:
    large = replica.supply.npus[0].memory_capacity >= LARGE_NPU
    return float(
        cache_tokens(
            replica.held,
            replica.room,
            length=4096,
            step_tokens=_number(row, "max_num_batched_tokens", LONGEST_CHUNK),
            sampled=1024 if large else 256,
        )
    )


def _of_prompt(row: Mapping[str, str], replica: Replica) -> float:
    # The first token of the answer has its place already.
    tokens = float(row["isl"]) + 1
    each = kv_bytes_per_sequence(replica.arch, replica.shard, tokens)
    return float(each * replica.parallelism.tp)


def _fits(row: Mapping[str, str], replica: Replica) -> float:
    prompt, answer = max(_number(row, "isl", 1), 1), _number(row, "osl", 1)
    needed = replica.footprint(RequestShape(prompt, answer), 1.0, 512)
    return float(needed.total <= replica.room.own)


_KINDS: dict[str, Callable[[Mapping[str, str], Replica], float]] = {
    "gpu_memory_used": _used,
    "kv_capacity_tokens": _capacity,
    "kv_cache_size_of_prompt": _of_prompt,
    "fits": _fits,
}


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, compressed or not."""
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return list(csv.DictReader(text.decode().splitlines()))


def main(path: Path) -> None:
    """Print a line per kind of figure, and every false fit."""
    found: dict[str, list[Compared]] = defaultdict(list)
    unanswered: dict[str, int] = defaultdict(int)
    for row in read(path):
        try:
            found[row["kind"]].append(compare(row))
        except GenzSizeError as error:
            unanswered[str(error)[:100]] += 1
    for kind, each in found.items():
        if kind == "fits":
            right = sum(c.measured == c.predicted for c in each)
            false = [c.where for c in each if c.predicted > c.measured]
            print(f"{kind}: {right} of {len(each)} right, false fits: {false}")  # noqa: T201
            continue
        errors = [abs(c.error) for c in each]
        print(  # noqa: T201 - a benchmark prints
            f"{kind}: {len(each)} figures, median error "
            f"{statistics.median(errors):.1%}, largest {max(errors):.1%}"
        )
    for reason, count in unanswered.items():
        print(f"unanswered, {count}: {reason}")  # noqa: T201 - a benchmark prints


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
