"""Readers of families whose every layer is attention and, mostly, experts."""

from model_ops.profiler.arch import ModelArch
from model_ops.profiler.hf_config.experts import (
    experts,
    mixed,
    predictors,
    shared_expert,
    shared_experts,
    sparse_layers,
    stack,
    stepped_layers,
)
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import (
    attention,
    decoder,
    whole_qk_norms,
    windowed,
)


def mixtral(fields: Fields) -> ModelArch:
    """Llama with experts of the width of ``intermediate_size`` in every layer."""
    mixers = windowed(fields, attention(fields))
    moe = experts(fields, width="intermediate_size")
    return decoder(fields, stack(mixers, [moe] * len(mixers)))


def qwen2_moe(fields: Fields) -> ModelArch:
    """Biases on q, k and v; a gated shared expert beside the routed ones."""
    biased = fields.flag("qkv_bias", default=True)
    mixers = windowed(fields, attention(fields, qkv_bias=biased))
    moe = experts(
        fields,
        shared=shared_expert(fields, "shared_expert_intermediate_size"),
        extra_parameters=fields.count("hidden_size"),
    )
    return decoder(fields, stack(mixers, mixed(fields, stepped_layers(fields), moe)))


def qwen3_moe(fields: Fields) -> ModelArch:
    """Norms on the heads of q and k; no shared expert."""
    biased = fields.flag("attention_bias")
    full = attention(fields, qkv_bias=biased, output_bias=biased, qk_norm=True)
    ffns = mixed(fields, stepped_layers(fields), experts(fields))
    return decoder(fields, stack(windowed(fields, full), ffns))


def olmoe(fields: Fields) -> ModelArch:
    """Norms over all heads of q and of k; experts of ``intermediate_size``."""
    biased = fields.flag("attention_bias")
    mixer = whole_qk_norms(attention(fields, qkv_bias=biased, output_bias=biased))
    moe = experts(fields, width="intermediate_size")
    layers = fields.count("num_hidden_layers")
    return decoder(fields, stack([mixer] * layers, [moe] * layers))


def phimoe(fields: Fields) -> ModelArch:
    """LayerNorms and biases on all of attention; a head with a bias."""
    biased = fields.flag("attention_bias")
    mixer = attention(fields, qkv_bias=biased, output_bias=biased)
    mixers = windowed(fields, mixer)
    moe = experts(fields, width="intermediate_size")
    head_bias = fields.count("vocab_size") if fields.flag("lm_head_bias") else 0
    return decoder(
        fields,
        stack(mixers, [moe] * len(mixers), norm_bias=True),
        extra_parameters=2 * fields.count("hidden_size") + head_bias,
    )


def dbrx(fields: Fields) -> ModelArch:
    """LayerNorms without bias; fields under names and in parts of their own."""
    own, ffn = fields.part("attn_config"), fields.part("ffn_config")
    renamed = fields.given(
        hidden_size=fields.count("d_model", "hidden_size"),
        num_attention_heads=fields.count("n_heads", "num_attention_heads"),
        num_key_value_heads=own.count("kv_n_heads", default=1),
        max_position_embeddings=fields.get("max_seq_len"),
    )
    layers = fields.count("n_layers", "num_hidden_layers")
    moe = experts(ffn, width="ffn_hidden_size")
    mixers = [attention(renamed)] * layers
    return decoder(renamed, stack(mixers, [moe] * layers))


def grok(fields: Fields) -> ModelArch:
    """Grok-1: experts of ``intermediate_size``, norms before and behind each half."""
    layers = fields.count("num_hidden_layers")
    moe = experts(fields, width="intermediate_size")
    stacked = stack([attention(fields)] * layers, [moe] * layers, norms=4)
    return decoder(fields, stacked, tied=True)


def glm4_moe(fields: Fields) -> ModelArch:
    """GLM-4.5: first layers dense, a shared expert, a bias that corrects routing."""
    mixer = attention(
        fields,
        qkv_bias=fields.flag("attention_bias"),
        qk_norm=fields.flag("use_qk_norm"),
    )
    moe = experts(
        fields, shared=shared_experts(fields, "n_shared_experts"), routing_bias=True
    )
    sparse = sparse_layers(fields)
    layers = stack([mixer] * len(sparse), mixed(fields, sparse, moe))
    return decoder(fields, layers, predictors=predictors(fields, layers[-1]))


def granitemoe(fields: Fields) -> ModelArch:
    """Granite 3: experts of ``intermediate_size``, in some a shared expert."""
    biased = fields.flag("attention_bias")
    mixer = attention(fields, qkv_bias=biased, output_bias=biased)
    moe = experts(
        fields,
        width="intermediate_size",
        shared=shared_expert(fields, "shared_intermediate_size"),
    )
    layers = fields.count("num_hidden_layers")
    return decoder(fields, stack([mixer] * layers, [moe] * layers))
