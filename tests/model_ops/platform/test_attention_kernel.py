"""Attention's kernels, derived by hand.

The NPU of these tests does 1e12 FLOP/s and 1e11 B/s on ten processors. A head of size
128 needs 4 x 128 FLOP per query and key: 512 ps on the whole NPU.
"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model_ops.dtypes import Dtype
from model_ops.opcost import KernelFamily, KernelShape
from model_ops.platform.kernels import (
    DecodeKernel,
    KernelEfficiency,
    LatentDecodeKernel,
    PrefillKernel,
    Work,
    stacked,
)
from model_ops.profiler.ops import AttentionCore

PAIR = 512e-12


def work(
    *,
    groups: float = 1.0,
    queries: float = 1.0,
    heads: float = 1.0,
    keys: float,
    memory: float = 0.0,
    **shape: float,
) -> Work:
    """Work of some key heads, whose query heads and queries see some keys each."""
    depth = shape.pop("depth", 128.0)
    pairs = groups * queries * heads * keys
    return Work(
        compute=pairs * PAIR * depth / 128,
        memory=memory,
        launches=1.0,
        processors=10.0,
        shape=KernelShape(
            format=Dtype.BF16,
            rows=queries * heads,
            columns=keys,
            depth=depth,
            groups=groups,
            repeats=heads,
            **shape,
        ),
    )


PREFILL = PrefillKernel(compute=0.5, memory=0.8, launch=1e-5)
DECODE = DecodeKernel(compute=0.5, memory=0.8, launch=1e-5)


def test_constant_shares_alone_are_the_roofline() -> None:
    own = KernelEfficiency(compute=0.5, memory=0.8, launch=1e-5)
    given_work = work(groups=4, queries=100, heads=8, keys=50, memory=1e-3)
    latent = work(groups=4, queries=1, heads=128, keys=50, memory=1e-3)
    for form in (PrefillKernel, DecodeKernel, LatentDecodeKernel):
        for each in (given_work, latent):
            assert form.plain(own).time(each).total == pytest.approx(
                own.time(each).total
            )


def test_padded_queries_and_a_lead_are_computed_in_vain() -> None:
    # 2 key heads x 4 heads x (100 + 28) queries x (50 + 14) keys at half the rate.
    kernel = replace(PREFILL, padding=28.0, lead=14.0)
    found = kernel.time(work(groups=2, queries=100, heads=4, keys=50))
    assert found.compute == pytest.approx(8 * 128 * 64 * PAIR / 0.5)
    assert found.total == pytest.approx(found.compute + 1e-5)


def test_packed_heads_share_the_padding() -> None:
    # One tile for 4 heads: each of them has 28 / 4 queries in vain.
    kernel = replace(PREFILL, padding=28.0, packing=1.0)
    found = kernel.time(work(groups=2, queries=100, heads=4, keys=50))
    assert found.compute == pytest.approx(8 * 107 * 50 * PAIR / 0.5)


def test_the_last_tile_runs_on_one_processor() -> None:
    # 100 queries after none see 50.5 keys on average, the last 50.5 + 50; a tile of 16
    # queries takes ten times as long as on ten processors.
    kernel = replace(PREFILL, tile=16.0)
    found = kernel.time(work(queries=100, keys=50.5))
    assert found.compute == pytest.approx(
        (100 * 50.5 + 16 * 10 * (50.5 + 50)) * PAIR / 0.5
    )


def test_a_window_has_two_edges_and_ends_where_it_began() -> None:
    kernel = replace(PREFILL, lead=10.0, cut_lead=20.0, tile=16.0)
    found = kernel.time(work(queries=100, keys=32, cut=1.0))
    assert found.compute == pytest.approx(
        (100 * (32 + 30) + 16 * 10 * (32 + 30)) * PAIR / 0.5
    )


@pytest.mark.parametrize(
    ("size", "share"), [(64, 0.6), (96, 0.8), (128, 1.0), (192, 1.4), (512, 2.0)]
)
def test_each_head_size_has_its_kernel(size: float, share: float) -> None:
    kernel = replace(PREFILL, size_64=0.6, size_192=1.4, size_256=2.0)
    found = kernel.time(work(queries=100, keys=50, depth=size))
    expected = 100 * 50 * PAIR * (size / 128) / (0.5 * share)
    assert found.compute == pytest.approx(expected)


def test_few_rows_cost_as_much_as_a_tile() -> None:
    # 3 rows of 8 in a tile of 16; 40 key heads, 100 + 20 keys.
    kernel = replace(DECODE, tile=16.0, lead=20.0)
    eight = kernel.time(work(groups=40, heads=8, keys=100)).compute
    one = kernel.time(work(groups=40, heads=1, keys=100)).compute
    assert eight == one == pytest.approx(40 * 16 * 120 * PAIR / 0.5)


def test_heads_that_run_alone_use_vector_units() -> None:
    kernel = replace(
        DECODE, vector=0.05, alone_above=32.0, tile=16.0, alone_item=2e-6, slots=2.0
    )
    # 48 heads of 5 key heads: 240 tiles, on 10 processors with two slots 12 waves.
    found = kernel.time(work(groups=5, heads=48, keys=100))
    assert found.compute == pytest.approx(240 * 100 * PAIR / 0.05 + 12 * 2e-6)
    # So does a head that shares its key head with none; 32 heads do not.
    single = kernel.time(work(groups=5, heads=1, keys=100)).compute
    assert single == pytest.approx(5 * 100 * PAIR / 0.05 + 2e-6)
    together = kernel.time(work(groups=5, heads=32, keys=100)).compute
    assert together == pytest.approx(5 * 32 * 100 * PAIR / 0.5)


def test_heads_of_latent_attention_fill_tiles_together() -> None:
    kernel = LatentDecodeKernel(
        compute=0.2, memory=0.8, launch=1e-5, vector=0.01, alone_above=32.0, tile=16.0
    )

    def seconds(heads: float) -> float:
        return float(kernel.time(work(groups=5, heads=heads, keys=100)).compute)

    # A single one alone; up to 32 as measured; 64 take no more, 128 full tiles' time.
    key = 5 * 100 * PAIR
    assert seconds(1) == pytest.approx(key / 0.01)
    assert seconds(8) == pytest.approx(key * 16 / 0.2)
    assert seconds(32) == seconds(64) == pytest.approx(key * 32 / 0.2)
    assert seconds(128) == pytest.approx(key * 128 / 0.59)


def test_windowed_heads_run_alone_where_the_stack_does_so() -> None:
    kernel = replace(DECODE, vector=0.05, window_alone=1.0)
    plain = kernel.time(work(groups=5, heads=8, keys=100)).compute
    windowed = kernel.time(work(groups=5, heads=8, keys=100, windowed=True)).compute
    assert plain == pytest.approx(5 * 8 * 100 * PAIR / 0.5)
    assert windowed == pytest.approx(5 * 8 * 100 * PAIR / 0.05)


def test_tiles_start_in_waves() -> None:
    kernel = replace(DECODE, item=1e-6, slots=2.0)
    few = kernel.time(work(groups=20, keys=1)).compute
    many = kernel.time(work(groups=60, keys=1)).compute
    assert few == pytest.approx(20 * PAIR / 0.5 + 1e-6)
    assert many == pytest.approx(60 * PAIR / 0.5 + 3e-6)


def test_one_key_head_does_not_draw_the_whole_bandwidth() -> None:
    kernel = replace(DECODE, stream=0.1)
    times = [
        kernel.time(work(groups=groups, keys=1, memory=1e-3)).memory
        for groups in (1, 4, 8, 16)
    ]
    assert times == pytest.approx([1e-2, 2.5e-3, 1.25e-3, 1.25e-3])


def test_splits_are_summed_where_the_context_is_long() -> None:
    kernel = replace(DECODE, combine=4e-6)
    short, even, long = (
        kernel.time(work(keys=keys)).launch for keys in (0.0, 512.0, 1e9)
    )
    assert [short, even, long] == pytest.approx([1e-5, 1.2e-5, 1.4e-5])


def test_nothing_to_do_takes_the_start_alone() -> None:
    nothing = work(groups=0.0, queries=0.0, keys=0.0)
    assert PREFILL.time(nothing).total == pytest.approx(1e-5)
    assert DECODE.time(nothing).total == pytest.approx(1e-5)


MEASURED = {
    "prefill": PrefillKernel(
        compute=0.6, memory=0.3, launch=1e-5, exposed=0.4, padding=50.0, packing=0.5,
        lead=60.0, cut_lead=80.0, tile=90.0, size_64=0.7, size_192=1.1, size_256=1.2,
    ),
    "decode": DecodeKernel(
        memory=0.9, launch=6e-6, compute=0.1, vector=0.02, exposed=0.2, tile=12.0,
        alone_above=32.0, window_alone=1.0, lead=30.0, item=1e-6, alone_item=2e-6,
        slots=0.8, stream=0.3, combine=3e-6,
    ),
}  # fmt: skip
FAMILIES = {
    "prefill": KernelFamily.ATTENTION_PREFILL,
    "decode": KernelFamily.ATTENTION_DECODE,
}


def core(kind: str, **changed: float) -> AttentionCore:
    """A layer of 32 heads on 8 key heads, changed."""
    sizes = {"sequences": 4.0, "queries": 1.0, "context": 100.0, "heads": 32.0}
    return AttentionCore(
        name="core",
        family=FAMILIES[kind],
        **{**sizes, **changed},  # type: ignore[arg-type]
        qk_dim=128,
        v_dim=128,
        key_elements=8 * 256,
        cache_bytes=2,
        outputs=Dtype.BF16,
        engine=Dtype.BF16,
        kv_heads=8.0,
    )


def seconds(kind: str, layer: AttentionCore, flop: float = 1e14) -> float:
    cost = layer.cost()
    given_work = Work(
        compute=cost.total_flop / flop,
        memory=cost.bytes / 1e12,
        launches=1.0,
        shape=layer.shape(),
        processors=100.0,
    )
    return float(MEASURED[kind].time(given_work).total)


@pytest.mark.parametrize("kind", ["prefill", "decode"])
@given(
    sequences=st.floats(1, 500),
    queries=st.floats(1, 3000),
    context=st.floats(0, 30_000),
    heads=st.sampled_from([8.0, 16.0, 64.0]),
    reach=st.sampled_from([None, 128, 4096]),
    more=st.floats(1, 3),
)
@example(sequences=1.0, queries=195.0, context=127.0, heads=8.0, reach=128, more=2.0)
def test_more_work_never_takes_less_time(
    kind: str,
    sequences: float,
    queries: float,
    context: float,
    heads: float,
    reach: int | None,
    more: float,
) -> None:
    queries = queries if kind == "prefill" else 1.0
    sizes = {"sequences": sequences, "context": context, "heads": heads}
    base = replace(core(kind, **sizes, queries=queries), reach=reach)
    larger = [
        replace(base, sequences=sequences * more),
        replace(base, context=context * more),
        replace(base, queries=queries * more),
    ]
    least = seconds(kind, base) * (1 - 1e-9)
    assert all(seconds(kind, layer) >= least for layer in larger)
    assert seconds(kind, base, flop=1e14 / more) >= least


@pytest.mark.parametrize("kind", ["prefill", "decode"])
def test_arrays_over_npus_and_points_give_what_numbers_give(kind: str) -> None:
    kernels = [MEASURED[kind], KernelEfficiency(0.5, 0.8, 1e-5)]
    together = stacked(kernels, axes=1)
    context = np.array([10.0, 1000.0, 20_000.0])
    layer = core(kind, context=context)  # type: ignore[arg-type]
    cost = layer.cost()
    given_work = Work(
        compute=cost.total_flop / 1e14,
        memory=cost.bytes / 1e12,
        launches=1.0,
        shape=layer.shape(),
        processors=np.array([[100.0], [100.0]]),
    )
    found = together.time(given_work).total
    each = [seconds(kind, core(kind, context=c)) for c in context]
    assert found.shape == (2, 3)
    assert found[0] == pytest.approx(each)
    assert found[1] == pytest.approx(kernels[1].time(given_work).total)


def test_a_window_cuts_off_the_first_keys_of_late_queries() -> None:
    # Of 100 queries after 20 tokens, 12 see all before them within 32; 88 do not.
    shape = replace(core("prefill", queries=100.0, context=20.0), reach=32).shape()
    assert shape.cut == pytest.approx(0.88)
    assert shape.windowed
    assert shape.repeats == 4.0
    free = core("prefill", queries=100.0, context=20.0).shape()
    assert (free.cut, free.windowed) == (0.0, False)
