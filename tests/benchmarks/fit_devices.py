"""Fit profiles of NPUs whose kernels nobody measured to measured serving results.

Run: ``python tests/benchmarks/fit_devices.py [E2E.csv.gz] [PROFILE...]`` (the results
that come with the project, all profiles; minutes a profile). Each profile of
`problems/catalogue/efficiencies/` has few parameters, named in `FITS`; a search in
their logarithms minimises the median ``|ln(predicted / measured)|`` of each group of
results and figure, groups alike. It prints parameters beside results, and errors: as
the files are, fitted, of groups left out and of devices left out.

The files hold the parameters rounded, and where a fit says what no hardware does
(``docs/efficiencies.md``) an assumption instead.
"""

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from model_ops.opcost import KernelFamily
from problems import catalogue
from problems.catalogue.schema import EfficiencyFile
from problems.measured.names import engine_name, npu_name
from problems.measured.shipped import FOLDER
from problems.measured.tables import Row, read_table
from sizing.validate.served import answers

FOLDS = 4
ROWS_OF_A_FIGURE = 8
"""Results that a figure of a group is thinned to."""

SWEEPS = 4
SHARE = (0.003, 0.95)
LAUNCH = (1e-6, 5e-4)
STEP = (1e-4, 2e-2)

KERNELS = ("gemm", "attention_prefill", "attention_decode", "elementwise")


@dataclass(frozen=True)
class Fit:
    """What is fitted of a profile, to which results.

    Parameters
    ----------
    engine
        Its results alone, and the stack that holds the kernels; blank for all engines
        that have no stack there, and the kernels of the profile itself.
    figures
        ``family.figure``, ``launch`` (of every kernel) or a figure of the profile.
    """

    profile: str
    engine: str
    figures: tuple[str, ...]


_LLAMA = (
    "gemm.compute",
    "gemm.memory",
    "attention_prefill.compute",
    "attention_decode.memory",
)
_V0 = (
    "gemm.compute",
    "gemm.memory",
    "attention_prefill.compute",
    "attention_decode.compute",
    "launch",
    "link_efficiency",
)
FITS = (
    Fit("amd-cdna", "vllm-v0", _V0),
    Fit("amd-cdna2", "vllm-v0", _V0),
    Fit("intel-max", "", ("gemm.compute", "launch", "link_efficiency")),
    Fit(
        "amd-cdna",
        "",
        (
            "gemm.by_dtype.fp8.compute",
            "gemm.by_dtype.fp8.memory",
            "moe.by_dtype.fp8.compute",
            "moe.by_dtype.fp8.memory",
        ),
    ),
    Fit("huawei-ascend", "", ("gemm.memory", "launch")),
    Fit("aws-neuron", "", (*_LLAMA, "link_efficiency", "step_overhead")),
    Fit("google-tpu", "", ("gemm.memory", "attention_decode.memory")),
    Fit("cpu", "", ("gemm.compute", "gemm.by_dtype.int8.compute")),
    *(
        Fit(profile, "llama-cpp", _LLAMA)
        for profile in (
            "nvidia-ampere",
            "nvidia-ampere-gddr",
            "nvidia-ampere-geforce",
            "nvidia-ada",
            "nvidia-ada-geforce",
            "nvidia-hopper",
            "apple-silicon",
        )
    ),
)


def bounds(figure: str) -> tuple[float, float]:
    """Return the least and the greatest value of a figure."""
    return {"launch": LAUNCH, "step_overhead": STEP}.get(figure, SHARE)


def in_seconds(figure: str) -> bool:
    """Return whether files state a figure with its unit."""
    return figure.endswith(("launch", "step_overhead"))


def places(fit: Fit, profile: Mapping[str, Any], figure: str) -> list[tuple[str, ...]]:
    """Return where a figure stands in a profile's file."""
    kernels = ("stacks", fit.engine) if fit.engine else ("kernels",)
    if figure == "launch":
        return [(*kernels, family, figure) for family in KERNELS]
    if figure.split(".")[0] in set(KernelFamily):
        return [(*kernels, *figure.split("."))]
    return [(figure,)]


def value_of(profile: Mapping[str, Any], place: Sequence[str]) -> float:
    """Return a figure of a profile's file, in SI units."""
    found: Any = profile
    for key in place:
        found = found[key]
    if isinstance(found, str):
        number, unit = found.split()
        return float(number) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[unit]
    return float(found)


@contextmanager
def trial(fit: Fit, values: Mapping[str, float]) -> Iterator[None]:
    """Let the catalogue hold other figures of one profile."""
    content = deepcopy(dict(catalogue.raw("efficiencies", fit.profile)))
    for figure, value in values.items():
        stated = f"{value!r} s" if in_seconds(figure) else value
        for place in places(fit, content, figure):
            holder = content
            for key in place[:-1]:
                holder = holder[key]
            holder[place[-1]] = stated
    changed = EfficiencyFile.model_validate(content, context={"source": "file"})
    usual = catalogue.efficiency_file
    with mock.patch.object(
        catalogue,
        "efficiency_file",
        lambda name: changed if name == fit.profile else usual(name),
    ):
        forget()
        yield
    forget()


def forget() -> None:
    """Let the catalogue read its NPUs anew."""
    for known in ("load_npu", "load_npu_under", "_bare", "_efficiency"):
        getattr(catalogue, known).cache_clear()


def usable(rows: Sequence[Row], fit: Fit) -> list[Row]:
    """Return the results that a profile is fitted to, some of each figure."""
    stacks = catalogue.efficiency_file(fit.profile).stacks
    kept: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        tail = row["stat"] in ("p90", "p99") or row["metric"] == "itl_ms"
        served = row["load_mode"] == "poisson_server" and row["metric"] != "tpot_ms"
        if tail or served or row["trust"] not in "AB":
            continue
        if catalogue.npu_file(npu_name(row["hardware"])).efficiency != fit.profile:
            continue
        engine = engine_name(row["framework"], row.get("date", ""))
        if engine == fit.engine if fit.engine else engine not in stacks:
            kept[row["group_id"], row["metric"]].append(row)
    drawn = np.random.default_rng(0)
    return [
        rows[number]
        for rows in kept.values()
        for number in drawn.permutation(len(rows))[:ROWS_OF_A_FIGURE]
    ]


def score(rows: Sequence[Row]) -> float:
    """Return the mean over groups and figures of the median error."""
    errors: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row, answer in zip(rows, answers(rows), strict=True):
        if answer.given:
            ratio = answer.predicted / float(row["value"])
            errors[row["group_id"], row["metric"]].append(abs(float(np.log(ratio))))
    return float(np.mean([np.median(each) for each in errors.values()]))


def fitted(fit: Fit, rows: Sequence[Row]) -> dict[str, float]:
    """Return the figures that leave the least error: one after the other, in turns."""
    profile = catalogue.raw("efficiencies", fit.profile)
    best = {f: value_of(profile, places(fit, profile, f)[0]) for f in fit.figures}
    steps = dict.fromkeys(fit.figures, 0.5)

    def loss(values: Mapping[str, float]) -> float:
        with trial(fit, values):
            return score(rows)

    least = loss(best)
    for figure in fit.figures * SWEEPS:
        before = least
        for factor in (np.exp(steps[figure]), np.exp(-steps[figure])):
            while True:
                moved = float(np.clip(best[figure] * factor, *bounds(figure)))
                now = loss({**best, figure: moved})
                if now >= least - 1e-5:
                    break
                best, least = {**best, figure: moved}, now
        if least == before:
            steps[figure] /= 2.0
    return best


def left_out(fit: Fit, rows: Sequence[Row], key: str) -> float:
    """Return the error of groups, or of devices, that the fit had not seen."""
    kinds = list(dict.fromkeys(row[key] for row in rows))
    if len(kinds) < 2:
        return float("nan")
    folds = min(FOLDS, len(kinds))
    errors = []
    for number in range(folds):
        out = set(kinds[number::folds])
        found = fitted(fit, [row for row in rows if row[key] not in out])
        with trial(fit, found):
            errors.append(score([row for row in rows if row[key] in out]))
    return float(np.mean(errors))


def main(path: Path, chosen: Sequence[str]) -> None:
    """Print each profile's parameters and errors."""
    table = read_table(path).rows
    for fit in FITS:
        rows = usable(table, fit)
        if not rows or (chosen and fit.profile not in chosen):
            continue
        found = fitted(fit, rows)
        with trial(fit, found):
            error = score(rows)
        figures = "; ".join(f"{name} {value:.3g}" for name, value in found.items())
        groups = len({row["group_id"] for row in rows})
        print(  # noqa: T201
            f"{fit.profile} {fit.engine}: {len(found)} parameters, {len(rows)} "
            f"results of {groups} groups; error {score(rows):.3f} as it is, "
            f"{error:.3f} fitted, "
            f"{left_out(fit, rows, 'group_id'):.3f} groups left out, "
            f"{left_out(fit, rows, 'hardware'):.3f} devices left out\n    {figures}",
            flush=True,
        )


if __name__ == "__main__":
    given = sys.argv[1:]
    tables = [Path(text) for text in given if text.endswith((".csv", ".gz"))]
    main(
        tables[0] if tables else FOLDER / "e2e.csv.gz",
        [text for text in given if not text.endswith((".csv", ".gz"))],
    )
