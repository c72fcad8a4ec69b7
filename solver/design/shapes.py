"""The shapes of every use case: splits, batches, formats, chunks, and their forms."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from model_ops.dtypes import Precision
from model_ops.platform.specification import hypothetical
from model_ops.platform.supply import Supply
from model_ops.profiler.parallelism import Parallelism, stacked
from model_ops.serving.steady_state import Mix, Waits, batch_cap
from model_ops.serving.step import Replica
from problems.design.statement import BATCHES, DesignProblem, DesignUseCase
from solver.design.forms import Forms
from solver.design.steps import StepForms
from solver.layouts import layouts

Floats = npt.NDArray[np.float64]


STAGES = (1, 2, 4, 8)
"""Pipeline stages that are tried."""


MOST_SEQUENCES = 1024.0
"""Answers that an engine writes at once at most, however many would fit."""

MOST_SPLITS = 48
"""Splits of a model that are tried at most: the smaller ones first."""


def forms_of(problem: DesignProblem) -> list[Forms]:
    """Return the shapes of every use case, in groups of like ones."""
    return [
        forms
        for number, use_case in enumerate(problem.use_case)
        for precision in use_case.formats()
        for chunk in use_case.chunks(problem.framework)
        for pp in STAGES
        if (forms := _forms(problem, number, precision, chunk, pp)) is not None
    ]


def _splits(use_case: DesignUseCase, pp: int) -> list[Parallelism]:
    arch = use_case.arch
    legal = [s for s in layouts(arch, (pp,)) if arch.rule_broken_by(s) is None]
    return legal[:MOST_SPLITS]


def _forms(
    problem: DesignProblem, number: int, precision: Precision, chunk: int, pp: int
) -> Forms | None:
    """Return the shapes of some stages; None where there is none."""
    use_case = problem.use_case[number]
    pairs = [
        (split, batch)
        for split in _splits(use_case, pp)
        for batch in use_case.batches or BATCHES
    ]
    if not pairs:
        return None
    splits, batches = zip(*pairs, strict=True)
    batch = np.array(batches, dtype=float)
    npu = hypothetical(problem.base_npu, problem.today)
    layout = replace(stacked(splits), pp=pp)
    replica = Replica(use_case.arch, layout, precision, Supply.of(npu))
    shape = use_case.shape
    mix = Mix.of(replica.schedule, shape, batch, chunk)
    sequences = batch_cap(batch, layout.dp)
    need = replica.footprint(shape, sequences, chunk).total
    capacity = (need + npu.runtime_reserve) / npu.memory_usable
    usable = (np.asarray(mix.prompt_load) < 1.0) & (
        sequences / layout.dp <= MOST_SEQUENCES / use_case.beams
    )
    mixed = StepForms.of(problem, replica, mix.mixed_step(shape), len(batch))
    plain = StepForms.of(problem, replica, mix.decode_step(shape), len(batch))
    # Of a plain step only the stages count: times their number they are longer.
    first = 1 if pp == 1 else len(mixed.constants)
    forms = mixed.paths(slice(first)).beside(plain.paths(slice(1, None))).merged()
    wide, narrow = (
        np.any(each > 0, axis=0) for each in (forms.compute, forms.compute_8bit)
    )
    busy, idle = np.flatnonzero(wide | narrow), np.flatnonzero(~(wide | narrow))
    busy = busy[np.argsort(narrow[busy], kind="stable")]
    kept = np.flatnonzero(np.broadcast_to(usable, batch.shape))
    if not len(kept):
        return None
    waits = Waits.of(mix, shape, batch)
    return Forms(
        use_case=number,
        precision=precision,
        chunk_tokens=chunk,
        splits=tuple(splits[i] for i in kept),
        batch=batch[kept],
        npus=np.array([int(splits[i].npus) for i in kept], dtype=float),
        memory=np.broadcast_to(capacity, batch.shape)[kept],
        compute=forms.compute[kept][:, busy],
        compute_8bit=forms.compute_8bit[kept][:, busy],
        traffic=forms.traffic[kept][:, busy],
        tiles=forms.tiles[kept][:, busy],
        sweeps=forms.sweeps[kept][:, busy],
        streamed=forms.operator_weights[:, idle] @ forms.traffic[kept][:, idle].T,
        lines=forms.lines[:, kept],
        operator_weights=forms.operator_weights[:, busy],
        collective_weights=forms.collective_weights,
        constants=forms.constants[:, kept],
        mixed=(0,) if pp == 1 else tuple(range(1, first)),
        plain=tuple(range(first, len(forms.constants))),
        waits=Waits(
            *(
                np.broadcast_to(getattr(waits, name), batch.shape)[kept]
                for name in ("share", "running", "queued", "chunks")
            )
        ),
        stages=pp,
    )
