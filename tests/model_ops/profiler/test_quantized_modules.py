"""Which tensor classes a quantisation covers, by the modules that it names."""

import re
from typing import Any

import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import ConfigError
from model_ops.profiler.hf_config import read_config
from model_ops.profiler.hf_config.quantized_modules import modules
from problems.catalogue import load_model

MOE = {
    "model_type": "deepseek_v3",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "vocab_size": 100,
    "q_lora_rank": 16,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 6,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "first_k_dense_replace": 1,
}
HYBRID = {
    "model_type": "nemotron_h",
    "hidden_size": 64,
    "vocab_size": 100,
    "hybrid_override_pattern": "ME*M",
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "ssm_state_size": 16,
    "n_groups": 2,
    "conv_kernel": 4,
    "n_routed_experts": 6,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "moe_shared_expert_intermediate_size": 32,
}
INT4 = {"weights": {"num_bits": 4, "type": "int"}, "input_activations": None}
FLOAT8 = {
    "weights": {"num_bits": 8, "type": "float"},
    "input_activations": {"num_bits": 8, "type": "float"},
}


def of(quantization: Any, base: dict[str, Any] = MOE, **more: Any) -> Precision:
    config = {**base, "quantization_config": quantization, **more}
    return read_config(config, "m").precision


def fp8(**more: Any) -> dict[str, Any]:
    return {"quant_method": "fp8", **more}


def nvfp4(*left_out: str) -> dict[str, Any]:
    names = list(left_out)
    return {"quant_method": "modelopt", "quant_algo": "NVFP4", "exclude_modules": names}


@pytest.mark.parametrize(
    ("patterns", "name", "inside"),
    [
        (["model.layers.0.self_attn"], "layers.0.self_attn.q_proj", True),
        (["model.layers.0.self_attn"], "layers.1.self_attn.q_proj", False),
        (["model.layers.1"], "layers.10.mlp.up_proj", False),
        (["model.layers.1"], "layers.1.mlp.up_proj", True),
        (["gate"], "layers.1.mlp.gate", True),
        (["gate"], "layers.1.mlp.gate_proj", False),
        (["self_attn"], "layers.1.self_attn.o_proj", True),
        (["language_model.model.layers.*.self_attn*"], "layers.3.self_attn.q", True),
        (["model.layers.*.self_attn"], "layers.3.mlp.up_proj", False),
        (["model.layers.*.mlp.gate"], "layers.3.mlp.gate_up_proj", False),
        (["model.layers.61*"], "layers.6.mlp.up_proj", False),
        (["re:.*self_attn.*"], "layers.3.self_attn.q_proj", True),
        ([r"re:.*mlp\.(gate|up)_proj.*"], "layers.3.mlp.up_proj", True),
        ([r"re:.*mlp\.(gate|up)_proj.*"], "layers.3.mlp.experts.0.up_proj", False),
        (["re:self_attn"], "layers.3.self_attn.q_proj", False),  # from the start on
        (["lm_head", "re:.*mlp.*"], "layers.3.mlp.up_proj", True),
        ([], "layers.3.mlp.up_proj", False),
    ],
)
def test_patterns(patterns: list[str], name: str, inside: bool) -> None:
    assert modules(patterns).have(name) is inside


def test_a_broken_expression() -> None:
    with pytest.raises(re.error):
        modules(["re:("])
    with pytest.raises(ConfigError, match=r"^m: quantization_config\.ignore .*broken"):
        of(fp8(ignore=["re:("]))


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        (fp8(), "fp8"),
        (fp8(modules_to_not_convert=["gate", "lm_head"]), "fp8"),
        (fp8(ignored_layers=["self_attn"]), "fp8/fp8/kv-bf16/projections-bf16"),
        # Three of four layers stay as they were; the fourth does not tell.
        (
            fp8(ignored_layers=[f"model.layers.{i}.self_attn" for i in (0, 1, 3)]),
            "fp8/fp8/kv-bf16/projections-bf16",
        ),
        (fp8(modules_to_not_convert=["model.layers.0.self_attn"]), "fp8"),
        (
            nvfp4("lm_head", "model.layers.*.self_attn*"),
            "nvfp4/nvfp4/kv-bf16/projections-bf16",
        ),
        # The output projection is in the quantised format, as NVIDIA's V3.1 has it.
        (
            nvfp4("layers.*.self_attn.q_b_proj", "layers.*.self_attn.kv_b_proj"),
            "nvfp4",
        ),
        (
            nvfp4("*self_attn*", "*shared_experts*", "model.layers.0.mlp*"),
            "bf16/nvfp4/kv-bf16/experts-nvfp4",
        ),
        (
            {"quant_method": "mxfp4", "modules_to_not_convert": ["mlp.experts"]},
            "mxfp4/bf16/kv-bf16/experts-bf16",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"g": {**INT4, "targets": ["Linear"]}},
                "ignore": [
                    "lm_head",
                    "re:.*self_attn.*",
                    "re:.*shared_experts.*",
                    r"re:.*mlp\.(gate|up|gate_up|down)_proj.*",
                ],
            },
            "bf16/bf16/kv-bf16/experts-int4",
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {
                    "rest": {**FLOAT8, "targets": ["Linear"]},
                    "experts": {**INT4, "targets": [r"re:.*mlp\.experts.*"]},
                },
            },
            "fp8/fp8/kv-bf16/experts-int4",
        ),
    ],
)
def test_classes_of_a_model_with_experts(
    quantization: dict[str, Any], precision: str
) -> None:
    assert of(quantization) == Precision.of(precision)


def test_mixed_precision_names_each_module() -> None:
    named = {
        "backbone.layers.0.mixer.in_proj": {"quant_algo": "FP8"},
        "backbone.layers.0.mixer.out_proj": {"quant_algo": "FP8"},
        "backbone.layers.3.mixer.in_proj": {"quant_algo": "FP8"},
        "backbone.layers.3.mixer.out_proj": {"quant_algo": "FP8"},
        "backbone.layers.1.mixer.experts.*": {"quant_algo": "NVFP4", "group_size": 16},
        "backbone.layers.1.mixer.shared_experts.up_proj": {"quant_algo": "FP8"},
    }
    mixed = {
        "quant_method": "modelopt",
        "quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": "FP8",
        "quantized_layers": named,
    }
    found = of(mixed, HYBRID)
    assert found == Precision.of("fp8/nvfp4/kv-fp8/experts-nvfp4")
    # The engine of each class is its own.
    assert (found.expert.engine, found.linear.engine) == (Dtype.FP4, Dtype.FP8)


def test_expert_dtype_of_deepseek_v4() -> None:
    found = of(fp8(), expert_dtype="fp4")
    assert found == Precision.of("fp8/fp8/kv-bf16/experts-mxfp4")
    assert of(fp8(), expert_dtype="fp8") == Precision.of("fp8")


@pytest.mark.parametrize(
    ("quantization", "more", "said"),
    [
        (fp8(ignore="lm_head"), {}, "quantization_config.ignore must be a list"),
        (fp8(ignore=[3]), {}, "quantization_config.ignore must be a list of modules"),
        (fp8(), {"expert_dtype": "fp5"}, "expert_dtype is unknown: 'fp5'; known: fp4"),
        (
            {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"},
            {},
            "lacks quantization_config.quantized_layers",
        ),
        (
            {
                "quant_method": "modelopt",
                "quant_algo": "MIXED_PRECISION",
                "quantized_layers": {"a": {}},
            },
            {},
            "lacks quantization_config.quantized_layers.a.quant_algo",
        ),
    ],
)
def test_what_is_refused(quantization: Any, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^m: .*{said}"):
        of(quantization, **more)


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("gpt-oss-120b", "bf16/bf16/kv-bf16/experts-mxfp4"),
        ("kimi-k2.5", "bf16/bf16/kv-bf16/experts-int4"),
        ("kimi-k2.5-nvfp4", "nvfp4/nvfp4/kv-fp8/projections-bf16"),
        ("kimi-k3", "bf16/bf16/kv-bf16/experts-mxfp4"),
        ("deepseek-v3", "fp8-block"),
        ("deepseek-v3.1-nvfp4", "nvfp4/nvfp4/kv-fp8"),
        ("deepseek-v4-flash", "fp8_block/fp8/kv-bf16/experts-mxfp4"),
        ("deepseek-v4-flash-fp8", "fp8-block"),
        ("glm-5-fp8", "fp8-block"),
        ("minimax-m2.5", "fp8-block"),
        ("qwen3-30b-a3b-fp8", "fp8-block"),
    ],
)
def test_precision_of_published_checkpoints(name: str, precision: str) -> None:
    assert load_model(name).precision == Precision.of(precision)
