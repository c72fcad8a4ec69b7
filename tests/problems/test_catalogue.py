"""Every file of the catalogue holds what its schema, and good sense, ask."""

import json
import statistics
import tomllib
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from model_ops.dtypes import Dtype
from model_ops.errors import CatalogueError, ConfigError, ProblemError
from model_ops.opcost import KernelFamily
from model_ops.platform.efficiency import KernelKey
from model_ops.platform.fabric import Topology
from model_ops.platform.npu import IDLE_PER_TDP
from model_ops.profiler.ops import Gemm
from problems import catalogue
from problems.catalogue.kinds import KINDS
from problems.catalogue.schema import FOLDER, NpuFile, Price, TierFile
from problems.fields import LARGEST_FILE

FILES = [(kind, name) for kind in KINDS for name in catalogue.names(kind)]
NPUS = catalogue.names("npus")
MODELS = catalogue.names("models")
QUOTES = catalogue.load_quotes()

LLAMA_TYPE = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


def content(kind: str, name: str) -> dict[str, Any]:
    text = (FOLDER / kind / f"{name}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


# Files


@pytest.mark.parametrize(("kind", "name"), FILES)
def test_file_validates_as_people_write_it(kind: str, name: str) -> None:
    KINDS[kind].model_validate(content(kind, name), context={"source": "file"})


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, name in FILES if kind != "prices"]
)
def test_file_names_its_source_and_date(kind: str, name: str) -> None:
    data = content(kind, name)
    assert all(len(source.strip()) >= 5 for source in data["sources"])
    assert date(2023, 1, 1) <= data["as_of"] <= date(2035, 1, 1)


@pytest.mark.parametrize("name", catalogue.names("prices"))
def test_price_file_names_source_and_date_of_each_price(name: str) -> None:
    for price in content("prices", name)["prices"]:
        assert price["source"].strip()
        assert price["as_of"].strip()


def test_folders_hold_only_toml_files() -> None:
    for kind in KINDS:
        strangers = [p.name for p in (FOLDER / kind).iterdir() if p.suffix != ".toml"]
        assert strangers == []


@pytest.mark.parametrize("kind", ["npus", "models", "links", "efficiencies"])
def test_aliases_are_lower_case_unique_and_no_names(kind: str) -> None:
    names = catalogue.names(kind)
    aliases = [a for name in names for a in content(kind, name).get("aliases", ())]
    assert [a for a in aliases if a != a.strip().lower()] == []
    assert sorted(a for a in set(aliases) if aliases.count(a) > 1) == []
    assert sorted(set(aliases) & set(names)) == []


@pytest.mark.parametrize("kind", ["npus", "models"])
def test_every_alias_leads_to_its_file(kind: str) -> None:
    for name in catalogue.names(kind):
        for alias in (name, *content(kind, name).get("aliases", ())):
            assert catalogue.canonical(kind, f" {alias.upper()} ") == name


# NPUs


@pytest.mark.parametrize("name", NPUS)
def test_npu_figures_are_plausible(name: str) -> None:
    file = catalogue.npu_file(name)
    # SRAM on a chip of ordinary size, or on a wafer; DRAM is slower.
    fastest = 30e15 if file.memory_type == "SRAM" else 20e12
    assert 0.05e12 <= file.memory_bandwidth <= fastest
    assert 0.1e9 <= file.memory_capacity <= 5e12
    assert all(1e12 <= rate <= 1e17 for rate in file.flop_per_s.values())
    assert file.tdp is None or 10 <= file.tdp <= 25_000
    assert 1 <= file.node_npus <= 128
    assert min(tier.bandwidth for tier in file.fabric) >= 1e9
    assert max(tier.bandwidth for tier in file.fabric) < file.memory_bandwidth


@pytest.mark.parametrize("name", NPUS)
def test_no_product_waits_for_the_on_chip_memory_of_a_known_part(name: str) -> None:
    file = catalogue.npu_file(name)
    if file.on_chip_memory is None:
        return
    assert 1e6 <= file.on_chip_memory <= 1e9
    assert any("cache" in s or "SRAM" in s or "VMEM" in s for s in file.sources)
    for dtype, rate in file.flop_per_s.items():
        formats = dict.fromkeys(("weights", "inputs", "outputs", "engine"), dtype)
        shape = Gemm(name="product", m=1, k=1, n=1, **formats).shape()
        reloads = shape.reload(file.on_chip_memory) / file.memory_bandwidth
        assert reloads * rate < 0.35, dtype


@pytest.mark.parametrize("name", NPUS)
def test_narrower_floats_are_no_slower(name: str) -> None:
    rates = catalogue.npu_file(name).flop_per_s
    order = (Dtype.FP32, Dtype.TF32, Dtype.BF16, Dtype.FP8, Dtype.FP4)
    ladder = [rates[dtype] for dtype in order if dtype in rates]
    assert ladder == sorted(ladder)


@pytest.mark.parametrize("name", NPUS)
def test_provisioned_power_exceeds_tdp(name: str) -> None:
    file = catalogue.npu_file(name)
    if file.tdp is not None and file.provisioned_power is not None:
        assert file.tdp < file.provisioned_power < 4 * file.tdp


def test_measured_idle_power_is_the_models_default_share() -> None:
    files = [catalogue.npu_file(name) for name in NPUS]
    measured = [f for f in files if f.idle_power is not None and f.tdp is not None]
    shares = [f.idle_power / f.tdp for f in measured if f.idle_power and f.tdp]
    assert len(shares) >= 10
    assert 0.1 < min(shares) < max(shares) < 0.35
    assert round(statistics.median(shares), 2) == IDLE_PER_TDP
    assert all(any("idle power" in s for s in f.sources) for f in measured)


@pytest.mark.parametrize("tdp", [None, "115 W", "100 W"])
def test_idle_power_is_below_the_tdp(tdp: str | None) -> None:
    data = content("npus", "h100-sxm") | {"tdp": tdp, "idle_power": "115 W"}
    with pytest.raises(ValueError, match="idle_power needs a tdp above it"):
        NpuFile.model_validate(data)


@pytest.mark.parametrize("name", NPUS)
def test_npu_loads_with_its_links_and_efficiencies(name: str) -> None:
    file, npu = catalogue.npu_file(name), catalogue.load_npu(name)
    assert npu.name == name
    assert len(npu.fabric.tiers) == len(file.fabric)
    assert 0 < npu.usable_memory < file.memory_capacity


@pytest.mark.parametrize("name", NPUS)
def test_outer_memory_is_slower_and_larger_or_absent(name: str) -> None:
    outer = catalogue.load_npu(name).outer_memory
    stated = content("npus", name).get("outer_memory")
    assert (outer is None) == (stated is None)
    if outer is not None:
        file = catalogue.npu_file(name)
        assert outer.bandwidth < file.memory_bandwidth / 3
        assert outer.capacity > file.memory_capacity / 2
        assert outer.technology == stated["technology"]


@pytest.mark.parametrize("name", NPUS)
def test_a_torus_has_axes_and_nothing_else_has(name: str) -> None:
    for tier in catalogue.npu_file(name).fabric:
        torus = catalogue.link_file(tier.link).topology is Topology.TORUS
        assert tier.dimensions == 1 or torus
        assert (tier.npus or 2) >= 2**tier.dimensions


def test_tier_takes_topology_from_its_link_and_the_rest_from_the_npu() -> None:
    link = catalogue.link_file("pcie5")
    tier = TierFile(link="pcie5", npus=8, bandwidth=64e9).tier(link)
    assert (tier.direct, tier.dimensions) == (False, 0)
    assert (tier.links, tier.oversubscription) == (1, 1.0)
    assert not tier.in_network_reduction
    link = catalogue.link_file("tpu-ici").model_copy(
        update={"in_network_reduction": True}
    )
    tier = TierFile(
        link="tpu-ici", bandwidth=1e11, dimensions=3, links=6, oversubscription=2.5
    ).tier(link)
    assert (tier.direct, tier.dimensions, tier.links) == (False, 3, 6)
    assert tier.oversubscription == 2.5
    assert tier.in_network_reduction


@pytest.mark.parametrize(
    ("key", "value"),
    [("oversubscription", 0.5), ("dimensions", 0), ("links", 0), ("torus", 3)],
)
def test_impossible_tiers_are_refused(key: str, value: float) -> None:
    data = content("npus", "h100-sxm")
    data["fabric"][1][key] = value
    with pytest.raises(ValueError, match=key):
        NpuFile.model_validate(data, context={"source": "file"})


@pytest.mark.parametrize(
    "change", [{"capacity": "0 GB"}, {"bandwidth": "63"}, {"size": "2 TB"}]
)
def test_impossible_outer_memories_are_refused(change: dict[str, str]) -> None:
    data = content("npus", "h100-sxm")
    data["outer_memory"] = data["outer_memory"] | change
    (key,) = change
    with pytest.raises(ValueError, match=f"outer_memory.{key}"):
        NpuFile.model_validate(data, context={"source": "file"})


def test_every_link_and_efficiency_is_used_and_exists() -> None:
    files = [catalogue.npu_file(name) for name in NPUS]
    links = {tier.link for file in files for tier in file.fabric}
    assert links == set(catalogue.names("links"))
    profiles = {file.efficiency for file in files}
    assert profiles == set(catalogue.names("efficiencies"))


def test_npus_of_every_vendor_and_kind() -> None:
    assert len(NPUS) >= 30
    files = [catalogue.npu_file(name) for name in NPUS]
    assert {"NVIDIA", "AMD", "Intel", "Google", "AWS"} <= {f.vendor for f in files}
    assert {"gpu", "tpu", "asic", "cpu"} == {f.kind for f in files}


# Prices


def test_every_price_is_for_a_known_npu() -> None:
    assert {quote.price.npu for quote in QUOTES} <= set(NPUS)
    assert len({quote.price.npu for quote in QUOTES}) >= 25


@pytest.mark.parametrize("quote", QUOTES, ids=lambda q: f"{q.provider}-{q.price.npu}")
def test_price_is_plausible(quote: catalogue.Quote) -> None:
    price = quote.price
    assert 0.02 <= price.usd_per_hour / price.npus <= 100
    node = catalogue.npu_file(price.npu).node_npus
    # A host is a part of a node, or whole nodes.
    assert node % price.npus == 0 or price.npus % node == 0
    assert price.whole_instance or price.npus == 1


@pytest.mark.parametrize(
    ("npus", "whole", "accepted"),
    [
        (1, True, True),
        (1, False, True),
        (8, True, True),
        (8, False, False),
        (2, False, False),
    ],
)
def test_price_for_several_npus_is_a_whole_instances(
    npus: int, *, whole: bool, accepted: bool
) -> None:
    data = QUOTES[0].price.model_dump() | {"npus": npus, "whole_instance": whole}
    if accepted:
        assert Price.model_validate(data).npus == npus
        return
    with pytest.raises(ValueError, match="several NPUs is a whole instance's"):
        Price.model_validate(data)


def test_prices_of_a_provider_are_distinct() -> None:
    fields = ("npu", "instance", "term", "region", "statistic")
    keys = [(q.provider, *(getattr(q.price, f) for f in fields)) for q in QUOTES]
    assert sorted(key for key in set(keys) if keys.count(key) > 1) == []


# Models


@pytest.mark.parametrize("name", MODELS)
def test_model_is_read_with_the_parameters_it_publishes(name: str) -> None:
    published = catalogue.model_file(name).parameters
    assert catalogue.load_model(name).parameters == pytest.approx(published, rel=0.01)


def test_there_are_models_enough() -> None:
    assert len(MODELS) >= 25


# Look-ups


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        ("npus", "h100-smx", "'h100-sxm'"),
        ("npus", "mi300", "'mi300x'"),
        ("models", "llama-3.1-8", "'llama-3.1-8b'"),
    ],
)
def test_unknown_name_raises_naming_the_nearest(
    kind: str, given: str, meant: str
) -> None:
    with pytest.raises(CatalogueError, match=meant):
        catalogue.canonical(kind, given)


@pytest.mark.parametrize(
    "load",
    [
        catalogue.npu_file,
        catalogue.load_npu,
        catalogue.model_file,
        catalogue.load_model,
        catalogue.link_file,
        catalogue.efficiency_file,
    ],
)
def test_every_loader_refuses_unknown_names(load: Any) -> None:
    with pytest.raises(CatalogueError, match="no-such-thing"):
        load("no-such-thing")


@pytest.mark.parametrize("given", ["../models/gpt2", "..", "", "*"])
def test_names_do_not_reach_out_of_their_folder(given: str) -> None:
    with pytest.raises(CatalogueError):
        catalogue.load_npu(given)


def test_raw_is_what_the_file_states() -> None:
    assert catalogue.raw("npus", "h100")["memory_bandwidth"] == "3350 GB/s"


def test_tiers_must_grow_outwards() -> None:
    data = content("npus", "h100-sxm")
    data["fabric"] = data["fabric"][::-1]
    with pytest.raises(ValueError, match="grow outwards"):
        NpuFile.model_validate(data, context={"source": "file"})


def test_bare_numbers_are_refused_in_files() -> None:
    data = content("npus", "h100-sxm") | {"memory_bandwidth": 3350e9}
    with pytest.raises(ValueError, match="has no unit"):
        NpuFile.model_validate(data, context={"source": "file"})


# Models of one's own


def test_model_from_a_config_of_an_unknown_name(tmp_path: Any) -> None:
    path = tmp_path / "my-own-model" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(LLAMA_TYPE))
    arch = catalogue.load_model(str(path))
    assert arch.name == "my-own-model"
    # Embedding and head; attention q, o, k, v; gate, up, down; norms.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    assert arch.parameters == 2 * 1000 * 64 + 2 * layer + 64


def test_model_from_the_folder_of_a_config(tmp_path: Any) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_TYPE))
    assert catalogue.load_model(str(folder)).name == "checkpoint"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[1, 2]", "not a JSON object"),
        ('{"model_type": "llama"}', "lacks"),
        ('{"hidden_size": ' + "9" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
    ],
    ids=["cut-off", "a-list", "no-widths", "endless-number", "endless-nesting"],
)
def test_broken_config_is_refused(tmp_path: Any, text: str, message: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        catalogue.load_model(str(path))


def test_too_large_config_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "large.json"
    path.write_text(" " * (LARGEST_FILE + 1))
    with pytest.raises(ProblemError, match="at most 5 MB"):
        catalogue.load_model(str(path))


def test_missing_and_binary_configs_are_refused(tmp_path: Any) -> None:
    with pytest.raises(ProblemError, match="there is no file"):
        catalogue.load_model(str(tmp_path / "none.json"))
    path = tmp_path / "binary.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ProblemError, match="not UTF-8"):
        catalogue.load_model(str(path))


@pytest.mark.parametrize("profile", catalogue.names("efficiencies"))
def test_a_profile_names_npus_of_the_vendor_of_those_that_use_it(profile: str) -> None:
    file = catalogue.efficiency_file(profile)
    every = [catalogue.npu_file(npu) for npu in catalogue.names("npus")]
    vendors = {npu.vendor for npu in every if npu.efficiency == profile}
    for npu in file.measured_on:
        assert catalogue.npu_file(npu).vendor in vendors
    for npu in file.fitted_on:
        assert catalogue.npu_file(npu).efficiency == profile


def test_kernels_of_a_framework_of_its_own_come_before_measured_ones() -> None:
    file = catalogue.efficiency_file("nvidia-hopper")
    stated = file.stacks["llama-cpp"][KernelFamily.GEMM]
    key = KernelKey(KernelFamily.GEMM, Dtype.BF16, Dtype.BF16)
    own = catalogue.load_npu_under("h100-pcie", "llama-cpp").efficiency.kernel(key)
    assert own == stated.efficiency()
    assert catalogue.load_npu("h100-pcie").efficiency.kernel(key) != own


@pytest.mark.parametrize(
    ("npu", "relative"),
    [
        ("b300-sxm", "b200-sxm"),
        ("rtx-5090", "rtx-pro-6000-server"),
        ("rtx-4080", "rtx-4090"),
        ("l4", "l40s"),
    ],
)
def test_an_npu_takes_the_kernels_of_the_most_alike(npu: str, relative: str) -> None:
    # TFLOP/s in 16 bits per processor: B300 15, B200 15, GB200 16; RTX 5090 1.2, RTX
    # PRO 6000 2.5; RTX 4080 1.3, RTX 4090 1.3, L40S 2.5; L4 2.1.
    key = KernelKey(KernelFamily.GEMM, Dtype.BF16, Dtype.BF16)
    own, like = (
        catalogue.load_npu(name).efficiency.kernel(key) for name in (npu, relative)
    )
    # But for the share of the peak that its power sustains.
    assert replace(own, compute=like.compute) == like
