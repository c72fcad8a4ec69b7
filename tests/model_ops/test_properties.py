"""What must hold for every model, NPU and load: the laws of the whole model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_ops.dtypes import Dtype, Precision
from model_ops.estimate import Load, LoadMode, estimate, least_latencies
from model_ops.opcost import KernelFamily, Placement
from model_ops.platform.efficiency import ConstantEfficiency
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.kernels import KernelEfficiency
from model_ops.platform.memory import OuterMemory
from model_ops.platform.npu import Npu
from model_ops.platform.supply import Supply
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.attention import Attention
from model_ops.profiler.expert_load import ExpertLoad
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.linear_attention import GatedDeltaNet
from model_ops.profiler.mamba import Mamba2
from model_ops.profiler.mla import LatentAttention
from model_ops.profiler.moe import MoeFfn
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.sparse_indexer import SparseIndexer
from model_ops.profiler.work import Lora, RequestShape, Step, decode, prefill
from model_ops.serving.speculative import Speculation
from model_ops.serving.steady_state import saturating_batch, steady_state
from model_ops.serving.step import Replica, step_time, timed_operators

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies


def examples(count: int) -> Any:
    return hypothesis.settings(derandomize=True, deadline=None, max_examples=count)


# ---- small models of every kind ----

MIXERS = {
    "full": Attention(num_attention_heads=8, num_key_value_heads=2, head_dim=8),
    "window": Attention(
        num_attention_heads=8, num_key_value_heads=8, head_dim=8, sliding_window=48
    ),
    "chunks": Attention(
        num_attention_heads=8, num_key_value_heads=4, head_dim=8, chunk_size=64
    ),
    "latent": LatentAttention(
        num_attention_heads=8,
        q_lora_rank=12,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=8,
    ),
    "mamba": Mamba2(num_heads=8, head_dim=8, state_size=4, n_groups=8, conv_kernel=4),
    "delta": GatedDeltaNet(
        linear_num_key_heads=8,
        linear_num_value_heads=8,
        linear_key_head_dim=4,
        linear_value_head_dim=8,
        linear_conv_kernel_dim=4,
    ),
}
SPARSE = replace(
    MIXERS["latent"],
    indexer=SparseIndexer(index_n_heads=4, index_head_dim=8, index_topk=40),
)
DENSE = DenseFfn(intermediate_size=128)


def model(mixers: list[Any], ffns: list[Any]) -> ModelArch:
    layers = tuple(
        Layer(mixer=mixers[i % len(mixers)], ffn=ffns[i % len(ffns)]) for i in range(6)
    )
    return ModelArch(
        name="small",
        model_type="small",
        hidden_size=64,
        vocab_size=256,
        layers=layers,
        extra_parameters=64,
    )


@st.composite
def experts(draw: Any) -> MoeFfn:
    count = draw(st.sampled_from([8, 12, 32]))
    return MoeFfn(
        num_experts=count,
        num_experts_per_tok=draw(st.integers(1, 6)),
        moe_intermediate_size=64,
        gated=draw(st.booleans()),
        shared=draw(st.sampled_from([None, DenseFfn(intermediate_size=64)])),
    )


@st.composite
def archs(draw: Any, moe: bool | None = None) -> ModelArch:
    kinds = st.lists(st.sampled_from(sorted(MIXERS)), min_size=1, max_size=3)
    ffns: list[Any] = [DENSE]
    if moe or (moe is None and draw(st.booleans())):
        ffns = [draw(experts()), *draw(st.sampled_from([[], [DENSE]]))]
    return model([MIXERS[kind] for kind in draw(kinds)], ffns)


@st.composite
def npus(draw: Any) -> Npu:
    rate = draw(st.floats(1e11, 1e14))
    share = st.floats(0.2, 1.0)
    kernels = {
        family: KernelEfficiency(draw(share), draw(share), draw(st.floats(0, 5e-6)))
        for family in KernelFamily
    }
    tiers = (
        Tier("inner", npus=4, bandwidth=draw(st.floats(1e9, 1e12)), latency=1e-6),
        Tier("outer", npus=4096, bandwidth=1e9, latency=1e-5, direct=False),
    )
    return Npu(
        name="small",
        flop_per_s={Dtype.BF16: rate, Dtype.FP32: rate, Dtype.FP8: 2 * rate},
        memory_bandwidth=draw(st.floats(1e10, 1e13)),
        memory_capacity=draw(st.floats(1e7, 1e9)),
        node_npus=4,
        fabric=Fabric(tiers),
        efficiency=ConstantEfficiency(kernels, {}),
        link_efficiency=draw(share),
        step_overhead=draw(st.floats(0, 1e-3)),
        outer_memory=OuterMemory("host", 1e9, draw(st.floats(1e9, 1e11))),
    )


@st.composite
def splits(draw: Any, arch: ModelArch) -> Parallelism:
    degree = st.sampled_from([1, 1, 2, 4])
    tp, cp, pp = draw(degree), draw(degree), draw(st.sampled_from([1, 1, 2, 3]))
    if not arch.num_experts:
        return Parallelism(tp, pp, cp=cp)
    dp = draw(degree)
    ep = draw(st.sampled_from([n for n in (1, 2, 4, 8) if tp * cp * dp % n == 0]))
    return Parallelism(tp, pp, ep, dp, cp)


shapes = st.builds(
    RequestShape,
    st.integers(1, 600),
    st.integers(1, 400),
    st.just(0.0),
    st.sampled_from([1, 1, 4]),
)


@st.composite
def replicas(draw: Any, **kinds: Any) -> Replica:
    arch = draw(archs(**kinds))
    split = draw(splits(arch))
    assert arch.rule_broken_by(split) is None
    place = st.sampled_from([0.0, 0.0, 0.5])
    return Replica(
        arch,
        split,
        Precision(),
        Supply.of(draw(npus())),
        experts=ExpertLoad(draw(st.sampled_from([0.0, 0.6]))),
        lora=draw(st.sampled_from([None, Lora(2, 3)])),
        placement=Placement(draw(place), draw(place)),
    )


def on(replica: Replica, **changed: Any) -> Replica:
    (npu,) = replica.supply.npus
    return replace(replica, supply=Supply.of(replace(npu, **changed)))


def tiers(npu: Npu, change: Callable[[Tier], Tier]) -> Fabric:
    return Fabric(tuple(change(tier) for tier in npu.fabric.tiers))


# ---- more hardware is never slower ----


def faster(replica: Replica, what: str, times: float) -> Replica:
    (npu,) = replica.supply.npus
    if what == "links":
        links = tiers(npu, lambda t: replace(t, bandwidth=t.bandwidth * times))
        return on(replica, fabric=links)
    if what == "flop_per_s":
        return on(replica, flop_per_s={d: r * times for d, r in npu.flop_per_s.items()})
    if what == "outer_memory":
        outer = npu.outer_memory
        assert outer is not None
        quick = replace(outer, bandwidth=outer.bandwidth * times)
        return on(replica, outer_memory=quick)
    return on(replica, memory_bandwidth=npu.memory_bandwidth * times)


@examples(40)
@hypothesis.given(
    replica=replicas(),
    shape=shapes,
    batch=st.floats(0.1, 500),
    what=st.sampled_from(["links", "flop_per_s", "memory_bandwidth", "outer_memory"]),
    times=st.floats(1.0, 100.0),
)
def test_faster_hardware_is_never_slower(
    replica: Replica, shape: RequestShape, batch: float, what: str, times: float
) -> None:
    quick = faster(replica, what, times)
    load = Load(shape, LoadMode.STATIC_BATCH, concurrency=np.ceil(batch))
    for slow, fast in (
        (estimate(replica, load), estimate(quick, load)),
        (steady_state(replica, shape, batch), steady_state(quick, shape, batch)),
    ):
        assert fast.ttft <= slow.ttft * (1 + 1e-9)
        assert fast.tpot <= slow.tpot * (1 + 1e-9)
        assert fast.rate >= slow.rate * (1 - 1e-9)


# ---- units: time, bytes, FLOP ----


def hastened(replica: Replica) -> Replica:
    """Return it with every rate doubled and every latency halved."""
    for what in ("links", "flop_per_s", "memory_bandwidth", "outer_memory"):
        replica = faster(replica, what, 2.0)
    (npu,) = replica.supply.npus
    assert isinstance(npu.efficiency, ConstantEfficiency)
    kernels = {
        family: replace(kernel, launch=kernel.launch / 2)
        for family, kernel in npu.efficiency.families.items()
    }
    return on(
        replica,
        fabric=tiers(npu, lambda tier: replace(tier, latency=tier.latency / 2)),
        efficiency=ConstantEfficiency(kernels, {}),
        step_overhead=npu.step_overhead / 2,
    )


@pytest.mark.slow
@examples(25)
@hypothesis.given(
    replica=replicas(),
    shape=shapes,
    users=st.integers(1, 100),
    mode=st.sampled_from(LoadMode),
)
def test_twice_as_fast_takes_half_as_long(
    replica: Replica, shape: RequestShape, users: int, mode: LoadMode
) -> None:
    slow = Load(shape, mode, concurrency=users, rate=users / 10)
    one = estimate(replica, slow)
    two = estimate(hastened(replica), replace(slow, rate=2 * slow.rate))
    assert two.ttft == pytest.approx(one.ttft / 2, rel=1e-6)
    assert two.tpot == pytest.approx(one.tpot / 2, rel=1e-6)
    assert two.rate == pytest.approx(one.rate * 2, rel=1e-6)
    assert two.memory == one.memory


@examples(25)
@hypothesis.given(replica=replicas(), shape=shapes, batch=st.integers(1, 100))
def test_twice_the_bytes_at_twice_the_bandwidth_take_as_long(
    replica: Replica, shape: RequestShape, batch: int
) -> None:
    wide = replace(replica, precision=Precision.of("fp32"))
    for what in ("links", "memory_bandwidth", "outer_memory"):
        wide = faster(wide, what, 2.0)
    load = Load(shape, LoadMode.STATIC_BATCH, concurrency=batch)
    one, two = estimate(replica, load), estimate(wide, load)
    assert two.ttft == pytest.approx(one.ttft)
    assert two.tpot == pytest.approx(one.tpot)
    assert two.memory.weights == pytest.approx(2 * one.memory.weights)
    assert two.memory.kv_cache == pytest.approx(2 * one.memory.kv_cache)
    # Logits are sampled in 32 bits whatever the model computes in.
    assert one.memory.activations <= two.memory.activations * (1 + 1e-12)
    assert two.memory.activations <= 2 * one.memory.activations * (1 + 1e-12)


# ---- batches ----


@examples(40)
@hypothesis.given(replica=replicas(), shape=shapes)
def test_a_larger_batch_makes_no_fewer_tokens(
    replica: Replica, shape: RequestShape
) -> None:
    full = float(saturating_batch(replica.schedule, shape))
    batch = full * np.array([0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.99])
    rate = np.asarray(steady_state(replica, shape, batch).rate)
    assert np.all(np.diff(rate) >= -1e-9 * rate[1:]), rate


@examples(40)
@hypothesis.given(
    replica=replicas(), blocks=st.integers(1, 60), answer=st.integers(1, 400)
)
def test_memory_grows_with_batch_and_context(
    replica: Replica, blocks: int, answer: int
) -> None:
    block = 16 * int(replica.parallelism.cp)

    def mixed(prompt: int, output: int, batch: int) -> Any:
        # Prompts no shorter than a step: many short ones have more states.
        found = replica.footprint(RequestShape(block * prompt, output), batch, 16)
        return np.array([found.total, found.outer])

    def static(prompt: int, output: int, batch: int) -> Any:
        found = replica.lockstep_footprint(RequestShape(block * prompt, output), batch)
        return np.array([found.total, found.outer])

    for total in (mixed, static):
        here = total(blocks, answer, 20) * (1 - 1e-12)
        assert np.all(here <= total(blocks, answer, 21))
        assert np.all(here <= total(blocks, answer + 1, 20))
        # Sequences deviate less from their mean once a window is full: what is kept
        # for that falls by more than others' caches grow, or by less.
        if total is static or not _slides(replica.arch):
            assert np.all(here <= total(blocks + 1, answer, 20))


def _slides(arch: ModelArch) -> bool:
    mixers = [run.layer.mixer for run in arch.runs]
    return any(m.sliding_window or m.chunk_size for m in mixers if type(m) is Attention)


@examples(30)
@hypothesis.given(replica=replicas(), shape=shapes)
def test_the_largest_batch_is_the_inverse_of_the_footprint(
    replica: Replica, shape: RequestShape
) -> None:
    most, groups = replica.largest_batch(shape, 256), replica.parallelism.dp
    hypothesis.assume(most < 1e9)

    def fits(batch: Any) -> bool:
        memory, room = replica.footprint(shape, batch, 256), replica.room
        return bool(memory.total <= room.own and memory.outer <= room.outer)

    assert most == 0 or fits(most * (1 - 1e-9))
    assert not fits(most + groups)


# ---- the roofline ----


@examples(60)
@hypothesis.given(
    replica=replicas(moe=True), batch=st.integers(1, 200), prompt=st.integers(0, 300)
)
def test_no_split_beats_the_roofline_of_all_its_npus(
    replica: Replica, batch: int, prompt: int
) -> None:
    ideal = Supply(tuple(npu.ideal() for npu in replica.supply.npus))
    replica = replace(replica, supply=ideal, placement=Placement(), lora=None)
    replica = replace(replica, experts=ExpertLoad())
    split = replica.parallelism
    split = replace(split, pp=1)
    replica = replace(replica, parallelism=split)
    # Every group has such a step; one NPU with all of them does the same work.
    segments = [decode(batch, 100)] + ([prefill(1, prompt)] if prompt else [])
    together = Step(
        tuple(replace(s, sequences=s.sequences * split.dp) for s in segments)
    )
    one = replace(replica, parallelism=Parallelism())
    costs = [t.count * t.operator.cost() for t in timed_operators(one, together)]
    flop: dict[Dtype, float] = {}
    for cost in costs:
        for engine, amount in cost.flop.items():
            flop[engine] = flop.get(engine, 0.0) + amount
    ranks = float(split.npus)
    arithmetic = sum(f / ideal.flop_per_s(engine) for engine, f in flop.items())
    # What must be read at least; of tensors between operators ranks keep copies.
    unsplit = sum(c.weights + c.cache for c in costs) / ideal.memory_bandwidth
    found = step_time(replica, Step(tuple(segments))).latency
    assert found >= arithmetic / ranks * (1 - 1e-9)
    assert found >= unsplit / ranks * (1 - 1e-9)


@pytest.mark.slow
@examples(12)
@hypothesis.given(replica=replicas(), shape=shapes, users=st.integers(1, 50))
def test_no_load_is_faster_than_a_request_alone(
    replica: Replica, shape: RequestShape, users: int
) -> None:
    ttft, tpot = least_latencies(replica, shape)
    for mode in LoadMode:
        found = estimate(replica, Load(shape, mode, concurrency=users, rate=1.0))
        assert found.ttft >= ttft * (1 - 1e-9), mode
        if shape.output_tokens > 1:
            assert found.tpot >= tpot * (1 - 1e-9), mode


# ---- arrays ----

MOE = MoeFfn(
    num_experts=12,
    num_experts_per_tok=3,
    moe_intermediate_size=64,
    shared=DenseFfn(intermediate_size=64),
)
MODELS = {
    "dense": model([MIXERS["full"], MIXERS["window"], MIXERS["chunks"]], [DENSE]),
    "latent experts": model([MIXERS["latent"]], [DENSE, MOE]),
    "sparse experts": model([SPARSE], [MOE]),
    "hybrid": model([MIXERS["mamba"], MIXERS["full"]], [MOE]),
}
# tp, pp, ep, dp, cp, prompt, answer, cached, beams
POINTS = [
    (1, 1, 1, 1, 1, 100, 50, 0.0, 1),
    (2, 2, 1, 1, 1, 700, 1, 350.0, 1),
    (1, 3, 1, 1, 4, 50, 300, 49.0, 1),
    (8, 4, 1, 1, 1, 5000, 100, 100.0, 1),
    (1, 2, 4, 4, 1, 100, 50, 0.0, 1),
    (2, 1, 8, 4, 1, 300, 60, 200.0, 1),
    (2, 3, 2, 2, 2, 17, 33, 16.0, 1),
]
NPU = Npu(
    name="fixed",
    flop_per_s={Dtype.BF16: 1e12, Dtype.FP32: 5e11, Dtype.FP8: 2e12},
    memory_bandwidth=1e11,
    memory_capacity=2e8,
    node_npus=4,
    fabric=Fabric(
        (
            Tier("inner", npus=4, bandwidth=1e10, latency=1e-6),
            Tier("outer", npus=4096, bandwidth=1e9, latency=1e-5, direct=False),
        )
    ),
    step_overhead=1e-5,
    outer_memory=OuterMemory("host", 1e9, 1e10),
)
FEATURES: dict[str, Callable[[ModelArch], dict[str, Any]]] = {
    "speculation": lambda arch: {
        "speculation": Speculation(3, 0.6, arch.guessing_with(arch.layers[-1]))
    },
    "the rest, and beams": lambda _: {
        "experts": ExpertLoad(0.7, 4),
        "lora": Lora(2, 5),
        "placement": Placement(0.2, 0.1),
    },
}
BEAMS = "the rest, and beams"


@pytest.mark.slow
@pytest.mark.parametrize("mode", LoadMode)
@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", MODELS)
def test_arrays_give_what_each_point_gives(
    name: str, features: str, mode: LoadMode
) -> None:
    arch = MODELS[name]
    replica = Replica(
        arch, Parallelism(), Precision(), Supply.of(NPU), **FEATURES[features](arch)
    )
    rows = [row for row in POINTS if arch.num_experts or row[2] == row[3] == 1]
    if features == BEAMS:
        rows = [(*row[:-1], 1 + 3 * (i % 2)) for i, row in enumerate(rows)]

    def found(row: Any) -> Any:
        tp, pp, ep, dp, cp, prompt, answer, cached, beams = row
        on_split = replace(replica, parallelism=Parallelism(tp, pp, ep, dp, cp))
        shape = RequestShape(prompt, answer, cached, beams)
        return estimate(on_split, Load(shape, mode, concurrency=6.0, rate=20.0))

    together = found(np.array(rows).T)
    # The loops search for their batch; of each some points, of all models all.
    searched = mode in (LoadMode.CLOSED_LOOP, LoadMode.OPEN_LOOP)
    first, step = (tuple(MODELS).index(name) % 3, 3) if searched else (0, 1)
    for position, row in list(enumerate(rows))[first::step]:
        alone = found([int(v) if float(v).is_integer() else v for v in row])
        for field in ("ttft", "tpot", "rate", "batch", "fits", "overloaded"):
            many = np.broadcast_to(getattr(together, field), len(rows))[position]
            assert many == pytest.approx(getattr(alone, field), rel=1e-9), (row, field)
        for field in ("weights", "kv_cache", "activations", "outer"):
            many = np.broadcast_to(getattr(together.memory, field), len(rows))[position]
            one = getattr(alone.memory, field)
            assert many == pytest.approx(one, rel=1e-9), (row, field)
