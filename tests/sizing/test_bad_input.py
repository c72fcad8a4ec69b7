"""Bad input gives exit code 2 and one line that says which field, and what instead.

Each table below is (what is wrong, how it is made, words the message must have).
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD = """\
model = "llama-3.1-8b"
objective = "cost"
chunk_tokens = 2048
headroom = 0.1
precisions = ["bf16"]

[[traffic]]
name = "chat"
input_tokens = 1000
output_tokens = 200
rate = "2 req/s"
targets = [{ metric = "ttft", statistic = "mean", at_most = "1 s" }]

[hardware]
npus = ["l40s"]
exclude = ["l4"]

[prices]
terms = ["on_demand"]
providers = ["*"]
regions = ["*"]
confidence = "medium"

[[prices.given]]
npu = "l40"
usd_per_hour = "1 USD/h"

[limits]
npus = 64
nodes = 64
usd_per_hour = "1000 USD/h"
power = "100 kW"
npus_per_type = { "l40s" = 16 }
"""
TRAFFIC = GOOD[GOOD.index("[[traffic]]") : GOOD.index("[hardware]")]
PROMPT, LENGTHS = "1000", "input_tokens = 1000\noutput_tokens = 200"
TARGETS = '[{ metric = "ttft", statistic = "mean", at_most = "1 s" }]'

SIZE = (
    "size",
    *("--model", "llama-3.1-8b", "--npu", "l40s"),
    *("--input-tokens", "1000", "--output-tokens", "200", "--rate", "2 req/s"),
)
ESTIMATE = (
    "estimate",
    *("--model", "llama-3.1-8b", "--npu", "h100-sxm"),
    *("--input-tokens", "1000", "--output-tokens", "200"),
)
CONFIG = {
    "model_type": "llama",
    "hidden_size": 2048,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "intermediate_size": 8192,
    "vocab_size": 32000,
    "max_position_embeddings": 8192,
}

JARGON = (
    "after validation",
    "instance of",
    "Tuple",
    "tuple",
    "Input should",
    "String should",
    "SizingProblem",
    "dictionary",
    "internal error",
    "Traceback",
)
"""The words of a library or of our code, which no user of the command knows."""


def refused(ran: Any, *words: str) -> None:
    """Assert that a command refused its input in one line with these words."""
    assert ran.out == "", "a refused question got an answer"
    assert ran.code == 2, ran.err
    assert ran.err.startswith("genz-size: "), ran.err
    assert ran.err.endswith("\n")
    assert ran.err.count("\n") == 1, "more than one line"
    assert len(ran.err) < 1000, "too long to read"
    for word in words:
        assert word in ran.err, ran.err
    for word in JARGON:
        assert word not in ran.err, ran.err


def _table(*rows: tuple[Any, ...]) -> Any:
    """Return pytest parameters (made of, words) from (id, made of..., [words])."""
    return [pytest.param(*row[1:-1], row[-1], id=row[0]) for row in rows]


AT_MOST = ("at_most", "50 ms")
RATE = ("rate", "10 req/s")

FILE = _table(
    # Quantities.
    ("duration in bytes", '"1 s"', '"2 GB"', ["at_most", "'2 GB'", "50 ms"]),
    ("duration without unit", '"1 s"', '"1"', ["at_most", "no unit", "50 ms"]),
    ("bare duration", '"1 s"', "1", ["at_most", "no unit", "50 ms"]),
    ("unknown unit", '"1 s"', '"1 parsec"', ["at_most", "'1 parsec'", "50 ms"]),
    ("duration of no text", '"1 s"', '""', AT_MOST),
    ("duration is true", '"1 s"', "true", AT_MOST),
    ("duration is a list", '"1 s"', "[1]", AT_MOST),
    ("duration NaN", '"1 s"', '"nan s"', AT_MOST),
    ("duration bare NaN", '"1 s"', "nan", AT_MOST),
    ("duration inf", '"1 s"', '"inf s"', AT_MOST),
    ("duration overflows", '"1 s"', '"1e999 s"', ["at_most", "finite"]),
    ("duration negative", '"1 s"', '"-1 s"', ["at_most", "'-1 s'"]),
    ("duration zero", '"1 s"', '"0 s"', ["at_most", "0"]),
    ("duration absurd", '"1 s"', '"1e300 s"', ["at_most", "86400"]),
    ("duration is a novel", '"1 s"', f'"{"1 s " * 9999}"', ["at_most"]),
    ("rate zero", '"2 req/s"', '"0 req/s"', ["rate", "0"]),
    ("rate negative", '"2 req/s"', '"-2 req/s"', ["rate", "'-2 req/s'"]),
    ("rate absurd", '"2 req/s"', '"1e300 req/s"', ["rate", "at most 10000000,"]),
    ("rate bare", '"2 req/s"', "2", RATE),
    ("rate in bytes", '"2 req/s"', '"2 GB/s"', RATE),
    ("rate is true", '"2 req/s"', "true", RATE),
    ("price in euro", '"1 USD/h"', '"1 EUR/h"', ["usd_per_hour", "USD/h"]),
    ("price zero", '"1 USD/h"', '"0 USD/h"', ["usd_per_hour", "0"]),
    ("price negative", '"1 USD/h"', '"-1 USD/h"', ["usd_per_hour", "'-1 USD/h'"]),
    ("price absurd", '"1 USD/h"', '"1e300 USD/h"', ["usd_per_hour", "1e300"]),
    ("budget without time", '"1000 USD/h"', '"1000 USD"', ["usd_per_hour", "USD/h"]),
    ("power in horses", '"100 kW"', '"100 hp"', ["limits.power", "700 W"]),
    ("power zero", '"100 kW"', '"0 W"', ["limits.power", "0"]),
    # Counts and shares.
    ("no prompt", "input_tokens = 1000", "input_tokens = 0", ["input_tokens", "0"]),
    ("prompt negative", "input_tokens = 1000", "input_tokens = -5", ["input_tokens"]),
    ("prompt NaN", "input_tokens = 1000", "input_tokens = nan", ["input_tokens"]),
    ("prompt a half", "input_tokens = 1000", "input_tokens = 10.5", ["input_tokens"]),
    ("prompt is text", "input_tokens = 1000", 'input_tokens = "9"', ["input_tokens"]),
    ("prompt is true", "input_tokens = 1000", "input_tokens = true", ["input_tokens"]),
    ("prompt absurd", "input_tokens = 1000", f"input_tokens = {10**30}",
     ["input_tokens", "100000000"]),
    ("prompt beyond the model", "input_tokens = 1000", "input_tokens = 131072",
     ["input_tokens", "131072", "max_position_embeddings"]),
    ("prompt of a million digits", "input_tokens = 1000",
     f"input_tokens = 1{'0' * 1_000_000}", ["problem"]),
    ("no answer", "output_tokens = 200", "output_tokens = 0", ["output_tokens", "0"]),
    ("answer negative", "output_tokens = 200", "output_tokens = -1",
     ["output_tokens", "-1"]),
    ("no chunk", "chunk_tokens = 2048", "chunk_tokens = 0", ["chunk_tokens", "16"]),
    ("headroom over one", "headroom = 0.1", "headroom = 1.5", ["headroom", "0.95"]),
    ("headroom negative", "headroom = 0.1", "headroom = -0.5", ["headroom", "0"]),
    ("headroom NaN", "headroom = 0.1", "headroom = nan", ["headroom"]),
    ("headroom is text", "headroom = 0.1", 'headroom = "10%"', ["headroom"]),
    ("no NPUs", "npus = 64", "npus = 0", ["limits.npus", "0"]),
    ("no nodes", "nodes = 64", "nodes = 0", ["limits.nodes", "0"]),
    ("less than no NPUs of a type", '"l40s" = 16', '"l40s" = -1',
     ["limits.npus_per_type.l40s", "-1"]),
    # Names.
    ("model", "llama-3.1-8b", "lama-3.1-8b", ["model", "'llama-3.1-8b'"]),
    ("model of no text", '"llama-3.1-8b"', '""', ["model"]),
    ("model is a number", '"llama-3.1-8b"', "7", ["model"]),
    ("model is a list", '"llama-3.1-8b"', '["a"]', ["model"]),
    ("model is a novel", '"llama-3.1-8b"', f'"{"x" * 5000}"', ["model", "200"]),
    ("model with a NUL", '"llama-3.1-8b"', '"a\\u0000.json"', ["model"]),
    ("NPU", '["l40s"]', '["l40z"]', ["hardware.npus", "'l40z'", "'l40s'"]),
    ("NPU is text", '["l40s"]', '"l40s"', ["hardware.npus", '["l40s"]']),
    ("no NPU", '["l40s"]', "[]", ["hardware.npus"]),
    ("glob near a name", '["l40s"]', '["h1000*"]', ["hardware.npus", "'h100-sxm'"]),
    ("glob near nothing", '["l40s"]', '["zz*"]', ["hardware.npus", "'zz*'", "known"]),
    ("excluded NPU", '["l4"]', '["l5"]', ["hardware.exclude", "'l5'", "'l4'"]),
    ("all excluded", '["l4"]', '["*"]', ["hardware", "exclude"]),
    ("precision", '["bf16"]', '["bf15"]', ["precisions", "'bf15'", "'bf16'"]),
    ("term", '["on_demand"]', '["on_demnd"]', ["prices.terms", "'on_demand'"]),
    ("term with a hyphen", '["on_demand"]', '["reserved-1y"]',
     ["prices.terms", "'reserved_1y'"]),
    ("provider", 'providers = ["*"]', 'providers = ["awss"]',
     ["prices", "provider", "awss", "'AWS'"]),
    ("region", 'regions = ["*"]', 'regions = ["us-east-22"]',
     ["prices", "region", "us-east-22", "'us-east-2'"]),
    ("confidence", '"medium"', '"medum"', ["prices.confidence", "'medium'"]),
    ("metric", '"ttft"', '"tttf"', ["metric", "'tttf'", "'ttft'"]),
    ("statistic", '"mean"', '"meen"', ["statistic", "'meen'", "'mean'"]),
    ("p98", '"mean"', '"p98"', ["statistic", "'p98'", "'p99'"]),
    ("maximum", '"mean"', '"max"', ["statistic", "'max'", "'mean'"]),
    # Lengths.
    ("no spread", PROMPT, "{ mean = 512.0 }", ["input_tokens", "cv", "p50"]),
    ("no mean", PROMPT, "{ cv = 1.0 }", ["input_tokens", "mean"]),
    ("no length", PROMPT, "{}", ["input_tokens", "mean", "p50"]),
    ("cv negative", PROMPT, "{ mean = 512, cv = -1 }", ["input_tokens.cv", "-1"]),
    ("cv NaN", PROMPT, "{ mean = 512, cv = nan }", ["input_tokens.cv", "nan"]),
    ("cv absurd", PROMPT, "{ mean = 512, cv = 30 }", ["input_tokens.cv", "3"]),
    ("cv of a few tokens", PROMPT, "{ mean = 2, cv = 2 }",
     ["input_tokens", "mean 2", "cv"]),
    ("cv is true", PROMPT, "{ mean = 512, cv = true }", ["input_tokens.cv"]),
    ("mean zero", PROMPT, "{ mean = 0, cv = 1 }", ["input_tokens.mean", "at least 1"]),
    ("mean inf", PROMPT, "{ mean = inf, cv = 1 }", ["input_tokens.mean"]),
    ("mean is text", PROMPT, '{ mean = "512", cv = 1 }', ["input_tokens.mean"]),
    ("key of a length", PROMPT, "{ mean = 512, cvv = 1 }",
     ["input_tokens.cvv", "'cv'"]),
    ("a quantile unknown", PROMPT, "{ p50 = 5, p98 = 9 }",
     ["input_tokens.p98", "'p99'"]),
    ("one quantile", PROMPT, "{ p50 = 5, mean = 9 }", ["input_tokens", "two"]),
    ("ends alone", PROMPT, "{ min = 5, max = 9 }", ["input_tokens", "two"]),
    ("quantiles descend", PROMPT, "{ p50 = 900, p90 = 300 }",
     ["input_tokens", "p90 (300)", "p50 (900)", "ascend"]),
    ("max below p99", PROMPT, "{ p50 = 90, p99 = 300, max = 200 }",
     ["input_tokens", "max (200)", "p99 (300)"]),
    ("min above p50", PROMPT, "{ min = 100, p50 = 90, p99 = 300 }",
     ["input_tokens", "p50 (90)", "min (100)"]),
    ("quantile below a token", PROMPT, "{ p50 = 0.5, p99 = 300 }",
     ["input_tokens.p50", "at least 1"]),
    ("mean above its quantiles", PROMPT, "{ p50 = 90, p99 = 300, mean = 400 }",
     ["input_tokens", "mean 400", "quantiles"]),
    ("mean below its quantiles", PROMPT, "{ p50 = 90, p99 = 300, mean = 3 }",
     ["input_tokens", "mean 3", "quantiles"]),
    ("cv and quantiles", PROMPT, "{ p50 = 5, p99 = 9, cv = 1 }",
     ["input_tokens", "cv", "quantiles"]),
    ("a tail beyond the model", PROMPT, "{ p50 = 100000, p90 = 200000 }",
     ["traffic.chat", "%", "131072", "max_position_embeddings"]),
    ("length is a list", PROMPT, "[512]", ["input_tokens", "whole number"]),
    ("trace unknown", LENGTHS, 'lengths = "azure-2023-chat"',
     ["traffic.chat", "'azure-2023-chat'", "'azure-2023-conv'"]),
    ("trace and lengths", LENGTHS,
     LENGTHS + '\nlengths = "azure-2023-conv"',
     ["traffic", "input_tokens beside output_tokens beside lengths"]),
    ("trace and one length", LENGTHS, 'input_tokens = 9\nlengths = "sharegpt"',
     ["traffic", "not input_tokens beside lengths"]),
    ("trace of the catalogue and a file", LENGTHS, 'lengths = "sharegpt"\n'
     'trace = { path = "x.csv", input = "a", output = "b" }',
     ["traffic", "not lengths beside trace"]),
    ("no answer's length", "output_tokens = 200\n", "",
     ["traffic", "output_tokens is missing", "lengths"]),
    ("no lengths", LENGTHS, "", ["input_tokens and output_tokens are missing"]),
    # Traces.
    ("trace missing", LENGTHS,
     'trace = { path = "none.csv", input = "a", output = "b" }',
     ["traffic.chat", "trace.path", "none.csv"]),
    ("trace without columns", LENGTHS, 'trace = { path = "none.csv" }',
     ["trace.input", "missing", "trace.output"]),
    ("trace with a NUL", LENGTHS,
     'trace = { path = "a\\u0000", input = "a", output = "b" }', ["trace.path"]),
    ("trace is text", LENGTHS, 'trace = "requests.csv"', ["trace", "table"]),
    ("trace's time unit", LENGTHS,
     'trace = { path = "x.csv", input = "a", output = "b", time_unit = "sec" }',
     ["trace.time_unit", "'sec'", "'s'"]),
    # Arrivals.
    ("burstiness zero", "= 200", "= 200\nburstiness = 0.0", ["burstiness", "0.1"]),
    ("burstiness absurd", "= 200", "= 200\nburstiness = 21", ["burstiness", "20"]),
    ("burstiness NaN", "= 200", "= 200\nburstiness = nan", ["burstiness"]),
    ("burstiness is text", "= 200", '= 200\nburstiness = "2"', ["burstiness"]),
    ("burstiness of users", 'rate = "2 req/s"', "concurrency = 3\nburstiness = 2",
     ["burstiness", "concurrency"]),
    ("a day of 23 hours", "= 200", f"= 200\ndiurnal = {[1] * 23}", ["diurnal", "24"]),
    ("a day of 25 hours", "= 200", f"= 200\ndiurnal = {[1] * 25}", ["diurnal", "24"]),
    ("an hour below none", "= 200", f"= 200\ndiurnal = {[-1] + [1] * 23}",
     ["diurnal.0", "-1"]),
    ("an hour NaN", "= 200", f"= 200\ndiurnal = [{'1, ' * 23}nan]", ["diurnal.23"]),
    ("an idle day", "= 200", f"= 200\ndiurnal = {[0] * 24}", ["diurnal", "above 0"]),
    ("a day is a number", "= 200", "= 200\ndiurnal = 24", ["diurnal", "list"]),
    ("a day of users", 'rate = "2 req/s"', f"concurrency = 3\ndiurnal = {[1] * 24}",
     ["diurnal", "concurrency"]),
    # Percentiles and goodput.
    ("p99 below p50", TARGETS,
     '[{ metric = "ttft", statistic = "p99", at_most = "1 s" }, '
     '{ metric = "ttft", statistic = "p50", at_most = "2 s" }]',
     ["p99 TTFT of 1 s", "p50 TTFT of 2 s"]),
    ("two p99", TARGETS,
     '[{ metric = "e2e", statistic = "p99", at_most = "1 s" }, '
     '{ metric = "e2e", statistic = "p99", at_most = "2 s" }]', ["two for p99 e2e"]),
    ("goodput of all", TARGETS,
     '[]\ngoodput = { share = 1.0, ttft = "1 s" }', ["goodput.share", "below 1"]),
    ("goodput of none", TARGETS,
     '[]\ngoodput = { share = 0, ttft = "1 s" }', ["goodput.share", "above 0"]),
    ("goodput in percent", TARGETS,
     '[]\ngoodput = { share = "95 %", ttft = "1 s" }', ["goodput.share"]),
    ("goodput without limits", TARGETS,
     "[]\ngoodput = { share = 0.9 }", ["goodput", "ttft, tpot or e2e"]),
    ("goodput without share", TARGETS,
     '[]\ngoodput = { ttft = "1 s" }', ["goodput.share", "missing"]),
    ("goodput's field", TARGETS,
     '[]\ngoodput = { share = 0.9, ttfd = "1 s" }', ["goodput.ttfd", "'ttft'"]),
    ("goodput bare", TARGETS,
     "[]\ngoodput = { share = 0.9, ttft = 1 }", ["goodput.ttft", "no unit"]),
    ("objective", '"cost"', '"costs"', ["objective", "'costs'", "'cost'"]),
    ("objective near none", '"cost"', '"zzz"', ["objective", "cost, npus, power"]),
    ("limited NPU", '"l40s" = 16', '"l40z" = 16', ["npus_per_type", "'l40s'"]),
    ("priced NPU", 'npu = "l40"', 'npu = "l400"', ["prices.given", "'l40'"]),
    # Fields and tables.
    ("field of the problem", "objective =", "objectve =", ["objectve", "'objective'"]),
    ("field of traffic", "input_tokens =", "input_token =",
     ["traffic", "input_token:", "'input_tokens'"]),
    ("field of a target", "at_most =", "atmost =", ["atmost", "'at_most'"]),
    ("field of hardware", "exclude =", "exclud =", ["hardware.exclud", "'exclude'"]),
    ("field of prices", "terms =", "term =", ["prices.term", "'terms'"]),
    ("field of a price", "usd_per_hour =", "usd_per_hr =",
     ["usd_per_hr", "'usd_per_hour'"]),
    ("field of limits", "nodes =", "node =", ["limits.node", "'nodes'"]),
    ("table limits", "[limits]", "[limit]", ["limit:", "'limits'"]),
    ("table hardware", "[hardware]", "[hardwar]", ["hardwar:", "'hardware'"]),
    ("table traffic", "[[traffic]]", "[[trafic]]", ["trafic:", "'traffic'"]),
    ("one bracket too few", "[[traffic]]", "[traffic]", ["traffic", "[[traffic]]"]),
    ("no model", 'model = "llama-3.1-8b"\n', "", ["model", "missing"]),
    ("no traffic", TRAFFIC, "", ["traffic", "missing"]),
    ("empty traffic", TRAFFIC, "traffic = []\n", ["traffic"]),
    ("traffic is a number", TRAFFIC, "traffic = 3\n", ["traffic"]),
    ("traffic is junk", TRAFFIC, 'traffic = [1, "x", [2]]\n', ["traffic"]),
    ("targets are junk", TARGETS, '[1, "x", [2]]', ["targets"]),
    ("targets are a number", TARGETS, "3", ["targets"]),
    ("nothing but junk", GOOD, 'junk = [1, "x", [2]]\n', ["junk", "model"]),
    ("hardware is a number", GOOD[GOOD.index("[hardware]") :], "[x]\n", ["x"]),
    # Contradictions.
    ("no rate", 'rate = "2 req/s"\n', "", ["traffic", "rate", "concurrency"]),
    ("rate and concurrency", 'rate = "2 req/s"', 'rate = "2 req/s"\nconcurrency = 3',
     ["traffic", "rate", "concurrency"]),
    ("classes of one name", TRAFFIC, TRAFFIC * 2, ["traffic", "chat", "name"]),
    ("targets of one kind", TARGETS,
     '[{ metric = "ttft", at_most = "1 s" }, { metric = "ttft", at_most = "2 s" }]',
     ["traffic", "ttft"]),
    ("TPOT of one token", TRAFFIC,
     TRAFFIC.replace("= 200", "= 1").replace('"ttft"', '"tpot"'),
     ["TPOT", "output_tokens"]),
    ("fewer NPUs than nodes", "npus = 64\nnodes = 64", "npus = 1\nnodes = 64",
     ["limits", "npus", "nodes"]),
    ("one NPU limited twice", '"l40s" = 16', '"l40s" = 16, "L40S" = 3',
     ["npus_per_type", "l40s"]),
    ("one NPU priced twice", "[limits]",
     '[[prices.given]]\nnpu = "L40"\nusd_per_hour = "2 USD/h"\n\n[limits]',
     ["prices.given", "l40"]),
    # Optimisations.
    ("prefix hit of all", "= 200", "= 200\nprefix_hit = 1.0",
     ["traffic", "prefix_hit", "1"]),
    ("prefix hit is text", "= 200", '= 200\nprefix_hit = "half"', ["prefix_hit"]),
    ("no beams", "= 200", "= 200\nbeams = 0", ["traffic", "beams", "0"]),
    ("beams absurd", "= 200", "= 200\nbeams = 65", ["beams", "64"]),
    ("an optimisation misspelt", "[hardware]",
     "[optimisations.specullation]\nguessed = 2\n[hardware]",
     ["optimisations.specullation", "'speculation'"]),
    ("speculation without acceptance", "[hardware]",
     '[optimisations.speculation]\ndrafter = "ngram"\nguessed = 2\n[hardware]',
     ["speculation", "acceptance"]),
    ("speculation without a drafter's layers", "[hardware]",
     '[optimisations.speculation]\ndrafter = "mtp"\nguessed = 2\nacceptance = 0.5\n'
     "[hardware]", ["speculation.drafter", "multi-token"]),
    ("beams and speculation", TRAFFIC,
     TRAFFIC.replace("= 200", "= 200\nbeams = 4")
     + '[optimisations.speculation]\ndrafter = "ngram"\nguessed = 2\n'
     "acceptance = 0.5\n", ["beams", "speculat"]),
    ("adapters without rank", "[hardware]",
     "[optimisations.lora]\nadapters = 2\n[hardware]", ["lora", "rank"]),
    ("popularity of no experts", "[hardware]",
     "[optimisations.experts]\nalpha = 1.0\n[hardware]",
     ["experts.alpha", "no experts"]),
    ("more than all offloaded", "[hardware]",
     "[optimisations.offload]\nweights = 1.5\n[hardware]", ["offload.weights", "1.5"]),
    # Not TOML.
    ("truncated", GOOD, GOOD[: GOOD.index("2048") + 2].replace("20", '"20'),
     ["problem", "TOML"]),
    ("a field twice", "headroom = 0.1", "headroom = 0.1\nheadroom = 0.2",
     ["problem", "TOML"]),
    ("empty", GOOD, "", ["model", "traffic"]),
    ("nested without end", GOOD, "x = " + "[" * 100_000, ["problem", "TOML"]),
)  # fmt: skip


@pytest.mark.parametrize(("old", "new", "words"), FILE)
def test_bad_problem_file(
    genz: Callable[..., Any], tmp_path: Path, old: str, new: str, words: list[str]
) -> None:
    assert old in GOOD
    path = tmp_path / "problem.toml"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    refused(genz("size", path), *words)


def test_the_unspoilt_problem_is_good(genz: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "problem.toml"
    path.write_text(GOOD, encoding="utf-8")
    ran = genz("size", path)
    assert (ran.code, ran.err) == (0, "")


def _not_text(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def _huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100_000_000)


UNREADABLE = [
    pytest.param(lambda path: None, "no file", id="missing"),
    pytest.param(Path.mkdir, "not a file", id="folder"),
    pytest.param(_not_text, "UTF-8", id="binary"),
    pytest.param(_huge, "100 MB", id="huge"),
]


@pytest.mark.parametrize(("make", "word"), UNREADABLE)
@pytest.mark.parametrize(
    ("before", "field"),
    [
        (["size"], "problem"),
        ([*SIZE, "--model"], "model"),
        (["estimate", "--points"], "--points"),
    ],
    ids=["problem", "model", "points"],
)
def test_unreadable_file(
    genz: Callable[..., Any],
    tmp_path: Path,
    make: Callable[[Path], None],
    word: str,
    before: list[str],
    field: str,
) -> None:
    path = tmp_path / "file.json"
    make(path)
    if field == "--points" and make is _huge:
        with path.open("r+b") as file:
            file.truncate(300_000_000)
        word = "300 MB"
    if field == "model" and make is Path.mkdir:
        word = "no file"  # a folder may hold the config.json
    refused(genz(*before, path), field, word, path.name)


OPTION = _table(
    ("TTFT in bytes", ["--ttft", "2 GB"], ["ttft", "'2 GB'", "50 ms"]),
    ("TTFT bare", ["--ttft", "2"], ["ttft", "no unit", "50 ms"]),
    ("TTFT zero", ["--ttft", "0 s"], ["ttft", "0"]),
    ("TPOT NaN", ["--tpot", "nan ms"], ["tpot", "'nan ms'", "50 ms"]),
    ("E2E negative", ["--e2e", "-1 s"], ["e2e", "'-1 s'"]),
    ("TPOT absurd", ["--tpot", "1e300 s"], ["tpot", "1e300"]),
    ("statistic", ["--ttft", "p98 2 s"], ["--ttft", "'p98'", "'p99'"]),
    ("statistic of no name", ["--tpot", "worst 2 s"], ["--tpot", "'worst'", "mean"]),
    ("statistic bare", ["--ttft", "p99 2"], ["--ttft", "no unit", "50 ms"]),
    ("statistic alone", ["--e2e", "p99"], ["--e2e", "'p99'", "50 ms"]),
    ("statistic zero", ["--ttft", "p99 0 s"], ["--ttft", "above 0"]),
    ("p90 above p99", ["--ttft", "p99 1 s", "--ttft", "p90 2 s"],
     ["p99 TTFT", "p90 TTFT"]),
    ("prompt's cv in words", ["--input-tokens", "512 cv one"],
     ["--input-tokens", "'512 cv one'", "'512 cv 1'"]),
    ("prompt's cv missing", ["--input-tokens", "512 cv"], ["--input-tokens", "cv 1"]),
    ("prompt's cv negative", ["--input-tokens", "512 cv -1"],
     ["--input-tokens: cv: ", "-1"]),
    ("prompt's cv of many dots", ["--input-tokens", "512 cv 1..2"],
     ["--input-tokens", "'512 cv 1..2'"]),
    ("trace of no text", ["--lengths", ""], ["lengths"]),
    ("trace and tokens", ["--lengths", "sharegpt"],
     ["input_tokens beside output_tokens beside lengths"]),
    ("burstiness", ["--burstiness", "0"], ["burstiness", "0.1"]),
    ("burstiness in words", ["--burstiness", "high"], ["--burstiness", "'high'"]),
    ("rate bare", ["--rate", "5"], ["rate", "10 req/s"]),
    ("rate zero", ["--rate", "0 req/s"], ["rate", "0"]),
    ("rate absurd", ["--rate", "1e300 req/s"], ["rate", "1e300"]),
    ("prompt zero", ["--input-tokens", "0"], ["input", "tokens", "0"]),
    ("prompt a float", ["--input-tokens", "1e3"], ["--input-tokens", "'1e3'"]),
    ("prompt beyond the model", ["--input-tokens", "200000"], ["131072"]),
    ("answer negative", ["--output-tokens", "-1"], ["output", "tokens", "-1"]),
    ("concurrency zero", ["--concurrency", "0"], ["concurrency"]),
    ("rate and concurrency", ["--concurrency", "4"], ["rate", "concurrency"]),
    ("TPOT of one token", ["--output-tokens", "1", "--tpot", "9 ms"], ["TPOT"]),
    ("model", ["--model", "lama-3.1-8b"], ["model", "'llama-3.1-8b'"]),
    ("model of no text", ["--model", ""], ["model"]),
    ("NPU", ["--npu", "l40z"], ["npu", "'l40z'", "'l40s'"]),
    ("glob", ["--npu", "h1000*"], ["npu", "'h100-sxm'"]),
    ("all excluded", ["--exclude", "*"], ["exclude"]),
    ("precision", ["--precision", "bf15"], ["precision", "'bf16'"]),
    ("term", ["--term", "on-demand"], ["term", "'on_demand'"]),
    ("provider", ["--provider", "lamda"], ["provider", "'Lambda'"]),
    ("confidence", ["--price-confidence", "mid"], ["--price-confidence", "'medium'"]),
    ("objective", ["--minimize", "price"], ["--minimize", "'cost'"]),
    ("price of nothing", ["--price", "2 USD/h"], ["--price", "="]),
    ("price of no name", ["--price", "=2 USD/h"], ["--price", "="]),
    ("price without figure", ["--price", "l40s="], ["--price", "="]),
    ("price bare", ["--price", "l40s=2"], ["price", "no unit", "USD/h"]),
    ("price zero", ["--price", "l40s=0 USD/h"], ["price", "0"]),
    ("price of an unknown NPU", ["--price", "l40z=2 USD/h"], ["price", "'l40s'"]),
    ("price twice", ["--price", "l40s=1 USD/h", "--price", "L40S=2 USD/h"],
     ["price", "l40s"]),
    ("available without number", ["--available", "l40s"], ["--available", "="]),
    ("available many", ["--available", "l40s=many"], ["--available", "'many'"]),
    ("available negative", ["--available", "l40s=-1"], ["--available", "'-1'"]),
    ("available absurd", ["--available", f"l40s={10**20}"], ["l40s", "10000000"]),
    ("available unknown", ["--available", "l40z=3"], ["'l40z'", "'l40s'"]),
    ("available twice alike", ["--available", "l40s=1", "--available", "l40s=2"],
     ["l40s"]),
    ("available twice", ["--available", "l40s=1", "--available", "L40S=2"],
     ["l40s"]),
    ("quota of nowhere", ["--quota", "mars=0"], ["--quota: ", "region 'mars'"]),
    ("owned and excluded", ["--owned", "h100=2", "--exclude", "h100"],
     ["owned", "h100-sxm", "hardware.exclude"]),
    ("NPUs zero", ["--max-npus", "0"], ["npus", "0"]),
    ("nodes negative", ["--max-nodes", "-1"], ["nodes", "-1"]),
    ("fewer NPUs than nodes", ["--max-npus", "2", "--max-nodes", "9"],
     ["npus", "nodes"]),
    ("budget bare", ["--budget", "100"], ["no unit", "USD/h"]),
    ("power in bytes", ["--max-power", "4 GB"], ["power", "700 W"]),
    ("chunk zero", ["--chunk-tokens", "0"], ["chunk", "tokens", "16"]),
    ("headroom over one", ["--headroom", "1.5"], ["headroom", "0.95"]),
    ("headroom NaN", ["--headroom", "nan"], ["headroom"]),
    ("no time", ["--time-limit", "0"], ["--time-limit", "0"]),
    ("negative time", ["--time-limit", "-1"], ["--time-limit", "-1"]),
    ("NaN time", ["--time-limit", "nan"], ["--time-limit", "nan"]),
    ("endless time", ["--time-limit", "inf"], ["--time-limit", "inf"]),
    ("no workers", ["--workers", "0"], ["--workers", "0"]),
    ("workers in words", ["--workers", "two"], ["--workers", "two"]),
    ("format", ["--format", "yaml"], ["--format", "'json'"]),
    ("option", ["--inputtokens", "1"], ["--inputtokens", "'--input-tokens'"]),
    ("output of no name", ["-o", ""], ["--output"]),
    ("output into a missing folder", ["-o", "no-such-folder/x.json"],
     ["--output", "no-such-folder"]),
    ("output onto a folder", ["-o", "."], ["--output", "'.'"]),
)  # fmt: skip


@pytest.mark.parametrize(("options", "words"), OPTION)
def test_bad_option(
    genz: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(genz(*SIZE, *options), *words)


COMMAND = _table(
    ("no question", ["size"], ["model", "missing"]),
    ("no model", [a for a in SIZE if a not in ("--model", "llama-3.1-8b")],
     ["model", "missing"]),
    ("no rate", SIZE[:-2], ["rate", "concurrency"]),
    ("no tokens", ["size", "--model", "mistral-7b", "--rate", "1 req/s"],
     ["input_tokens", "output_tokens"]),
    ("trace", ["size", "--model", "mistral-7b", "--rate", "1 req/s", "--lengths",
               "azure-2023-cod"], ["traffic", "'azure-2023-cod'", "'azure-2023-code'"]),
    ("trace shown", ["catalogue", "show", "traces", "azure"], ["'azure-2023-conv'"]),
    ("command", ["sizee"], ["'sizee'", "'size'"]),
    ("subcommand", ["catalogue", "shwo"], ["shwo", "'show'"]),
    ("two files", ["size", "a.toml", "b.toml"], ["b.toml"]),
    ("example", ["new", "chatt"], ["example", "'chat'"]),
    ("example elsewhere", ["new", "../examples/chat"], ["example", "chat"]),
    ("example into a missing folder", ["new", "chat", "-o", "no-such-folder/x.toml"],
     ["--output", "no-such-folder"]),
    ("NPU shown", ["catalogue", "show", "npus", "h101-sxm"], ["npu", "'h100-sxm'"]),
    ("NPU elsewhere", ["catalogue", "show", "npus", "../npus/l4"], ["npu", "l4"]),
    ("NPU of no name", ["catalogue", "show", "npus", ""], ["npu", "known"]),
    ("model shown", ["catalogue", "show", "models", "llama-3.1-9b"],
     ["model", "'llama-3.1-8b'"]),
    ("prices shown", ["catalogue", "show", "prices", "h101-sxm"],
     ["npu", "'h100-sxm'"]),
    ("NPU without price", ["catalogue", "show", "prices", "xeon-6787p"],
     ["price", "xeon-6787p"]),
    ("kind", ["catalogue", "list", "npu"], ["'npu'", "'npus'"]),
    ("nothing to show", ["catalogue", "show", "npus"], ["NAME"]),
    ("list as TOML", ["catalogue", "list", "npus", "--format", "toml"],
     ["--format", "'json'"]),
)  # fmt: skip


@pytest.mark.parametrize(("arguments", "words"), COMMAND)
def test_bad_command(
    genz: Callable[..., Any], arguments: list[str], words: list[str]
) -> None:
    refused(genz(*arguments), *words)


def test_new_does_not_overwrite(genz: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("precious")
    refused(genz("new", "chat", "-o", path), "--output", "mine.toml", "exists")
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    "option", ["--rate=5 req/s", "--ttft=5 s", "--input-tokens=5", "--concurrency=5"]
)
def test_option_of_one_class_beside_a_file_with_two(
    genz: Callable[..., Any], tmp_path: Path, option: str
) -> None:
    path = tmp_path / "two.toml"
    second = TRAFFIC.replace('"chat"', '"other"')
    path.write_text(GOOD.replace(TRAFFIC, TRAFFIC + second), encoding="utf-8")
    refused(genz("size", path, option), option.split("=")[0], "classes")


@pytest.mark.parametrize(
    ("old", "new", "option", "word"),
    [
        (TRAFFIC, "traffic = [1]\n", "--rate=5 req/s", "traffic"),
        (TRAFFIC, 'traffic = ["ab"]\n', "--rate=5 req/s", "traffic"),
        (TRAFFIC, "traffic = 3\n", "--ttft=5 s", "traffic"),
        (TARGETS, "3", "--ttft=5 s", "targets"),
        (GOOD[GOOD.index("[limits]") :], "", "--max-npus=4", "limits"),
    ],
    ids=["number", "text", "no list", "targets", "limits"],
)
def test_option_beside_a_file_with_junk_in_its_place(
    genz: Callable[..., Any],
    tmp_path: Path,
    old: str,
    new: str,
    option: str,
    word: str,
) -> None:
    path = tmp_path / "junk.toml"
    text = GOOD.replace(old, new)
    if word == "limits":
        text = "limits = 3\n" + text
    path.write_text(text, encoding="utf-8")
    ran = genz("size", path, option)
    refused(ran, word)
    assert "several" not in ran.err


def _config(**changed: Any) -> str:
    return json.dumps({**CONFIG, **changed})


def _without(*fields: str) -> str:
    return json.dumps({k: v for k, v in CONFIG.items() if k not in fields})


CONFIGS = _table(
    ("broken", _config()[:-20], ["JSON"]),
    ("empty", "", ["JSON"]),
    ("list", "[1]", ["JSON object"]),
    ("number", "3", ["JSON object"]),
    ("nested without end", "[" * 100_000, ["JSON"]),
    ("no fields", '{"model_type": "llama"}', ["num_attention_heads"]),
    ("no type", _without("model_type"), ["model_type; known: "]),
    ("type", _config(model_type="lama"), ["model_type", "'lama'", "'llama'"]),
    ("type of another kind", _config(model_type="bert"), ["model_type", "'bert'"]),
    ("type is a number", _config(model_type=3), ["model_type"]),
    *(
        (f"no {field}", _without(field), [field])
        for field in CONFIG
        if field not in ("num_key_value_heads", "max_position_embeddings", "model_type")
    ),
    ("width negative", _config(hidden_size=-1), ["hidden_size", "-1"]),
    ("width zero", _config(hidden_size=0), ["hidden_size", "0"]),
    ("width huge", _config(hidden_size=10**12), ["hidden_size"]),
    ("width enormous", _config(hidden_size=10**900), ["hidden_size"]),
    ("width of a million digits", '{"hidden_size": 1' + "0" * 1_000_000 + "}", []),
    ("width is text", _config(hidden_size="2048"), ["hidden_size", "'2048'"]),
    ("width a half", _config(hidden_size=2048.5), ["hidden_size", "2048.5"]),
    ("width NaN", _config(hidden_size=math.nan), ["hidden_size"]),
    ("width is true", _config(hidden_size=True), ["hidden_size"]),
    ("layers is text", _config(num_hidden_layers="16"), ["num_hidden_layers"]),
    ("layers negative", _config(num_hidden_layers=-16), ["num_hidden_layers"]),
    ("layers huge", _config(num_hidden_layers=200_000), ["num_hidden_layers"]),
    ("heads do not divide", _config(num_attention_heads=7),
     ["num_attention_heads", "hidden_size"]),
    ("KV heads do not divide", _config(num_key_value_heads=7),
     ["num_key_value_heads", "num_attention_heads"]),
    ("vocabulary is a list", _config(vocab_size=[1]), ["vocab_size"]),
    ("short context", _config(max_position_embeddings=7),
     ["max_position_embeddings", "7"]),
    ("format", _config(torch_dtype="float17"), ["torch_dtype", "'float17'"]),
    ("quantisation", _config(quantization_config={"quant_method": "magic"}),
     ["quantization_config", "'magic'"]),
    ("tied is text", _config(tie_word_embeddings="yes"), ["tie_word_embeddings"]),
)  # fmt: skip


@pytest.mark.parametrize(("text", "words"), CONFIGS)
def test_bad_config(
    genz: Callable[..., Any], tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text, encoding="utf-8")
    refused(genz(*SIZE, "--model", path), "mine", *words)


ESTIMATES = _table(
    ("tp does not divide", ["--tp", "3"], ["tp 3", "num_attention_heads"]),
    ("tp zero", ["--tp", "0"], ["--tp"]),
    ("tp absurd", ["--tp", "5000"], ["--tp", "4096"]),
    ("pp above layers", ["--pp", "33"], ["pp 33", "num_hidden_layers"]),
    ("no replicas", ["--replicas", "0"], ["--replicas"]),
    ("ep of a dense model", ["--ep", "2"], ["ep 2", "experts"]),
    ("dp of a dense model", ["--dp", "2"], ["dp 2", "experts"]),
    ("ep zero", ["--ep", "0"], ["--ep"]),
    ("cp zero", ["--cp", "0"], ["--cp"]),
    ("beams zero", ["--beams", "0"], ["--beams", "64"]),
    ("prefix hit of all", ["--prefix-hit", "1"], ["--prefix-hit", "below 1"]),
    ("prefix hit NaN", ["--prefix-hit", "nan"], ["--prefix-hit", "nan"]),
    ("speculation without acceptance", ["--speculate", "ngram", "--guessed", "2"],
     ["acceptance"]),
    ("acceptance without speculation", ["--acceptance", "0.5"],
     ["--speculate: required"]),
    ("drafter",
     ["--speculate", "egle", "--guessed", "2", "--acceptance", "0.5"], ["'eagle'"]),
    ("no prediction layers",
     ["--speculate", "mtp", "--guessed", "2", "--acceptance", "0.5"], ["multi-token"]),
    ("a drafter that does not fit",
     ["--speculate", "llama-3.1-70b", "--guessed", "2", "--acceptance", "0.5"],
     ["fit"]),
    ("adapters without rank", ["--lora-adapters", "3"], ["--lora-rank: required"]),
    ("spare experts of a dense model",
     ["--expert-alpha", "1", "--redundant-experts", "2"], ["experts"]),
    ("spare experts at balance", ["--redundant-experts", "2"], ["redundant", "alpha"]),
    ("offload to nowhere", ["--npu", "l40s", "--offload-weights", "0.5"],
     ["offloaded", "l40s", "0 B"]),
    ("more than all offloaded", ["--offload-cache", "2"], ["--offload-cache", "2"]),
    ("NPU", ["--npu", "h101-sxm"], ["npu", "'h100-sxm'"]),
    ("model", ["--model", "lama-3.1-8b"], ["model", "'llama-3.1-8b'"]),
    ("precision", ["--precision", "bf15"], ["precision", "'bf16'"]),
    ("rate and concurrency", ["--rate", "1 req/s", "--concurrency", "2"],
     ["--rate", "--concurrency"]),
    ("overload", ["--rate", "1000 req/s"], ["--rate", "at most", "--replicas"]),
    ("rate zero", ["--rate", "0 req/s"], ["--rate", "0"]),
    ("rate bare", ["--rate", "5"], ["--rate", "10 req/s"]),
    ("rate in bytes", ["--rate", "2 GB"], ["--rate", "10 req/s"]),
    ("rate NaN", ["--rate", "nan req/s"], ["--rate", "10 req/s"]),
    ("concurrency zero", ["--concurrency", "0"], ["--concurrency"]),
    ("concurrency absurd", ["--concurrency", f"{10**20}"], ["--concurrency"]),
    ("does not fit", ["--model", "llama-3.1-405b"],
     ["llama-3.1-405b", "fit", "h100-sxm"]),
    ("mode", ["--mode", "closed"], ["--mode", "'closed_loop'"]),
    ("open loop without rate", ["--mode", "open_loop"], ["--rate"]),
    ("closed loop without users", ["--mode", "closed_loop"], ["--concurrency"]),
    ("static batch without size", ["--mode", "static_batch"], ["--concurrency"]),
    ("rate of no open loop", ["--mode", "offline", "--rate", "1 req/s"],
     ["--rate", "offline"]),
    ("prompt zero", ["--input-tokens", "0"], ["--input-tokens", "0"]),
    ("prompt beyond the model", ["--input-tokens", "200000"],
     ["input", "131072", "max_position_embeddings"]),
    ("prompt absurd", ["--input-tokens", f"{10**12}"], ["--input-tokens"]),
    ("answer negative", ["--output-tokens", "-1"], ["--output-tokens", "-1"]),
    ("chunk of one", ["--chunk-tokens", "1"], ["--chunk-tokens", "16"]),
    ("format", ["--format", "csv"], ["--format", "'json'"]),
    ("output into a missing folder", ["-o", "no-such-folder/x"],
     ["--output", "no-such-folder"]),
)  # fmt: skip


@pytest.mark.parametrize(("options", "words"), ESTIMATES)
def test_bad_estimate(
    genz: Callable[..., Any], options: list[str], words: list[str]
) -> None:
    refused(genz(*ESTIMATE, *options), *words)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ([], "--model"),
        (["--model", "llama-3.1-8b"], "--npu"),
        (["--model", "llama-3.1-8b", "--npu", "l40s"], "--input-tokens"),
    ],
)
def test_incomplete_estimate(
    genz: Callable[..., Any], options: list[str], word: str
) -> None:
    refused(genz("estimate", *options), word, "missing")


HEADER = "model,npu,input_tokens,output_tokens"
ROW = "llama-3.1-8b,h100-sxm,10,10"

POINTS = _table(
    ("empty", "", ["is empty"]),
    ("without columns", "a,b\n1,2\n", ["model"]),
    ("a column short", "model,npu,input_tokens\nx,y,3\n", ["output_tokens"]),
    ("unknown column", f"{HEADER},concurency\n{ROW},1\n",
     ["'concurency'", "'concurrency'"]),
    ("column twice", f"{HEADER},npu\n{ROW},l4\n", ["npu"]),
    ("a cell without end", f"{HEADER}\n{'a' * 200_000},h100-sxm,1,1\n", []),
)  # fmt: skip


@pytest.mark.parametrize(("text", "words"), POINTS)
def test_bad_points(
    genz: Callable[..., Any], tmp_path: Path, text: str, words: list[str]
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    refused(genz("estimate", "--points", path), "--points", *words)


@pytest.mark.parametrize(
    "option",
    [
        "--model=mistral-7b",
        "--npu=l4",
        "--mode=offline",
        "--tp=2",
        "--pp=2",
        "--ep=2",
        "--dp=2",
        "--cp=2",
        "--prefix-hit=0.5",
        "--beams=2",
        "--speculate=ngram",
        "--guessed=2",
        "--acceptance=0.5",
        "--lora-rank=8",
        "--lora-adapters=2",
        "--expert-alpha=1",
        "--redundant-experts=2",
        "--offload-weights=0.5",
        "--offload-cache=0.5",
        "--replicas=2",
        "--precision=fp8",
        "--input-tokens=5",
        "--output-tokens=5",
        "--rate=5 req/s",
        "--concurrency=5",
        "--chunk-tokens=512",
        "--format=json",
    ],
)
def test_option_without_effect_beside_points(
    genz: Callable[..., Any], tmp_path: Path, option: str
) -> None:
    path = tmp_path / "points.csv"
    path.write_text(f"{HEADER}\n{ROW}\n", encoding="utf-8")
    refused(genz("estimate", "--points", path, option), option.split("=")[0])


@pytest.mark.parametrize(
    "arguments",
    [
        (*SIZE, "--ttft", "2 GB"),
        (*SIZE, "--time-limit", "nan"),
        ("estimate", "--points", "no-such-file.csv"),
        ("sizee",),
    ],
)
def test_refusal_of_the_real_command(
    process: Callable[..., Any], arguments: tuple[str, ...]
) -> None:
    refused(process(*arguments))


def test_debug_adds_the_traceback(genz: Callable[..., Any]) -> None:
    ran = genz("--debug", *SIZE, "--model", "lama")
    assert ran.code == 2
    assert "Traceback" in ran.err
    assert ran.err.splitlines()[-1].startswith("genz-size: unknown model 'lama'")


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["size", "chat.toml"], "--output"),
        (["size", "chat.toml"], "--export-model"),
        (["design"], "--output"),
        (["what-if", "chat.toml"], "--output"),
        (["frontier", "chat.toml", "--along", "tpot"], "--output"),
        (["frontier", "chat.toml", "--along", "tpot"], "--plot"),
        (["validate"], "--output"),
    ],
)
def test_a_missing_folder_is_found_before_all_else(
    genz: Callable[..., Any], command: list[str], option: str
) -> None:
    # There is no chat.toml: it would be missed next.
    path = "no-such-folder/x.png"
    refused(genz(*command, option, path), option, f"cannot write {path}")


def test_an_empty_table_of_measurements(
    genz: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "empty.csv"
    path.touch()
    refused(genz("validate", "--data", path), "--data", "is empty")


@pytest.mark.parametrize("fault", ["name", "mkstemp", "replace"])
def test_failed_output_leaves_nothing_behind(
    genz: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("precious")
    if fault == "replace":
        monkeypatch.setattr(Path, "replace", broken)
    output = {"name": "", "mkstemp": "no/mine.json"}.get(fault, "mine.json")
    refused(genz(*SIZE, "-o", output), "--output")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.json"]
    assert (tmp_path / "mine.json").read_text() == "precious"


# ---- options are named, and fields of files are ----


def test_an_option_is_named_as_one_and_a_field_of_a_file_as_one(
    genz: Callable[..., Any], tmp_path: Path
) -> None:
    question = ("--model", "llama-3.1-8b", "--input-tokens", "100")
    question += ("--output-tokens", "100", "--rate", "1 req/s")
    assert "genz-size: --headroom: " in genz("size", *question, "--headroom", "2").err
    path = tmp_path / "problem.toml"
    path.write_text(
        'model = "llama-3.1-8b"\nheadroom = 2.0\n[prices]\nregions = ["mars"]\n'
        '[[traffic]]\ninput_tokens = 100\noutput_tokens = 100\nrate = "1 req/s"\n',
        encoding="utf-8",
    )
    assert "genz-size: headroom: " in genz("size", path).err
    assert "genz-size: headroom: " in genz("size", path, "--max-npus", "3").err
    ran = genz("size", path, "--headroom", "nan")
    assert "genz-size: --headroom: must be a finite number, got 'nan'" in ran.err
    held = genz("size", path, "--headroom", "0")
    assert "genz-size: prices.regions: there is no region 'mars'" in held.err
    other = genz("size", path, "--headroom", "0", "--region", "venus")
    assert "genz-size: --region: there is no region 'venus'" in other.err
    price = genz("size", path, "--headroom", "0", "--price", "l40s=-1")
    assert "genz-size: --price: '-1' has no unit" in price.err


@pytest.mark.parametrize("name", ["plan.json", "plan.txt"])
def test_json_is_read_as_a_plan_whatever_its_name(
    genz: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_text('{"a": 1}', encoding="utf-8")
    ran = genz("simulate", path)
    assert ran.code == 2
    assert f"plan: {path} is no plan" in ran.err
    assert "size --format json" in ran.err
    assert "it looks like JSON" in genz("size", path).err


def test_what_is_no_file_is_called_so(genz: Callable[..., Any], tmp_path: Path) -> None:
    assert "is not a file" in genz("validate", "--data", tmp_path).err
    problem = tmp_path / "problem.toml"
    problem.write_text(GOOD, encoding="utf-8")
    assert "--scenarios: " in genz("what-if", problem, "--scenarios", tmp_path).err
    folder = genz("estimate", "--model", tmp_path, "--npu", "l40s").err
    assert "--model: there is no file config.json in the folder" in folder


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[[traffic]]", "[traffic]", "write [[traffic]] above it"),
        (TARGETS, TARGETS[1:-1], "write [[traffic.targets]] above it"),
        ('["bf16"]', '"bf16"', 'write ["bf16"]'),
        ('["bf16"]', "3", "must be a list, got '3'"),
        ('model = "llama-3.1-8b"', 'model = ""', "model: must not be empty"),
        ("headroom = 0.1", "headroom = nan", "must be a finite number, got 'nan'"),
        ("headroom = 0.1", "headroom = 2.0", "must be at most 0.95, got '2'"),
    ],
)
def test_how_it_is_written_is_said(
    genz: Callable[..., Any], tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = tmp_path / "problem.toml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    ran = genz("size", path)
    assert ran.code == 2
    assert said in ran.err


def test_the_argument_that_names_a_table_is_named(
    genz: Callable[..., Any], tmp_path: Path
) -> None:
    ran = genz("calibrate", "--npu", "l40s", tmp_path)
    assert ran.err == f"genz-size: OPS.csv: {tmp_path} is not a file\n"
    assert genz("validate", "--data", tmp_path).err.startswith("genz-size: --data: ")
