"""The number formats that a checkpoint's config declares."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import ConfigError, DeploymentError
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.quantized_modules import (
    ALL,
    UNQUANTISED,
    ClassFormats,
    Formats,
    Modules,
    Rule,
    class_formats,
    modules,
)

_T = TypeVar("_T")


def checkpoint_precision(fields: Fields, arch: ModelArch) -> Precision:
    """Return the formats that a checkpoint's config declares.

    ``quantization_config`` by the method it names (or shows by its keys), and of the
    modules it leaves out or lists; else ``torch_dtype`` (16 bits where it is absent).
    A tensor class is in the format of most of it.

    Raises
    ------
    ConfigError
        If a format or method is unknown, or two formats are said of all layers.
    """
    try:
        stored = Dtype.of(str(fields.get("torch_dtype", fields.get("dtype", "bf16"))))
    except DeploymentError as error:
        raise ConfigError(f"{fields.name}: torch_dtype: {error}") from None
    if fields.get("quantization_config") is None:
        return Precision(stored, stored, stored)
    quantization = _quantization(fields)
    read = _looked_up(quantization, "quant_method", _method(quantization), _METHODS)
    rules = [(_left_out(quantization), UNQUANTISED), *read(quantization)]
    found = class_formats(arch, rules)
    cache = _kv_cache(quantization)
    if cache is None and all(formats == UNQUANTISED for _, formats in rules):
        raise ConfigError(
            f"{fields.name}: quantization_config quantises neither weights nor KV cache"
        )
    return _precision(found, stored, cache or stored, _expert_dtype(fields))


def _precision(
    found: ClassFormats, stored: Dtype, cache: Dtype, experts: Dtype | None
) -> Precision:
    """Return the precision of such classes; those alike are not said twice."""
    classes = (found.rest, found.experts, found.projections)
    inputs = [given or stored for _, given in classes]
    rest, expert, projection = (weights or stored for weights, _ in classes)
    expert = experts or expert
    return Precision(
        weights=rest,
        kv_cache=cache,
        activations=min(inputs, key=lambda dtype: dtype.bytes),
        experts=None if expert is rest else expert,
        projections=None if projection is rest else projection,
    )


def _expert_dtype(fields: Fields) -> Dtype | None:
    """Return the format that DeepSeek-V4 names for its routed experts."""
    name = fields.get("expert_dtype")
    return None if name is None else _looked_up(fields, "expert_dtype", name, _EXPERTS)


def _left_out(given: Fields) -> Modules:
    """Return the modules that stay as they were."""
    found: list[str] = []
    for key in _LEFT_OUT:
        found += _texts(given, key, given.get(key, []))
    return _modules(given, " or ".join(_LEFT_OUT), found)


def _texts(given: Fields, key: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise given.wrong(key, "must be a list of modules")
    return value


def _modules(given: Fields, key: str, patterns: Iterable[str]) -> Modules:
    try:
        return modules(patterns)
    except re.error as error:
        raise given.wrong(key, f"has a broken expression: {error}") from None


def _quantization(fields: Fields) -> Fields:
    part = fields.part("quantization_config")
    # ModelOpt's own file keeps its keys one level deeper.
    return part if part.get("quantization") is None else part.part("quantization")


def _method(given: Fields) -> str:
    """Return ``quant_method``, or what other keys tell where it is absent."""
    named = given.get("quant_method")
    if named is not None:
        return str(named).lower()
    for key, method in _TELLING.items():
        if key in given.values:
            return method
    raise given.wrong("quant_method", f"is missing; known: {', '.join(_METHODS)}")


def _everywhere(weights: Dtype | None, inputs: Dtype | None) -> list[Rule]:
    return [(ALL, (weights, inputs))]


def _fixed(weights: Dtype, inputs: Dtype | None) -> Callable[[Fields], list[Rule]]:
    return lambda given: _everywhere(weights, inputs)


def _fp8(given: Fields) -> list[Rule]:
    """One scale per tensor, or per block of the weights where a size is given."""
    blocks = given.get("weight_block_size") is not None
    return _everywhere(Dtype.FP8_BLOCK if blocks else Dtype.FP8, Dtype.FP8)


def _packed(given: Fields) -> list[Rule]:
    """GPTQ and AWQ: whole numbers as weights, widened for every product."""
    bits = given.count("bits", "w_bit")
    if bits not in _PACKED:
        raise given.wrong("bits", f"must be {' or '.join(map(str, _PACKED))}: {bits}")
    return _everywhere(_PACKED[bits], None)


def _bitsandbytes(given: Fields) -> list[Rule]:
    """NF4 or FP4 weights alone, or LLM.int8, which multiplies in INT8."""
    four, eight = given.flag("load_in_4bit"), given.flag("load_in_8bit")
    if four == eight:
        raise given.wrong("load_in_4bit", "or load_in_8bit must be true, not both")
    int8 = (Dtype.INT8, Dtype.INT8)
    return _everywhere(*((Dtype.INT4, None) if four else int8))


def _compressed_tensors(given: Fields) -> list[Rule]:
    """Return the groups' rules; those of named modules go before one for the rest."""
    if not given.get("config_groups"):
        return []  # the KV cache alone may be quantised
    groups = given.part("config_groups")
    named, general = list[Rule](), set[Formats]()
    for name in groups.values:
        group = groups.part(name)
        targets = _texts(group, "targets", group.get("targets", ["Linear"]))
        if "Linear" in targets:
            general.add(_group(group))
        else:
            named.append((_modules(group, "targets", targets), _group(group)))
    if len(general) > 1:
        raise given.wrong("config_groups", f"differ: {_ONE_FORMAT}")
    return named + [(ALL, formats) for formats in general]


def _group(group: Fields) -> Formats:
    if group.get("weights") is None:
        raise group.lacks("weights")
    return _scheme(group, "weights"), _scheme(group, "input_activations")


def _scheme(given: Fields, key: str) -> Dtype | None:
    """Return the format of ``{num_bits, type}``; none where it is null or absent."""
    if given.get(key) is None:
        return None
    scheme = given.part(key)
    wanted = f"{scheme.get('type')} {scheme.get('num_bits')}"
    if key == "weights" and scheme.get("strategy") == "block":
        wanted += " block"
    if wanted == "float 4":
        wanted += f" group_size {scheme.get('group_size')}"
    return _looked_up(given, key, wanted, _SCHEMES)


def _modelopt(given: Fields) -> list[Rule]:
    algorithm = given.get("quant_algo")
    if algorithm is None:
        return _compressed_tensors(given)  # it may write such groups too
    if str(algorithm).upper() == "MIXED_PRECISION":
        return _layer_by_layer(given)
    return [(ALL, _algorithm(given, str(algorithm)))]


def _layer_by_layer(given: Fields) -> list[Rule]:
    """Each module with an algorithm of its own."""
    listed = given.part("quantized_layers")
    named: dict[Formats, list[str]] = {}
    for name in listed.values:
        layer = listed.part(name)
        if layer.get("quant_algo") is None:
            raise layer.lacks("quant_algo")
        formats = _algorithm(layer, str(layer.get("quant_algo")))
        named.setdefault(formats, []).append(name)
    return [
        (_modules(given, "quantized_layers", names), formats)
        for formats, names in named.items()
    ]


def _algorithm(given: Fields, algorithm: str) -> Formats:
    name = algorithm.upper()
    if name.startswith("W8A8_SQ_"):  # SmoothQuant, by how its scales are shared
        return Dtype.INT8, Dtype.INT8
    return _looked_up(given, "quant_algo", name, _ALGORITHMS)


def _kv_cache(given: Fields) -> Dtype | None:
    for key in ("kv_cache_quant_algo", "kv_cache_scheme"):
        scheme = given.get(key)
        if isinstance(scheme, str):
            return _looked_up(given, key, scheme.upper(), _CACHES)
        if scheme is not None:
            return _scheme(given, key)
    return None


def _looked_up(given: Fields, key: str, wanted: str, known: Mapping[str, _T]) -> _T:
    if not isinstance(wanted, str) or wanted not in known:
        text = str(wanted)[:40]
        raise given.wrong(key, f"is unknown: {text!r}; known: {', '.join(known)}")
    return known[wanted]


_ONE_FORMAT = "all linear layers that no group names must have one format"

_LEFT_OUT = (
    "ignore",
    "modules_to_not_convert",
    "exclude_modules",
    "ignored_layers",
    "llm_int8_skip_modules",
)
"""Fields that list modules which stay as they were, by method."""

_EXPERTS = {"fp4": Dtype.MXFP4, "fp8": Dtype.FP8, "bf16": Dtype.BF16}
"""Of ``expert_dtype``; its FP4 has one E8M0 scale per 32 values."""

_PACKED = {4: Dtype.INT4, 8: Dtype.INT8}

_SCHEMES = {
    "int 4": Dtype.INT4,
    "int 8": Dtype.INT8,
    "float 8": Dtype.FP8,
    "float 8 block": Dtype.FP8_BLOCK,
    "float 4 group_size 16": Dtype.NVFP4,
    "float 4 group_size 32": Dtype.MXFP4,
}

_CACHES: dict[str, Dtype | None] = {
    "FP8": Dtype.FP8,
    "STATIC": Dtype.FP8,  # AutoFP8's word for FP8 with scales from calibration
    "INT8": Dtype.INT8,
    "NVFP4": Dtype.NVFP4,
    "NONE": None,
}

# TensorRT-LLM, tensorrt_llm/quantization/mode.py, QuantAlgo; W8A8_SQ_* above.
_ALGORITHMS: dict[str, Formats] = {
    "NO_QUANT": (None, None),
    "FP8": (Dtype.FP8, Dtype.FP8),
    "FP8_PER_CHANNEL_PER_TOKEN": (Dtype.FP8, Dtype.FP8),
    "FP8_BLOCK_SCALES": (Dtype.FP8_BLOCK, Dtype.FP8),
    # Stored as weights alone, but kernels quantise the inputs as they come.
    "FP8_PB_WO": (Dtype.FP8_BLOCK, Dtype.FP8),
    "NVFP4": (Dtype.NVFP4, Dtype.NVFP4),
    "NVFP4_AWQ": (Dtype.NVFP4, Dtype.NVFP4),
    "W4A8_NVFP4_FP8": (Dtype.NVFP4, Dtype.FP8),
    "W4A16_NVFP4": (Dtype.NVFP4, None),
    "W4A8_MXFP4_FP8": (Dtype.MXFP4, Dtype.FP8),
    "W4A16_MXFP4": (Dtype.MXFP4, None),
    "W4A8_AWQ": (Dtype.INT4, Dtype.FP8),
    "W4A16": (Dtype.INT4, None),
    "W4A16_AWQ": (Dtype.INT4, None),
    "W4A16_GPTQ": (Dtype.INT4, None),
    "W8A16": (Dtype.INT8, None),
    "W8A16_GPTQ": (Dtype.INT8, None),
}

_METHODS: dict[str, Callable[[Fields], list[Rule]]] = {
    "awq": _packed,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "fbgemm_fp8": _fixed(Dtype.FP8, Dtype.FP8),
    "fp8": _fp8,
    "gptq": _packed,
    "modelopt": _modelopt,
    "modelopt_fp4": _modelopt,
    "mxfp4": _fixed(Dtype.MXFP4, None),
}

# Some checkpoints name no method; the first of these keys that is there tells.
_TELLING = {
    "quant_algo": "modelopt",
    "config_groups": "compressed-tensors",
    "load_in_4bit": "bitsandbytes",
    "load_in_8bit": "bitsandbytes",
}
