"""From an architecture, a split and a step to the operators of one rank."""

from collections.abc import Iterator

import numpy as np

from model_ops.dtypes import LinearFormat
from model_ops.opcost import Collective, CollectiveKind, Number, Operator
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.ops import Elementwise, Gemm, linear
from model_ops.profiler.work import Lora, Shard, Step


def layer_operators(
    layer: Layer, shard: Shard, step: Step
) -> Iterator[Operator | Collective]:
    """Yield one rank's operators of one layer.

    The norm before each half is fused with the residual add before it and with
    the quantisation after it, as serving frameworks compile them; further norms
    (after the halves) are passes of their own. Where the layer mixes several streams,
    the same pass mixes them, by weights that a product with all of them tells.
    """
    residual = shard.precision.residual.bytes
    rows = shard.rows(step) * shard.hidden_size
    payload = rows * residual
    stream = rows / shard.tp if shard.parallelism.sequence_parallel else rows
    streams = layer.residual_streams
    leading = len(layer.halves) if not layer.parallel_residual else 1
    for position, half in enumerate(layer.halves):
        if position < leading:
            yield Elementwise(
                name="norm",
                elements=stream,
                read=(1 + streams) * residual,
                written=streams * residual + shard.precision.activations.bytes,
            )
            if streams > 1:
                yield _stream_mixing(streams, shard, step)
        for operator in half.operators(shard, step):
            yield operator
            if shard.lora and isinstance(operator, Gemm) and operator.adapted:
                yield from adapter_operators(operator, shard.lora, shard, step)
        if not layer.parallel_residual or position == len(layer.halves) - 1:
            yield from half.closing(shard, payload)
    for _ in range(layer.norms - leading):
        yield Elementwise(name="norm", elements=stream, read=residual, written=residual)


def _stream_mixing(streams: int, shard: Shard, step: Step) -> Gemm:
    """Return the product that tells how streams are merged, spread and mixed."""
    residual = shard.precision.residual
    return Gemm(
        name="stream_mixing",
        m=shard.rows(step),
        k=streams * shard.hidden_size,
        n=(2 + streams) * streams,
        weights=residual,
        inputs=residual,
        outputs=residual,
        engine=residual,
    )


def adapter_operators(
    base: Gemm, lora: Lora, shard: Shard, step: Step
) -> Iterator[Operator]:
    """Yield the two narrow products that adapters add to a linear layer.

    Source: E. Hu et al., "LoRA", 2021; adapters of a batch run in one kernel (L. Chen
    et al., "Punica", 2023), which reads those that the step's sequences use.
    """
    dtype = shard.precision.residual
    used = np.minimum(step.sequences, lora.adapters)
    for name, k, n in (("shrink", base.k, lora.rank), ("expand", lora.rank, base.n)):
        yield Gemm(
            name=f"{base.name}_lora_{name}",
            m=base.m,
            k=k,
            n=n,
            weights=dtype,
            inputs=dtype,
            outputs=dtype,
            engine=dtype,
            matrices=used,
        )


def embedding_operators(
    arch: ModelArch, shard: Shard, step: Step
) -> Iterator[Operator | Collective]:
    """Yield the gather of the token rows and the sum over the vocabulary's ranks.

    A layer that guesses then joins the rows with the model's output, by a projection
    that every rank holds whole in the residual's format (DeepSeek-V3 ``eh_proj``).
    """
    residual = shard.precision.residual.bytes
    gathered = 2 if arch.learned_positions else 1
    stream = shard.rows(step) * shard.hidden_size
    yield Elementwise(
        name="embedding", elements=stream, read=gathered * residual, written=residual
    )
    yield Collective(
        "embedding_all_reduce", CollectiveKind.ALL_REDUCE, stream * residual, shard.tp
    )
    if arch.shares_embedding:
        hidden, dtype = shard.hidden_size, shard.precision.residual
        format_ = LinearFormat(dtype, dtype)
        yield linear("eh_proj", shard, step, k=2 * hidden, n=hidden, format_=format_)


def head_operators(
    arch: ModelArch, shard: Shard, step: Step
) -> Iterator[Operator | Collective]:
    """Yield the final norm, the head on the sampled rows, and the logits' gather."""
    residual = shard.precision.residual
    yield Elementwise(
        name="final_norm",
        elements=shard.rows(step) * shard.hidden_size,
        read=2 * residual.bytes,
        written=residual.bytes,
    )
    yield Gemm(
        name="lm_head",
        m=step.sampled,
        k=shard.hidden_size,
        n=arch.vocab_size / shard.tp,
        weights=residual,
        inputs=residual,
        outputs=residual,
        engine=residual,
    )
    logits = step.sampled * (arch.vocab_size * residual.bytes)
    yield Collective("logits_all_gather", CollectiveKind.ALL_GATHER, logits, shard.tp)


def stage_boundary_operators(shard: Shard, step: Step) -> Iterator[Collective]:
    """Yield what passes between two pipeline stages.

    Each rank sends its share of the stream to its peer, and the receiving ranks
    gather the shares (vLLM ``send_tensor_dict``).
    """
    width = shard.hidden_size * shard.precision.residual.bytes
    stream: Number = shard.rows(step) * width
    npus = shard.parallelism.npus
    yield Collective("stage_send", CollectiveKind.SEND, stream / shard.tp, npus)
    yield Collective("stage_gather", CollectiveKind.ALL_GATHER, stream, shard.tp)
