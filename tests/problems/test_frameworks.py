"""Serving engines against what was published of them beside the fitted results."""

import pytest

from model_ops.estimate import Load, LoadMode, estimate
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.step import Replica
from problems import catalogue
from problems.measured.names import engine_name


def replica(model: str, npu: str, tp: int, framework: str) -> Replica:
    arch = catalogue.load_model(model)
    supply = Supply.of(catalogue.load_npu_under(npu, framework))
    return Replica(arch, Parallelism(tp), arch.precision, supply)


@pytest.mark.parametrize(
    ("prompt", "answer", "users", "seconds", "rate"),
    [
        (1200, 128, 12, 9.0, 1.36),  # the curve's point at 9 s
        (1200, 128, 8, 7.0, 1.2),  # and at 7 s
        (2600, 60, 16, None, 1.46),  # one replica of the scaling study
    ],
)
def test_deepspeed_serves_what_its_makers_published(
    prompt: int, answer: int, users: int, seconds: float | None, rate: float
) -> None:
    # microsoft/DeepSpeed blogs/deepspeed-fastgen: Llama-2-70B on 4 A100 80GB; nothing
    # was fitted to it. Users by Little's law where only rate and latency are given.
    deployed = replica("llama-2-70b", "a100-80gb-sxm", 4, "deepspeed")
    chunk = catalogue.chunk_tokens_under("deepspeed")
    load = Load(
        RequestShape(prompt, answer), LoadMode.CLOSED_LOOP, users, chunk_tokens=chunk
    )
    found = estimate(deployed, load)
    assert float(found.output_tokens_per_s) / answer == pytest.approx(rate, rel=0.15)
    if seconds is not None:
        assert float(found.e2e) == pytest.approx(seconds, rel=0.15)


def test_ranks_do_not_speed_up_an_engine_without_graphs() -> None:
    # splitwise-sim, Llama-2-70B on H100: 29.6 ms per token with 4 ranks, 30.6 with 8.
    load = Load(RequestShape(512, 128), LoadMode.STATIC_BATCH, 1)
    steps = [
        float(estimate(replica("llama-2-70b", "h100-sxm", tp, "vllm-eager"), load).tpot)
        for tp in (4, 8)
    ]
    assert steps[1] == pytest.approx(steps[0], rel=0.02)
    graphs = estimate(replica("llama-2-70b", "h100-sxm", 8, "vllm"), load)
    assert float(graphs.tpot) < 0.6 * steps[1]


@pytest.mark.parametrize(
    ("given", "date", "name"),
    [
        ("vLLM 0.2.1", "2023-11", "vllm-eager"),
        ("vLLM (Splitwise fork)", "2024", "vllm-eager"),
        ("vLLM 0.3.0", "2024-02", "vllm-v0"),
        ("DeepSpeed-MII 0.2", "2024-01", "deepspeed"),
    ],
)
def test_an_engine_is_told_by_its_name_and_date(
    given: str, date: str, name: str
) -> None:
    assert engine_name(given, date) == name
