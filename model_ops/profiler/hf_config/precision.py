"""The number formats that a checkpoint's config declares."""

from collections.abc import Mapping

from model_ops.dtypes import Dtype, Precision
from model_ops.errors import ConfigError, DeploymentError
from model_ops.profiler.hf_config.fields import Fields


def checkpoint_precision(fields: Fields) -> Precision:
    """Return the formats that a checkpoint's config declares.

    ``quantization_config`` as written by fp8, AWQ, GPTQ, MXFP4, compressed-tensors
    and ModelOpt; else ``torch_dtype`` (16 bits where it is absent).
    """
    try:
        stored = Dtype.of(str(fields.get("torch_dtype", fields.get("dtype", "bf16"))))
    except DeploymentError as error:
        raise ConfigError(f"{fields.name}: torch_dtype: {error}") from None
    plain = Precision(stored, stored, stored)
    quantization = fields.get("quantization_config")
    if not isinstance(quantization, Mapping):
        return plain
    text = str(quantization).lower()
    for mark, (weights, activations) in _QUANTISATIONS.items():
        if mark in text:
            kv = Dtype.FP8 if "kv_cache_quant_algo': 'fp8" in text else stored
            return Precision(weights, kv, activations or stored)
    raise ConfigError(
        f"{fields.name}: quantization_config names no known method: "
        f"{quantization.get('quant_method', quantization)!r}; known: "
        + ", ".join(_QUANTISATIONS)
    )


# Marks in order: the first that occurs decides. None: activations stay 16 bits.
_QUANTISATIONS: dict[str, tuple[Dtype, Dtype | None]] = {
    "nvfp4": (Dtype.NVFP4, Dtype.NVFP4),
    "mxfp4": (Dtype.MXFP4, None),
    "awq": (Dtype.INT4, None),
    "gptq": (Dtype.INT4, None),
    "fp8": (Dtype.FP8, Dtype.FP8),
    "'type': 'float'": (Dtype.FP8, Dtype.FP8),
    "int8": (Dtype.INT8, Dtype.INT8),
    "w4a16": (Dtype.INT4, None),
}
