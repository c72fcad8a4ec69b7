"""Mean lengths of public data sets, for results that name the set and not its tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of a data set.

    Parameters
    ----------
    input_tokens, output_tokens
        Means.
    input_variation, output_variation
        Standard deviation over mean.
    source
        Where the means are published, or what they are taken from.
    """

    input_tokens: float
    output_tokens: float
    input_variation: float
    output_variation: float
    source: str


SHARE_GPT = Workload(
    215.0, 180.0, 1.0, 1.0, "dstackai/benchmarks @06c957ab: 1,000 of vLLM's sample"
)
UNKNOWN = Workload(
    128.0, 128.0, 0.0, 0.0, "no data set named: the shortest lengths that are common"
)


def workload(notes: str) -> Workload:
    """Return the data set that a source names; `UNKNOWN` if it names none."""
    return SHARE_GPT if "sharegpt" in notes.lower() else UNKNOWN
