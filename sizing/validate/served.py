"""Predictions for measured serving results; rows that are alike go as arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model_ops.errors import GenzSizeError
from problems.measured.served import Arrival, Served, served
from problems.measured.tables import Row
from problems.measured.workloads import workload
from sizing.points import evaluate
from sizing.validate.answers import Answer, figure, refused

_MODES = {
    Arrival.STATIC_BATCH: "static_batch",
    Arrival.CLOSED_LOOP: "closed_loop",
    Arrival.OFFLINE: "offline",
    Arrival.OPEN_LOOP: "open_loop",
    Arrival.BURST: "offline",
    Arrival.MLPERF_SERVER: "offline",
}


@dataclass(frozen=True, slots=True)
class Question:
    """A row as a point of a points table, and how long its requests are."""

    row: Served
    point: Mapping[str, str]
    input_tokens: float
    output_tokens: float


def answers(rows: Sequence[Row]) -> list[Answer]:
    """Return the answer to each row."""
    found: list[Answer | None] = [None] * len(rows)
    questions: dict[int, Question] = {}
    for number, row in enumerate(rows):
        try:
            questions[number] = _question(served(row))
        except GenzSizeError as error:
            found[number] = refused(error)
    predicted = _evaluated([q.point for q in questions.values()])
    for (number, question), cells in zip(questions.items(), predicted, strict=True):
        found[number] = _figure(question, cells)
    return [answer or refused("") for answer in found]


def _evaluated(points: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """Return the predictions of points, each distinct one computed once."""
    keys = [tuple(point.items()) for point in points]
    distinct = list(dict.fromkeys(keys))
    results = evaluate([dict(key) for key in distinct])
    known = dict(zip(distinct, results, strict=True))
    return [known[key] for key in keys]


def _question(row: Served) -> Question:
    lengths = workload(row.notes)
    prompt = lengths.input_tokens if row.input_tokens is None else row.input_tokens
    answer = lengths.output_tokens if row.output_tokens is None else row.output_tokens
    # A test of decoding alone starts from an empty cache, one of prompts writes none.
    prompt, answer = max(prompt, 1.0), max(answer, 1.0)
    layout = row.layout
    point = {
        "model": row.model,
        "npu": row.npu,
        "num_npus": str(layout.npus),
        **_degrees(row),
        "weight_dtype": row.weights or "",
        "kv_dtype": row.kv_cache or "",
        "framework": row.framework,
        "input_tokens": repr(prompt),
        "output_tokens": repr(answer),
        "concurrency": repr(row.concurrency) if row.concurrency else "",
        "request_rate": repr(row.rate) if row.rate else "",
        "mode": _MODES[row.arrival],
    }
    if row.arrival is Arrival.STATIC_BATCH and not row.concurrency:
        point["concurrency"] = "1"
    return Question(row, point, prompt, answer)


def _degrees(row: Served) -> dict[str, str]:
    """Return the degrees, with the replicas that fill the accelerators."""
    layout = row.layout
    tp, pp, dp = layout.tp, layout.pp or 1, layout.dp
    if tp is None:
        tp = max(1, layout.npus // (pp * (dp or 1)))
    if layout.npus > tp * pp * (dp or 1) and layout.npus % (tp * pp) == 0:
        dp = layout.npus // (tp * pp)
    named = {"tp": tp, "pp": pp, "ep": layout.ep, "dp": dp}
    return {name: "" if n is None else str(n) for name, n in named.items()}


def _figure(question: Question, cells: Mapping[str, str]) -> Answer:
    """Return the row's figure out of a point's predictions."""
    if cells.get("error"):
        return refused(cells["error"])
    row, prompt, answer = question.row, question.input_tokens, question.output_tokens
    per_token = {
        "output_tok_s": 1.0,
        "total_tok_s": (prompt + answer) / answer,
        "input_tok_s": prompt / answer,
        "req_s": 1.0 / answer,
    }
    if row.metric in per_token:
        return _of(cells, "output_tok_s", "").times(per_token[row.metric])
    mean = _of(cells, row.metric, "_ms")
    own = cells.get(f"{row.metric}_{row.statistic}_ms", "")
    if not own or not mean.given:
        return mean
    return mean.times(float(own) / mean.predicted)


def _of(cells: Mapping[str, str], name: str, unit: str) -> Answer:
    return figure(
        *(float(cells[f"{name}{unit}{end}"]) for end in ("", "_low", "_high"))
    )


def metric(row: Row) -> str:
    """Return what a row measures; a percentile above the median apart."""
    name, statistic = row.get("metric", "").lower(), row.get("stat", "").lower()
    tail = statistic if statistic in ("p90", "p95", "p99") else ""
    return f"{name}_{tail}" if tail else name


def labels(row: Row) -> dict[str, str]:
    """Return what a row's tables are made by."""
    return {
        "device": row.get("hardware", ""),
        "family": row.get("model_family", ""),
        "architecture": row.get("arch_class", ""),
        "source": row.get("source_id", ""),
        "engine": " ".join(row.get("framework", "").lower().split()[:1]),
        "load": row.get("load_mode", ""),
    }
