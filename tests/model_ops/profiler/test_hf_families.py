"""Families with experts, latent or linear attention and state spaces, by hand."""

from collections.abc import Mapping
from typing import Any

import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import ConfigError
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.profiler.compressed_attention import CompressedAttention
from model_ops.profiler.hf_config import READERS, read_config
from model_ops.profiler.layers import layer_operators
from model_ops.profiler.linear_attention import (
    GatedDeltaNet,
    KimiDeltaAttention,
    LightningAttention,
)
from model_ops.profiler.mamba import Mamba1, Mamba2
from model_ops.profiler.memory import weight_bytes
from model_ops.profiler.mla import LatentAttention
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.ops import Gemm
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import Step, prefill
from problems.catalogue import load_model, names

H, WIDE, L, HEADS, KV, D, V = 64, 96, 4, 8, 2, 8, 100
E, K, W = 6, 2, 24  # experts, of them chosen, their width

QKV = HEADS * D + 2 * KV * D
GQA = H * QKV + HEADS * D * H
ROUTER = H * E
EXPERT = 3 * H * W
MOE = ROUTER + E * EXPERT
DENSE = 3 * H * WIDE
NORMS = 2 * H
ENDS = 2 * V * H + H  # embedding, head, final norm
TIED = V * H + H
JOINING = 2 * H * H + 3 * H  # of a predictor

BASE = {
    "hidden_size": H,
    "intermediate_size": WIDE,
    "num_hidden_layers": L,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "vocab_size": V,
}
USUAL = {"num_experts": E, "num_experts_per_tok": K, "moe_intermediate_size": W}
NARROW = {"num_local_experts": E, "num_experts_per_tok": K, "intermediate_size": W}

MIXTRAL = {**BASE, **NARROW, "model_type": "mixtral"}
QWEN2_MOE = {**BASE, **USUAL, "model_type": "qwen2_moe"}
QWEN2_MOE |= {"shared_expert_intermediate_size": 32, "mlp_only_layers": [1]}
QWEN3_MOE = {**BASE, **USUAL, "model_type": "qwen3_moe", "decoder_sparse_step": 2}
OLMOE = {**BASE, **NARROW, "model_type": "olmoe"}
PHIMOE = {**BASE, **NARROW, "model_type": "phimoe"}
PHIMOE |= {"attention_bias": True, "lm_head_bias": True}
DBRX = {
    "model_type": "dbrx",
    "d_model": H,
    "n_heads": HEADS,
    "n_layers": L,
    "vocab_size": V,
    "attn_config": {"kv_n_heads": KV},
    "ffn_config": {"ffn_hidden_size": W, "moe_num_experts": E, "moe_top_k": K},
}
GROK = {**BASE, **NARROW, "model_type": "grok-1"}
GLM4_MOE = {
    **BASE,
    "model_type": "glm4_moe",
    "n_routed_experts": E,
    "n_shared_experts": 1,
    "num_experts_per_tok": K,
    "moe_intermediate_size": W,
    "first_k_dense_replace": 1,
    "attention_bias": True,
    "use_qk_norm": True,
    "num_nextn_predict_layers": 1,
}
GRANITEMOE = {**BASE, **NARROW, "model_type": "granitemoe"}
MINIMAX = {**BASE, **NARROW, "model_type": "minimax_text_01"}
MINIMAX |= {"attn_type_list": [0, 0, 0, 1]}
MINIMAX_M2 = {**BASE, **NARROW, "model_type": "minimax_m2"}
MINIMAX_M3 = {
    **BASE,
    **NARROW,
    "model_type": "minimax_m3",
    "dense_intermediate_size": WIDE,
    "shared_intermediate_size": 32,
    "moe_layer_freq": [0, 1, 1, 1],
    "sparse_attention_config": {
        "sparse_attention_freq": [0, 1, 1, 1],
        "sparse_num_index_heads": 2,
        "sparse_index_dim": 16,
        "sparse_block_size": 4,
        "sparse_topk_blocks": 3,
    },
}
GPT_OSS = {**BASE, **NARROW, "model_type": "gpt_oss", "sliding_window": 16}
LLAMA4 = {**BASE, **NARROW, "model_type": "llama4_text"}
LLAMA4 |= {"intermediate_size_mlp": WIDE, "interleave_moe_layer_step": 2}
LLAMA4 |= {"attention_chunk_size": 32}
MIMO_V2 = {
    **BASE,
    "model_type": "mimo_v2_flash",
    "n_routed_experts": E,
    "num_experts_per_tok": K,
    "moe_intermediate_size": W,
    "head_dim": 12,
    "v_head_dim": 8,
    "swa_num_key_value_heads": 4,
    "sliding_window": 16,
    "hybrid_layer_pattern": [0, 1, 1, 0],
    "moe_layer_freq": [0, 1, 1, 1],
    "add_swa_attention_sink_bias": True,
    "topk_method": "noaux_tc",
}
STEP = {
    **BASE,
    "model_type": "step3p5",
    "moe_num_experts": E,
    "moe_top_k": K,
    "moe_intermediate_size": W,
    "share_expert_dim": 32,
    "head_dim": D,
    "sliding_window": 16,
    "layer_types": ["full_attention", "sliding_attention"] * 2,
    "attention_other_setting": {"num_attention_heads": 12},
    "moe_layers_enum": "1,2,3",
    "use_moe_router_bias": True,
}
MLA_FIELDS = {
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
}
DEEPSEEK = {
    **BASE,
    **MLA_FIELDS,
    "model_type": "deepseek_v3",
    "q_lora_rank": 16,
    "n_routed_experts": E,
    "n_shared_experts": 2,
    "num_experts_per_tok": K,
    "moe_intermediate_size": W,
    "first_k_dense_replace": 1,
    "topk_method": "noaux_tc",
    "num_nextn_predict_layers": 1,
}
INDEX = {"index_n_heads": 3, "index_head_dim": 16, "index_topk": 32}
GLM_DSA = {**DEEPSEEK, **INDEX, "model_type": "glm_moe_dsa"}
DEEPSEEK_V4 = {
    **BASE,
    **INDEX,
    "model_type": "deepseek_v4",
    "head_dim": 16,
    "q_lora_rank": 16,
    "o_lora_rank": 8,
    "o_groups": 4,
    "sliding_window": 16,
    "compress_ratios": [0, 4, 128, 4, 0],
    "num_hash_layers": 1,
    "hc_mult": 4,
    "n_routed_experts": E,
    "n_shared_experts": 1,
    "num_experts_per_tok": K,
    "moe_intermediate_size": W,
    "num_nextn_predict_layers": 1,
}
DELTA_FIELDS = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_conv_kernel_dim": 4,
}
QWEN3_NEXT = {**BASE, **USUAL, **DELTA_FIELDS, "model_type": "qwen3_next"}
QWEN3_NEXT |= {"shared_expert_intermediate_size": 32}
QWEN3_5 = {**BASE, **DELTA_FIELDS, "model_type": "qwen3_5_text"}
KIMI_LINEAR = {
    **BASE,
    **MLA_FIELDS,
    "model_type": "kimi_linear",
    "num_experts": E,
    "num_experts_per_token": K,
    "num_shared_experts": 1,
    "moe_intermediate_size": W,
    "first_k_dense_replace": 1,
    "linear_attn_config": {
        "full_attn_layers": [4],
        "num_heads": 4,
        "head_dim": 8,
        "short_conv_kernel_size": 4,
    },
}
NEMOTRON = {
    "model_type": "nemotron_h",
    "hidden_size": H,
    "vocab_size": V,
    "hybrid_override_pattern": "ME*-",
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "head_dim": D,
    "intermediate_size": WIDE,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "ssm_state_size": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "n_routed_experts": E,
    "n_shared_experts": 1,
    "num_experts_per_tok": K,
    "moe_intermediate_size": W,
    "moe_shared_expert_intermediate_size": 32,
}
JAMBA = {
    **BASE,
    "model_type": "jamba",
    "num_experts": E,
    "num_experts_per_tok": K,
    "attn_layer_period": 4,
    "attn_layer_offset": 2,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_d_state": 16,
    "mamba_dt_rank": 5,
}
MAMBA2_FIELDS = {"mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 16}
MAMBA2_FIELDS |= {"mamba_n_groups": 2}
BAMBA = {**BASE, **MAMBA2_FIELDS, "model_type": "bamba", "attn_layer_indices": [2]}
GRANITE = {**BASE, **NARROW, **MAMBA2_FIELDS, "model_type": "granitemoehybrid"}
GRANITE |= {"layer_types": ["mamba", "mamba", "attention", "mamba"]}
GRANITE |= {"shared_intermediate_size": 32}
MAMBA = {"model_type": "mamba", "hidden_size": H, "num_hidden_layers": L}
MAMBA |= {"vocab_size": V}
MAMBA2 = {**MAMBA, "model_type": "mamba2", "num_heads": 16, "head_dim": 8}
MAMBA2 |= {"n_groups": 2, "state_size": 16}
GEMMA4 = {
    **BASE,
    **USUAL,
    "model_type": "gemma4_text",
    "head_dim": 8,
    "global_head_dim": 16,
    "num_global_key_value_heads": 1,
    "attention_k_eq_v": True,
    "enable_moe_block": True,
    "sliding_window": 16,
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
}


def read(base: Mapping[str, Any], **changes: Any) -> ModelArch:
    """Read a config with some fields changed, or left out where set to Ellipsis."""
    merged = {k: v for k, v in ({**base, **changes}).items() if v is not ...}
    return read_config(merged, "m")


# ---- parameters by hand: those of all layers and ends, and layers with experts ----

SHARED = 3 * H * 32
LIGHTNING = H * 3 * HEADS * D + H * HEADS * D + HEADS * D + HEADS * D * H
INDEX_M3 = H * 2 * 16 + H * 16 + 2 * 16
MLA_CACHE = H * (32 + 4) + 32  # down-projection and its norm
MLA_HEADS = 32 * HEADS * (8 + 6) + HEADS * 6 * H  # expansion and output
MLA = H * 16 + 16 + 16 * HEADS * 12 + MLA_CACHE + MLA_HEADS
MLA_PLAIN = H * HEADS * 12 + MLA_CACHE + MLA_HEADS
INDEXER = 16 * 3 * 16 + H * 16 + 2 * 16 + H * 3
MIMO_FULL = H * (8 * 12 + 2 * 20) + 8 * 8 * H
MIMO_NEAR = H * (8 * 12 + 4 * 20) + 8 * 8 * H + 8  # a sink per head
STEP_FULL = GQA + 2 * D + H * 8  # a gate per head
STEP_NEAR = H * (12 * D + 2 * KV * D) + 12 * D * H + 2 * D + H * 12
V4_WINDOW = (
    (H * 16 + 16)  # queries, down, and norm
    + 16 * HEADS * 16  # queries, up
    + (H * 16 + 16)  # the key that is the value, and norm
    + 8 * HEADS * 16  # outputs, down: 4 groups of 32 columns to 8 each
    + 4 * 8 * H  # outputs, up
    + HEADS  # sinks
)
V4_HEAVY = V4_WINDOW + 2 * H * 16 + 128 * 16 + 16  # values and gates, bias, norm
V4_CHOSEN = (
    V4_WINDOW
    + (2 * H * 2 * 16 + 4 * 2 * 16 + 16)  # two series: entries overlap
    + (2 * H * 2 * 16 + 4 * 2 * 16 + 16)  # the indexer's entries are as wide here
    + 16 * 3 * 16  # the indexer's queries
    + H * 3  # and head weights
)
V4_MIXING = 2 * (6 * 4 * 4 * H + 6 * 4 + 3)  # before and behind both halves
V4_MERGING = 4 * 4 * H + 4 + 1
DELTA = (
    H * (2 * 16 + 32)  # q, k, v
    + H * 32  # the output gate
    + 2 * H * 4  # beta and decay
    + (2 * 16 + 32) * 4  # convolution
    + 2 * 4  # A_log, dt_bias
    + 8  # norm
    + 32 * H
)
GATED = H * (2 * HEADS * D + 2 * KV * D) + HEADS * D * H + 2 * D
KDA = (
    3 * H * 32  # q, k, v
    + 3 * 32 * 4  # a convolution each
    + 2 * (H * 8 + 8 * 32)  # decay and output gate, of rank 8
    + 32  # dt_bias
    + H * 4  # beta
    + 4  # A_log
    + 8  # norm
    + 32 * H
)
SSD_IN = 2 * 32 + 2 * 2 * 16 + 4  # gate, input, B and C of two groups, time step
SSD = H * SSD_IN + (32 + 64) * 5 + 3 * 4 + 32 + 32 * H
SCAN = (
    H * 2 * 128
    + 128 * 5  # convolution and bias
    + 128 * (4 + 2 * 16)  # time step of rank 4, B and C
    + (4 * 128 + 128)
    + 128 * 16  # A
    + 128  # D
    + 128 * H
)
JAMBA_SCAN = SCAN + 128 * 1 + 1 * 128 + 5 + 2 * 16  # rank 5, and inner norms
JAMBA_MOE = ROUTER + E * DENSE
GEMMA_NEAR = GQA + 2 * 8
GEMMA_FAR = H * (8 * 16 + 16) + 8 * 16 * H + 2 * 16  # no projection of values
GEMMA_MOE = MOE + H + E + DENSE + 7 * H + 1  # the layer's scale


def whole(layer: int) -> int:
    return L * layer + ENDS


HAND: list[tuple[dict[str, Any], dict[str, Any], int, int]] = [
    (MIXTRAL, {}, whole(GQA + NORMS + MOE), 4),
    (
        QWEN2_MOE,
        {},
        whole(GQA + QKV + NORMS) + 3 * (MOE + SHARED + H) + DENSE,
        3,
    ),
    (QWEN3_MOE, {}, whole(GQA + 2 * D + NORMS) + 2 * MOE + 2 * DENSE, 2),
    (OLMOE, {}, whole(GQA + (HEADS + KV) * D + NORMS + MOE), 4),
    (
        PHIMOE,
        {},
        L * (GQA + QKV + H + 2 * NORMS + MOE) + 2 * V * H + 2 * H + V,
        4,
    ),
    (DBRX, {}, whole(GQA + NORMS + MOE), 4),
    (GROK, {}, L * (GQA + 2 * NORMS + MOE) + TIED, 4),
    (
        GLM4_MOE,
        {},
        whole(GQA + QKV + 2 * D + NORMS) + 3 * (MOE + E + EXPERT) + DENSE,
        3,
    ),
    (GRANITEMOE, {}, whole(GQA + NORMS + MOE), 4),
    (
        GRANITEMOE,
        {"model_type": "granitemoeshared", "shared_intermediate_size": 32},
        whole(GQA + NORMS + MOE + SHARED),
        4,
    ),
    (MINIMAX, {}, whole(NORMS + MOE) + 3 * LIGHTNING + GQA, 4),
    (
        MINIMAX,
        {"model_type": "minimax", "layer_types": ["linear_attention"] * 4},
        whole(NORMS + MOE + LIGHTNING),
        4,
    ),
    (MINIMAX_M2, {}, whole(GQA + (HEADS + KV) * D + NORMS + MOE + E), 4),
    (
        MINIMAX_M3,
        {},
        whole(GQA + 2 * D + NORMS) + DENSE + 3 * (INDEX_M3 + MOE + E + SHARED),
        3,
    ),
    (
        GPT_OSS,
        {},  # sinks, and biases of q, k, v, output, router, each expert
        whole(GQA + QKV + H + HEADS + NORMS + MOE + E + E * (2 * W + H)),
        4,
    ),
    (LLAMA4, {}, whole(GQA + NORMS) + 2 * (MOE + EXPERT) + 2 * DENSE, 2),
    (
        MIMO_V2,
        {},
        2 * MIMO_FULL + 2 * MIMO_NEAR + L * NORMS + DENSE + 3 * (MOE + E) + ENDS,
        3,
    ),
    (
        STEP,
        {},
        2 * (STEP_FULL + STEP_NEAR) + L * NORMS + DENSE + 3 * (MOE + E + SHARED) + ENDS,
        3,
    ),
    (
        STEP,  # heads and experts as the later config names them
        {
            "model_type": "step3p7",
            "attention_other_setting": ...,
            "moe_layers_enum": ...,
            "first_k_dense_replace": 2,
            "use_moe_router_bias": False,
        },
        4 * STEP_FULL + L * NORMS + 2 * DENSE + 2 * (MOE + SHARED) + ENDS,
        2,
    ),
    (DEEPSEEK, {}, whole(MLA + NORMS) + DENSE + 3 * (MOE + E + 2 * EXPERT), 3),
    (
        DEEPSEEK,
        {"model_type": "deepseek_v2", "q_lora_rank": None, "topk_method": "greedy"},
        whole(MLA_PLAIN + NORMS) + DENSE + 3 * (MOE + 2 * EXPERT),
        3,
    ),
    (
        DEEPSEEK,
        {"model_type": "kimi_k2", "n_shared_experts": None, "moe_layer_freq": 2},
        whole(MLA + NORMS) + 3 * DENSE + MOE + E,  # the layer 2 alone is sparse
        1,
    ),
    (
        GLM_DSA,
        {"model_type": "deepseek_v32"},
        whole(MLA + INDEXER + NORMS) + DENSE + 3 * (MOE + E + 2 * EXPERT),
        3,
    ),
    (
        GLM_DSA,
        {
            "indexer_types": ["full", "shared", "shared", "full"],
            "mlp_layer_types": ["dense", "dense", "sparse", "sparse"],
        },
        whole(MLA + NORMS) + 2 * INDEXER + 2 * DENSE + 2 * (MOE + E + 2 * EXPERT),
        2,
    ),
    (
        DEEPSEEK_V4,
        {},
        whole(NORMS + MOE + EXPERT + V4_MIXING)
        + (V4_WINDOW + 2 * V4_CHOSEN + V4_HEAVY)
        + 3 * E  # the first layer's routing has no bias
        + V4_MERGING,
        4,
    ),
    (
        DEEPSEEK_V4,
        {"model_type": "deepseek_ref", "hc_mult": 1, "compress_ratios": [0] * 4},
        whole(NORMS + MOE + EXPERT + V4_WINDOW) + 3 * E,
        4,
    ),
    (
        QWEN3_NEXT,
        {},
        whole(NORMS + MOE + SHARED + H) + 3 * DELTA + GATED,
        4,
    ),
    (
        QWEN3_NEXT,
        {
            "model_type": "qwen3_5_moe_text",
            "layer_types": ["full_attention", "linear_attention"] * 2,
        },
        whole(NORMS + MOE + SHARED + H) + 2 * DELTA + 2 * GATED,
        4,
    ),
    (QWEN3_5, {}, whole(NORMS + DENSE) + 3 * DELTA + GATED, 0),
    (
        KIMI_LINEAR,
        {},
        whole(NORMS) + 3 * KDA + MLA_PLAIN + DENSE + 3 * (MOE + E + EXPERT),
        3,
    ),
    (
        NEMOTRON,
        {},
        (SSD + H)
        + (ROUTER + E + E * 2 * H * W + 2 * H * 32 + H)
        + (GQA + H)
        + (2 * H * WIDE + H)
        + ENDS,
        1,
    ),
    (JAMBA, {}, whole(NORMS) + 3 * JAMBA_SCAN + GQA + 2 * DENSE + 2 * JAMBA_MOE, 2),
    (BAMBA, {}, whole(NORMS + DENSE) + 3 * SSD + GQA, 0),
    (GRANITE, {}, whole(NORMS + MOE + SHARED) + 3 * SSD + GQA, 4),
    (
        GRANITE,
        {"num_local_experts": 0},
        whole(NORMS + SHARED) + 3 * SSD + GQA,
        0,
    ),
    (MAMBA, {}, L * (SCAN + H) + TIED, 0),
    (
        MAMBA,
        {"model_type": "falcon_mamba", "tie_word_embeddings": False},
        whole(SCAN + H),
        0,
    ),
    (
        MAMBA2,
        {},
        whole(H * (2 * 128 + 64 + 16) + (128 + 64) * 5 + 3 * 16 + 128 + 128 * H + H),
        0,
    ),
    (GEMMA4, {}, 3 * GEMMA_NEAR + GEMMA_FAR + L * GEMMA_MOE + TIED, 4),
    (
        GEMMA4,
        {  # the last layers take keys and values; each adds a narrow embedding
            "enable_moe_block": False,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "hidden_size_per_layer_input": 4,
            "vocab_size_per_layer_input": 50,
        },
        2 * GEMMA_NEAR
        + (GQA - H * 2 * KV * D + 8)
        + (GEMMA_FAR - H * 16 - 16)
        + 6 * DENSE
        + L * (4 * H + 2 * 4 * H + H + 1)
        + (50 + H) * L * 4
        + 4
        + TIED,
        0,
    ),
]


@pytest.mark.parametrize(("base", "changes", "parameters", "sparse"), HAND)
def test_parameters_of_a_family_by_hand(
    base: dict[str, Any], changes: dict[str, Any], parameters: int, sparse: int
) -> None:
    arch = read(base, **changes)
    assert arch.parameters == parameters
    moe = [layer.ffn for layer in arch.layers if isinstance(layer.ffn, MoeFfn)]
    assert len(moe) == sparse
    # Of each layer's experts a token passes those that it chooses.
    idle = sum((each.num_experts - K) * each.expert_parameters(H) for each in moe)
    assert arch.active_parameters == parameters - idle


def test_every_family_is_read_by_hand_above() -> None:
    covered = {{**base, **changes}["model_type"] for base, changes, _, _ in HAND}
    dense = (".llama", ".gpt")  # of test_hf_config.py
    rest = {kind for kind in READERS if not READERS[kind].__module__.endswith(dense)}
    assert rest - covered == {"minimax_m1"}
    assert READERS["minimax_m1"] is READERS["minimax_text_01"]


def test_latent_experts_work_in_a_narrower_space() -> None:
    narrow = read(NEMOTRON, moe_latent_size=16)
    wide = read(NEMOTRON)
    fewer = E * 2 * (H - 16) * W  # each expert's two matrices
    assert narrow.parameters == wide.parameters - fewer + 2 * H * 16


def test_kimi_k3_adds_gates_norms_and_residual_attention() -> None:
    k3 = {"routed_expert_hidden_size": 16, "latent_moe_use_norm": True}
    linear = {**KIMI_LINEAR["linear_attn_config"], "use_full_rank_gate": True}
    plain = read(KIMI_LINEAR)
    more = 3 * (2 * H * 16 + 16) - 3 * E * 3 * (H - 16) * W  # latent, its norm
    more += 3 * (H * 32 - (H * 8 + 8 * 32))  # one full gate instead of two narrow
    more += H * HEADS * 6  # the gate of latent attention
    more += L * 4 * H + 2 * H  # a norm and a vector before each half, and the head
    changed = read(
        KIMI_LINEAR,
        **k3,
        linear_attn_config=linear,
        mla_use_output_gate=True,
        attn_res_block_size=2,
    )
    assert changed.parameters == plain.parameters + more


# ---- predictors ----


@pytest.mark.parametrize(
    ("base", "changes", "layer"),
    [
        (GLM4_MOE, {}, GQA + QKV + 2 * D + NORMS + MOE + E + EXPERT),
        (DEEPSEEK, {}, MLA + NORMS + MOE + E + 2 * EXPERT),
        (GLM_DSA, {}, MLA + INDEXER + NORMS + MOE + E + 2 * EXPERT),
        (DEEPSEEK_V4, {}, V4_WINDOW + NORMS + MOE + E + EXPERT + V4_MIXING),
        (QWEN3_NEXT, {"mtp_num_hidden_layers": 1}, GATED + NORMS + MOE + SHARED + H),
        (
            NEMOTRON,
            {"num_nextn_predict_layers": 1, "mtp_hybrid_override_pattern": "*E"},
            GQA + ROUTER + E + E * 2 * H * W + 2 * H * 32 + NORMS,
        ),
        (MIMO_V2, {"num_nextn_predict_layers": 1}, MIMO_NEAR + NORMS + DENSE),
        (STEP, {"num_nextn_predict_layers": 1}, STEP_NEAR + NORMS + DENSE),
        (MINIMAX_M2, {"num_mtp_modules": 3}, None),  # the checkpoint lacks them
        (QWEN3_NEXT, {}, None),
    ],
)
def test_the_layer_that_predicts(
    base: dict[str, Any], changes: dict[str, Any], layer: int | None
) -> None:
    expected = 0 if layer is None else layer + JOINING
    assert read(base, **changes).predictor_parameters == expected


# ---- which layer is what ----


def kinds(arch: ModelArch) -> list[str]:
    return [type(layer.mixer).__name__ for layer in arch.layers]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("deepseek-v3", {LatentAttention: 61}),
        ("gpt-oss-120b", {Attention: 36}),
        ("qwen3-next-80b-a3b", {GatedDeltaNet: 36, Attention: 12}),
        ("qwen3.5-397b-a17b", {GatedDeltaNet: 45, Attention: 15}),
        ("kimi-linear-48b-a3b", {KimiDeltaAttention: 20, LatentAttention: 7}),
        ("kimi-k3", {KimiDeltaAttention: 69, LatentAttention: 24}),
        ("jamba-v0.1", {Mamba1: 28, Attention: 4}),
        ("granite-4.0-h-small", {Mamba2: 36, Attention: 4}),
        ("nemotron-3-nano-30b-a3b", {Mamba2: 23, Attention: 6, type(None): 23}),
        ("nemotron-h-56b", {Mamba2: 54, Attention: 10, type(None): 54}),
        ("minimax-text-01", {LightningAttention: 70, Attention: 10}),
        ("deepseek-v4-flash", {CompressedAttention: 43}),
        ("falcon-mamba-7b", {Mamba1: 64}),
        ("mamba-codestral-7b", {Mamba2: 64}),
    ],
)
def test_mixers_of_published_models(name: str, expected: dict[type, int]) -> None:
    found = kinds(load_model(name))
    assert {kind: found.count(kind.__name__) for kind in expected} == expected
    assert len(found) == sum(expected.values())


@pytest.mark.parametrize(
    ("name", "dense", "sparse"),
    [
        ("deepseek-v3", 3, 58),
        ("kimi-k2", 1, 60),
        ("llama-4-maverick", 24, 24),
        ("llama-4-scout", 0, 48),
        ("mimo-v2-flash", 1, 47),
        ("step-3.5-flash", 3, 42),
        ("qwen3-235b-a22b", 0, 94),
        ("jamba-v0.1", 16, 16),
        ("nemotron-3-super-120b-a12b", 0, 40),
        ("glm-5.2", 3, 75),
    ],
)
def test_layers_with_experts_of_published_models(
    name: str, dense: int, sparse: int
) -> None:
    ffns = [layer.ffn for layer in load_model(name).layers if layer.ffn is not None]
    found = sum(isinstance(ffn, MoeFfn) for ffn in ffns)
    assert (len(ffns) - found, found) == (dense, sparse)


def test_windows_sinks_and_chunks() -> None:
    oss = read(GPT_OSS)
    assert [layer.mixer.sliding_window for layer in oss.layers] == [16, None] * 2
    named = read(GPT_OSS, layer_types=["full_attention"] * 4)
    assert [layer.mixer.sliding_window for layer in named.layers] == [None] * 4
    scout = [layer.mixer for layer in load_model("llama-4-scout").layers]
    assert [m.chunk_size for m in scout[:4]] == [8192, 8192, 8192, None]
    assert [m.rotary for m in scout[:4]] == [True, True, True, False]


def test_llama_4_names_its_layers_in_several_ways() -> None:
    def chunked(**changes: Any) -> list[bool]:
        layers = read(LLAMA4, **changes).layers
        return [layer.mixer.chunk_size is not None for layer in layers]

    def sparse(**changes: Any) -> list[bool]:
        layers = read(LLAMA4, **changes).layers
        return [isinstance(layer.ffn, MoeFfn) for layer in layers]

    assert chunked() == [True, True, True, False]
    assert chunked(no_rope_layers=[1, 0, 1, 0]) == [True, False, True, False]
    words = ["chunked_attention", "full_attention", "full_attention", "full_attention"]
    assert chunked(layer_types=words) == [True, False, False, False]
    assert sparse() == [False, True, False, True]
    assert sparse(moe_layers=[0]) == [True, False, False, False]


def test_gemma_4_heads_of_windowed_and_full_layers() -> None:
    near, far = (run.layer.mixer for run in read(GEMMA4).runs)
    assert (near.head_dim, near.num_key_value_heads, near.key_is_value) == (8, 2, False)
    assert (far.head_dim, far.num_key_value_heads, far.key_is_value) == (16, 1, True)
    assert (near.sliding_window, far.sliding_window) == (16, None)


def test_nemotron_blocks_have_one_half_and_one_norm() -> None:
    halves = [
        (layer.mixer is not None, layer.ffn is not None, layer.norms)
        for layer in read(NEMOTRON).layers
    ]
    mixer, ffn = (True, False, 1), (False, True, 1)
    assert halves == [mixer, ffn, mixer, ffn]


def test_nemotron_words_and_letters_say_the_same() -> None:
    for words in (
        ["mamba", "moe", "attention", "mlp"],
        ["linear_attention", "moe", "full_attention", "mlp"],
    ):
        named = read(NEMOTRON, hybrid_override_pattern=..., layers_block_type=words)
        assert named == read(NEMOTRON)


def test_all_layers_can_be_grouped() -> None:
    for base, changes, _, _ in HAND:
        arch = read(base, **changes)
        assert sum(run.count for run in arch.runs) == len(arch.layers)


# ---- cache and state ----

ALONE = Parallelism()
SIXTEEN = Precision()


def cache(name: str, tokens: int, precision: Precision = SIXTEEN) -> float:
    """Return the bytes that a sequence keeps, without rounding to blocks."""
    arch = load_model(name)
    shard = arch.shard(ALONE, precision)
    return float(kv_bytes_per_sequence(arch, shard, tokens, block=1))


@pytest.mark.parametrize(
    ("name", "tokens", "elements"),
    [
        ("deepseek-v3", 1000, 61 * 576 * 1000),
        ("kimi-k2", 1000, 61 * 576 * 1000),
        ("mixtral-8x7b", 1000, 32 * 2 * 8 * 128 * 1000),
        ("qwen3-235b-a22b", 1000, 94 * 2 * 4 * 128 * 1000),
        ("minimax-m2.5", 1000, 62 * 2 * 8 * 128 * 1000),
        # Every other layer keeps no more than its window.
        ("gpt-oss-120b", 1000, 18 * 2 * 8 * 64 * (1000 + 128)),
        ("gpt-oss-120b", 100, 36 * 2 * 8 * 64 * 100),
        # Of 48 layers 36 attend within chunks of 8192.
        ("llama-4-scout", 20_000, 2 * 8 * 128 * (12 * 20_000 + 36 * 8192)),
        # Keys of 192 and values of 128 elements: 9 full layers of 4 heads, 39
        # windows of 8.
        ("mimo-v2-flash", 1000, 320 * (9 * 4 * 1000 + 39 * 8 * 128)),
        # 5 full layers of 2 heads of 512; 25 windows of 8 heads of 256.
        ("gemma-4-26b-a4b", 5000, 2 * (5 * 2 * 512 * 5000 + 25 * 8 * 256 * 1024)),
    ],
)
def test_elements_that_a_sequence_keeps(name: str, tokens: int, elements: int) -> None:
    assert cache(name, tokens) == 2 * elements


def test_index_keys_are_kept_beside_the_latents() -> None:
    latents = 61 * 576 * 2 * 1000
    keys = 61 * (128 + 4) * 1000  # FP8 with an FP32 scale
    assert cache("deepseek-v3.2", 1000) == latents + keys
    # Only 21 of GLM-5.2's 78 layers have an indexer of their own.
    assert cache("glm-5.2", 1000) == 78 * 576 * 2 * 1000 + 21 * (128 + 4) * 1000


def test_minimax_m3_keeps_all_keys_though_it_sees_few() -> None:
    keys = 60 * 2 * 4 * 128 * 2
    index = 57 * 128 * 2
    assert cache("minimax-m3", 10_000) == (keys + index) * 10_000
    mixer = load_model("minimax-m3").layers[-1].mixer
    assert mixer.indexer.index_topk == 16 * 128


@pytest.mark.parametrize(
    ("name", "state", "per_token"),
    [
        # 30 x (32 heads of 128 x 128 in FP32, 3 taps of 8192 channels in BF16).
        (
            "qwen3.5-35b-a3b",
            30 * (32 * 128 * 128 * 4 + 8192 * 3 * 2),
            10 * 2 * 2 * 256 * 2,
        ),
        # 23 x (64 heads of 64 x 128 in FP32, 3 taps of 6144 channels).
        (
            "nemotron-3-nano-30b-a3b",
            23 * (64 * 64 * 128 * 4 + 6144 * 3 * 2),
            6 * 2 * 2 * 128 * 2,
        ),
    ],
)
def test_hybrids_keep_state_and_a_little_cache(
    name: str, state: int, per_token: int
) -> None:
    assert cache(name, 1000) == state + per_token * 1000
    assert cache(name, 3000) - cache(name, 1000) == per_token * 2000


def test_pure_state_space_models_keep_the_same_however_long() -> None:
    for name in ("falcon-mamba-7b", "mamba-codestral-7b", "mamba-2.8b"):
        assert cache(name, 100_000) == cache(name, 10) > 0


def test_deepseek_v4_cache_follows_its_ratios() -> None:
    # Flash: 43 windows of 128; 21 layers of an entry per 4 tokens and its index
    # key, 20 of one per 128. Besides, FP32 values and gates of unfinished entries.
    window = 43 * 128 * 512
    chosen = 21 * (512 + 128) / 4
    heavy = 20 * 512 / 128
    state = 4 * (21 * 2 * 8 * 2 * (512 + 128) + 20 * 2 * 128 * 512)
    for tokens in (1024, 65_536):
        expected = 2 * (window + (chosen + heavy) * tokens) + state
        assert cache("deepseek-v4-flash", tokens) == pytest.approx(expected)


def test_deepseek_v4_cache_at_a_million_tokens_is_the_published_one() -> None:
    # vLLM's post on DeepSeek-V4 (April 2026): 9.62 GiB a sequence in BF16.
    assert cache("deepseek-v4-pro", 2**20) / 2**30 == pytest.approx(9.62, rel=0.003)


# ---- bad input ----


@pytest.mark.parametrize(
    ("base", "changes", "said"),
    [
        (MIXTRAL, {"num_local_experts": ...}, "lacks num_experts or num_local_experts"),
        (MIXTRAL, {"num_experts_per_tok": ...}, "lacks num_experts_per_tok or"),
        (MIXTRAL, {"num_experts_per_tok": 7}, "num_experts_per_tok 7 exceeds the 6"),
        (MIXTRAL, {"num_local_experts": "8"}, "num_local_experts must be a whole"),
        (QWEN3_MOE, {"moe_intermediate_size": ...}, "lacks moe_intermediate_size"),
        (QWEN3_MOE, {"mlp_only_layers": 3}, "mlp_only_layers must be a list"),
        (QWEN3_MOE, {"decoder_sparse_step": 0}, "decoder_sparse_step must be from 1"),
        (DBRX, {"attn_config": ...}, "lacks attn_config"),
        (DBRX, {"ffn_config": {}}, "lacks ffn_config.num_experts or"),
        (DEEPSEEK, {"kv_lora_rank": ...}, "lacks kv_lora_rank"),
        (DEEPSEEK, {"moe_layer_freq": [1]}, "moe_layer_freq must list num_hidden"),
        (DEEPSEEK, {"moe_layer_freq": [2] * 4}, "moe_layer_freq has unknown '2'"),
        (DEEPSEEK, {"mlp_layer_types": ["spare"] * 4}, "unknown 'spare'; did you mean"),
        (GLM_DSA, {"index_topk": ...}, "lacks index_topk"),
        (GLM_DSA, {"indexer_types": ["full"]}, "indexer_types must list num_hidden"),
        (DEEPSEEK_V4, {"compress_ratios": ...}, "lacks compress_ratios"),
        (DEEPSEEK_V4, {"compress_ratios": [4] * 3}, "compress_ratios must list"),
        (DEEPSEEK_V4, {"compress_ratios": [-1] * 4}, "compress_ratios must be whole"),
        (DEEPSEEK_V4, {"o_groups": ...}, "lacks o_groups"),
        (LLAMA4, {"intermediate_size_mlp": ...}, "lacks intermediate_size_mlp"),
        (LLAMA4, {"moe_layers": "all"}, "moe_layers must be a list"),
        (LLAMA4, {"layer_types": ["chunked"] * 4}, "layer_types has unknown 'chunked'"),
        (MIMO_V2, {"hybrid_layer_pattern": ...}, "lacks hybrid_layer_pattern"),
        (MIMO_V2, {"v_head_dim": ...}, "lacks v_head_dim"),
        (STEP, {"layer_types": ...}, "lacks layer_types"),
        (STEP, {"moe_layers_enum": "1,x"}, "moe_layers_enum must list layers"),
        (STEP, {"attention_other_setting": 3}, "attention_other_setting must be a map"),
        (GEMMA4, {"layer_types": ...}, "lacks layer_types"),
        (GEMMA4, {"sliding_window": ...}, "lacks sliding_window"),
        (MINIMAX, {"attn_type_list": ...}, "lacks attn_type_list"),
        (MINIMAX_M3, {"sparse_attention_config": ...}, "lacks sparse_attention_config"),
        (
            MINIMAX_M3,
            {"sparse_attention_config": {}},
            "lacks sparse_attention_config.sparse_topk_blocks",
        ),
        (QWEN3_NEXT, {"linear_num_key_heads": ...}, "lacks linear_num_key_heads"),
        (QWEN3_NEXT, {"layer_types": ["mamba"] * 4}, "layer_types has unknown 'mamba'"),
        (QWEN3_NEXT, {"mamba_ssm_dtype": "fp99"}, "mamba_ssm_dtype: unknown dtype"),
        (KIMI_LINEAR, {"linear_attn_config": ...}, "lacks linear_attn_config"),
        (KIMI_LINEAR, {"linear_attn_config": {}}, "full_attn_layers must list layers"),
        (
            NEMOTRON,
            {"hybrid_override_pattern": ...},
            "lacks hybrid_override_pattern or",
        ),
        (NEMOTRON, {"hybrid_override_pattern": "MX"}, r"must consist of M \* - E"),
        (NEMOTRON, {"num_hidden_layers": 5}, "num_hidden_layers is 5, but the pattern"),
        (NEMOTRON, {"ssm_state_size": ...}, "lacks ssm_state_size"),
        (
            NEMOTRON,
            {"num_nextn_predict_layers": 1, "mtp_hybrid_override_pattern": "MM"},
            "mtp_hybrid_override_pattern must be a mixer and a feed-forward",
        ),
        (JAMBA, {"attn_layer_period": ...}, "lacks attn_layer_period"),
        (JAMBA, {"mamba_dt_rank": "some"}, "mamba_dt_rank must be a whole number"),
        (BAMBA, {"attn_layer_indices": 3}, "attn_layer_indices must be a list"),
        (
            BAMBA,
            {"mamba_d_head": "auto", "mamba_n_heads": 5},
            "mamba_n_heads 5 does not divide width 128",
        ),
        (GRANITE, {"layer_types": ...}, "lacks layer_types"),
        (MAMBA2, {"num_heads": ...}, "lacks num_heads"),
        (MAMBA, {"hidden_size": ...}, "lacks hidden_size"),
    ],
)
def test_configs_that_are_refused(
    base: dict[str, Any], changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^m: .*{said}"):
        read(base, **changes)


hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


@hypothesis.settings(derandomize=True, deadline=None, max_examples=500)
@hypothesis.given(
    st.sampled_from([base for base, _, _, _ in HAND]),
    st.data(),
    st.sampled_from(
        [None, "x", -1, 0, 1.5, True, [], {}, float("nan"), 10**10, [1], {"a": 1}]
    ),
)
def test_a_damaged_field_is_read_or_refused_but_never_crashes(
    base: dict[str, Any], data: Any, damage: object
) -> None:
    field = data.draw(st.sampled_from(sorted(base)))
    message = None
    try:
        arch = read(base, **{field: damage})
    except ConfigError as refused:
        message = str(refused)
    if message is None:
        assert arch.parameters >= arch.active_parameters > 0
    else:
        assert message.startswith("m: ")


def test_the_kept_state_has_the_format_that_the_config_names() -> None:
    named = read(QWEN3_NEXT, mamba_ssm_dtype="float32").layers[0].mixer
    assert named.ssm_dtype is Dtype.FP32
    assert read(QWEN3_NEXT).layers[0].mixer.ssm_dtype is None
    auto = read(NEMOTRON, mamba_ssm_cache_dtype="auto").layers[0].mixer
    assert auto.ssm_dtype is None


# ---- parameters, operators and bytes agree ----


@pytest.mark.parametrize("name", names("models"))
def test_operators_and_bytes_are_those_of_the_parameters(name: str) -> None:
    # A token takes two FLOP per parameter that it passes; norms, biases and the
    # vectors of a scan take none.
    arch = load_model(name)
    shard = arch.shard(ALONE, SIXTEEN)
    step = Step((prefill(1.0, 1024.0),))
    flop = sum(
        run.count * sum(operator.cost().flop.values())
        for run in arch.runs
        for operator in layer_operators(run.layer, shard, step)
        if isinstance(operator, Gemm)
    )
    passed = sum(
        run.count * run.layer.active_parameters(arch.hidden_size) for run in arch.runs
    )
    assert flop / 1024 == pytest.approx(2 * passed, rel=0.003)
    assert weight_bytes(arch, shard) == pytest.approx(2 * arch.parameters, rel=0.002)


def test_hyper_connections_move_every_stream() -> None:
    arch = read(DEEPSEEK_V4, compress_ratios=[0] * 4)
    shard, step = arch.shard(ALONE, SIXTEEN), Step((prefill(1.0, 10.0),))
    found = {o.name: o for o in layer_operators(arch.layers[0], shard, step)}
    # Four streams and a half's output in, four streams and the next input out.
    norm = found["norm"].cost()
    assert (norm.read, norm.written) == (10 * H * 5 * 2, 10 * H * 5 * 2)
    mixing = found["stream_mixing"].cost()
    assert sum(mixing.flop.values()) == 2 * 10 * (4 * H) * 24
    one = read(DEEPSEEK_V4, compress_ratios=[0] * 4, hc_mult=1)
    names_ = {o.name for o in layer_operators(one.layers[0], shard, step)}
    assert "stream_mixing" not in names_
