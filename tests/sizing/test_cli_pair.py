"""`genz-size estimate --serving disaggregated`: a prefill pool and a decode pool."""

from collections.abc import Callable
from typing import Any

import pytest

Genz = Callable[..., Any]

PAIR = (
    *("estimate", "--serving", "disaggregated", "--model", "llama-3.1-70b"),
    *("--npu", "h100", "--tp", 4),
    *("--input-tokens", 2000, "--output-tokens", 500, "--rate", "4 req/s"),
)


def estimated(genz: Genz, *options: object) -> Any:
    ran = genz(*PAIR, *options, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    return ran.json


def test_json(genz: Genz) -> None:
    answer = estimated(genz)
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        figures = answer[metric]
        assert 0 < figures["low"] < figures["mean"] < figures["high"]
        assert figures["p50"] <= figures["p90"] <= figures["p95"] <= figures["p99"]
    ttft, tpot, e2e = (answer[f"{m}_s"]["mean"] for m in ("ttft", "tpot", "e2e"))
    assert e2e == pytest.approx(ttft + 499 * tpot)
    assert answer["output_tokens_per_s"] == 500 * answer["requests_per_s"] == 2000
    parts = {name: answer[name]["most_req_per_s"] for name in ("prefill", "decode")}
    parts["transfer"] = answer["transfer"]["most_req_per_s"]
    assert answer["bound_by"] == min(parts, key=lambda name: parts[name])
    for pool in ("prefill", "decode"):
        assert answer[pool]["utilisation"] == pytest.approx(4 / parts[pool])
        memory = answer[pool]["peak_memory_bytes"]
        assert memory["weights"] < memory["total"] < memory["usable"]
        shares = [o["share"] for o in answer[pool]["step"]["operators"]]
        assert sum(shares) == pytest.approx(1)


def test_the_cache_that_travels_by_hand(genz: Genz) -> None:
    # Keys and values of 8 heads of 128 in bf16, in 80 layers.
    token = 2 * 8 * 128 * 2 * 80
    answer = estimated(genz, "--replicas", 2)["transfer"]
    assert answer["technology"].startswith("InfiniBand")
    assert answer["bytes_per_request"] == pytest.approx(2000 * token)
    # Over two replicas of four NPUs at either end.
    each = 4 * 2000 * token / 8
    assert answer["sent_bytes_per_s_per_npu"] == pytest.approx(each)
    assert answer["received_bytes_per_s_per_npu"] == pytest.approx(each)
    reach = answer["send_bandwidth_bytes_per_s_per_npu"]
    assert answer["utilisation"] == pytest.approx(each / reach)
    alone = 2000 * token / 4 / reach
    expected = answer["latency_s"] + alone / (1 - each / reach)
    assert answer["seconds"] == pytest.approx(expected)


def test_pools_in_one_domain_use_its_links(genz: Genz) -> None:
    inside, outside = estimated(genz), estimated(genz, "--decode-replicas", 2)
    assert inside["transfer"]["technology"].startswith("NVLink")
    assert inside["transfer"]["seconds"] < outside["transfer"]["seconds"]


def test_a_slow_link_is_in_tpot_and_not_in_ttft(genz: Genz) -> None:
    fast, slow = estimated(genz), estimated(genz, "--kv-bandwidth", "2 GB/s")
    assert slow["ttft_s"] == fast["ttft_s"]
    later = slow["transfer"]["seconds"] - fast["transfer"]["seconds"]
    added = 499 * (slow["tpot_s"]["mean"] - fast["tpot_s"]["mean"])
    assert added == pytest.approx(later, rel=1e-3)


def test_pools_of_their_own(genz: Genz) -> None:
    answer = estimated(
        genz,
        *("--prefill-replicas", 3, "--prefill-chunk-tokens", 8192),
        *("--decode-npu", "h200", "--decode-tp", 2, "--decode-pp", 2),
    )
    prefill, decode = answer["prefill"], answer["decode"]
    assert (prefill["npu"], prefill["tp"], prefill["replicas"]) == ("h100-sxm", 4, 3)
    assert (decode["npu"], decode["tp"], decode["pp"]) == ("h200-sxm", 2, 2)
    assert (prefill["npus"], decode["npus"]) == (12, 4)
    plain = estimated(genz, "--prefill-chunk-tokens", 8192)
    assert prefill["most_req_per_s"] == pytest.approx(
        3 * plain["prefill"]["most_req_per_s"]
    )


def test_experts_and_groups(genz: Genz) -> None:
    ran = genz(
        *("estimate", "--serving", "disaggregated", "--model", "deepseek-v3"),
        *("--npu", "h200", "--prefill-tp", 8, "--prefill-ep", 8),
        *("--decode-dp", 16, "--decode-ep", 16),
        *("--input-tokens", 4000, "--output-tokens", 1000, "--rate", "0.5 req/s"),
        *("--format", "json"),
    )
    assert (ran.code, ran.err) == (0, "")
    transfer = ran.json["transfer"]
    # 512 + 64 numbers in bf16 a token and layer: whole on each group of one NPU,
    # each eighth from another prefill NPU.
    assert transfer["bytes_per_request"] == pytest.approx(4000 * 576 * 2 * 61)
    each = 0.5 * transfer["bytes_per_request"]
    assert transfer["received_bytes_per_s_per_npu"] == pytest.approx(each / 16)
    assert transfer["sent_bytes_per_s_per_npu"] == pytest.approx(each / 8)


def test_one_token_has_no_tpot(genz: Genz) -> None:
    answer = estimated(genz, "--output-tokens", 1)
    assert "tpot_s" not in answer
    assert answer["e2e_s"]["mean"] == pytest.approx(answer["ttft_s"]["mean"])


def test_text(genz: Genz) -> None:
    ran = genz(*PAIR)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith("llama-3.1-70b in bf16, disaggregated, open loop")
    for words in (
        "prefill pool binds",
        "1 x (h100-sxm tp=4 pp=1)",
        "The KV cache of a prompt, 655 MB, travels",
        "Peak memory per NPU of the prefill pool",
        "Peak memory per NPU of the decode pool",
        "one prompt",
        "decode step",
    ):
        assert words in ran.out.replace("\n", " ")
    assert max(map(len, ran.out.splitlines())) <= 100
    long = genz(*PAIR, "--breakdown")
    assert long.out.startswith(ran.out)
    assert "gate_up_proj" in long.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--rate", "60 req/s"), "the prefill pool can take at most"),
        (("--rate", "30 req/s", "--prefill-replicas", 9), "more --decode-replicas"),
        (("--kv-bandwidth", "0.1 GB/s"), "give more --kv-bandwidth"),
        (("--decode-tp", 1), "does not fit on the decode pool's h100-sxm tp=1"),
        (("--prefill-tp", 2, "--prefill-npu", "l4"), "does not fit on the prefill"),
        (("--prefill-tp", 3), "tp"),
        (("--decode-npu", "h1000"), "did you mean"),
        (("--concurrency", 8), "--rate: users who wait for answers set it"),
        (("--mode", "offline"), "--mode: a disaggregated deployment"),
        (("--beams", 2), "--beams"),
        (("--plot", "x.png"), "--plot has no effect"),
        (("--kv-bandwidth", "5 GB"), "5 GB"),
        (("--serving", "aggregated", "--decode-tp", 4), "--decode-tp goes with"),
        (("--serving", "aggregated", "--kv-bandwidth", "9 GB/s"), "--kv-bandwidth"),
    ],
)
def test_bad_input_is_named(genz: Genz, options: tuple[Any, ...], said: str) -> None:
    ran = genz(*PAIR, *options)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err.replace("\n", " ")
    assert "Traceback" not in ran.err


def test_a_rate_is_needed(genz: Genz) -> None:
    ran = genz(*PAIR[:-2])
    assert (ran.code, ran.out) == (2, "")
    assert "--rate" in ran.err


def test_users_who_wait_for_answers(genz: Genz) -> None:
    at = PAIR.index("--rate")
    ran = genz(*PAIR[:at], *PAIR[at + 2 :], "--concurrency", 64, "--format", "json")
    assert (ran.code, ran.err) == (0, "")
    ttft, tpot = (ran.json[f"{name}_s"] for name in ("ttft", "tpot"))
    for figures in (ttft, tpot):
        assert set(figures) == {"mean", "low", "high"}
        assert 0 < figures["low"] < figures["mean"] < figures["high"]
    # They cannot outrun the pools, and by Little's law 64 are on their way.
    rate = ran.json["requests_per_s"]
    assert 0 < rate <= ran.json["prefill"]["most_req_per_s"] * 1.001
    busy = rate * (ttft["mean"] + 499 * tpot["mean"])
    assert busy == pytest.approx(64, rel=1e-3)
    assert ran.json["decode"]["batch"] == pytest.approx(rate * 499 * tpot["mean"])


def test_text_says_where_the_transfer_is(genz: Genz) -> None:
    at = PAIR.index("--rate")
    said = genz(*PAIR[:at], *PAIR[at + 2 :], "--concurrency", 8).out
    assert "closed loop" in said
    assert "TTFT holds the transfer" in said
    assert "TPOT holds" not in said
