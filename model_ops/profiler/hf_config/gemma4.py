"""Reader of Gemma 4: windowed and full layers of different heads, experts in some."""

from dataclasses import replace

from model_ops.profiler.arch import Ffn, Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.hf_config.experts import dense, experts
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import attention, decoder


def gemma4(fields: Fields) -> ModelArch:
    """Four norms a layer and three more where experts stand beside the dense part.

    With ``hidden_size_per_layer_input`` each layer adds a narrow embedding of its
    own of every token; the last ``num_kv_shared_layers`` layers take the keys and
    values of the last one of their kind before them.
    """
    layers = fields.count("num_hidden_layers")
    known = {
        "sliding_attention": _near(fields),
        "full_attention": _far(fields),
    }
    kinds = fields.kinds("layer_types", layers, known)
    taking = fields.count("num_kv_shared_layers", default=0, least=0)
    narrow = fields.count("hidden_size_per_layer_input", default=0, least=0)
    hidden = fields.count("hidden_size")
    sparse = fields.flag("enable_moe_block")
    stacked = [
        Layer(
            mixer=replace(known[kind], kv_shared=index >= layers - taking),
            ffn=_ffn(fields, shares=index >= layers - taking),
            norms=4 + (3 if sparse else 0) + (1 if narrow else 0),
            extra_parameters=2 * hidden * narrow + 1,  # the layer's scale
        )
        for index, kind in enumerate(kinds)
    ]
    return decoder(
        fields,
        stacked,
        tied=True,
        extra_parameters=hidden + _narrow_embeddings(fields, layers, narrow),
    )


def _near(fields: Fields) -> Attention:
    biased = fields.flag("attention_bias")
    return attention(
        fields,
        qkv_bias=biased,
        output_bias=biased,
        qk_norm=True,
        sliding_window=fields.count("sliding_window"),
    )


def _far(fields: Fields) -> Attention:
    """Return the full layers' attention; a key that is the value needs no other."""
    biased = fields.flag("attention_bias")
    one = fields.flag("attention_k_eq_v")
    own = fields.given(head_dim=fields.count("global_head_dim", "head_dim"))
    if one:
        heads = fields.count("num_global_key_value_heads", "num_key_value_heads")
        own = own.given(num_key_value_heads=heads)
    return attention(
        own, qkv_bias=biased, output_bias=biased, qk_norm=True, key_is_value=one
    )


def _ffn(fields: Fields, *, shares: bool) -> Ffn:
    plain = dense(fields)
    if shares and fields.flag("use_double_wide_mlp"):
        plain = replace(plain, intermediate_size=2 * plain.intermediate_size)
    if not fields.flag("enable_moe_block"):
        return plain
    number, hidden = fields.count("num_experts"), fields.count("hidden_size")
    # The router scales its input, and each expert its output.
    return experts(fields, shared=plain, extra_parameters=hidden + number)


def _narrow_embeddings(fields: Fields, layers: int, narrow: int) -> int:
    """Return the parameters of all layers' own embeddings and what projects to them."""
    if not narrow:
        return 0
    vocabulary = fields.count("vocab_size_per_layer_input", "vocab_size")
    rows = vocabulary + fields.count("hidden_size")
    return rows * layers * narrow + narrow
