"""The tables of docs/studies.md about platforms: figures, architectures, domains.

Run: ``python tests/benchmarks/platform_studies.py``; ten seconds. What the commands
`design` and `size` say of the same questions they print themselves.
"""

from collections.abc import Iterator
from dataclasses import replace

import click

from model_ops.dtypes import Precision
from model_ops.estimate import Load, LoadMode, estimate
from model_ops.platform.specification import Specification, hypothetical
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape
from model_ops.serving.step import Replica
from problems import catalogue
from problems.design.parameters import PARAMETERS

CASES = ("question-answering", "chat", "rag", "summarization", "code-generation")
SCALED = (
    "flop_per_s",
    "memory_bandwidth",
    "scale_up_bandwidth",
    "scale_up_latency",
)
BASE, MODEL, RANKS = "h200-sxm", "llama-3-70b", 8

ARCHITECTURES = (
    ("h100-sxm", "bf16", Parallelism(1)),
    ("b200-sxm", "bf16", Parallelism(1)),
    ("sn40l", "bf16", Parallelism(8)),
    ("wse-3", "fp16", Parallelism(1)),
    ("groq-lpu-v1", "int8", Parallelism(8, 32)),
)

DOMAINS = (8, 12, 24, 48)


def main() -> None:
    """Print the tables."""
    for title, columns, rows in (
        ("Twice each figure", ("use case", *SCALED), scaled()),
        (
            "One request",
            ("NPU", "NPUs", "TTFT ms", "TPOT ms", "power"),
            architectures(),
        ),
        ("Domains", ("tp", "switch ms", "ring ms", "3D torus ms"), domains()),
    ):
        click.echo(f"{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for row in rows:
            click.echo(f"| {' | '.join(row)} |")
        click.echo("")


def scaled() -> Iterator[list[str]]:
    """Yield what twice a figure (half a latency) makes of TTFT and TPOT."""
    arch, base = catalogue.load_model(MODEL), catalogue.load_npu(BASE)
    today = Specification.of(base)

    def latencies(case: str, chosen: Specification) -> tuple[float, float]:
        supply = Supply.of(hypothetical(base, chosen))
        replica = Replica(arch, Parallelism(RANKS), arch.precision, supply)
        known = catalogue.use_case_file(case)
        shape = RequestShape(known.input_tokens, known.output_tokens, 0, known.beams)
        found = estimate(replica, Load(shape, LoadMode.STATIC_BATCH, 1))
        return float(found.ttft), float(found.tpot)

    for case in CASES:
        before = latencies(case, today)
        row = [case]
        for name in SCALED:
            factor = 0.5 if PARAMETERS[name].falling else 2.0
            more = {name: getattr(today, name) * factor}
            if name == "flop_per_s":
                more["flop_per_s_8bit"] = today.flop_per_s_8bit * factor
            after = latencies(case, replace(today, **more))
            gain = [new / old - 1 for new, old in zip(after, before, strict=True)]
            row.append(f"{gain[0]:+.0%}, {gain[1]:+.0%}")
        yield row


def architectures() -> Iterator[list[str]]:
    """Yield the latencies of one request of question answering on each."""
    arch = catalogue.load_model("llama-3.1-8b")
    for name, precision, split in ARCHITECTURES:
        supply = Supply.of(catalogue.load_npu(name))
        replica = Replica(arch, split, Precision.of(precision), supply)
        load = Load(RequestShape(1000, 200), LoadMode.STATIC_BATCH, 1)
        found = estimate(replica, load)
        power = catalogue.load_npu(name).power
        watts = "" if power is None else f"{power * split.npus / 1e3:.1f} kW"
        yield [
            name,
            str(int(split.npus)),
            f"{float(found.ttft) * 1e3:.1f}",
            f"{float(found.tpot) * 1e3:.2f}",
            watts,
        ]


def domains() -> Iterator[list[str]]:
    """Yield milliseconds per token of a dense 5 T model, by domain and topology."""
    arch, base = catalogue.load_model("dense-5t"), catalogue.load_npu("b200-sxm")
    today = Specification.of(base)
    for ranks in DOMAINS:
        row = [str(ranks)]
        for axes in (None, 1, 3):
            npu = hypothetical(base, replace(today, scale_up_npus=ranks))
            inner, *outer = npu.fabric.tiers
            if axes is not None:
                inner = replace(inner, direct=False, dimensions=axes)
            tiers = (inner, *outer)
            npu = replace(npu, fabric=replace(npu.fabric, tiers=tiers))
            split = Parallelism(ranks, max(96 // ranks, 1))
            replica = Replica(arch, split, Precision.of("fp8-kv8"), Supply.of(npu))
            load = Load(RequestShape(3000, 1000), LoadMode.STATIC_BATCH, 16)
            row.append(f"{float(estimate(replica, load).tpot) * 1e3:.1f}")
        yield row


if __name__ == "__main__":
    main()
