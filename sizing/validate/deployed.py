"""The deployment that a serving result describes, as the model takes it."""

from dataclasses import dataclass, replace

from model_ops.dtypes import Precision
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.step import Replica
from problems import catalogue
from problems.measured.served import Arrival, Layout, Served
from problems.measured.workloads import Workload, workload
from sizing.validate.layouts import stored, tensor_ranks

_WHOLE = (Arrival.STATIC_BATCH, Arrival.CLOSED_LOOP, Arrival.OPEN_LOOP)
"""Loads whose latency counts: one replica takes all accelerators if none is named."""


@dataclass(frozen=True)
class Deployed:
    """A row's model and NPU, with what its source leaves out filled in."""

    arch: ModelArch
    npu: Npu
    precision: Precision
    layout: Layout
    requests: Workload

    @classmethod
    def of(cls, row: Served) -> "Deployed":
        """Return the deployment of a row.

        Raises
        ------
        GenzSizeError
            If the catalogue lacks something.
        """
        arch = catalogue.load_model(row.model)
        npu = catalogue.load_npu(row.npu)
        if row.framework:
            npu = catalogue.load_npu_under(row.npu, row.framework)
        precision = stored(arch, row.weights, row.kv_cache, npu)
        whole = row.arrival in _WHOLE
        tp = tensor_ranks(row.layout, arch, precision, npu, whole=whole)
        layout = _filled(row.layout, tp)
        if row.attention_dp:
            layout = _by_requests(arch, layout)
        if not _shares_experts(arch, layout):
            layout = replace(layout, ep=None)
        return cls(arch, npu, precision, layout, _requests(row))

    def replica(self, tp: int, dp: int = 1, ep: int = 1, pp: int = 1) -> Replica:
        """Return one replica of the deployment with such degrees."""
        split = Parallelism(tp, pp, ep, dp)
        self.arch.check(split)
        return Replica(self.arch, split, self.precision, Supply.of(self.npu))


def _shares_experts(arch: ModelArch, layout: Layout) -> bool:
    """Return whether the experts can be dealt to as many groups as are stated."""
    tp, pp, ep = layout.tp or 1, layout.pp or 1, layout.ep or 1
    groups = max(1, ep // tp) if ep > tp else 1
    possible = (layout.dp or 1) % groups == 0
    return possible and arch.rule_broken_by(Parallelism(tp, pp, ep, groups)) is None


def _by_requests(arch: ModelArch, layout: Layout) -> Layout:
    """Return the layout with attention split over requests in place of heads.

    Of a dense model, or where experts cannot be dealt so, it stays as it is.
    """
    tp, pp, dp = layout.tp or 1, layout.pp or 1, layout.dp or 1
    split = Parallelism(1, pp, tp, tp)
    if not arch.num_experts or arch.rule_broken_by(split) is not None:
        return layout
    return replace(layout, tp=1, ep=tp, dp=dp * tp)


def _filled(layout: Layout, tp: int) -> Layout:
    """Return the layout with the replicas that fill its accelerators."""
    pp, dp = layout.pp or 1, layout.dp
    each = tp * pp
    if layout.npus > each * (dp or 1) and layout.npus >= each:
        dp = layout.npus // each
    return Layout(each * (dp or 1), tp, pp, layout.ep, dp)


def _requests(row: Served) -> Workload:
    """Return the requests' lengths, at least one token each way.

    A test of decoding alone starts from an empty cache, one of prompts writes nothing.
    """
    known = workload(row.notes)
    prompt, answer = row.input_tokens, row.output_tokens
    return replace(
        known,
        input_tokens=max(known.input_tokens if prompt is None else prompt, 1.0),
        output_tokens=max(known.output_tokens if answer is None else answer, 1.0),
    )
