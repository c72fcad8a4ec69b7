"""Cross-check with the requirements of the GenZ paper; docs/requirements.md has causes.

``tests/reference/genz_paper_requirements.csv`` holds the authors' figures for five use
cases and five models, batch 1, weights and KV cache in int8. Their MB, GB and TB/s
are 2**20, 2**30 and 2**20 * 1e6 bytes.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.work import RequestShape
from model_ops.requirements import Need, Workload, needs
from problems import catalogue

TABLE = Path(__file__).parents[1] / "reference" / "genz_paper_requirements.csv"
DOCUMENT = Path(__file__).parents[2] / "docs" / "requirements.md"
INT8 = Precision(Dtype.INT8, Dtype.INT8, Dtype.INT8)
MIB = 2.0**20
HEAD_BYTES = 2
"""Embedding, head and router stay in 16 bits here; the authors have none of them."""

GPT4 = ModelArch(
    name="the paper's GPT-4",
    model_type="mixtral",
    hidden_size=10752,
    vocab_size=128256,
    layers=(
        Layer(
            mixer=Attention(
                num_attention_heads=84, num_key_value_heads=84, head_dim=128
            ),
            ffn=MoeFfn(
                num_experts=16,
                num_experts_per_tok=2,
                moe_intermediate_size=4 * 10752,
                gated=False,
            ),
        ),
    )
    * 128,
)


@dataclass(frozen=True)
class Shape:
    """A model as the authors count it: L layers of attention and a feed-forward."""

    name: str | None
    hidden: int
    layers: int
    kv_width: int
    inner: int
    vocab: int
    matrices: int = 3
    experts: int = 1
    chosen: int = 1
    positions: int = 0
    tied: bool = False

    @property
    def arch(self) -> ModelArch:
        return GPT4 if self.name is None else catalogue.load_model(self.name)

    @property
    def expert(self) -> int:
        """Parameters of one expert in all layers."""
        return self.layers * self.matrices * self.hidden * self.inner

    @property
    def token_cache(self) -> int:
        """Bytes of a token's keys and values."""
        return 2 * self.layers * self.kv_width

    @property
    def grouped(self) -> bool:
        return self.kv_width < self.hidden

    @property
    def head(self) -> int:
        return self.vocab * self.hidden

    @property
    def router(self) -> int:
        return self.layers * self.hidden * self.experts if self.experts > 1 else 0

    @property
    def widths(self) -> float:
        """Elements that a token's matrix products read and write in all layers."""
        attention = 6 * self.hidden + 2 * self.kv_width
        each = self.hidden * (self.chosen / self.experts) + self.chosen * self.inner
        if self.experts == 1:
            each = self.hidden + self.inner
        return self.layers * (attention + self.matrices * each)


SHAPES = {
    "LLaMA2-07B": Shape("llama-2-7b", 4096, 32, 4096, 11008, 32000),
    "LLaMA3-70B": Shape("llama-3-70b", 8192, 80, 1024, 28672, 128256),
    "GPT3-175B": Shape(
        "gpt3-175b",
        12288,
        96,
        12288,
        49152,
        50257,
        matrices=2,
        positions=2048,
        tied=True,
    ),
    "Mixtral-8x7B": Shape(
        "mixtral-8x7b", 4096, 32, 1024, 14336, 32000, experts=8, chosen=2
    ),
    "GPT4-1.8T": Shape(
        None, 10752, 128, 10752, 43008, 128256, matrices=2, experts=16, chosen=2
    ),
}


@dataclass(frozen=True)
class Figure:
    """One cell of the table beside ours: SI units, and what moves theirs to ours."""

    use_case: str
    model: str
    column: str
    theirs: float
    ours: float
    causes: dict[str, float]

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def main_cause(self) -> str:
        """The largest cause in the direction of the difference."""
        sign = 1 if self.ours > self.theirs else -1
        return max(self.causes, key=lambda cause: sign * self.causes[cause])


@cache
def figures() -> tuple[Figure, ...]:
    with TABLE.open(newline="", encoding="utf-8") as file:
        return tuple(figure for row in csv.DictReader(file) for figure in _cells(row))


def _cells(row: dict[str, str]) -> Iterator[Figure]:
    shape = SHAPES[row["Model"]]
    prompt, answer, beams = (int(row[c]) for c in ("in", "out", "beams"))
    ttft, tpot = float(row["TTFT_s"]), float(row["TPOT_s"])
    workload = Workload(
        shape=RequestShape(prompt, answer, beams=beams), ttft=ttft, tpot=tpot
    )
    reading, writing = needs(shape.arch, INT8, workload)
    for column, unit, seconds, ours in _columns(reading, writing, ttft, tpot):
        causes = {
            cause: amount / seconds
            for cause, amount in _causes(column, shape, prompt, beams).items()
            if amount
        }
        theirs = float(row[column]) * unit
        yield Figure(row["Usecase"], row["Model"], column, theirs, float(ours), causes)


def _columns(
    reading: Need, writing: Need, ttft: float, tpot: float
) -> Iterator[tuple[str, float, float, float]]:
    yield "prefill_PFLOPS", 1e15, ttft, float(reading.flop_per_s)
    yield "prefill_membw_TBps", 1e6 * MIB, ttft, float(reading.memory_bandwidth)
    yield "decode_TFLOPS", 1e12, tpot, float(writing.flop_per_s)
    yield "decode_membw_TBps", 1e6 * MIB, tpot, float(writing.memory_bandwidth)
    yield "capacity_GB", 1024 * MIB, 1.0, float(writing.capacity)


def _causes(column: str, shape: Shape, prompt: int, beams: int) -> dict[str, float]:
    """Return what leads from their count of a column to ours, in FLOP or bytes."""
    pair = 4 * shape.hidden * shape.layers
    copies = -(beams - 1) * prompt * shape.token_cache if shape.grouped else 0
    distinct = shape.experts * (1 - (1 - shape.chosen / shape.experts) ** beams)
    ends = {"head": HEAD_BYTES * shape.head, "router": HEAD_BYTES * shape.router}
    if column == "prefill_PFLOPS":
        triangle = pair * (prompt * (prompt + 1) / 2 - prompt**2)
        router = 2 * prompt * shape.router
        return {"triangle": triangle, "head": 2 * shape.head, "router": router}
    if column == "prefill_membw_TBps":
        return {"activations": -prompt * shape.widths, **ends}
    if column == "decode_TFLOPS":
        unseen = 0 if shape.grouped else (beams - 1) * prompt * pair
        products = {"head": 2 * beams * shape.head, "router": 2 * beams * shape.router}
        return {"beams": unseen, **products}
    if column == "decode_membw_TBps":
        experts = (distinct - shape.chosen) * shape.expert
        return {"copies": copies, "experts": experts, **ends}
    positions = HEAD_BYTES * shape.positions * shape.hidden
    ends_bytes = HEAD_BYTES * shape.head * (1 if shape.tied else 2) + positions
    return {"copies": copies, "ends": ends_bytes, "router": ends["router"]}


def test_every_cell_is_there() -> None:
    assert len(figures()) == 25 * 5
    assert {figure.model for figure in figures()} == set(SHAPES)


@pytest.mark.parametrize("column", sorted({f.column for f in figures()}))
def test_their_figures_and_the_causes_give_ours(column: str) -> None:
    """All 125, dense and not, to 0.02 %: no cause is missing."""
    for figure in figures():
        if figure.column == column:
            expected = figure.theirs + sum(figure.causes.values())
            assert figure.ours == pytest.approx(expected, rel=2e-4), figure


# Column and main cause: rows more than 5 % apart, and ours over theirs, from and to.
DIFFERING = {
    ("prefill_PFLOPS", "triangle"): (15, 0.78, 0.95),
    ("prefill_membw_TBps", "activations"): (23, 0.19, 0.93),
    ("decode_TFLOPS", "beams"): (10, 1.07, 1.52),
    ("decode_membw_TBps", "copies"): (2, 0.91, 0.93),
    ("decode_membw_TBps", "experts"): (10, 1.65, 2.83),
    ("capacity_GB", "copies"): (2, 0.93, 0.93),
    ("capacity_GB", "ends"): (5, 1.05, 1.08),
}


def _beyond() -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for figure in figures():
        if abs(figure.ratio - 1) > 0.05:
            found.setdefault((figure.column, figure.main_cause), []).append(
                figure.ratio
            )
    return found


def test_what_differs_by_more_than_five_per_cent_is_known() -> None:
    found = {
        key: (len(ratios), round(min(ratios), 2), round(max(ratios), 2))
        for key, ratios in _beyond().items()
    }
    assert found == DIFFERING


SHOWN_IN = {"prefill_PFLOPS": 1e15, "capacity_GB": 1e9}


def _shown(figure: Figure) -> str:
    unit = SHOWN_IN.get(figure.column, 1e12)
    pair = (figure.ours / unit, figure.theirs / unit)
    ours, theirs = (f"{v:,.0f}" if v >= 1000 else f"{v:.3g}" for v in pair)
    cause = f" *{figure.main_cause}*" if abs(figure.ratio - 1) > 0.05 else ""
    return f"{ours} / {theirs}{cause}"


def test_document_shows_every_figure() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for start in range(0, len(figures()), 5):
        row = figures()[start : start + 5]
        cells = (row[0].use_case, row[0].model, *(_shown(each) for each in row))
        assert f"| {' | '.join(cells)} |" in text
    agreeing = sum(abs(figure.ratio - 1) <= 0.05 for figure in figures())
    assert f"{agreeing} of the 125 agree within 5 %" in text


def test_copied_prompts_are_an_option_and_give_their_grouped_figures() -> None:
    """With a copy of the prompt per beam only head and ends are left."""
    llama = catalogue.load_model("llama-3-70b")
    theirs = [f for f in figures() if f.model == "LLaMA3-70B"]
    for use_case, tokens in (("QA + RAG", (10000, 200)), ("QA", (1000, 200))):
        workload = Workload(
            shape=RequestShape(*tokens, beams=4), tpot=0.01, copied_prompt=True
        )
        _, writing = needs(llama, INT8, workload)
        bandwidth, capacity = (
            next(f for f in theirs if f.use_case == use_case and f.column == column)
            for column in ("decode_membw_TBps", "capacity_GB")
        )
        head = HEAD_BYTES * 8192 * 128256
        read = bandwidth.theirs * 0.01 + head
        assert float(writing.bytes_moved) == pytest.approx(read, rel=2e-4)
        kept = capacity.theirs + 2 * head
        assert float(writing.capacity) == pytest.approx(kept, rel=2e-4)


def test_the_extreme_scale_assistant_of_the_paper() -> None:
    """10 T parameters, 2 M tokens, 5 tokens/s: about 40 TB/s and 15 TB, in theirs.

    Their units are 2**20 * 1e6 and 2**40 bytes; theirs has a KV head per head, and
    reads four experts whatever the beams, ours those that 4 beams choose.
    """
    layer = Layer(
        mixer=Attention(num_attention_heads=108, num_key_value_heads=108, head_dim=128),
        ffn=MoeFfn(num_experts=32, num_experts_per_tok=4, moe_intermediate_size=55296),
    )
    arch = ModelArch(
        name="assistant",
        model_type="mixtral",
        hidden_size=13824,
        vocab_size=256000,
        layers=(layer,) * 128,
    )
    file = catalogue.use_case_file("extreme-scale-assistant")
    shape = RequestShape(file.input_tokens, file.output_tokens, beams=file.beams)
    _, writing = needs(arch, INT8, Workload(shape=shape, tpot=file.tpot or 0.0))
    assert float(writing.capacity) / 2**40 == pytest.approx(15, rel=0.02)
    expert = 128 * 3 * 13824 * 55296
    more_experts = 32 * (1 - (1 - 4 / 32) ** 4) - 4
    theirs = (float(writing.bytes_moved) - more_experts * expert) / 0.2
    assert theirs / (MIB * 1e6) == pytest.approx(40, rel=0.02)
