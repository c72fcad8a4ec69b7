from collections.abc import Callable, Mapping
from typing import Any

import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import ConfigError
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.hf_config import READERS, read_config
from problems.catalogue import load_model, model_file, names, raw

HIDDEN, WIDE, LAYERS, HEADS, KV_HEADS, VOCAB = 64, 96, 4, 8, 2, 100
HEAD_DIM = HIDDEN // HEADS
KV = KV_HEADS * HEAD_DIM

LLAMA = {
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCAB,
}
GPT2 = {
    "model_type": "gpt2",
    "n_embd": HIDDEN,
    "n_head": HEADS,
    "n_layer": LAYERS,
    "n_positions": 30,
    "vocab_size": VOCAB,
}
FALCON = {
    "model_type": "falcon",
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCAB,
}
NAS = {
    "model_type": "nemotron-nas",
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "vocab_size": VOCAB,
    "block_configs": [
        {"attention": {"n_heads_in_group": 4}, "ffn": {"ffn_mult": 6.0}},
        {"attention": {"no_op": True}, "ffn": {"ffn_mult": 6.1}},
        {"attention": {"n_heads_in_group": 8}, "ffn": {"no_op": True}},
    ],
}


def read(base: Mapping[str, Any] = LLAMA, **changes: Any) -> ModelArch:
    """Read a config with some fields changed, or left out where set to Ellipsis."""
    merged = {k: v for k, v in ({**base, **changes}).items() if v is not ...}
    return read_config(merged, "m")


def windows(arch: ModelArch) -> dict[int | None, int]:
    """Count the layers of each sliding window."""
    counts: dict[int | None, int] = {}
    for run in arch.runs:
        window = run.layer.mixer.sliding_window
        counts[window] = counts.get(window, 0) + run.count
    return counts


# ---- published parameter counts ----

PUBLISHED = {
    # huggingface.co/meta-llama/Llama-2-{7b,13b,70b}-hf, safetensors total
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    # huggingface.co/meta-llama/Meta-Llama-3-{8B,70B}, safetensors total
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    # huggingface.co/meta-llama/Llama-3.1-{8B,70B,405B}, safetensors total
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    # huggingface.co/meta-llama/Llama-3.2-{1B,3B}, safetensors total
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    # huggingface.co/codellama/CodeLlama-34b-hf, safetensors total
    "codellama-34b": 33_743_970_304,
    # huggingface.co/01-ai/Yi-34B, safetensors total
    "yi-34b": 34_388_917_248,
    # huggingface.co/mistralai/Mistral-7B-{v0.1,v0.3}, safetensors total
    "mistral-7b": 7_241_732_096,
    "mistral-7b-v0.3": 7_248_023_552,
    # huggingface.co/mistralai/Mistral-Nemo-Instruct-2407, safetensors total
    "mistral-nemo-12b": 12_247_782_400,
    # huggingface.co/mistralai/Mistral-Small-24B-Instruct-2501, safetensors total
    "mistral-small-24b": 23_572_403_200,
    # huggingface.co/Qwen/Qwen2.5-{7B,14B,32B,72B}-Instruct, safetensors total
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen2.5-72b": 72_706_203_648,
    # huggingface.co/Qwen/Qwen3-{4B,8B,14B,32B}, safetensors total
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    # huggingface.co/google/gemma-2-{2b,9b,27b}-it, safetensors total
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2-27b": 27_227_128_320,
    # huggingface.co/google/gemma-3-1b-it, safetensors total
    "gemma-3-1b": 999_885_952,
    # huggingface.co/microsoft/{Phi-3-mini-4k,Phi-3-medium-4k}-instruct and phi-4,
    # safetensors total
    "phi-3-mini": 3_821_079_552,
    "phi-3-medium": 13_960_238_080,
    "phi-4": 14_659_507_200,
    # github.com/openai/gpt-2, 124M model: sum of the tensors
    "gpt2": 124_439_808,
    # huggingface.co/EleutherAI/gpt-j-6b, sum of the tensors
    "gpt-j-6b": 6_050_882_784,
    # huggingface.co/EleutherAI/gpt-neox-20b, model card
    "gpt-neox-20b": 20_554_567_680,
    # huggingface.co/facebook/opt-6.7b, sum of the tensors
    "opt-6.7b": 6_658_473_984,
    # huggingface.co/tiiuae/falcon-7b, sum of the tensors, the tied head once
    "falcon-7b": 6_921_720_704,
    # huggingface.co/bigscience/bloom, model card: 176,247,271,424
    "bloom-176b": 176_247_271_424,
    # huggingface.co/bigscience/bloom-7b1, model card: 7,069,016,064
    "bloom-7b1": 7_069_016_064,
}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_parameters_are_the_published_ones(name: str) -> None:
    assert load_model(name).parameters == PUBLISHED[name]


# The papers' own shapes make a little more than the rounded figures.
ROUNDED = {"gpt3-175b": 5e-5, "palm-540b": 5e-5}


@pytest.mark.parametrize("name", names("models"))
def test_parameters_of_every_catalogue_model(name: str) -> None:
    found, published = load_model(name).parameters, model_file(name).parameters
    assert found == pytest.approx(published, rel=ROUNDED.get(name, 0), abs=0)


@pytest.mark.parametrize("name", names("models"))
def test_layers_and_widths_of_every_catalogue_model_are_the_configs(name: str) -> None:
    config, arch = raw("models", name)["config"], load_model(name)
    config = config.get("text_config", config)

    def of(*keys: str) -> Any:
        return next(config[key] for key in keys if key in config)

    blocks = len(config.get("layers_block_type", []))
    layers = blocks or of("num_hidden_layers", "n_layer", "n_layers")
    assert arch.num_hidden_layers == layers
    assert arch.hidden_size == of("hidden_size", "n_embd", "n_embed", "d_model")
    assert arch.vocab_size == config["vocab_size"]
    assert arch.model_type == config["model_type"]
    assert arch.name == name


# ---- each family's parameters, by hand ----

LINEAR = HIDDEN * (HIDDEN + 2 * KV + HIDDEN) + 3 * HIDDEN * WIDE
ENDS = 2 * VOCAB * HIDDEN + HIDDEN  # embedding, head, final norm


def whole(layer: int) -> int:
    return LAYERS * layer + ENDS


MHA_PLAIN = 4 * HIDDEN**2 + 2 * HIDDEN * 4 * HIDDEN  # attention, feed-forward of 4 x
GPT_BIASES = 4 * HIDDEN + 4 * HIDDEN + HIDDEN  # qkv and output; up, down
LAYER_NORM = 2 * HIDDEN
GPT_LAYER = MHA_PLAIN + GPT_BIASES + 2 * LAYER_NORM
TIED_END = VOCAB * HIDDEN + LAYER_NORM
NEOX = {**LLAMA, "model_type": "gpt_neox", "num_key_value_heads": ...}
NEOX |= {"intermediate_size": 4 * HIDDEN}
OPT = {**LLAMA, "model_type": "opt", "num_key_value_heads": ..., "ffn_dim": WIDE}
OPT |= {"intermediate_size": ..., "max_position_embeddings": 30}
BLOOM = {"model_type": "bloom", "n_embed": HIDDEN, "n_head": HEADS, "n_layer": LAYERS}
BLOOM |= {"vocab_size": VOCAB}
OPT_LAYER = 4 * HIDDEN**2 + 2 * HIDDEN * WIDE + 4 * HIDDEN + WIDE + HIDDEN
OPT_LAYER += 2 * LAYER_NORM
FALCON_7B_LAYER = 2 * HIDDEN**2 + 2 * HIDDEN * HEAD_DIM + 8 * HIDDEN**2 + LAYER_NORM
MIMO_LAYER = LINEAR + 2 * HIDDEN + (HIDDEN + 2 * KV)


@pytest.mark.parametrize(
    ("base", "changes", "parameters"),
    [
        (LLAMA, {}, whole(LINEAR + 2 * HIDDEN)),
        (LLAMA, {"tie_word_embeddings": True}, whole(LINEAR + 128) - VOCAB * HIDDEN),
        (
            LLAMA,
            {"attention_bias": True},
            whole(LINEAR + 2 * HIDDEN + (HIDDEN + 2 * KV) + HIDDEN),
        ),
        (LLAMA, {"mlp_bias": True}, whole(LINEAR + 3 * HIDDEN + 2 * WIDE)),
        (LLAMA, {"head_dim": 16}, whole(2 * LINEAR - 3 * HIDDEN * WIDE + 2 * HIDDEN)),
        (
            LLAMA,
            {"num_key_value_heads": ...},  # as many as heads
            whole(4 * HIDDEN**2 + 3 * HIDDEN * WIDE + 2 * HIDDEN),
        ),
        (LLAMA, {"model_type": "mistral"}, whole(LINEAR + 2 * HIDDEN)),
        (LLAMA, {"model_type": "phi3"}, whole(LINEAR + 2 * HIDDEN)),
        (
            LLAMA,
            {"model_type": "qwen2"},  # biased q, k, v; no other
            whole(LINEAR + 2 * HIDDEN + HIDDEN + 2 * KV),
        ),
        (
            LLAMA,
            {"model_type": "qwen3"},  # normed q and k heads
            whole(LINEAR + 2 * HIDDEN + 2 * HEAD_DIM),
        ),
        (
            LLAMA,
            {"model_type": "gemma2"},  # four norms, tied
            whole(LINEAR + 4 * HIDDEN) - VOCAB * HIDDEN,
        ),
        (
            LLAMA,
            {"model_type": "gemma3_text"},
            whole(LINEAR + 4 * HIDDEN + 2 * HEAD_DIM) - VOCAB * HIDDEN,
        ),
        (
            LLAMA,
            {  # attention_bias stands for q, k, v; the predictor is counted apart
                "model_type": "mimo",
                "attention_bias": True,
                "num_nextn_predict_layers": 1,
            },
            whole(MIMO_LAYER),
        ),
        (GPT2, {}, LAYERS * GPT_LAYER + TIED_END + 30 * HIDDEN),
        (
            GPT2,
            {"n_inner": WIDE},
            LAYERS * OPT_LAYER + TIED_END + 30 * HIDDEN,
        ),
        (
            GPT2,
            {"model_type": "gptj"},  # one norm, no attention bias, a biased head
            LAYERS * (MHA_PLAIN + 5 * HIDDEN + LAYER_NORM)
            + 2 * VOCAB * HIDDEN
            + LAYER_NORM
            + VOCAB,
        ),
        (NEOX, {}, LAYERS * GPT_LAYER + TIED_END + VOCAB * HIDDEN),
        (OPT, {}, LAYERS * OPT_LAYER + TIED_END + (30 + 2) * HIDDEN),
        (
            OPT,
            {"word_embed_proj_dim": 16, "do_layer_norm_before": False},
            LAYERS * OPT_LAYER + VOCAB * 16 + 2 * 16 * HIDDEN + (30 + 2) * HIDDEN,
        ),
        (FALCON, {}, LAYERS * FALCON_7B_LAYER + TIED_END),
        (
            FALCON,
            {"model_type": "RefinedWebModel", "bias": True},
            LAYERS * (FALCON_7B_LAYER + 7 * HIDDEN + 2 * HEAD_DIM) + TIED_END,
        ),
        (
            FALCON,
            {"new_decoder_architecture": True, "num_kv_heads": 2},  # two norms
            LAYERS * (10 * HIDDEN**2 + 2 * HIDDEN * KV + 2 * LAYER_NORM) + TIED_END,
        ),
        (
            FALCON,
            {"multi_query": False, "parallel_attn": False, "alibi": True},
            LAYERS * (MHA_PLAIN + 2 * LAYER_NORM) + TIED_END,
        ),
        (BLOOM, {}, LAYERS * GPT_LAYER + TIED_END + LAYER_NORM),
        (
            NAS,
            {},
            HIDDEN * (2 * HIDDEN + 2 * 2 * HEAD_DIM)  # 8 heads in groups of 4
            + HIDDEN * (2 * HIDDEN + 2 * 1 * HEAD_DIM)  # in one group of 8
            + 3 * HIDDEN * 256  # 2/3 x 6 x 64 = 256
            + 3 * HIDDEN * 512  # 2/3 x 6.1 x 64 = 260, rounded up to 256s
            + (2 + 1 + 1) * HIDDEN  # a norm per half
            + ENDS,
        ),
    ],
)
def test_parameters_of_a_family_by_hand(
    base: dict[str, Any], changes: dict[str, Any], parameters: int
) -> None:
    assert read(base, **changes).parameters == parameters


DENSE = (".llama", ".gpt")  # the other readers are tested in test_hf_families.py


def test_the_layer_that_predicts_is_counted_apart() -> None:
    mimo = read(model_type="mimo", num_nextn_predict_layers=1)
    # It joins the stream with the guessed token's embedding; three norms.
    joining = 2 * HIDDEN * HIDDEN + 3 * HIDDEN
    assert mimo.predictor_parameters == MIMO_LAYER + joining
    assert len(mimo.layers) == LAYERS


def test_every_model_type_is_read_by_hand_above_or_is_a_synonym() -> None:
    cases = test_parameters_of_a_family_by_hand.pytestmark[0].args[1]
    covered = {{**base, **changes}["model_type"] for base, changes, _ in cases}
    dense = {kind for kind in READERS if READERS[kind].__module__.endswith(DENSE)}
    assert dense - covered == {"gemma3", "RefinedWeb"}
    assert READERS["gemma3"] is READERS["gemma3_text"]
    assert READERS["RefinedWeb"] is READERS["falcon"]


def test_families_that_run_both_halves_at_once() -> None:
    def parallel(base: Mapping[str, Any], **changes: Any) -> bool:
        (run,) = read(base, **changes).runs
        return run.layer.parallel_residual

    assert parallel(GPT2, model_type="gptj")
    assert parallel(NEOX)
    assert not parallel(NEOX, use_parallel_residual=False)
    assert parallel(FALCON)
    assert not parallel(FALCON, parallel_attn=False)
    assert not parallel(LLAMA)
    assert not parallel(GPT2)


def test_learned_and_alibi_positions_are_not_rotary() -> None:
    rotary = {
        base["model_type"]: read(base).runs[0].layer.mixer.rotary
        for base in (LLAMA, GPT2, NEOX, OPT, FALCON, BLOOM)
    }
    assert [kind for kind, turned in rotary.items() if turned] == [
        "llama",
        "gpt_neox",
        "falcon",
    ]


def test_layers_of_a_pruned_model() -> None:
    halves = sorted(
        (run.layer.mixer is not None, run.layer.ffn is not None, run.layer.norms)
        for run in read(NAS).runs
    )
    assert halves == [(False, True, 1), (True, False, 1), (True, True, 2)]


def test_equal_layers_are_grouped_wherever_they_stand() -> None:
    arch = read(
        sliding_window=10, layer_types=["sliding_attention", "full_attention"] * 2
    )
    assert sorted(run.count for run in arch.runs) == [2, 2]


def test_longest_sequence() -> None:
    assert read(max_position_embeddings=4096).max_position_embeddings == 4096
    assert read().max_position_embeddings is None


# ---- sliding windows ----


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {None: 12}),
        ({"sliding_window": None}, {None: 12}),  # Mistral 7B v0.3
        ({"model_type": "mistral", "sliding_window": 7}, {7: 12}),  # v0.1
        ({"model_type": "phi3", "sliding_window": 7}, {7: 12}),
        ({"model_type": "gemma2", "sliding_window": 7}, {7: 6, None: 6}),
        ({"model_type": "gemma3_text", "sliding_window": 7}, {7: 10, None: 2}),
        (
            {
                "model_type": "gemma3_text",
                "sliding_window": 7,
                "sliding_window_pattern": 4,
            },
            {7: 9, None: 3},
        ),
        (  # Qwen2: the window is there but not used
            {"model_type": "qwen2", "sliding_window": 7, "use_sliding_window": False},
            {None: 12},
        ),
        (
            {
                "model_type": "qwen2",
                "sliding_window": 7,
                "use_sliding_window": True,
                "max_window_layers": 8,  # the first eight stay full
            },
            {7: 4, None: 8},
        ),
        (
            {
                "sliding_window": 7,
                "layer_types": ["full_attention"] + ["sliding_attention"] * 11,
            },
            {7: 11, None: 1},
        ),
    ],
)
def test_windows_by_family(changes: dict[str, Any], expected: dict[Any, int]) -> None:
    assert windows(read(num_hidden_layers=12, **changes)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mistral-7b", {4096: 32}),
        ("mistral-7b-v0.3", {None: 32}),
        ("gemma-2-9b", {4096: 21, None: 21}),
        ("gemma-3-27b", {1024: 52, None: 10}),  # 62 layers, each sixth full
        ("qwen2.5-7b", {None: 28}),
        ("llama-3.1-8b", {None: 32}),
    ],
)
def test_windows_of_published_models(name: str, expected: dict[Any, int]) -> None:
    assert windows(load_model(name)) == expected


# ---- multimodal configs ----


def test_the_text_part_of_a_multimodal_config_is_read() -> None:
    text = {**LLAMA, "model_type": "gemma3_text", "torch_dtype": "float16"}
    outer = {
        "model_type": "gemma3",
        "hidden_size": 1,
        "vision_config": {"hidden_size": 7},
        "torch_dtype": "float32",
        "text_config": text,
    }
    assert read_config(outer, "m") == read_config(text, "m")


def test_what_the_outer_config_alone_says_holds_for_the_text() -> None:
    text = {**LLAMA, "model_type": "gemma3_text"}
    outer = {"torch_dtype": "float16", "tie_word_embeddings": False}
    arch = read_config({"text_config": text, **outer}, "m")
    assert arch.precision.weights is Dtype.FP16
    assert not arch.tie_word_embeddings


# ---- precision ----


def numbers(bits: int, kind: str, **more: Any) -> dict[str, Any]:
    """Return a compressed-tensors scheme."""
    return {"num_bits": bits, "type": kind, "dynamic": False, **more}


def groups(*schemes: Any, **more: Any) -> dict[str, Any]:
    """Return compressed-tensors' keys for (weights, inputs) of each group."""
    named = {
        f"group_{index}": {
            "weights": weights,
            "input_activations": inputs,
            "targets": ["Linear"],
        }
        for index, (weights, inputs) in enumerate(schemes)
    }
    return {"quant_method": "compressed-tensors", "config_groups": named, **more}


def modelopt(algorithm: str | None, **more: Any) -> dict[str, Any]:
    return {"quant_method": "modelopt", "quant_algo": algorithm, **more}


FLOAT8, INT8, INT4 = numbers(8, "float"), numbers(8, "int"), numbers(4, "int")
NVFP4 = numbers(4, "float", group_size=16)
MXFP4 = numbers(4, "float", group_size=32, scale_dtype="torch.uint8")
FP8_BLOCKS = {
    "activation_scheme": "dynamic",
    "fmt": "e4m3",
    "quant_method": "fp8",
    "weight_block_size": [128, 128],
}


@pytest.mark.parametrize(
    ("changes", "precision"),
    [
        ({}, Precision()),
        ({"torch_dtype": "float16"}, Precision(*[Dtype.FP16] * 3)),
        ({"dtype": "float32"}, Precision(*[Dtype.FP32] * 3)),
        ({"quantization_config": None}, Precision()),
        (
            {
                "quantization_config": {"quant_method": "gptq", "bits": 4},
                "torch_dtype": "float16",
            },
            Precision(Dtype.INT4, Dtype.FP16, Dtype.FP16),
        ),
    ],
)
def test_precision_of_a_checkpoint(
    changes: dict[str, Any], precision: Precision
) -> None:
    assert read(**changes).precision == precision


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [
        (FP8_BLOCKS, "fp8-block"),
        ({**FP8_BLOCKS, "scale_fmt": "ue8m0"}, "fp8-block"),
        ({"quant_method": "FP8", "kv_cache_scheme": "static"}, "fp8-kv8"),
        ({"quant_method": "fbgemm_fp8"}, "fp8"),
        ({"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}, "mxfp4"),
        ({"quant_method": "awq", "bits": 4}, "int4"),
        ({"quant_method": "awq", "w_bit": 4}, "int4"),
        ({"quant_method": "gptq", "bits": 8}, "int8/bf16/kv-bf16"),
        # No key but the method's own tells the format.
        ({"quant_method": "gptq", "bits": 4, "note": "fp8, mxfp4"}, "int4"),
        ({**FP8_BLOCKS, "modules_to_not_convert": ["nvfp4.awq"]}, "fp8-block"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "int4"),
        ({"load_in_8bit": True, "load_in_4bit": False}, "int8"),
        (groups((FLOAT8, FLOAT8), format="float-quantized"), "fp8"),
        (groups((FLOAT8, FLOAT8), kv_cache_scheme=FLOAT8), "fp8-kv8"),
        (groups((FLOAT8, FLOAT8), kv_cache_scheme=INT8), "fp8/fp8/kv-int8"),
        (groups((FLOAT8, FLOAT8), kv_cache_scheme=None), "fp8"),
        (groups((FLOAT8, FLOAT8), (FLOAT8, FLOAT8)), "fp8"),
        (groups((FLOAT8, None)), "fp8/bf16/kv-bf16"),
        (groups(({**FLOAT8, "strategy": "block"}, FLOAT8)), "fp8-block"),
        (groups((INT8, INT8), format="int-quantized"), "int8"),
        (groups((INT8, None), format="pack-quantized"), "int8/bf16/kv-bf16"),
        (groups((INT4, None), format="pack-quantized"), "int4"),
        (groups((INT4, None), format="pack-quantized", quant_method=None), "int4"),
        (groups((INT4, FLOAT8)), "int4/fp8/kv-bf16"),
        (groups((NVFP4, NVFP4)), "nvfp4"),
        (groups((NVFP4, None)), "nvfp4/bf16/kv-bf16"),
        (groups((MXFP4, None), format="mxfp4-pack-quantized"), "mxfp4"),
        (groups(kv_cache_scheme=FLOAT8), "bf16/bf16/kv-fp8"),
        (modelopt("FP8"), "fp8"),
        (modelopt("FP8", kv_cache_quant_algo="FP8"), "fp8-kv8"),
        (modelopt("FP8", kv_cache_scheme=FLOAT8), "fp8-kv8"),
        (modelopt("NVFP4", kv_cache_quant_algo="FP8"), "nvfp4/nvfp4/kv-fp8"),
        (modelopt("NVFP4", kv_cache_quant_algo="none"), "nvfp4"),
        (modelopt("W4A16_AWQ"), "int4"),
        (modelopt("W4A8_AWQ"), "int4/fp8/kv-bf16"),
        (modelopt("W8A16"), "int8/bf16/kv-bf16"),
        (modelopt("W8A8_SQ_PER_CHANNEL"), "int8"),
        (modelopt("W4A8_NVFP4_FP8"), "nvfp4/fp8/kv-bf16"),
        (modelopt(None, kv_cache_quant_algo="FP8"), "bf16/bf16/kv-fp8"),
        (
            modelopt(None, config_groups=groups((NVFP4, NVFP4))["config_groups"]),
            "nvfp4",
        ),
        # The method left out, the groups beside the algorithm.
        (
            groups(
                (FLOAT8, FLOAT8),
                quant_method=None,
                quant_algo="FP8",
                kv_cache_scheme="FP8",
                producer={"name": "modelopt"},
            ),
            "fp8-kv8",
        ),
        # hf_quant_config.json, pasted.
        (
            {
                "producer": {"name": "modelopt"},
                "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"},
            },
            "fp8-kv8",
        ),
    ],
)
def test_precision_of_a_quantised_checkpoint(
    quantization: dict[str, Any], precision: str
) -> None:
    found = read(quantization_config=quantization).precision
    assert found == Precision.of(precision)


METHODS = "awq, bitsandbytes, compressed-tensors, fbgemm_fp8, fp8, gptq, .*mxfp4"


@pytest.mark.parametrize(
    ("quantization", "said"),
    [
        ("fp8", " must be a mapping: 'fp8'"),
        ([FP8_BLOCKS], " must be a mapping"),
        ({}, f".quant_method is missing; known: {METHODS}"),
        ({"bits": 4}, f".quant_method is missing; known: {METHODS}"),
        ({"quant_method": "hqq"}, f".quant_method is unknown: 'hqq'; known: {METHODS}"),
        ({"quant_method": ["fp8"]}, ".quant_method is unknown: .*; known: "),
        ({"quant_method": "gptq"}, ".bits or quantization_config.w_bit$"),
        ({"quant_method": "gptq", "bits": 3}, ".bits must be 4 or 8: 3"),
        ({"quant_method": "awq", "bits": "4"}, ".bits must be a whole number: '4'"),
        ({"quant_method": "bitsandbytes"}, ".load_in_4bit or load_in_8bit must be"),
        ({"load_in_4bit": True, "load_in_8bit": True}, ".load_in_4bit .* not both"),
        ({"load_in_4bit": "yes"}, ".load_in_4bit must be true or false: 'yes'"),
        (modelopt("MIXED_PRECISION"), ".quantized_layers$"),
        (modelopt("FP9"), ".quant_algo is unknown: 'FP9'; known: .*W4A16_AWQ"),
        (modelopt(None), " quantises neither weights nor KV cache"),
        (modelopt("FP8", kv_cache_quant_algo="FP9"), ".kv_cache_quant_algo is unknown"),
        (modelopt("FP8", kv_cache_scheme=[8]), ".kv_cache_scheme must be a mapping"),
        (groups(), " quantises neither weights nor KV cache"),
        (
            groups((FLOAT8, FLOAT8), (INT4, None)),
            ".config_groups differ: .* one format",
        ),
        (groups((None, FLOAT8)), r".config_groups.group_0.weights$"),
        (groups((4, None)), ".config_groups.group_0.weights must be a mapping: '4'"),
        (
            groups((numbers(3, "int"), None)),
            ".weights is unknown: 'int 3'; known: int 4",
        ),
        (groups((numbers([4], "int"), None)), ".weights is unknown: "),
        (groups((INT8, {"num_bits": 8})), ".input_activations is unknown: 'None 8'"),
        (
            groups((numbers(4, "float"), None)),
            "'float 4 group_size None'; known: .* 16",
        ),
        (groups((INT4, None), config_groups=[1]), ".config_groups must be a mapping"),
        (groups((INT4, None), config_groups={"g": 1}), ".config_groups.g must be a"),
    ],
)
def test_quantisations_that_are_refused(quantization: object, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^m: .*quantization_config.*{said}"):
        read(quantization_config=quantization)


def test_precision_of_published_checkpoints() -> None:
    fp8 = Precision(Dtype.FP8, Dtype.FP8, Dtype.FP8)
    assert load_model("llama-3.1-70b-fp8").precision == fp8
    assert load_model("llama-3.1-70b").precision == Precision()
    assert load_model("gpt3-175b").precision.weights is Dtype.FP16


# ---- errors ----


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": ...}, "lacks model_type; known: .*falcon"),
        ({"model_type": 3}, "lacks model_type"),
        ({"model_type": "lama"}, "unknown model_type 'lama'; did you mean 'llama'"),
        ({"model_type": "qwen4"}, "unknown model_type 'qwen4'; did you mean 'qwen"),
        ({"hidden_size": ...}, "lacks hidden_size"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"vocab_size": ...}, "lacks vocab_size"),
        ({"num_hidden_layers": ...}, "lacks num_hidden_layers"),
        ({"num_attention_heads": ...}, "lacks num_attention_heads"),
        ({"intermediate_size": ...}, "lacks intermediate_size"),
        ({"hidden_size": "64"}, "hidden_size must be a whole number: '64'"),
        ({"hidden_size": 64.0}, "hidden_size must be a whole number: 64.0"),
        ({"hidden_size": True}, "hidden_size must be a whole number: True"),
        ({"hidden_size": [64]}, "hidden_size must be a whole number"),
        ({"hidden_size": -64}, "hidden_size must be from 1 to .*: -64"),
        ({"hidden_size": 0}, "hidden_size must be from 1 to"),
        ({"vocab_size": 10**12}, "vocab_size must be from 1 to"),
        (
            {"num_hidden_layers": 10_001},
            "num_hidden_layers must be from 1 to 10000: 10",
        ),
        ({"num_nextn_predict_layers": -1}, "num_nextn_predict_layers must be from 0"),
        ({"attention_bias": "no"}, "attention_bias must be true or false: 'no'"),
        ({"attention_bias": 0}, "attention_bias must be true or false: 0"),
        ({"hidden_size": 60}, "num_attention_heads 8 does not divide hidden_size 60"),
        (
            {"num_key_value_heads": 3},
            "num_key_value_heads 3 does not divide num_attention_heads 8",
        ),
        ({"sliding_window": 0}, "sliding_window must be from 1 to"),
        ({"sliding_window": "4k"}, "sliding_window must be a whole number: '4k'"),
        (
            {"sliding_window": 8, "layer_types": ["full_attention"] * 3},
            "layer_types must list num_hidden_layers 4 entries",
        ),
        (
            {"sliding_window": 8, "layer_types": "full_attention"},
            "layer_types must list num_hidden_layers 4 entries",
        ),
        (
            {"sliding_window": 8, "layer_types": ["linear_attention"] * 4},
            "layer_types has unknown 'linear_attention'; did you mean",
        ),
        (
            {"sliding_window": 8, "layer_types": [["full_attention"], {}, None, 1]},
            r"layer_types has unknown '\['full_attention'\]'; did you mean",
        ),
        ({"torch_dtype": "float61"}, "torch_dtype: unknown dtype 'float61'"),
    ],
)
def test_errors_name_the_model_and_what_is_wrong(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=f"^m: .*{said}"):
        read(**changes)


@pytest.mark.parametrize(
    ("base", "missing"),
    [
        (GPT2, "n_embd"),
        (GPT2, "n_head"),
        (GPT2, "n_layer"),
        (GPT2, "n_positions"),
        (OPT, "ffn_dim"),
        (OPT, "max_position_embeddings"),
        (NEOX, "intermediate_size"),
        (NAS, "block_configs"),
        (NAS, "num_attention_heads"),
    ],
)
def test_missing_fields_of_other_families_are_named(
    base: dict[str, Any], missing: str
) -> None:
    with pytest.raises(ConfigError, match=f"m: the config lacks .*{missing}"):
        read(base, **{missing: ...})


def test_a_field_with_two_names_is_asked_for_under_both() -> None:
    with pytest.raises(ConfigError, match="lacks num_attention_heads or n_head"):
        read(FALCON, num_attention_heads=...)
    old = {**FALCON, "num_attention_heads": ..., "n_head": HEADS}
    assert read(old).parameters == read(FALCON).parameters


HALF_MIXER, HALF_FFN = {"n_heads_in_group": 8}, {"ffn_mult": 6.0}


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("attention", r"block_configs\[0\] must be a mapping: 'attention'"),
        (None, r"lacks block_configs\[0\]"),
        ({"attention": HALF_MIXER}, r"lacks block_configs\[0\].ffn"),
        ({"ffn": HALF_FFN}, r"lacks block_configs\[0\].attention"),
        ({"attention": [8], "ffn": HALF_FFN}, r"\[0\].attention must be a mapping"),
        ({"attention": HALF_MIXER, "ffn": 6.0}, r"\[0\].ffn must be a mapping: '6.0'"),
    ],
)
def test_malformed_blocks(block: object, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^m: .*{said}"):
        read(NAS, block_configs=[block] * 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, r"lacks block_configs\[0\].attention.n_heads_in_group"),
        ({"n_heads_in_group": 0}, "n_heads_in_group must be from 1 to .*: 0"),
        ({"n_heads_in_group": -8}, "n_heads_in_group must be from 1 to .*: -8"),
        ({"n_heads_in_group": 3}, "group 3 does not divide num_attention_heads 8"),
        ({"n_heads_in_group": 16}, "group 16 does not divide num_attention_heads 8"),
        ({"n_heads_in_group": 4.0}, "n_heads_in_group must be a whole number: 4.0"),
        ({"n_heads_in_group": "4"}, "n_heads_in_group must be a whole number: '4'"),
        ({"no_op": "yes"}, "attention.no_op must be true or false: 'yes'"),
        ({"replace_with_linear": True}, "replace_with_linear is not supported"),
    ],
)
def test_malformed_attention_of_a_block(changes: dict[str, Any], said: str) -> None:
    block = {"attention": changes, "ffn": HALF_FFN}
    with pytest.raises(ConfigError, match=f"^m: .*{said}"):
        read(NAS, block_configs=[block] * 3)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, r"lacks block_configs\[0\].ffn.ffn_mult"),
        ({"ffn_mult": float("nan")}, "ffn_mult must be a number above 0.*'nan'"),
        ({"ffn_mult": float("inf")}, "ffn_mult must be a number above 0.*'inf'"),
        ({"ffn_mult": -1.0}, "ffn_mult must be a number above 0.*'-1.0'"),
        ({"ffn_mult": 0}, "ffn_mult must be a number above 0.*'0'"),
        ({"ffn_mult": 10**400}, "ffn_mult must be a number above 0, at most 1000"),
        ({"ffn_mult": "6"}, "ffn_mult must be a number above 0.*'6'"),
        ({"ffn_mult": True}, "ffn_mult must be a number above 0.*'True'"),
        ({"no_op": 1}, "ffn.no_op must be true or false: 1"),
        ({"replace_with_linear": True}, "replace_with_linear is not supported"),
    ],
)
def test_malformed_ffn_of_a_block(changes: dict[str, Any], said: str) -> None:
    block = {"attention": HALF_MIXER, "ffn": changes}
    with pytest.raises(ConfigError, match=f"^m: .*{said}"):
        read(NAS, block_configs=[block] * 3)


def test_the_malformed_block_is_named() -> None:
    blocks = [*NAS["block_configs"][:2], {"attention": {}, "ffn": {}}]
    with pytest.raises(
        ConfigError, match=r"lacks block_configs\[2\].attention.n_heads"
    ):
        read(NAS, block_configs=blocks)


@pytest.mark.parametrize("blocks", [[], "all", {}, NAS["block_configs"][:2]])
def test_blocks_must_be_as_many_as_layers(blocks: object) -> None:
    said = "m: block_configs must list num_hidden_layers 3 entries"
    with pytest.raises(ConfigError, match=said):
        read(NAS, block_configs=blocks)


def test_a_narrow_ffn_is_no_less_than_its_step() -> None:
    block = {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1e-9}}
    (run,) = read(NAS, block_configs=[block] * 3).runs
    assert run.layer.ffn.intermediate_size == 256


def test_a_config_without_a_model_type_is_told_some() -> None:
    with pytest.raises(ConfigError, match="lacks model_type; known: ") as caught:
        read(model_type=...)
    assert ", ".join(sorted(READERS)[:3]) in str(caught.value)


hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


@hypothesis.settings(derandomize=True, deadline=None, max_examples=300)
@hypothesis.given(
    st.sampled_from([LLAMA, GPT2, FALCON, NEOX, OPT, BLOOM, NAS]),
    st.data(),
    st.sampled_from(
        [None, "x", -1, 0, 1.5, True, [], {}, float("nan"), 10**10, [1], {"a": 1}]
    ),
)
def test_a_damaged_field_is_read_or_refused_but_never_crashes(
    base: dict[str, Any], data: Any, damage: object
) -> None:
    optional = ["head_dim", "sliding_window", "torch_dtype", "tie_word_embeddings"]
    optional += ["quantization_config", "layer_types"]
    field: Callable[..., Any] = data.draw(st.sampled_from([*base, *optional]))
    message = None
    try:
        arch = read(base, **{field: damage})
    except ConfigError as refused:
        message = str(refused)
    if message is None:
        assert arch.parameters > 0
    else:
        assert message.startswith("m: ")
