"""Number formats: how many bits a value takes, and what computes it."""

from dataclasses import dataclass, replace
from enum import StrEnum

from model_ops.errors import DeploymentError, nearest


class Dtype(StrEnum):
    """A number format of weights, KV cache, activations or arithmetic."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP8_BLOCK = "fp8_block"
    INT8 = "int8"
    FP4 = "fp4"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"
    INT4 = "int4"
    Q4_K_M = "q4_k_m"

    @property
    def bytes(self) -> float:
        """Bytes of one stored value, block scales included."""
        return _BITS[self] / 8

    @property
    def engine(self) -> "Dtype":
        """The arithmetic format: block-scaled formats compute as plain ones."""
        return _ENGINE_OF.get(self, self)

    @classmethod
    def of(cls, name: str) -> "Dtype":
        """Return the format of that name, framework spellings included.

        Raises
        ------
        DeploymentError
            If there is no such format.
        """
        key = name.strip().lower().replace("torch.", "")
        key = _SPELLINGS.get(key, key)
        try:
            return cls(key)
        except ValueError:
            raise DeploymentError(
                f"unknown dtype '{name}'{nearest(key, [d.value for d in cls])}"
            ) from None


_BITS = {
    Dtype.FP32: 32.0,
    Dtype.TF32: 32.0,
    Dtype.BF16: 16.0,
    Dtype.FP16: 16.0,
    Dtype.FP8: 8.0,
    # One FP32 scale per block of 128 x 128 values (DeepSeek-V3, section 3.3.2).
    Dtype.FP8_BLOCK: 8.0 + 32 / 128**2,
    Dtype.INT8: 8.0,
    Dtype.FP4: 4.0,
    # One FP8 scale per 16 values (NVIDIA TensorRT documentation, NVFP4).
    Dtype.NVFP4: 4.0 + 8 / 16,
    # One E8M0 scale per 32 values (OCP Microscaling Formats v1.0, section 5).
    Dtype.MXFP4: 4.0 + 8 / 32,
    # One FP16 scale and one 4-bit zero per 128 values (AWQ and GPTQ, group 128).
    Dtype.INT4: 4.0 + (16 + 4) / 128,
    # Blocks of Q4_K, and of Q6_K in part of the values and down-projections
    # (ggml-org/llama.cpp tools/quantize/README.md, bits per weight of 8B to 405B).
    Dtype.Q4_K_M: 4.85,
}

_ENGINE_OF = {
    Dtype.FP8_BLOCK: Dtype.FP8,
    Dtype.NVFP4: Dtype.FP4,
    Dtype.MXFP4: Dtype.FP4,
    Dtype.Q4_K_M: Dtype.INT4,
}

_SPELLINGS = {
    "gguf-q4_k_m": "q4_k_m",
    "fp8-block": "fp8_block",
    "float32": "fp32",
    "float": "fp32",
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "float8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "float8_e4m3fn": "fp8",
    "w8a8": "int8",
    "w4a16": "int4",
    "awq": "int4",
    "gptq": "int4",
}

_SIXTEEN = (Dtype.BF16, Dtype.FP16, Dtype.TF32, Dtype.FP32)

ENGINES: dict[Dtype, tuple[Dtype, ...]] = {
    Dtype.FP4: (Dtype.FP4, Dtype.FP8, *_SIXTEEN),
    Dtype.INT4: (Dtype.INT4, Dtype.INT8, *_SIXTEEN),
    Dtype.FP8: (Dtype.FP8, *_SIXTEEN),
    Dtype.INT8: (Dtype.INT8, *_SIXTEEN),
    Dtype.BF16: _SIXTEEN,
    Dtype.FP16: (Dtype.FP16, Dtype.BF16, Dtype.TF32, Dtype.FP32),
    Dtype.TF32: (Dtype.TF32, Dtype.FP32),
    Dtype.FP32: (Dtype.FP32,),
}
"""The arithmetic that can stand in for a format, narrowest first."""


_WIDER_OF_ITS_SIZE = (Dtype.FP32, Dtype.BF16)
"""Than TF32, which drops mantissa, and FP16, which has less range."""


@dataclass(frozen=True, slots=True)
class LinearFormat:
    """Formats of one linear layer: weights, inputs, and the arithmetic of both."""

    weights: Dtype
    inputs: Dtype

    @property
    def engine(self) -> Dtype:
        """The wider of both.

        Of two of one size FP32 and BF16 win, else the inputs: weights are
        converted to them.
        """
        return max(
            (self.inputs, self.weights),  # max keeps the first of equals
            key=lambda d: (int(d.bytes), d in _WIDER_OF_ITS_SIZE),
        ).engine


@dataclass(frozen=True, slots=True)
class Precision:
    """The formats of a deployment's tensor classes.

    Parameters
    ----------
    weights
        Linear layers. Embeddings, head, norms and routers stay in 16 bits or more,
        as quantised checkpoints keep them.
    kv_cache
        Keys and values.
    activations
        Inputs of the linear layers; the residual stream between them stays in
        16 bits or more.
    experts
        Routed experts, where they differ from `weights`.
    projections
        Projections of the mixers (attention, state space), where they differ.
    """

    weights: Dtype = Dtype.BF16
    kv_cache: Dtype = Dtype.BF16
    activations: Dtype = Dtype.BF16
    experts: Dtype | None = None
    projections: Dtype | None = None

    @property
    def linear(self) -> LinearFormat:
        """Formats of the linear layers that are of no class of their own."""
        return self._of(self.weights)

    @property
    def expert(self) -> LinearFormat:
        """Formats of the routed experts."""
        return self._of(self.experts)

    @property
    def projection(self) -> LinearFormat:
        """Formats of the mixers' projections."""
        return self._of(self.projections)

    def _of(self, weights: Dtype | None) -> LinearFormat:
        """Return a class's formats; unquantised layers have unquantised inputs."""
        weights = weights or self.weights
        plain = weights.bytes >= 2 > self.activations.bytes
        return LinearFormat(weights, weights if plain else self.activations)

    @property
    def compute(self) -> Dtype:
        """Engine of the linear layers that are of no class of their own."""
        return self.linear.engine

    @property
    def engines(self) -> frozenset[Dtype]:
        """Every arithmetic format that the deployment needs."""
        linears = {f.engine for f in (self.linear, self.expert, self.projection)}
        return frozenset(linears | {self.attention, self.residual})

    @property
    def residual(self) -> Dtype:
        """Format of the residual stream, the embeddings and the head."""
        return self.activations if self.activations.bytes >= 2 else Dtype.BF16

    @property
    def attention(self) -> Dtype:
        """Engine of attention: 16 bits, or FP8 where the KV cache is FP8 too."""
        low = self.kv_cache is Dtype.FP8 and self.activations is Dtype.FP8
        return Dtype.FP8 if low else self.residual

    @property
    def name(self) -> str:
        """Short name: the preset's, or weights/activations/kv and what differs."""
        for name, preset in PRESETS.items():
            if preset == self:
                return name
        parts = [f"{self.weights}/{self.activations}/kv-{self.kv_cache}"]
        parts += [f"{k}-{v}" for k in _CLASSES if (v := getattr(self, k)) is not None]
        return "/".join(parts)

    @classmethod
    def serving(cls, weights: Dtype, kv_cache: Dtype) -> "Precision":
        """Return the precision in which such weights are usually served.

        FP8, INT8 and NVFP4 checkpoints quantise the inputs of their linear layers
        too; INT4 and MXFP4 ones keep them in 16 bits.
        """
        if weights.bytes >= 2:
            return cls(weights, kv_cache, weights)
        if weights is Dtype.FP8_BLOCK:
            return cls(weights, kv_cache, Dtype.FP8)
        both = weights in (Dtype.FP8, Dtype.INT8, Dtype.NVFP4)
        return cls(weights, kv_cache, weights if both else Dtype.BF16)

    def stored(self, weights: Dtype | None, kv_cache: Dtype | None) -> "Precision":
        """Return these formats with other weights or another KV cache.

        Where some class of tensors has such weights already, the classes stay as
        they are: a checkpoint "in MXFP4" may hold its experts alone so, and one "in
        FP8" may scale it by blocks.
        """
        kept = kv_cache or self.kv_cache
        held = {self.weights, self.experts, self.projections}
        blocks = weights is Dtype.FP8 and Dtype.FP8_BLOCK in held
        if weights is None or weights in held or blocks:
            return replace(self, kv_cache=kept)
        return Precision.serving(weights, kept)

    @classmethod
    def of(cls, name: str) -> "Precision":
        """Return a preset, or the precision written as its `name`.

        Raises
        ------
        DeploymentError
            If the text is neither.
        """
        key = name.strip().lower()
        if key in PRESETS:
            return PRESETS[key]
        weights, _, rest = key.partition("/")
        activations, *classes = rest.split("/")
        formats = dict(part.partition("-")[::2] for part in classes)
        kv = formats.pop("kv", None)
        if not kv or not activations or not formats.keys() <= set(_CLASSES):
            raise DeploymentError(
                f"unknown precision '{name}'{nearest(key, PRESETS)} "
                "(or write weights/activations/kv-KV, like 'fp8/fp8/kv-fp8', then "
                "/experts-DTYPE or /projections-DTYPE where they differ)"
            )
        special = {each: Dtype.of(formats[each]) for each in formats}
        return cls(Dtype.of(weights), Dtype.of(kv), Dtype.of(activations), **special)


_CLASSES = ("experts", "projections")
"""Tensor classes that may have a weight format of their own."""


BF16 = Precision()
"""Sixteen bits everywhere, as most checkpoints are published."""

PRESETS: dict[str, Precision] = {
    "fp32": Precision(Dtype.FP32, Dtype.FP32, Dtype.FP32),
    "bf16": BF16,
    "fp16": Precision(Dtype.FP16, Dtype.FP16, Dtype.FP16),
    "fp8": Precision(Dtype.FP8, Dtype.BF16, Dtype.FP8),
    "fp8-block": Precision(Dtype.FP8_BLOCK, Dtype.BF16, Dtype.FP8),
    "fp8-kv8": Precision(Dtype.FP8, Dtype.FP8, Dtype.FP8),
    "int8": Precision(Dtype.INT8, Dtype.BF16, Dtype.INT8),
    "int4": Precision(Dtype.INT4, Dtype.BF16, Dtype.BF16),
    "nvfp4": Precision(Dtype.NVFP4, Dtype.BF16, Dtype.NVFP4),
    "mxfp4": Precision(Dtype.MXFP4, Dtype.BF16, Dtype.BF16),
}
"""Weights, KV cache and activations of the formats people deploy by name."""
