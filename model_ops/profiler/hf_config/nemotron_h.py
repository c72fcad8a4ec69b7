"""Reader of Nemotron-H and Nemotron 3: layers that are one block each."""

from model_ops.profiler.arch import Layer, ModelArch
from model_ops.profiler.ffn import DenseFfn
from model_ops.profiler.hf_config.experts import experts
from model_ops.profiler.hf_config.fields import Fields
from model_ops.profiler.hf_config.mamba import ssm_dtype
from model_ops.profiler.hf_config.shared import attention, decoder
from model_ops.profiler.mamba import Mamba2
from model_ops.profiler.moe import MoeFfn

_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
"""Of ``hybrid_override_pattern``: one block each."""

_WORDS = {
    **{kind: kind for kind in _LETTERS.values()},
    "linear_attention": "mamba",
    "full_attention": "attention",
}
"""Of ``layers_block_type``: its own words and those of newer transformers."""


def nemotron_h(fields: Fields) -> ModelArch:
    """Mamba-2, attention, a feed-forward or experts in turn, one norm before each."""
    kinds = _blocks(fields, "hybrid_override_pattern", "layers_block_type")
    if not kinds:
        raise fields.lacks("hybrid_override_pattern", "layers_block_type")
    given = fields.count("num_hidden_layers", default=len(kinds))
    if given != len(kinds):
        raise fields.wrong(
            "num_hidden_layers", f"is {given}, but the pattern has {len(kinds)} layers"
        )
    made = {kind: _block(fields, kind) for kind in dict.fromkeys(kinds)}
    return decoder(
        fields, [made[kind] for kind in kinds], predictors=_predictors(fields)
    )


def _predictors(fields: Fields) -> tuple[Layer, ...]:
    """Return the layers that guess: each the two blocks of its pattern as one."""
    guessed = fields.count("num_nextn_predict_layers", default=0, least=0)
    if not guessed:
        return ()
    named = _blocks(fields, "mtp_hybrid_override_pattern", "mtp_layers_block_type")
    blocks = [_block(fields, kind) for kind in named or ("attention", "moe")]
    mixers = [block.mixer for block in blocks if block.mixer is not None]
    ffns = [block.ffn for block in blocks if block.ffn is not None]
    if len(mixers) != 1 or len(ffns) != 1:
        raise fields.wrong(
            "mtp_hybrid_override_pattern", "must be a mixer and a feed-forward"
        )
    return (Layer(mixer=mixers[0], ffn=ffns[0]),) * guessed


def _blocks(fields: Fields, letters: str, words: str) -> list[str]:
    """Return the kinds of the layers, from a list of words or a text of letters."""
    named = fields.get(words)
    if named is not None:
        length = len(named) if isinstance(named, list) else 0
        return [_WORDS[word] for word in fields.kinds(words, length, _WORDS)]
    pattern = fields.get(letters, "")
    if not isinstance(pattern, str) or not set(pattern) <= set(_LETTERS):
        raise fields.wrong(letters, f"must consist of {' '.join(_LETTERS)}")
    return [_LETTERS[letter] for letter in pattern]


def _block(fields: Fields, kind: str) -> Layer:
    if kind == "mamba":
        return Layer(mixer=_mamba(fields), ffn=None, norms=1)
    if kind == "attention":
        heads = fields.given(head_dim=fields.get("head_dim", _head_dim(fields)))
        return Layer(mixer=attention(heads, rotary=False), ffn=None, norms=1)
    if kind == "moe":
        return Layer(mixer=None, ffn=_experts(fields), norms=1)
    plain = DenseFfn(
        intermediate_size=fields.count("intermediate_size"),
        gated=False,
        bias=fields.flag("mlp_bias"),
    )
    return Layer(mixer=None, ffn=plain, norms=1)


def _head_dim(fields: Fields) -> int | None:
    """Return the head size under its older name."""
    return fields.count("attention_head_dim", default=0) or None


def _mamba(fields: Fields) -> Mamba2:
    return Mamba2(
        num_heads=fields.count("mamba_num_heads"),
        head_dim=fields.count("mamba_head_dim"),
        state_size=fields.count("ssm_state_size"),
        n_groups=fields.count("n_groups"),
        conv_kernel=fields.count("conv_kernel"),
        conv_bias=fields.flag("use_conv_bias", default=True),
        proj_bias=fields.flag("use_bias"),
        ssm_dtype=ssm_dtype(fields),
    )


def _experts(fields: Fields) -> MoeFfn:
    """Two matrices an expert (ReLU squared), in a narrower space where it says so."""
    number = fields.count("n_shared_experts", default=0, least=0)
    shared = None
    if number:
        width = fields.count("moe_shared_expert_intermediate_size")
        shared = DenseFfn(intermediate_size=number * width, gated=False)
    return experts(
        fields,
        gated=False,
        shared=shared,
        latent_size=fields.count("moe_latent_size", default=0, least=0) or None,
        routing_bias=True,
    )
