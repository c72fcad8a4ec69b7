"""Scores of predictions against measurements as a Markdown page."""

from collections.abc import Iterable, Iterator, Sequence

from sizing.report.validation import HEADER, cells_of, fitted_text, tables_of, title_of
from sizing.validate.score import Scores

_PREFACE = """\
# Predicted against measured

Written by `genz-size validate --format markdown`; without `--data`, of the data that
comes with the project (`problems/measured/data/`, its README names sources and
licences). Errors are ln(predicted / measured): medians within a group of measurements
(one source, model, device and tensor parallel degree), averaged over groups.

n: measurements. answered: share with a prediction. median |ln|, bias, p90: median of
the absolute error, of the signed one, 90th percentile of the absolute one. 5 %, 95 %:
the multiples of a prediction that nine of ten measurements lie between. in: share of
the measurements in the predicted interval.
"""

_CAUSES = """\
## Misses and their causes

- **Load generators that fall behind.** Single rows of 320 to 512 users (DeepSeek-V3
  and Qwen3-32B in NVFP4, gpt-oss-120b on two H100) report a time per token that only
  a few sequences at once can have. They are predicted at the users stated.
- **Kernels compiled during the run.** SGLang's DeepSeek-R1 on Blackwell waits 7 s for
  first tokens whatever the users are; a model of the hardware has no such wait.
- **Starved caches.** Where weights nearly fill the memory (70B in FP8 on one NPU, 32B
  in 16 bits on one H100) a few percent of usable memory decide whether users wait for
  minutes: TTFT is off by multiples there, and its interval is wide.
- **Young engines.** DeepSeek-R1 of March 2025 ran at half the speed of a year later,
  and TensorRT-LLM 1.0 took 0.1 s more per first token than 1.2. Generations are told
  apart by date (`problems/catalogue/frameworks/`), releases are not.
- **Small batches of experts.** MiniMax-M2.5 at 4 users is 20 to 50 % slower than
  predicted, gpt-oss-120b 20 % faster: which experts few tokens choose is not
  published.
- **PCIe without a switch.** Collectives of L40S and RTX PRO 6000 servers do not
  transfer to each other (0.4 to 0.9 in ln): their root complexes differ. Those of the
  L40S were measured on a server whose eight cards share a root; TensorRT-LLM's
  published figures come from one with switches, and have an entry of their own.
- **Weights of unknown format.** MLPerf's GPT-J on Jetson Orin does not say its number
  format; it is faster than 16-bit weights can be, and predicted at 16 bits.
- **First tokens of the Splitwise fork** of vLLM (2023): prompts of 4,096 tokens and
  more took twice our time with 4 and 8 ranks, not with 2: its all-reduces.
- **Prompt lengths of MLPerf** are not published for every data set; those assumed are
  in `problems/measured/workloads.py`.
"""

_MOST_MISSES = 12
_LEAST_ROWS = 20


def as_markdown(found: Sequence[Scores]) -> str:
    """Return the scores as a Markdown page."""
    text = [_PREFACE, f"Fitted: {fitted_text()}.\n"]
    for scores in found:
        text.append(f"## {title_of(scores)}\n")
        for title, columns, lines in tables_of(scores):
            text += [f"### {title}\n", *_table(columns, lines), ""]
        if misses := _misses(scores):
            columns = ("where", "metric", *HEADER)
            text += ["### largest misses\n", *_table(columns, misses), ""]
        if scores.reasons:
            lines = ((why, str(rows)) for why, rows in scores.reasons.items())
            text += ["### without a prediction\n", *_table(("why", "rows"), lines), ""]
    return "\n".join([*text, _CAUSES])


def _misses(scores: Scores) -> list[tuple[str, ...]]:
    """Return where predictions are worst, of all that was measured often enough."""
    every = [
        (f"{dimension} {value}", name, score)
        for dimension, values in scores.by.items()
        for value, metrics in values.items()
        for name, score in metrics.items()
        if score.n >= _LEAST_ROWS and score.median_abs_ln_error is not None
    ]
    every.sort(key=lambda miss: -(miss[2].median_abs_ln_error or 0.0))
    return [
        (where, name, *cells_of(score)) for where, name, score in every[:_MOST_MISSES]
    ]


def _table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> Iterator[str]:
    yield _line(columns)
    yield _line(["---", *["---:"] * (len(columns) - 1)])
    yield from map(_line, lines)


def _line(cells: Iterable[str]) -> str:
    safe = (cell.replace("|", "\\|") for cell in cells)
    return "| " + " | ".join(safe) + " |"
