"""Predicted against achieved request rates of MLPerf Inference, within its limits.

Run: ``python tests/benchmarks/mlperf.py [CSV]``. Each row says that so many
accelerators sustained a Poisson rate within limits on the 99th percentiles of TTFT and
TPOT (or of the whole request). Submitters tune the batch, the chunk and, where the
table does not tell, the tensor parallel degree; so does the prediction.

The data sets' prompts are published as data, not as lengths: `PROMPTS` holds means that
we assume, and the last lines show what half and twice of them would change.
"""

import csv
import gzip
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.errors import GenzSizeError
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Profile
from model_ops.serving.highest_rate import Target, highest_rate
from model_ops.serving.lengths import lognormal
from model_ops.serving.step import Replica
from problems import catalogue

DATA = Path(__file__).parents[1] / "reference" / "mlperf_slo.csv.gz"

PROMPTS = {
    "Llama-2-70B": (280.0, 0.9),
    "Llama-3.1-70B": (280.0, 0.9),
    "Llama-2-7B": (280.0, 0.9),
    "Mixtral-8x7B": (300.0, 0.9),
    "Llama-3.1-8B": (900.0, 0.5),
    "GPT-J-6B": (900.0, 0.5),
    "Llama-3.1-405B": (9000.0, 0.6),
    "DeepSeek-R1": (800.0, 0.9),
}
"""Mean and variation of the prompts' tokens, assumed: OpenOrca, CNN/DailyMail (See et
al. 2017: 781 words an article), long-context sets of up to 20,000 tokens, problems."""

ANSWERS = {"GPT-J-6B": 80.0}
"""Mean answers where the log has none; GPT-J writes at most 128 tokens."""

ANSWER_VARIATION = 0.7
CHUNKS = (1024, 2048, 8192)
RANKS = (1, 2, 4, 8, 16)
MOST_SEQUENCES = 2048


@dataclass(frozen=True)
class Compared:
    """A result and its prediction, in requests per second."""

    model: str
    hardware: str
    scenario: str
    achieved: float
    predicted: float

    @property
    def error(self) -> float:
        """Log of predicted over achieved."""
        return math.log(self.predicted / self.achieved)


def compare(row: Mapping[str, str], prompt_scale: float = 1.0) -> Compared:
    """Return a row beside the highest rate predicted within its limits.

    Raises
    ------
    GenzSizeError
        If the catalogue lacks the model or the hardware.
    """
    arch = catalogue.load_model(row["model"])
    npu = catalogue.load_npu(row["hardware"])
    weights = Dtype.of(row["weight_dtype"]) if row["weight_dtype"] else None
    if weights is Dtype.FP4:
        weights = Dtype.NVFP4 if Dtype.FP4 in npu.flop_per_s else Dtype.MXFP4
    precision = arch.precision.stored(weights, None)
    count = int(float(row["num_accelerators"]))
    mean, variation = PROMPTS[row["model"]]
    answer = float(row["mean_osl"]) if row["mean_osl"] else ANSWERS[row["model"]]
    profile = Profile(
        lognormal(mean * prompt_scale, variation), lognormal(answer, ANSWER_VARIATION)
    )
    best = 0.0
    for tp in _degrees(row, count):
        split = Parallelism(tp)
        if arch.rule_broken_by(split) or not npu.computes(precision):
            continue
        replica = Replica(arch, split, precision, Supply.of(npu))
        for chunk in CHUNKS:
            engine = engine_of(
                replica, profile, chunk_tokens=chunk, max_sequences=MOST_SEQUENCES
            )
            if engine.cache_tokens < profile.longest:
                continue
            replicas = count // tp
            rate = highest_rate(engine, profile, list(_targets(row)), replicas=replicas)
            best = max(best, replicas * float(np.ravel(rate)[0]))
    return Compared(
        row["model"],
        row["hardware"],
        row["scenario"].capitalize(),
        float(row["achieved_req_s"]),
        best,
    )


def _degrees(row: Mapping[str, str], count: int) -> list[int]:
    if row["tp"]:
        return [int(float(row["tp"]))]
    return [tp for tp in RANKS if count % tp == 0]


def _targets(row: Mapping[str, str]) -> Iterator[Target]:
    for column, metric in (
        ("slo_ttft_p99_ms", "ttft"),
        ("slo_tpot_p99_ms", "tpot"),
        ("slo_e2e_p99_ms", "e2e"),
    ):
        if row[column]:
            yield Target(metric, "p99", float(row[column]) / 1e3)  # type: ignore[arg-type]


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table, compressed or not."""
    content = path.read_bytes()
    text = gzip.decompress(content) if path.suffix == ".gz" else content
    return list(csv.DictReader(text.decode().splitlines()))


def main(path: Path) -> None:
    """Print a line per device and model, and how far off the whole is."""
    rows = read(path)
    found, unanswered = _compared(rows, 1.0)
    groups: dict[tuple[str, str, str], list[Compared]] = defaultdict(list)
    for each in found:
        groups[each.model, each.scenario, each.hardware].append(each)
    print("model | scenario | hardware | results | predicted / achieved")  # noqa: T201
    for key, some in sorted(groups.items()):
        ratio = statistics.median(one.predicted / one.achieved for one in some)
        print(" | ".join(key), "|", len(some), "|", f"{ratio:.2f}")  # noqa: T201
    print(_summary("all", list(groups.values())))  # noqa: T201
    for scale in (0.5, 2.0):
        other, _ = _compared(rows, scale)
        regrouped: dict[tuple[str, str, str], list[Compared]] = defaultdict(list)
        for each in other:
            regrouped[each.model, each.scenario, each.hardware].append(each)
        print(_summary(f"prompts x {scale:g}", list(regrouped.values())))  # noqa: T201
    for reason, number in unanswered.items():
        print(f"unanswered, {number}: {reason}")  # noqa: T201 - a benchmark prints


def _compared(
    rows: list[dict[str, str]], scale: float
) -> tuple[list[Compared], dict[str, int]]:
    found: list[Compared] = []
    unanswered: dict[str, int] = defaultdict(int)
    for row in rows:
        try:
            each = compare(row, scale)
        except GenzSizeError as error:
            unanswered[str(error)[:90]] += 1
            continue
        if each.predicted > 0:
            found.append(each)
        else:
            unanswered[f"{each.model} {each.scenario} on {each.hardware}: none"] += 1
    return found, unanswered


def _summary(name: str, groups: list[list[Compared]]) -> str:
    medians = [statistics.median(abs(one.error) for one in some) for some in groups]
    bias = [statistics.median(one.error for one in some) for some in groups]
    return (
        f"{name}: {sum(map(len, groups))} results in {len(groups)} groups, median "
        f"|ln error| {statistics.mean(medians):.2f}, bias {statistics.mean(bias):+.2f}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
