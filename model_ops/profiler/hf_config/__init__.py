"""From a Hugging Face ``config.json`` to a `ModelArch`.

One reader per family, listed under the ``model_type`` values it reads. A field that
the family's reader needs and the config lacks is named in the error; a
``model_type`` nobody reads names those that are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from model_ops.errors import ConfigError, nearest
from model_ops.profiler.arch import ModelArch
from model_ops.profiler.hf_config.deepseek import deepseek, deepseek_sparse
from model_ops.profiler.hf_config.deepseek_v4 import deepseek_v4
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.gemma4 import gemma4
from model_ops.profiler.hf_config.gpt import bloom, falcon, gpt2, gpt_neox, gptj, opt
from model_ops.profiler.hf_config.hybrid import bamba, granite_hybrid, jamba
from model_ops.profiler.hf_config.kimi_linear import kimi_linear
from model_ops.profiler.hf_config.llama import llama_like, nemotron_nas
from model_ops.profiler.hf_config.mamba import mamba, mamba2
from model_ops.profiler.hf_config.minimax import minimax_01, minimax_m2, minimax_m3
from model_ops.profiler.hf_config.moe import (
    dbrx,
    glm4_moe,
    granitemoe,
    grok,
    mixtral,
    olmoe,
    phimoe,
    qwen2_moe,
    qwen3_moe,
)
from model_ops.profiler.hf_config.moe_windowed import gpt_oss, llama4, mimo_v2, step3p7
from model_ops.profiler.hf_config.nemotron_h import nemotron_h
from model_ops.profiler.hf_config.precision import checkpoint_precision
from model_ops.profiler.hf_config.qwen_hybrid import qwen_hybrid, qwen_hybrid_moe

Reader = Callable[[Fields], ModelArch]

READERS: Mapping[str, Reader] = {
    "llama": llama_like,
    "mistral": llama_like,
    "qwen2": llama_like,
    "qwen3": llama_like,
    "mimo": llama_like,
    "gemma2": llama_like,
    "gemma3": llama_like,
    "gemma3_text": llama_like,
    "phi3": llama_like,
    "nemotron-nas": nemotron_nas,
    "gpt2": gpt2,
    "gptj": gptj,
    "gpt_neox": gpt_neox,
    "opt": opt,
    "falcon": falcon,
    "RefinedWeb": falcon,
    "RefinedWebModel": falcon,
    "bloom": bloom,
    "mixtral": mixtral,
    "qwen2_moe": qwen2_moe,
    "qwen3_moe": qwen3_moe,
    "olmoe": olmoe,
    "phimoe": phimoe,
    "dbrx": dbrx,
    "grok-1": grok,
    "glm4_moe": glm4_moe,
    "granitemoe": granitemoe,
    "granitemoeshared": granitemoe,
    "minimax": minimax_01,
    "minimax_text_01": minimax_01,
    "minimax_m1": minimax_01,
    "minimax_m2": minimax_m2,
    "minimax_m3": minimax_m3,
    "gpt_oss": gpt_oss,
    "llama4_text": llama4,
    "mimo_v2_flash": mimo_v2,
    "step3p5": step3p7,
    "step3p7": step3p7,
    "gemma4_text": gemma4,
    "deepseek_v2": deepseek,
    "deepseek_v3": deepseek,
    "kimi_k2": deepseek,
    "deepseek_v32": deepseek_sparse,
    "glm_moe_dsa": deepseek_sparse,
    "deepseek_v4": deepseek_v4,
    "deepseek_ref": deepseek_v4,
    "qwen3_next": qwen_hybrid_moe,
    "qwen3_5_text": qwen_hybrid,
    "qwen3_5_moe_text": qwen_hybrid_moe,
    "kimi_linear": kimi_linear,
    "nemotron_h": nemotron_h,
    "jamba": jamba,
    "bamba": bamba,
    "granitemoehybrid": granite_hybrid,
    "mamba": mamba,
    "mamba2": mamba2,
    "falcon_mamba": mamba,
}
"""Every ``model_type`` that can be read, and its family's reader."""


def read_config(config: Mapping[str, Any], name: str) -> ModelArch:
    """Return the model that a config describes.

    Parameters
    ----------
    config
        The parsed ``config.json``; a multimodal one's ``text_config`` is used.
    name
        What to call the model in reports and errors.

    Raises
    ------
    ConfigError
        If the model type is unknown, or a field it needs is missing or wrong.
    """
    outer = config
    text = config.get("text_config")
    if isinstance(text, Mapping):
        shared = ("torch_dtype", "dtype", "quantization_config", "tie_word_embeddings")
        config = {key: outer[key] for key in shared if key in outer} | dict(text)
    model_type = config.get("model_type")
    if not isinstance(model_type, str):
        raise ConfigError(f"{name}: the config lacks model_type{nearest('', READERS)}")
    if model_type not in READERS:
        raise ConfigError(
            f"{name}: unknown model_type '{model_type}'"
            f"{nearest(model_type, READERS)} (a dense decoder with Llama's fields "
            "can be given as model_type 'llama')"
        )
    fields = Fields(config, name)
    arch = READERS[model_type](fields)
    return replace(arch, precision=checkpoint_precision(fields, arch))
