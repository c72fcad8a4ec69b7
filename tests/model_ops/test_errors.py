import inspect

import pytest

from model_ops import errors
from model_ops.errors import GenzSizeError, UnitError, nearest

TREE = {
    name: item
    for name, item in vars(errors).items()
    if inspect.isclass(item) and issubclass(item, Exception)
}


def test_every_error_is_one_of_ours_and_drawn_in_the_docstring() -> None:
    assert len(TREE) > 1
    drawn = errors.__doc__ or ""
    for name, error in TREE.items():
        assert issubclass(error, GenzSizeError)
        assert name in drawn
        assert error.__doc__


def test_the_docstring_draws_no_error_that_is_gone() -> None:
    words = {w for w in (errors.__doc__ or "").split() if w.endswith("Error")}
    assert words == set(TREE)


def test_pydantic_can_collect_unit_errors() -> None:
    assert issubclass(UnitError, ValueError)


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        ("h10", "; did you mean 'h100' or 'h100-sxm'?"),  # the closest first
        ("H10", "; did you mean 'h100' or 'h100-sxm'?"),
        ("mi30x", "; did you mean 'mi300x'?"),
        ("zzz", "; known: h100, h100-sxm, mi300x"),
        ("", "; known: h100, h100-sxm, mi300x"),
    ],
)
def test_nearest(given: str, hint: str) -> None:
    assert nearest(given, ["h100-sxm", "mi300x", "h100"]) == hint


def test_nearest_lists_at_most_twelve() -> None:
    words = [f"w{n:02}" for n in range(13)]
    assert nearest("???", words[:12]).endswith(", w11")
    assert nearest("???", words).endswith(", w11, ...")
