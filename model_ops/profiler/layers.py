"""From an architecture, a split and a step to the operators of one rank."""

from collections.abc import Iterator

from model_ops.opcost import Collective, CollectiveKind, Number, Operator
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.ops import Elementwise, Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Shard, Step


def layer_operators(
    layer: Layer, shard: Shard, step: Step
) -> Iterator[Operator | Collective]:
    """Yield one rank's operators of one layer.

    The norm before each half is fused with the residual add before it and with
    the quantisation after it, as serving frameworks compile them; further norms
    (after the halves) are passes of their own.
    """
    residual = shard.precision.residual.bytes
    stream = step.tokens * shard.hidden_size
    payload = stream * residual
    leading = len(layer.halves) if not layer.parallel_residual else 1
    for position, half in enumerate(layer.halves):
        if position < leading:
            yield Elementwise(
                name="norm",
                elements=stream,
                read=2 * residual,
                written=residual + shard.precision.activations.bytes,
            )
        yield from half.operators(shard, step)
        if not layer.parallel_residual or position == len(layer.halves) - 1:
            # The ranks' partial outputs are summed.
            name = f"{half.name}_all_reduce"
            yield Collective(name, CollectiveKind.ALL_REDUCE, payload, shard.tp)
    for _ in range(layer.norms - leading):
        yield Elementwise(name="norm", elements=stream, read=residual, written=residual)


def embedding_operators(
    arch: ModelArch, shard: Shard, step: Step
) -> Iterator[Operator | Collective]:
    """Yield the gather of the token rows and the sum over the vocabulary's ranks."""
    residual = shard.precision.residual.bytes
    gathered = 2 if arch.learned_positions else 1
    stream = step.tokens * shard.hidden_size
    yield Elementwise(
        name="embedding", elements=stream, read=gathered * residual, written=residual
    )
    yield Collective(
        "embedding_all_reduce", CollectiveKind.ALL_REDUCE, stream * residual, shard.tp
    )


def head_operators(
    arch: ModelArch, shard: Shard, step: Step
) -> Iterator[Operator | Collective]:
    """Yield the final norm, the head on the sampled rows, and the logits' gather."""
    residual = shard.precision.residual
    yield Elementwise(
        name="final_norm",
        elements=step.tokens * shard.hidden_size,
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


def stage_boundary_operators(
    shard: Shard, step: Step, parallelism: Parallelism
) -> Iterator[Collective]:
    """Yield what passes between two pipeline stages.

    Each rank sends its share of the stream to its peer, and the receiving ranks
    gather the shares (vLLM ``send_tensor_dict``).
    """
    stream: Number = step.tokens * (shard.hidden_size * shard.precision.residual.bytes)
    yield Collective(
        "stage_send", CollectiveKind.SEND, stream / shard.tp, parallelism.npus
    )
    yield Collective("stage_gather", CollectiveKind.ALL_GATHER, stream, shard.tp)
