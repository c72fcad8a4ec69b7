"""Measured runs replayed by the simulator: every request's latencies.

The engine is vLLM as it comes: its limits on requests and tokens are defaults, the KV
cache is what the model leaves of the memory, step times are those of the model.
"""

from collections.abc import Sequence

import numpy as np

from model_ops.errors import GenzSizeError, ProblemError
from model_ops.estimate import LoadMode
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import ALONE
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import observed
from model_ops.serving.simulation import simulate
from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from model_ops.serving.step import Replica
from model_ops.serving.trace import Trace
from problems import catalogue
from problems.measured.requests import LATENCIES, Run, run, runs
from problems.measured.tables import Row
from sizing.validate.answers import Answer, refused, with_interval
from sizing.validate.memory import LARGE_NPU


def answers(rows: Sequence[Row]) -> dict[str, list[Answer]]:
    """Return the latencies of each request in seconds, by latency."""
    found: dict[str, dict[int, Answer]] = {name: {} for name in LATENCIES}
    for name, lines in runs(rows).items():
        try:
            read = run(name, rows, lines)
            trace = replayed(read)
        except GenzSizeError as error:
            for answered in found.values():
                answered.update(dict.fromkeys(lines, refused(error)))
            continue
        for latency, answered in found.items():
            for line, value in zip(lines, getattr(trace, latency), strict=True):
                seconds = float(np.nan_to_num(value))
                answered[line] = with_interval(
                    latency, seconds, LoadMode.OPEN_LOOP, read.npu
                )
    return {name: [each[n] for n in range(len(rows))] for name, each in found.items()}


def replayed(measured: Run) -> Trace:
    """Return what the simulator makes of a run's requests.

    Raises
    ------
    GenzSizeError
        If the catalogue lacks something, or a request does not fit.
    """
    arch = catalogue.load_model(measured.model)
    npu = catalogue.load_npu_under(measured.npu, "vllm")
    replica = Replica(arch, ALONE, arch.precision, Supply.of(npu))
    prompt, output = (
        observed(each.astype(float)) for each in (measured.prompt, measured.output)
    )
    profile = Profile(prompt, output)
    engine = engine_of(
        replica,
        profile,
        chunk_tokens=DEFAULT_CHUNK_TOKENS,
        max_sequences=1024 if npu.memory_capacity >= LARGE_NPU else 256,
    )
    if engine.cache_tokens < profile.longest:
        raise ProblemError("memory: the model and one request do not fit")
    # Compiling takes longer than a few hundred requests.
    return simulate(
        engine, measured.arrival, measured.prompt, measured.output, fast=False
    )


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    return {"run": row.get("run", "")}
