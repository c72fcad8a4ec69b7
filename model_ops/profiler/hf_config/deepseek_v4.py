"""Reader of DeepSeek-V4: compressed attention, hyper-connections, experts."""

from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.compressed_attention import CompressedAttention, EntryIndexer
from model_ops.profiler.hf_config.experts import experts, shared_experts
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import decoder

_INDEXED = 4
"""The ``compress_ratio`` whose entries overlap and are chosen by an indexer."""


def deepseek_v4(fields: Fields) -> ModelArch:
    """Ratios of compression layer by layer; the first layers route by the token."""
    layers = fields.count("num_hidden_layers")
    guessed = fields.count("num_nextn_predict_layers", default=0, least=0)
    ratios = [
        _ratio(fields, entry)
        for entry in fields.listed("compress_ratios", layers, guessed)
    ]
    hashed = fields.count("num_hash_layers", default=0, least=0)
    streams = fields.count("hc_mult", default=1)
    stacked = [
        _layer(fields, ratio, streams, hashed=index < hashed)
        for index, ratio in enumerate(ratios)
    ]
    guess = _layer(fields, 0, streams, hashed=False)
    hidden = fields.count("hidden_size")
    return decoder(
        fields,
        stacked,
        predictors=(guess,) * guessed,
        extra_parameters=hidden + _merging(hidden, streams),
    )


def _ratio(fields: Fields, entry: object) -> int:
    if isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry <= 4096:
        raise fields.wrong("compress_ratios", f"must be whole, up to 4096: {entry!r}")
    return entry


def _layer(fields: Fields, ratio: int, streams: int, *, hashed: bool) -> Layer:
    moe = experts(
        fields,
        shared=shared_experts(fields, "n_shared_experts"),
        routing_bias=not hashed,
    )
    mixing = 2 * _mixing(fields.count("hidden_size"), streams)
    return Layer(
        mixer=_attention(fields, ratio),
        ffn=moe,
        residual_streams=streams,
        extra_parameters=mixing,
    )


def _attention(fields: Fields, ratio: int) -> CompressedAttention:
    indexer = None
    if ratio == _INDEXED:
        indexer = EntryIndexer(
            index_n_heads=fields.count("index_n_heads"),
            index_head_dim=fields.count("index_head_dim"),
            index_topk=fields.count("index_topk"),
        )
    return CompressedAttention(
        num_attention_heads=fields.count("num_attention_heads"),
        head_dim=fields.count("head_dim"),
        q_lora_rank=fields.count("q_lora_rank"),
        o_lora_rank=fields.count("o_lora_rank"),
        o_groups=fields.count("o_groups"),
        sliding_window=fields.count("sliding_window"),
        compress_ratio=ratio,
        indexer=indexer,
    )


def _mixing(hidden: int, streams: int) -> int:
    """Return the parameters that mix the streams before and behind a half."""
    if streams == 1:
        return 0
    weights = (2 + streams) * streams
    return weights * streams * hidden + weights + 3


def _merging(hidden: int, streams: int) -> int:
    """Return the parameters that merge the streams before the head."""
    return 0 if streams == 1 else streams * streams * hidden + streams + 1
