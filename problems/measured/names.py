"""Names as benchmarks spell them, read as the catalogue's.

A name is taken as it is, then without punctuation, then without what says nothing of
the item itself: the vendor before it, the format, the package or the size of the memory
behind it. What would be another item (a distilled model, say) is never cut off.
"""

import re
from functools import cache

from model_ops.dtypes import Dtype
from model_ops.errors import CatalogueError, DeploymentError
from problems import catalogue
from problems.measured.generations import framework_at

_VENDORS = re.compile(
    "nvidia|amd|intel|google|aws|amazon|huawei|geforce|instinct|tesla|radeon|gpu|hgx"
)
_SAYS_NOTHING = re.compile(
    r"""instruct|chat|it|hf|base|thinking|reasoning|preview|original|dynamic|static
    |fp8|fp4|nvfp4|mxfp4|int4|int8|bf16|fp16|w\da\d+|awq|gptq|gguf|block|kv|q\d|k|m|s
    |quantized|quant|\dbit|bnb|v0|bfloat16|float16|modelopt
    |\d{4}|\d{6}
    |sxm\d?|pcie|oam|hbm\d?e?|gddr\d|ddr\d|\d+gb|\d+g|nvl|nvl\d+|bse|server
    |workstation|edition|unspecified|linked|card|module|maxq|cts""",
    re.VERBOSE,
)
_WORDS = re.compile(r"[^a-z0-9+.]+")


def model_name(given: str) -> str:
    """Return the catalogue's name of a model.

    Raises
    ------
    CatalogueError
        If the catalogue lacks it.
    """
    return _name("models", given)


def npu_name(given: str) -> str:
    """Return the catalogue's name of an accelerator.

    Of a system that mixes two, the first is taken: the slower one, as they are named.

    Raises
    ------
    CatalogueError
        If the catalogue lacks it.
    """
    mixed = re.fullmatch(r"(.+?)\+(.+)-mixed", given.strip(), re.IGNORECASE)
    return _name("npus", mixed[1] if mixed else given)


@cache
def framework_name(given: str) -> str:
    """Return the catalogue's name of a serving framework; blank if it has none.

    Versions, and what else stands behind the name, are left out.
    """
    words = re.split(r"[\s,(/]+", given.lower())
    for text in (" ".join(words[:2]), *words[:3]):
        for spelt in (text, re.sub(r"[-_].*", "", text)):
            try:
                return catalogue.canonical("frameworks", spelt)
            except CatalogueError:
                continue
    return ""


_RELEASE = re.compile(r"\bv?(\d+\.\d+)")
_MONTH = re.compile(r"20\d\d(?:-\d\d)?")


@cache
def engine_name(given: str, date: str) -> str:
    """Return the generation of a serving framework by its release or the run's date.

    Blank where the catalogue lacks the framework. Of several dates the last counts.
    """
    name = framework_name(given)
    if not name:
        return ""
    months, release = _MONTH.findall(date), _RELEASE.search(given)
    return framework_at(
        name, release[1] if release else "", months[-1] if months else ""
    )


@cache
def dtype(given: str, *, vendor: str = "") -> Dtype | None:
    """Return a number format as benchmarks write it; None where the cell is blank.

    "FP4" is the one its vendor's libraries have: NVFP4 on NVIDIA's NPUs, else MXFP4.

    Raises
    ------
    DeploymentError
        If no part of the text names a format.
    """
    text = given.strip().lower()
    if text in _UNSTATED:
        return None
    named = (form for pattern, form in _FORMATS if pattern.search(text))
    found = _exact(text) or next(named, None) or Dtype.of(text)
    if found is Dtype.FP4:
        return Dtype.NVFP4 if vendor.lower() == "nvidia" else Dtype.MXFP4
    return found


_UNSTATED = ("", "auto", "unknown", "mixed")

_FORMATS = tuple(
    (re.compile(pattern), form)
    for pattern, form in (
        ("nvfp4", Dtype.NVFP4),
        ("mxfp4", Dtype.MXFP4),
        ("fp8_?block", Dtype.FP8_BLOCK),
        ("fp8|e4m3", Dtype.FP8),
        ("fp4", Dtype.FP4),
        ("w4a16|int4|awq|gptq|4-?bit|q4f16", Dtype.INT4),
        ("q[45]_", Dtype.Q4_K_M),
        ("w8a16|w8a8|int8|8-?bit|q[68]_|^sq$", Dtype.INT8),
        ("bf16|bfloat16", Dtype.BF16),
        ("f16|float16|half", Dtype.FP16),
        ("f32|float32", Dtype.FP32),
    )
)
"""Formats by what a name holds of them, the most telling first."""


def _exact(text: str) -> Dtype | None:
    try:
        return Dtype.of(text)
    except DeploymentError:
        return None


@cache
def _name(kind: str, given: str) -> str:
    try:
        return catalogue.canonical(kind, given)
    except CatalogueError as error:
        unknown = error
    words = [word for word in _WORDS.split(given.lower().split("/")[-1]) if word]
    while words and _VENDORS.fullmatch(words[0]):
        words = words[1:]
    known = _squeezed(kind)
    while words:
        key = _squeeze("".join(words))
        if key in known:
            return known[key]
        if not _SAYS_NOTHING.fullmatch(words[-1]):
            break
        words = words[:-1]
    raise unknown


def _squeeze(name: str) -> str:
    return re.sub(r"[^a-z0-9+.]", "", name.lower())


@cache
def _squeezed(kind: str) -> dict[str, str]:
    """Return every spelling of a kind of item without punctuation, and its name."""
    found: dict[str, str] = {}
    for name in catalogue.names(kind):
        for alias in (*catalogue.raw(kind, name).get("aliases", ()), name):
            found[_squeeze(alias.split("/")[-1])] = name
    return found
