"""The scheduler's two settings, which cost nothing: tried on every deployment."""

from dataclasses import dataclass

from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from problems.problem import SizingProblem
from problems.traffic import TrafficClass

LARGEST_BATCH = 1024
"""Requests that a replica runs at once by default (vLLM ``max_num_seqs`` on large
GPUs)."""

BATCHES = (LARGEST_BATCH, 256, 128, 64)
"""Requests at once that are tried: fewer hold the time per token down, at the price of
a wait for a slot."""

CHUNKS = (DEFAULT_CHUNK_TOKENS, 512, 1024, 8192, 16384)
"""Tokens of a step that are tried: few keep steps short, many read prompts fast."""

_FAR = 2.0


@dataclass(frozen=True, slots=True)
class Setting:
    """How a scheduler fills its steps.

    Parameters
    ----------
    batch
        Requests that a data-parallel group runs at once (vLLM ``max_num_seqs``).
    chunk_tokens
        Tokens that a step may process (vLLM ``max_num_batched_tokens``).
    """

    batch: int
    chunk_tokens: int


def settings_of(problem: SizingProblem, traffic: TrafficClass) -> tuple[Setting, ...]:
    """Return the settings that a problem leaves open for a class, the default first.

    Steps far beyond the longest prompt bring nothing. Users who wait for answers are
    as many as they are: no cap holds their time per token down but fewer of them.

    Parameters
    ----------
    problem
        It may state either setting.
    """
    longest = traffic.profile.prompt.tokens[-1]
    most = max(DEFAULT_CHUNK_TOKENS, _FAR * longest)
    chunks = tuple(chunk for chunk in CHUNKS if chunk <= most)
    chunks = (problem.chunk_tokens,) if problem.chunk_tokens else chunks
    batches = BATCHES[:1] if traffic.is_closed else BATCHES
    batches = (problem.max_num_seqs,) if problem.max_num_seqs else batches
    return tuple(Setting(batch, chunk) for chunk in chunks for batch in batches)
