"""Readers of MiniMax: lightning attention in 01, full in M2, block-sparse in M3."""

from dataclasses import replace

from model_ops.dtypes import Dtype
from model_ops.profiler.arch import Mixer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.hf_config.experts import (
    dense,
    experts,
    predictors,
    shared_expert,
    sparse_layers,
    stack,
)
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import attention, decoder, whole_qk_norms
from model_ops.profiler.linear_attention import LightningAttention
from model_ops.profiler.sparse_indexer import SparseIndexer


def minimax_01(fields: Fields) -> ModelArch:
    """MiniMax-Text-01 and M1: lightning attention, full in every eighth layer."""
    layers = fields.count("num_hidden_layers")
    full = attention(fields)
    linear = LightningAttention(
        num_attention_heads=full.num_attention_heads, head_dim=full.head_dim
    )
    moe = experts(
        fields,
        width="intermediate_size",
        shared=shared_expert(fields, "shared_intermediate_size"),
    )
    mixers: list[Mixer] = [
        full if each else linear for each in _full_layers(fields, layers)
    ]
    return decoder(fields, stack(mixers, [moe] * layers))


def _full_layers(fields: Fields, layers: int) -> list[bool]:
    if fields.get("layer_types") is not None:
        known = ("full_attention", "linear_attention")
        kinds = fields.kinds("layer_types", layers, known)
        return [kind == "full_attention" for kind in kinds]
    return [kind == 1 for kind in fields.kinds("attn_type_list", layers, (0, 1))]


def minimax_m2(fields: Fields) -> ModelArch:
    """Norms over all heads of q and of k, and a bias that corrects routing."""
    layers = fields.count("num_hidden_layers")
    mixer = attention(fields)
    if fields.flag("use_qk_norm", default=True):
        mixer = whole_qk_norms(mixer)
    moe = experts(
        fields,
        width="intermediate_size",
        shared=shared_expert(fields, "shared_intermediate_size"),
        routing_bias=fields.flag("use_routing_bias", default=True),
    )
    stacked = stack([mixer] * layers, [moe] * layers)
    return decoder(fields, stacked, predictors=predictors(fields, stacked[-1]))


def minimax_m3(fields: Fields) -> ModelArch:
    """First layers dense and full, then experts, and attention to the best blocks."""
    layers = fields.count("num_hidden_layers")
    full = attention(fields, qk_norm=fields.flag("use_qk_norm", default=True))
    own = fields.part("sparse_attention_config")
    known = {0: full, 1: _block_sparse(own, full)}
    mixers = [known[kind] for kind in own.kinds("sparse_attention_freq", layers, known)]
    moe = experts(
        fields,
        width="intermediate_size",
        shared=shared_expert(fields, "shared_intermediate_size"),
        routing_bias=fields.flag("use_routing_bias", default=True),
    )
    plain = dense(fields, "dense_intermediate_size")
    ffns = [moe if each else plain for each in sparse_layers(fields)]
    stacked = stack(mixers, ffns)
    return decoder(fields, stacked, predictors=predictors(fields, stacked[-1]))


def _block_sparse(own: Fields, full: Attention) -> Attention:
    """Return attention to the best blocks, as an index head of each group finds."""
    blocks = own.count("sparse_topk_blocks")
    indexer = SparseIndexer(
        index_n_heads=own.count("sparse_num_index_heads"),
        index_head_dim=own.count("sparse_index_dim"),
        index_topk=blocks * own.count("sparse_block_size"),
        weighted=False,
        key_dtype=Dtype.BF16,
    )
    return replace(full, indexer=indexer)
