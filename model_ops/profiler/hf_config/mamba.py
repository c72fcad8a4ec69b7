"""Readers of pure state space models: a mixer in every layer and nothing else."""

from model_ops.dtypes import Dtype
from model_ops.errors import ConfigError, DeploymentError
from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.shared import decoder
from model_ops.profiler.mamba import Mamba1, Mamba2


def mamba(fields: Fields) -> ModelArch:
    """Mamba-1; Falcon-Mamba normalises dt, B and C too, without weights."""
    falcon = fields.get("model_type") == "falcon_mamba"
    hidden = fields.count("hidden_size")
    mixer = Mamba1(
        intermediate_size=fields.count(
            "intermediate_size", default=fields.count("expand", default=2) * hidden
        ),
        state_size=fields.count("state_size", default=16),
        conv_kernel=fields.count("conv_kernel", default=4),
        time_step_rank=time_step_rank(fields, "time_step_rank"),
        conv_bias=fields.flag("use_conv_bias", default=True),
        proj_bias=fields.flag("use_bias"),
        inner_norms=falcon,
        inner_norm_weights=False,
        ssm_dtype=ssm_dtype(fields),
    )
    return _mixers_only(fields, mixer, tied=True)


def mamba2(fields: Fields) -> ModelArch:
    """Mamba-2."""
    mixer = Mamba2(
        num_heads=fields.count("num_heads"),
        head_dim=fields.count("head_dim"),
        state_size=fields.count("state_size"),
        n_groups=fields.count("n_groups"),
        conv_kernel=fields.count("conv_kernel", default=4),
        conv_bias=fields.flag("use_conv_bias", default=True),
        proj_bias=fields.flag("use_bias"),
        ssm_dtype=ssm_dtype(fields),
    )
    return _mixers_only(fields, mixer, tied=False)


def _mixers_only(fields: Fields, mixer: Mamba1 | Mamba2, *, tied: bool) -> ModelArch:
    layer = Layer(mixer=mixer, ffn=None, norms=1)
    return decoder(fields, [layer] * fields.count("num_hidden_layers"), tied=tied)


def time_step_rank(fields: Fields, key: str) -> int:
    """Return the rank of the time step's projection: by default a 16th of the width."""
    if fields.get(key, "auto") == "auto":
        return -(-fields.count("hidden_size") // 16)
    return fields.count(key)


def ssm_dtype(fields: Fields) -> Dtype | None:
    """Return the format of the kept state that the config names, if it names one."""
    for key in ("mamba_ssm_dtype", "mamba_ssm_cache_dtype"):
        name = fields.get(key)
        if name is None or name == "auto":
            continue
        try:
            return Dtype.of(str(name))
        except DeploymentError as error:
            raise ConfigError(f"{fields.name}: {key}: {error}") from None
    return None
