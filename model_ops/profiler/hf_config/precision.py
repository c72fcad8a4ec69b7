"""The number formats that a checkpoint's config declares."""

from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import ConfigError, DeploymentError
from model_ops.profiler.hf_config.fields import Fields

_T = TypeVar("_T")
_Formats: TypeAlias = tuple[Dtype | None, Dtype | None]
"""Of the linear layers' weights and inputs; None: as ``torch_dtype`` says."""


def checkpoint_precision(fields: Fields) -> Precision:
    """Return the formats that a checkpoint's config declares.

    ``quantization_config`` by the method it names (or shows by its keys); else
    ``torch_dtype`` (16 bits where it is absent).

    Raises
    ------
    ConfigError
        If a format or method is unknown, or the layers' formats differ.
    """
    try:
        stored = Dtype.of(str(fields.get("torch_dtype", fields.get("dtype", "bf16"))))
    except DeploymentError as error:
        raise ConfigError(f"{fields.name}: torch_dtype: {error}") from None
    if fields.get("quantization_config") is None:
        return Precision(stored, stored, stored)
    quantization = _quantization(fields)
    read = _looked_up(quantization, "quant_method", _method(quantization), _METHODS)
    weights, inputs = read(quantization)
    cache = _kv_cache(quantization)
    if weights is None and cache is None:
        raise ConfigError(
            f"{fields.name}: quantization_config quantises neither weights nor KV cache"
        )
    return Precision(weights or stored, cache or stored, inputs or stored)


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


def _fixed(weights: Dtype, inputs: Dtype | None) -> Callable[[Fields], _Formats]:
    return lambda given: (weights, inputs)


def _packed(given: Fields) -> _Formats:
    """GPTQ and AWQ: whole numbers as weights, widened for every product."""
    bits = given.count("bits", "w_bit")
    if bits not in _PACKED:
        raise given.wrong("bits", f"must be {' or '.join(map(str, _PACKED))}: {bits}")
    return _PACKED[bits], None


def _bitsandbytes(given: Fields) -> _Formats:
    """NF4 or FP4 weights alone, or LLM.int8, which multiplies in INT8."""
    four, eight = given.flag("load_in_4bit"), given.flag("load_in_8bit")
    if four == eight:
        raise given.wrong("load_in_4bit", "or load_in_8bit must be true, not both")
    return (Dtype.INT4, None) if four else (Dtype.INT8, Dtype.INT8)


def _compressed_tensors(given: Fields) -> _Formats:
    if not given.get("config_groups"):
        return None, None  # the KV cache alone may be quantised
    groups = given.part("config_groups")
    formats = {_group(groups.part(name)) for name in groups.values}
    if len(formats) > 1:
        raise given.wrong("config_groups", f"differ: {_ONE_FORMAT}")
    return formats.pop()


def _group(group: Fields) -> _Formats:
    if group.get("weights") is None:
        raise group.lacks("weights")
    return _scheme(group, "weights"), _scheme(group, "input_activations")


def _scheme(given: Fields, key: str) -> Dtype | None:
    """Return the format of ``{num_bits, type}``; none where it is null or absent."""
    if given.get(key) is None:
        return None
    scheme = given.part(key)
    wanted = f"{scheme.get('type')} {scheme.get('num_bits')}"
    if wanted == "float 4":
        wanted += f" group_size {scheme.get('group_size')}"
    return _looked_up(given, key, wanted, _SCHEMES)


def _modelopt(given: Fields) -> _Formats:
    algorithm = given.get("quant_algo")
    if algorithm is None:
        return _compressed_tensors(given)  # it may write such groups too
    name = str(algorithm).upper()
    if name == "MIXED_PRECISION":
        raise given.wrong("quant_algo", f"is {name}: {_ONE_FORMAT}")
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
    if wanted not in known:
        raise given.wrong(
            key, f"is unknown: {wanted[:40]!r}; known: {', '.join(known)}"
        )
    return known[wanted]


_ONE_FORMAT = "all linear layers must have one format"

_PACKED = {4: Dtype.INT4, 8: Dtype.INT8}

_SCHEMES = {
    "int 4": Dtype.INT4,
    "int 8": Dtype.INT8,
    "float 8": Dtype.FP8,
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
_ALGORITHMS: dict[str, _Formats] = {
    "NO_QUANT": (None, None),
    "FP8": (Dtype.FP8, Dtype.FP8),
    "FP8_PER_CHANNEL_PER_TOKEN": (Dtype.FP8, Dtype.FP8),
    "FP8_BLOCK_SCALES": (Dtype.FP8, Dtype.FP8),
    # Stored as weights alone, but kernels quantise the inputs as they come.
    "FP8_PB_WO": (Dtype.FP8, Dtype.FP8),
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

_METHODS: dict[str, Callable[[Fields], _Formats]] = {
    "awq": _packed,
    "bitsandbytes": _bitsandbytes,
    "compressed-tensors": _compressed_tensors,
    "fbgemm_fp8": _fixed(Dtype.FP8, Dtype.FP8),
    "fp8": _fixed(Dtype.FP8, Dtype.FP8),
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
