"""Reader of Kimi Linear and Kimi K3: delta attention and some latent attention."""

from model_ops.profiler.arch import Mixer, ModelArch
from model_ops.profiler.hf_config.deepseek import latent_attention
from model_ops.profiler.hf_config.experts import (
    experts,
    mixed,
    predictors,
    shared_experts,
    sparse_layers,
    stack,
)
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import decoder
from model_ops.profiler.linear_attention import KimiDeltaAttention
from model_ops.profiler.moe import MoeFfn


def kimi_linear(fields: Fields) -> ModelArch:
    """Latent attention where ``full_attn_layers`` says, first layers dense, experts.

    Kimi K3 mixes earlier blocks' streams into each half's input (attention
    residuals): a norm and a vector before each half and before the head.
    """
    hidden = fields.count("hidden_size")
    residuals = fields.count("attn_res_block_size", default=0) > 0
    layers = stack(
        _mixers(fields),
        mixed(fields, sparse_layers(fields), _experts(fields)),
        extra_parameters=4 * hidden if residuals else 0,
    )
    longest = fields.get("max_position_embeddings", fields.get("model_max_length"))
    return decoder(
        fields.given(max_position_embeddings=longest),
        layers,
        predictors=predictors(fields, layers[-1]),
        extra_parameters=3 * hidden if residuals else hidden,
    )


def _mixers(fields: Fields) -> list[Mixer]:
    own = fields.part("linear_attn_config")
    layers = fields.count("num_hidden_layers")
    chosen = own.get("full_attn_layers")
    if not isinstance(chosen, list):
        raise own.wrong("full_attn_layers", "must list layers, the first being 1")
    full, delta = latent_attention(fields), _delta_attention(own)
    return [full if index + 1 in chosen else delta for index in range(layers)]


def _delta_attention(own: Fields) -> KimiDeltaAttention:
    return KimiDeltaAttention(
        num_heads=own.count("num_heads"),
        head_dim=own.count("head_dim"),
        short_conv_kernel_size=own.count("short_conv_kernel_size"),
        full_rank_gate=own.flag("use_full_rank_gate"),
    )


def _experts(fields: Fields) -> MoeFfn:
    latent = fields.count("routed_expert_hidden_size", default=0) or None
    normed = latent is not None and fields.flag("latent_moe_use_norm")
    return experts(
        fields,
        shared=shared_experts(fields, "num_shared_experts"),
        latent_size=latent,
        routing_bias=True,
        extra_parameters=(latent or 0) if normed else 0,
    )
