"""Counts as text: exact while readable, then in words, then in powers of ten."""

_WORDS = ((1e9, "billion"), (1e6, "million"))


def count(value: float) -> str:
    """Return a count: ``1,234``, ``66,000``, ``1.1 million``, ``6.5e16``."""
    if value < 1e6:
        return f"{value:,.0f}"
    rounded = float(f"{value:.2g}")
    if rounded < 1e12:
        scale, word = next(each for each in _WORDS if rounded >= each[0])
        return f"{rounded / scale:.3g} {word}"
    digits, exponent = f"{rounded:.1e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def counted(value: float, noun: str) -> str:
    """Return a count of something: ``1 NPU``, ``8 NPUs``."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"
