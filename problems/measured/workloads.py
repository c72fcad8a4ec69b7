"""Lengths of public data sets, for results that name the set and not its tokens.

Means are published where a source says so. Spreads are assumed: of prompts, that of
instructions with and without a text to work on; of answers, what chat models write.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from model_ops.serving.engine import Profile
from model_ops.serving.lengths import lognormal


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of a data set.

    Parameters
    ----------
    input_tokens, output_tokens
        Means.
    input_variation, output_variation
        Standard deviation over mean, before the longest are cut.
    source
        Where the means are published, or what they are taken from.
    longest_input, longest_output
        Tokens that no request exceeds.
    beams
        Answers that are searched side by side, of which one is given.
    """

    input_tokens: float
    output_tokens: float
    input_variation: float
    output_variation: float
    source: str
    longest_input: float = math.inf
    longest_output: float = math.inf
    beams: int = 1

    @property
    def profile(self) -> Profile:
        """Lengths as queueing and simulation take them."""
        return Profile(
            lognormal(self.input_tokens, self.input_variation, most=self.longest_input),
            lognormal(
                self.output_tokens, self.output_variation, most=self.longest_output
            ),
        )

    def answering(self, tokens: float) -> "Workload":
        """Return the same with another mean of the answers."""
        return replace(self, output_tokens=tokens)


_SMALL = "mlcommons.org/2025/09/small-llm-inference-5-1: CNN/DailyMail, 778 tokens"
_LARGE = "mlcommons.org/2025/04/llm-inference-v5: 9,400 tokens in, 680 out"
_ORCA = "OpenOrca, at most 1,024 tokens each way (community.amd.com); prompts assumed"

_OPEN_ORCA = Workload(280, 294, 0.9, 0.7, _ORCA, 1024, 1024)

MLPERF: Mapping[str, Workload] = {
    "llama2-70b": _OPEN_ORCA,
    "llama3.1-70b": _OPEN_ORCA,
    "llama2-7b": _OPEN_ORCA,
    "mixtral-8x7b": Workload(
        450,
        145,
        0.9,
        0.7,
        "OpenOrca, GSM8K and MBXP, a third each; prompts assumed of 280, 800 (with "
        "worked examples) and 250 tokens",
        2048,
        1024,
    ),
    "llama3.1-8b": Workload(
        778, 128, 0.5, 0.0, f"{_SMALL}; the longest prompt is assumed", 2540
    ),
    "gptj": Workload(
        778,
        69,
        0.5,
        0.3,
        f"{_SMALL}; mlcommons/inference language/gpt-j: 4 beams, prompts of at most "
        "1,919 tokens, answers of 30 to 128; their mean assumed",
        1919,
        128,
        beams=4,
    ),
    "llama3.1-405b": Workload(
        9400, 680, 0.6, 0.7, f"{_LARGE}; the longest are assumed", 20_000, 2000
    ),
    "deepseek-r1": Workload(
        800,
        3880,
        0.9,
        0.7,
        "mlcommons.org/2025/09/deepseek-inference-5-1",
        3136,
        20_000,
    ),
    "gpt-oss-120b": Workload(
        1000,
        1278,
        0.9,
        0.7,
        "mlcommons/inference README; prompts assumed",
        longest_output=10_240,
    ),
}
"""MLPerf Inference data sets by benchmark, without the accuracy behind its name."""

SHARE_GPT = Workload(
    215.0, 180.0, 1.0, 1.0, "dstackai/benchmarks @06c957ab: 1,000 of vLLM's sample"
)
UNKNOWN = Workload(
    128.0, 128.0, 0.0, 0.0, "no data set named: the shortest lengths that are common"
)


def mlperf_workload(benchmark: str) -> Workload | None:
    """Return the data set of an MLPerf benchmark; None if there is no such one."""
    name = benchmark.lower().replace("_", ".")
    return next((each for key, each in MLPERF.items() if name.startswith(key)), None)


_RESULT = re.compile(r"^(?:closed|open|network)/[^/]+/[^/]+/([^/]+)/(\w+)")


def mlperf_result(notes: str) -> tuple[str, str] | None:
    """Return benchmark and scenario where notes start with an MLPerf result's path."""
    found = _RESULT.match(notes)
    return (found[1].lower(), found[2].lower()) if found else None


def workload(notes: str) -> Workload:
    """Return the data set that a source names; `UNKNOWN` if it names none."""
    result = mlperf_result(notes)
    if result is not None and (known := mlperf_workload(result[0])) is not None:
        return known
    return SHARE_GPT if "sharegpt" in notes.lower() else UNKNOWN
