"""Readers of DeepSeek V2 and V3, and of those built like them (Kimi K2, GLM-5)."""

from model_ops.profiler.arch import Layer, ModelArch
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
from model_ops.profiler.mla import LatentAttention
from model_ops.profiler.sparse_indexer import SparseIndexer


def deepseek(fields: Fields) -> ModelArch:
    """Multi-head latent attention, first layers dense, shared and routed experts."""
    mixer = latent_attention(fields)
    return _latent_model(fields, [mixer] * fields.count("num_hidden_layers"))


def deepseek_sparse(fields: Fields) -> ModelArch:
    """DeepSeek-V3.2 and GLM-5: an indexer chooses the tokens that attention sees.

    In GLM-5.2 ``indexer_types`` lets layers share the choice of one before them.
    """
    layers = fields.count("num_hidden_layers")
    known = {
        kind: latent_attention(fields, _indexer(fields, shared=kind == "shared"))
        for kind in ("full", "shared")
    }
    kinds = ["full"] * layers
    if fields.get("indexer_types") is not None:
        kinds = fields.kinds("indexer_types", layers, known)
    return _latent_model(fields, [known[kind] for kind in kinds])


def latent_attention(
    fields: Fields, indexer: SparseIndexer | None = None
) -> LatentAttention:
    """Return the latent attention that the usual fields describe."""
    return LatentAttention(
        num_attention_heads=fields.count("num_attention_heads"),
        q_lora_rank=fields.count("q_lora_rank", default=0, least=0) or None,
        kv_lora_rank=fields.count("kv_lora_rank"),
        qk_nope_head_dim=fields.count("qk_nope_head_dim"),
        qk_rope_head_dim=fields.count("qk_rope_head_dim"),
        v_head_dim=fields.count("v_head_dim"),
        indexer=indexer,
        output_gate=fields.flag("mla_use_output_gate"),
    )


def _indexer(fields: Fields, *, shared: bool) -> SparseIndexer:
    return SparseIndexer(
        index_n_heads=fields.count("index_n_heads"),
        index_head_dim=fields.count("index_head_dim"),
        index_topk=fields.count("index_topk"),
        shared=shared,
    )


def _latent_model(fields: Fields, mixers: list[LatentAttention]) -> ModelArch:
    moe = experts(
        fields,
        shared=shared_experts(fields, "n_shared_experts"),
        routing_bias=fields.get("topk_method") == "noaux_tc",
    )
    layers = stack(mixers, mixed(fields, sparse_layers(fields), moe))
    guess = Layer(mixer=mixers[0], ffn=moe)
    return decoder(fields, layers, predictors=predictors(fields, guess))
