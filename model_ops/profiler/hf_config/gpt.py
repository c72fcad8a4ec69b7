"""Readers of the families before Llama: LayerNorm, plain feed-forward, biases."""

from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import attention, decoder


def _renamed(fields: Fields) -> Fields:
    """Return GPT-2's short names under the usual ones."""
    usual = {
        "hidden_size": fields.count("n_embd"),
        "num_attention_heads": fields.count("n_head"),
        "max_position_embeddings": fields.count("n_positions"),
    }
    return Fields({**fields.values, **usual}, fields.name)


def gpt2(fields: Fields) -> ModelArch:
    """LayerNorm, learned positions, plain feed-forward, biases everywhere."""
    renamed = _renamed(fields)
    hidden = renamed.count("hidden_size")
    layer = Layer(
        mixer=attention(renamed, qkv_bias=True, output_bias=True, rotary=False),
        ffn=DenseFfn(
            intermediate_size=fields.count("n_inner", default=4 * hidden),
            gated=False,
            bias=True,
        ),
        norm_bias=True,
    )
    return decoder(
        renamed,
        [layer] * fields.count("n_layer"),
        tied=True,
        learned_positions=fields.count("n_positions"),
    )


def gptj(fields: Fields) -> ModelArch:
    """Attention and feed-forward in parallel behind one LayerNorm; head with bias."""
    renamed = _renamed(fields)
    hidden = renamed.count("hidden_size")
    layer = Layer(
        mixer=attention(renamed),
        ffn=DenseFfn(
            intermediate_size=fields.count("n_inner", default=4 * hidden),
            gated=False,
            bias=True,
        ),
        norms=1,
        norm_bias=True,
        parallel_residual=True,
    )
    return decoder(
        renamed,
        [layer] * fields.count("n_layer"),
        extra_parameters=2 * hidden + fields.count("vocab_size"),
    )


def gpt_neox(fields: Fields) -> ModelArch:
    """LayerNorm with bias, rotary positions, plain feed-forward, biases."""
    layer = Layer(
        mixer=attention(fields, qkv_bias=True, output_bias=True),
        ffn=DenseFfn(
            intermediate_size=fields.count("intermediate_size"), gated=False, bias=True
        ),
        norm_bias=True,
        parallel_residual=fields.flag("use_parallel_residual", default=True),
    )
    return decoder(fields, [layer] * fields.count("num_hidden_layers"))


def opt(fields: Fields) -> ModelArch:
    """LayerNorm, learned positions with an offset of two, biases, tied head."""
    hidden = fields.count("hidden_size")
    narrow = fields.count("word_embed_proj_dim", default=hidden)
    vocab = fields.count("vocab_size")
    final_norm = 2 * hidden if fields.flag("do_layer_norm_before", default=True) else 0
    # A narrow embedding saves vocab x (hidden - narrow) and adds two projections.
    narrowing = vocab * (narrow - hidden) + (
        2 * narrow * hidden if narrow != hidden else 0
    )
    layer = Layer(
        mixer=attention(fields, qkv_bias=True, output_bias=True, rotary=False),
        ffn=DenseFfn(intermediate_size=fields.count("ffn_dim"), gated=False, bias=True),
        norm_bias=True,
    )
    return decoder(
        fields,
        [layer] * fields.count("num_hidden_layers"),
        tied=True,
        learned_positions=fields.count("max_position_embeddings") + 2,
        extra_parameters=final_norm + narrowing,
    )


def falcon(fields: Fields) -> ModelArch:
    """Parallel attention and feed-forward, multi-query or grouped, LayerNorm."""
    heads = fields.count("num_attention_heads", "n_head")
    new = fields.flag("new_decoder_architecture")
    if new:
        kv_heads = fields.count("num_kv_heads", "n_head_kv", default=heads)
    else:
        kv_heads = 1 if fields.flag("multi_query", default=True) else heads
    kept = {
        **fields.values,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "tie_word_embeddings": fields.get("tie_word_embeddings", True),
    }
    renamed = Fields(kept, fields.name)
    hidden = fields.count("hidden_size")
    bias = fields.flag("bias")
    parallel = new or fields.flag("parallel_attn", default=True)
    layer = Layer(
        mixer=attention(
            renamed,
            qkv_bias=bias,
            output_bias=bias,
            rotary=not fields.flag("alibi"),
        ),
        ffn=DenseFfn(
            intermediate_size=fields.count("ffn_hidden_size", default=4 * hidden),
            gated=False,
            bias=bias,
        ),
        norms=1 if parallel and not new else 2,
        norm_bias=True,
        parallel_residual=parallel,
    )
    return decoder(renamed, [layer] * fields.count("num_hidden_layers", "n_layer"))


def bloom(fields: Fields) -> ModelArch:
    """LayerNorm (one more behind the embedding), ALiBi, plain feed-forward, biases."""
    hidden = fields.count("hidden_size", "n_embed")
    kept = {
        **fields.values,
        "hidden_size": hidden,
        "num_attention_heads": fields.count("num_attention_heads", "n_head"),
    }
    renamed = Fields(kept, fields.name)
    layer = Layer(
        mixer=attention(renamed, qkv_bias=True, output_bias=True, rotary=False),
        ffn=DenseFfn(intermediate_size=4 * hidden, gated=False, bias=True),
        norm_bias=True,
    )
    return decoder(
        renamed,
        [layer] * fields.count("num_hidden_layers", "n_layer"),
        tied=True,
        extra_parameters=4 * hidden,
    )
