"""Readers of families that mix windowed or chunked with full attention, and experts."""

from dataclasses import replace

from model_ops.profiler.arch import ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.hf_config.experts import (
    dense,
    experts,
    mixed,
    predictors,
    shared_expert,
    shared_experts,
    sparse_layers,
    stack,
)
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import attention, decoder, windowed


def gpt_oss(fields: Fields) -> ModelArch:
    """Sinks, biases everywhere, and a window on every other layer."""
    biased = fields.flag("attention_bias", default=True)
    heads = fields.count("num_attention_heads")
    full = attention(
        fields, qkv_bias=biased, output_bias=biased, extra_parameters=heads
    )
    moe = experts(fields, width="intermediate_size", bias=True)
    # The family's code alternates where the config leaves the layers' types out.
    named = fields.given(sliding_window_pattern=fields.get("sliding_window_pattern", 2))
    mixers = windowed(named, full)
    return decoder(fields, stack(mixers, [moe] * len(mixers)))


def llama4(fields: Fields) -> ModelArch:
    """Chunked attention on most layers, the others full and without positions."""
    layers = fields.count("num_hidden_layers")
    biased = fields.flag("attention_bias")
    near = attention(
        fields,
        qkv_bias=biased,
        output_bias=biased,
        chunk_size=fields.count("attention_chunk_size", default=8192),
    )
    far = replace(near, chunk_size=None, rotary=False)
    moe = experts(
        fields,
        width="intermediate_size",
        shared=shared_expert(fields, "intermediate_size"),
    )
    plain = dense(fields, "intermediate_size_mlp")
    mixers = [near if each else far for each in _llama4_near(fields, layers)]
    ffns = [moe if each else plain for each in _llama4_sparse(fields, layers)]
    return decoder(fields, stack(mixers, ffns))


def _llama4_near(fields: Fields, layers: int) -> list[bool]:
    """Return which layers attend in chunks: three of four where nothing tells."""
    if fields.get("layer_types") is not None:
        known = ("chunked_attention", "full_attention")
        kinds = fields.kinds("layer_types", layers, known)
        return [kind == "chunked_attention" for kind in kinds]
    if fields.get("no_rope_layers"):
        return [kind == 1 for kind in fields.kinds("no_rope_layers", layers, (0, 1))]
    period = fields.count("no_rope_layer_interval", default=4)
    return [(index + 1) % period != 0 for index in range(layers)]


def _llama4_sparse(fields: Fields, layers: int) -> list[bool]:
    chosen = fields.get("moe_layers")
    if chosen is not None:
        if not isinstance(chosen, list):
            raise fields.wrong("moe_layers", "must be a list of layers")
        return [index in chosen for index in range(layers)]
    step = fields.count("interleave_moe_layer_step", default=1)
    return [(index + 1) % step == 0 for index in range(layers)]


def mimo_v2(fields: Fields) -> ModelArch:
    """Value heads narrower than key heads; windowed layers have sinks and own heads."""
    layers = fields.count("num_hidden_layers")
    full = _mimo_attention(fields, fields.flag("add_full_attention_sink_bias"))
    keys = ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim")
    own = {key: fields.get(f"swa_{key}", fields.get(key)) for key in keys}
    near = replace(
        _mimo_attention(
            fields.given(**own), fields.flag("add_swa_attention_sink_bias")
        ),
        sliding_window=fields.count("sliding_window", "sliding_window_size"),
    )
    kinds = fields.kinds("hybrid_layer_pattern", layers, (0, 1))
    moe = experts(
        fields,
        shared=shared_experts(fields, "n_shared_experts"),
        routing_bias=fields.get("topk_method") == "noaux_tc",
    )
    stacked = stack(
        [near if kind else full for kind in kinds],
        mixed(fields, sparse_layers(fields), moe),
    )
    # A predictor is a windowed layer with a dense feed-forward.
    guess = stack([near], [dense(fields)])[0]
    return decoder(fields, stacked, predictors=predictors(fields, guess))


def _mimo_attention(fields: Fields, sinks: bool) -> Attention:
    biased = fields.flag("attention_bias")
    heads = fields.count("num_attention_heads")
    return attention(
        fields,
        v_head_dim=fields.count("v_head_dim"),
        qkv_bias=biased,
        extra_parameters=heads if sinks else 0,
    )


def step3p7(fields: Fields) -> ModelArch:
    """Step 3.5 and later: windowed layers with more heads, a gate on each head."""
    layers = fields.count("num_hidden_layers")
    usual = fields.given(
        num_key_value_heads=fields.count("num_key_value_heads", "num_attention_groups")
    )
    full = _step_attention(usual)
    near = replace(
        _step_attention(usual.given(num_attention_heads=_step_near_heads(fields))),
        sliding_window=fields.count("sliding_window"),
    )
    known = {"full_attention": full, "sliding_attention": near}
    guessed = fields.count("num_nextn_predict_layers", default=0, least=0)
    mixers = [
        known[kind] for kind in fields.kinds("layer_types", layers, known, guessed)
    ]
    moe = experts(
        fields,
        shared=shared_expert(fields, "share_expert_dim"),
        routing_bias=fields.flag("use_moe_router_bias"),
    )
    stacked = stack(mixers, mixed(fields, sparse_layers(fields), moe))
    guess = stack([near], [dense(fields)])[0]
    return decoder(fields, stacked, predictors=(guess,) * guessed)


def _step_near_heads(fields: Fields) -> int:
    """Return the query heads of windowed layers; as many as elsewhere by default."""
    given = fields
    if fields.get("attention_other_setting") is not None:
        given = fields.part("attention_other_setting")
    return given.count("num_sliding_attention_heads", "num_attention_heads")


def _step_attention(fields: Fields) -> Attention:
    gated = fields.flag("use_head_wise_attn_gate", default=True)
    gates = fields.count("hidden_size") * fields.count("num_attention_heads")
    return attention(fields, qk_norm=True, extra_parameters=gates if gated else 0)
