"""A small problem, and a plan for it worked out by hand; both are of plain NPUs."""

from typing import Any

import pytest

from problems.plan import Plan
from problems.problem import SizingProblem, problem_of
from problems.stated import stated_plan

# NPU, provider, instance, term and region, of which a given price has none.
H100 = "h100-sxm|given|8 NPUs|on_demand|"
L40S = "l40s|given|1 NPU|on_demand|"


def minimal(**changes: Any) -> dict[str, Any]:
    """Return the least that states a problem, as a TOML file's content."""
    traffic = {"input_tokens": 1000, "output_tokens": 200, "rate": "2 req/s"}
    return {"model": "llama-3.1-8b", "traffic": [traffic], **changes}


@pytest.fixture(scope="session")
def stated() -> Any:
    """The function `minimal`."""
    return minimal


@pytest.fixture(scope="session")
def good_problem() -> SizingProblem:
    """Two classes; every limit is exactly what the good plan uses."""
    return problem_of(
        {
            "model": "llama-3.1-8b",
            "precisions": ["bf16"],
            "traffic": [
                {
                    "name": "chat",
                    "input_tokens": 1000,
                    "output_tokens": 200,
                    "rate": "50 req/s",
                    "targets": [
                        {"metric": "ttft", "at_most": "31 ms"},
                        {"metric": "tpot", "at_most": "10 ms"},
                        {"metric": "e2e", "at_most": "2 s"},
                    ],
                },
                {
                    "name": "users",
                    "input_tokens": 500,
                    "output_tokens": 100,
                    "concurrency": 32,
                },
            ],
            "chunk_tokens": 2048,
            "hardware": {"npus": ["h100-sxm", "l40s"]},
            "prices": {
                "given": [
                    {"npu": "h100-sxm", "usd_per_hour": "16 USD/h", "npus": 8},
                    {"npu": "l40s", "usd_per_hour": "1 USD/h"},
                ]
            },
            "limits": {
                "npus": 10,
                "nodes": 2,
                "usd_per_hour": "18 USD/h",
                # 8 x 1730 W (published) and 2 x 350 W of TDP, all-in at 2.17.
                "power": f"{8 * 1730 + 2 * 350 * 2.17} W",
                "npus_per_type": {"h100-sxm": 8, "l40s": 2},
            },
        },
        "file",
    )


@pytest.fixture(scope="session")
def good_plan() -> Plan:
    """Three H100 pairs on a whole instance for chat, two L40S for users."""
    return Plan.model_validate(
        {
            "model": "llama-3.1-8b",
            "deployments": [
                {
                    "traffic": "chat",
                    "npu": "h100-sxm",
                    "tp": 2,
                    "pp": 1,
                    "batch": 256,
                    "rate": 18.0,
                    "mean_batch": 29.6,  # of 18 req/s, each for 199 steps of 8.25 ms
                    "chunk_tokens": 2048,
                    "precision": "bf16",
                    "replicas": 3,
                    "npus": 6,
                    "nodes": 1,
                    "usd_per_hour": 16.0,
                    "offer": H100,
                },
                {
                    "traffic": "users",
                    "npu": "l40s",
                    "tp": 1,
                    "pp": 1,
                    "batch": 256,
                    "rate": 5.6,
                    "mean_batch": 15.9,  # of 5.6 req/s, each for 99 steps of 28.6 ms
                    "chunk_tokens": 2048,
                    "precision": "bf16",
                    "replicas": 2,
                    "npus": 2,
                    "nodes": 1,
                    "usd_per_hour": 2.0,
                    "offer": L40S,
                },
            ],
            "purchases": [
                {
                    "offer": H100,
                    "npu": "h100-sxm",
                    "provider": "given",
                    "instance": "8 NPUs",
                    "term": "on_demand",
                    "region": "",
                    "source": "given with the problem",
                    "as_of": "as given",
                    "hosts": 1,
                    "npus": 8,
                    "usd_per_hour": 16.0,
                    "power": 8 * 1730.0,
                },
                {
                    "offer": L40S,
                    "npu": "l40s",
                    "provider": "given",
                    "instance": "1 NPU",
                    "term": "on_demand",
                    "region": "",
                    "source": "given with the problem",
                    "as_of": "as given",
                    "hosts": 1,
                    "npus": 2,
                    "usd_per_hour": 2.0,
                    "power": 2 * 350 * 2.17,
                },
            ],
        }
    )


PAIR_PROBLEM: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "modes": ["aggregated", "disaggregated"],
    "chunk_tokens": 2048,
    "traffic": [
        {
            "name": "chat",
            "input_tokens": 1000,
            "output_tokens": 200,
            "rate": "20 req/s",
            "targets": [
                {"metric": "ttft", "statistic": "p95", "at_most": "200 ms"},
                {"metric": "tpot", "at_most": "12 ms"},
                {"metric": "e2e", "at_most": "3 s"},
            ],
        }
    ],
    "hardware": {"npus": ["h100-sxm"]},
    "prices": {"given": [{"npu": "h100-sxm", "usd_per_hour": "2 USD/h"}]},
}


@pytest.fixture(scope="session")
def pair_problem() -> SizingProblem:
    """One class, on NPUs that are paid one by one."""
    return problem_of(PAIR_PROBLEM, "file")


@pytest.fixture(scope="module")
def pair_plan(plain_npus: None, pair_problem: SizingProblem) -> Plan:
    """Two prefill and three decode replicas for it."""
    return stated_plan(
        pair_problem,
        [
            {"mode": "prefill", "npu": "h100", "replicas": 2, "chunk_tokens": 1024},
            {"mode": "decode", "npu": "h100", "replicas": 3},
        ],
    )
