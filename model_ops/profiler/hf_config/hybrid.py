"""Readers of families that mix attention with state space layers."""

from model_ops.profiler.arch import Ffn, Mixer, ModelArch
from model_ops.profiler.hf_config.experts import EXPERTS, dense, experts, stack
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.mamba import ssm_dtype, time_step_rank
from model_ops.profiler.hf_config.shared import attention, decoder
from model_ops.profiler.mamba import Mamba1, Mamba2


def jamba(fields: Fields) -> ModelArch:
    """Mamba-1 with attention in every P-th layer, and experts in every other one."""
    layers, hidden = fields.count("num_hidden_layers"), fields.count("hidden_size")
    biased = fields.flag("mamba_proj_bias")
    mamba = Mamba1(
        intermediate_size=fields.count("mamba_expand", default=2) * hidden,
        state_size=fields.count("mamba_d_state", default=16),
        conv_kernel=fields.count("mamba_d_conv", default=4),
        time_step_rank=time_step_rank(fields, "mamba_dt_rank"),
        conv_bias=fields.flag("mamba_conv_bias", default=True),
        proj_bias=biased,
        inner_norms=True,
        ssm_dtype=ssm_dtype(fields),
    )
    attends = _every(fields, "attn_layer", layers)
    plain = dense(fields)
    moe: Ffn = plain
    if fields.count("num_experts") > 1:
        moe = experts(fields, width="intermediate_size")
    ffns = [moe if each else plain for each in _every(fields, "expert_layer", layers)]
    mixer = attention(fields, rotary=False)
    return decoder(fields, stack([mixer if each else mamba for each in attends], ffns))


def _every(fields: Fields, what: str, layers: int) -> list[bool]:
    """Return the layers that ``{what}_period`` and ``{what}_offset`` choose."""
    period = fields.count(f"{what}_period")
    offset = fields.count(f"{what}_offset", least=0)
    return [index % period == offset for index in range(layers)]


def bamba(fields: Fields) -> ModelArch:
    """Mamba-2 with attention in the layers of ``attn_layer_indices``; dense."""
    layers = fields.count("num_hidden_layers")
    attending = fields.get("attn_layer_indices", [])
    if not isinstance(attending, list):
        raise fields.wrong("attn_layer_indices", "must be a list of layers")
    biased = fields.flag("attention_bias")
    known: dict[bool, Mixer] = {
        True: attention(fields, qkv_bias=biased, output_bias=biased),
        False: _mamba2(fields),
    }
    mixers = [known[index in attending] for index in range(layers)]
    return decoder(fields, stack(mixers, [dense(fields)] * layers))


def granite_hybrid(fields: Fields) -> ModelArch:
    """Granite 4: Mamba-2, some attention; experts beside a shared one, or it alone."""
    layers = fields.count("num_hidden_layers")
    biased = fields.flag("attention_bias")
    known: dict[str, Mixer] = {
        "mamba": _mamba2(fields),
        "attention": attention(
            fields,
            qkv_bias=biased,
            output_bias=biased,
            rotary=fields.get("position_embedding_type") == "rope",
        ),
    }
    kinds = fields.kinds("layer_types", layers, known)
    alone = dense(fields, "shared_intermediate_size")
    ffn: Ffn = alone
    if fields.count(*EXPERTS, default=0, least=0):
        ffn = experts(fields, width="intermediate_size", shared=alone)
    return decoder(fields, stack([known[kind] for kind in kinds], [ffn] * layers))


def _mamba2(fields: Fields) -> Mamba2:
    """Return the mixer under the names of Bamba and Granite."""
    return Mamba2(
        num_heads=fields.count("mamba_n_heads"),
        head_dim=_mamba_head_dim(fields),
        state_size=fields.count("mamba_d_state"),
        n_groups=fields.count("mamba_n_groups", default=1),
        conv_kernel=fields.count("mamba_d_conv", default=4),
        conv_bias=fields.flag("mamba_conv_bias", default=True),
        proj_bias=fields.flag("mamba_proj_bias"),
        ssm_dtype=ssm_dtype(fields),
    )


def _mamba_head_dim(fields: Fields) -> int:
    if fields.get("mamba_d_head", "auto") != "auto":
        return fields.count("mamba_d_head")
    width = fields.count("mamba_expand", default=2) * fields.count("hidden_size")
    heads = fields.count("mamba_n_heads")
    if width % heads:
        raise fields.wrong("mamba_n_heads", f"{heads} does not divide width {width}")
    return width // heads
