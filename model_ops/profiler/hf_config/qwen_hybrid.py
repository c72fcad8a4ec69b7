"""Readers of Qwen3-Next and Qwen3.5: gated delta nets and some full attention."""

from model_ops.profiler.arch import Ffn, Layer, Mixer, ModelArch
from model_ops.profiler.hf_config.experts import (
    dense,
    experts,
    mixed,
    predictors,
    shared_expert,
    stack,
    stepped_layers,
)
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.mamba import ssm_dtype
from model_ops.profiler.hf_config.shared import attention, decoder
from model_ops.profiler.linear_attention import GatedDeltaNet

_PREDICTORS = ("mtp_num_hidden_layers", "num_nextn_predict_layers")


def qwen_hybrid(fields: Fields) -> ModelArch:
    """Dense Qwen3.5."""
    return _model(fields, [dense(fields)] * fields.count("num_hidden_layers"))


def qwen_hybrid_moe(fields: Fields) -> ModelArch:
    """Qwen3-Next and Qwen3.5 with experts, and a gated shared one beside them."""
    moe = experts(
        fields,
        shared=shared_expert(fields, "shared_expert_intermediate_size"),
        extra_parameters=fields.count("hidden_size"),
    )
    return _model(fields, mixed(fields, stepped_layers(fields), moe))


def _model(fields: Fields, ffns: list[Ffn]) -> ModelArch:
    biased = fields.flag("attention_bias")
    full = attention(
        fields,
        qkv_bias=biased,
        output_bias=biased,
        qk_norm=True,
        output_gate=fields.flag("attn_output_gate", default=True),
    )
    known: dict[str, Mixer] = {
        "full_attention": full,
        "linear_attention": _delta_net(fields),
    }
    mixers = [known[kind] for kind in _kinds(fields, known)]
    guess = Layer(mixer=full, ffn=ffns[-1])
    return decoder(
        fields, stack(mixers, ffns), predictors=predictors(fields, guess, *_PREDICTORS)
    )


def _kinds(fields: Fields, known: dict[str, Mixer]) -> list[str]:
    """Return each layer's kind: by default full attention in every fourth."""
    layers = fields.count("num_hidden_layers")
    if fields.get("layer_types") is not None:
        return fields.kinds("layer_types", layers, known)
    period = fields.count("full_attention_interval", default=4)
    return [
        "linear_attention" if (index + 1) % period else "full_attention"
        for index in range(layers)
    ]


def _delta_net(fields: Fields) -> GatedDeltaNet:
    return GatedDeltaNet(
        linear_num_key_heads=fields.count("linear_num_key_heads"),
        linear_num_value_heads=fields.count("linear_num_value_heads"),
        linear_key_head_dim=fields.count("linear_key_head_dim"),
        linear_value_head_dim=fields.count("linear_value_head_dim"),
        linear_conv_kernel_dim=fields.count("linear_conv_kernel_dim"),
        ssm_dtype=ssm_dtype(fields),
    )
