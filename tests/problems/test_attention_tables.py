"""Tables of attention, MLA and recurrent mixers as operators, derived by hand."""

from collections.abc import Mapping

import pytest

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import KernelKey
from problems.measured.operators import OperatorRows, operator_rows, reader_of

SYSTEM = {"system": "h200_sxm", "framework": "vllm", "version": "0.24.0"}


def read(row: Mapping[str, object]) -> OperatorRows:
    """One measurement of 1 ms."""
    cells = {k: str(v) for k, v in {**SYSTEM, **row, "latency_ms": 1}.items()}
    reader = reader_of(tuple(cells))
    assert reader is not None
    (rows,) = operator_rows(reader, [cells])
    return rows


def fitted(row: Mapping[str, object]) -> bool:
    cells = {k: str(v) for k, v in {**SYSTEM, **row}.items()}
    reader = reader_of(tuple(cells))
    assert reader is not None
    return reader.fitted and (reader.usual is None or reader.usual(cells))


MLA = {
    "mla_dtype": "bfloat16",
    "kv_cache_dtype": "fp8",
    "num_heads": 16,
    "batch_size": 4,
    "tp_size": 8,
}
MODULE = {**MLA, "gemm_type": "fp8_block", "architecture": "DeepseekV3ForCausalLM"}
DELTA = {
    "batch_size": 4,
    "seq_len": 256,
    "d_model": 2048,
    "d_conv": 4,
    "num_k_heads": 8,
    "head_k_dim": 128,
    "num_v_heads": 16,
    "head_v_dim": 128,
}


def test_an_answer_attends_to_latents() -> None:
    rows = read({**MLA, "isl": 1, "step": 99})
    (core,) = rows.operators
    assert rows.table == "generation_mla"
    assert rows.key == KernelKey(KernelFamily.MLA_DECODE, Dtype.FP8, Dtype.BF16)
    # 16 heads of 576 and of 512 elements over 100 tokens, four times.
    assert core.cost().total_flop == pytest.approx(2 * 4 * 16 * 100 * (576 + 512))
    assert core.cost().cache == pytest.approx(4 * 100 * 576)


def test_a_prompt_attends_to_keys_and_values_made_of_them() -> None:
    rows = read({**MLA, "isl": 10, "step": 0})
    (core,) = rows.operators
    assert rows.table == "context_mla"
    assert rows.key == KernelKey(KernelFamily.MLA_PREFILL, Dtype.FP8, Dtype.BF16)
    assert core.cost().total_flop == pytest.approx(2 * 4 * 16 * 55 * (192 + 128))


def test_a_module_is_the_whole_layer_about_its_attention() -> None:
    rows = read({**MODULE, "isl": 1, "step": 99})
    names = [each.name for each in rows.operators]
    assert names[0] == "qkv_a_proj"
    assert names[-1] == "o_proj"
    assert {"q_absorb", "v_absorb", "mla_decode"} < set(names)
    # Few heads: projections have more FLOP, and are not what is fitted.
    assert rows.key.family is KernelFamily.MLA_DECODE


@pytest.mark.parametrize(("stack", "expected"), [("vllm", True), ("trtllm", False)])
def test_modules_are_fitted_where_no_kernel_was_measured_alone(
    stack: str, expected: bool
) -> None:
    row = {**MODULE, "isl": 1, "step": 99, "framework": stack}
    assert fitted(row) is expected


def test_absorbed_products_have_a_matrix_for_each_head() -> None:
    row = {"bmm_dtype": "bfloat16", "num_heads": 16, "num_tokens": 32}
    for name, k, n in (("mla_gen_pre", 128, 512), ("mla_gen_post", 512, 128)):
        rows = read({**row, "op_name": name})
        (product,) = rows.operators
        assert product.cost().total_flop == pytest.approx(2 * 32 * 16 * k * n)
        assert product.cost().weights == pytest.approx(16 * k * n * 2)
    assert not fitted({**row, "op_name": "mla_gen_pre"})


@pytest.mark.parametrize(
    ("phase", "source", "table", "family"),
    [
        ("context", "chunk_gated_delta_rule", "scan", KernelFamily.SCAN),
        ("generation", "fused_recurrent", "scan", KernelFamily.SCAN_DECODE),
        ("context", "causal_conv1d_fn", "conv", KernelFamily.ELEMENTWISE),
    ],
)
def test_a_recurrent_mixer_is_read_part_by_part(
    phase: str, source: str, table: str, family: KernelFamily
) -> None:
    row = {**DELTA, "phase": phase, "kernel_source": source, "model_name": "m"}
    rows = read(row)
    assert rows.table == f"gdn_{table}_{phase}"
    assert rows.key.family is family
    assert fitted(row) is (table == "scan")


def test_the_state_of_a_delta_rule_is_kept_in_fp32() -> None:
    row = {**DELTA, "phase": "generation", "kernel_source": "fused_recurrent"}
    (scan,) = read({**row, "seq_len": 1, "model_name": "m"}).operators
    assert scan.cost().cache == pytest.approx(4 * 16 * 128 * 128 * 4)


def test_query_heads_share_a_key_head_and_a_window() -> None:
    row = {
        "attn_dtype": "bfloat16",
        "kv_cache_dtype": "bfloat16",
        "batch_size": 4,
        "isl": 1,
        "step": 999,
        "num_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "window_size": 128,
    }
    (core,) = read(row).operators
    shape = core.shape()
    assert shape.repeats == pytest.approx([4.0])
    assert shape.groups == pytest.approx([32.0])
    assert shape.columns == pytest.approx([128.0])
    assert shape.cut == pytest.approx([1.0])
    assert shape.windowed
