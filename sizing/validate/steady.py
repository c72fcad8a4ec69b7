"""Results of loads that come to rest, as points of a table: alike ones go as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from model_ops.estimate import Load, LoadMode, estimate
from model_ops.profiler.work import RequestShape
from problems.accuracy import evidence_of, interval, latency_intervals
from problems.measured.served import Arrival, Served
from sizing.point import ALIKE
from sizing.points import evaluate
from sizing.validate import finite
from sizing.validate.answers import Answer, figure, refused
from sizing.validate.deployed import Deployed

_MODES = {
    Arrival.STATIC_BATCH: "static_batch",
    Arrival.CLOSED_LOOP: "closed_loop",
    Arrival.OFFLINE: "offline",
    Arrival.OPEN_LOOP: "open_loop",
}
"""Loads whose steady state answers; the others have a file of their own."""


@dataclass(frozen=True, slots=True)
class Question:
    """A row as a point of a points table, and how long its requests are."""

    row: Served
    point: Mapping[str, str]
    input_tokens: float
    output_tokens: float

    def in_mode(self, mode: str) -> "Question":
        """Return the question of another kind of load."""
        return replace(self, point={**self.point, "mode": mode})


def answers(questions: Mapping[int, Question]) -> dict[int, Answer]:
    """Return the answers of steady states, and of what stands in where there is none.

    A static batch that does not fit is served in turn, as many at once as fit; arrivals
    that outrun the deployment are simulated until the last is served. What ran although
    by prediction it does not fit is predicted all the same.
    """
    found: dict[int, Answer] = {}
    in_turn: dict[int, Question] = {}
    for number, (question, cells) in _evaluated(questions).items():
        refusal = cells.get("error", "")
        if refusal.startswith("request_rate: "):
            found[number] = finite.answer(question.row)
        elif refusal.startswith("memory: "):
            static = question.point["mode"] == "static_batch"
            in_turn[number] = question.in_mode("closed_loop") if static else question
        else:
            found[number] = _figure(question, cells)
    for number, (question, cells) in _evaluated(in_turn).items():
        unfit = cells.get("error", "").startswith("memory: ")
        found[number] = _figure(question, _regardless(question) if unfit else cells)
    return found


def _evaluated(
    questions: Mapping[int, Question],
) -> dict[int, tuple[Question, Mapping[str, str]]]:
    """Return each question with its point's predictions, computed once per point."""
    keys = {number: tuple(q.point.items()) for number, q in questions.items()}
    distinct = list(dict.fromkeys(keys.values()))
    known = dict(zip(distinct, evaluate([dict(key) for key in distinct]), strict=True))
    return {n: (question, known[keys[n]]) for n, question in questions.items()}


def question_of(row: Served) -> Question:
    """Return the point that a row describes.

    Raises
    ------
    GenzSizeError
        If the catalogue lacks something, or the model cannot be split so.
    """
    deployed = Deployed.of(row)
    layout, lengths = deployed.layout, deployed.requests
    degrees = {"tp": layout.tp, "pp": layout.pp, "ep": layout.ep, "dp": layout.dp}
    point = {
        "model": row.model,
        "npu": row.npu,
        "num_npus": str(layout.npus),
        **{name: "" if n is None else str(n) for name, n in degrees.items()},
        "weight_dtype": row.weights or "",
        "kv_dtype": row.kv_cache or "",
        "framework": row.framework,
        "input_tokens": repr(lengths.input_tokens),
        "output_tokens": repr(lengths.output_tokens),
        "concurrency": repr(row.concurrency) if row.concurrency else "",
        "request_rate": repr(row.rate) if row.rate else "",
        "mode": _MODES[row.arrival],
        "lengths": ALIKE if row.alike else "",
    }
    if row.arrival is Arrival.STATIC_BATCH and not row.concurrency:
        point["concurrency"] = "1"
    return Question(row, point, lengths.input_tokens, lengths.output_tokens)


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
    if not mean.given:
        return mean
    tail = _tail(cells, row.metric, row.statistic, answer - 1.0)
    return mean.times((mean.predicted + tail) / mean.predicted)


def _tail(cells: Mapping[str, str], metric: str, statistic: str, steps: float) -> float:
    """Return the milliseconds that a percentile lies beyond the mean.

    Of E2E it is the longer one of its parts': they seldom meet in one request. Where no
    percentile is predicted, requests are taken to be alike.
    """
    if metric == "e2e":
        first = _tail(cells, "ttft", statistic, steps)
        return max(first, steps * _tail(cells, "tpot", statistic, steps))
    percentile = float(cells.get(f"{metric}_{statistic}_ms") or 0.0)
    return percentile - float(cells[f"{metric}_ms"]) if percentile > 0 else 0.0


def _of(cells: Mapping[str, str], name: str, unit: str) -> Answer:
    return figure(*(float(cells[f"{name}{unit}{end}"]) for end in _ENDS))


def _regardless(question: Question) -> dict[str, str]:
    """Return the predictions of a point whose memory does not suffice."""
    deployed, point = Deployed.of(question.row), question.point
    layout, mode = deployed.layout, LoadMode(point["mode"])
    replica = deployed.replica(layout.tp or 1, pp=layout.pp or 1)
    replicas = layout.dp or 1
    shape = RequestShape(question.input_tokens, question.output_tokens)
    users = float(point["concurrency"] or "inf") / replicas
    rate = float(point["request_rate"] or "0") / replicas
    found = estimate(replica, Load(shape, mode, users, rate))
    ranges = latency_intervals(replica, found, mode)
    cells: dict[str, str] = {}
    for name, sides in ranges.items():
        each = zip(_ENDS, (getattr(found, name), *sides), strict=True)
        cells |= {f"{name}_ms{end}": repr(1e3 * float(np.max(v))) for end, v in each}
    tokens = float(np.max(found.output_tokens_per_s)) * replicas
    values = zip(
        _ENDS,
        (tokens, *interval("rate", tokens, mode, evidence_of(replica))),
        strict=True,
    )
    cells |= {f"output_tok_s{end}": repr(float(np.max(v))) for end, v in values}
    return cells


_ENDS = ("", "_low", "_high")
