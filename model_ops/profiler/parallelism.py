"""How a replica is split over NPUs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_ops.opcost import Mask, Number


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Degrees of each kind of parallelism; numbers or arrays.

    Parameters
    ----------
    tp
        Tensor parallel: ranks that share every layer.
    pp
        Pipeline parallel: stages that hold successive layers.
    ep
        Expert parallel: groups that the experts of a layer are dealt to. The
        ``tp * dp`` ranks of a stage hold them; where ep is less, each expert is
        split over ``tp * dp / ep`` ranks.
    dp
        Data parallel attention: groups of tp ranks, each with sequences, mixers
        and dense feed-forwards of its own, that share the experts.
    cp
        Context parallel: ranks over which the tokens of a sequence are dealt.
    sequence_parallel
        Whether norms work on a share of the tokens, each all-reduce being split in
        a reduce-scatter before and an all-gather behind them.
    """

    tp: Number = 1
    pp: Number = 1
    ep: Number = 1
    dp: Number = 1
    cp: Number = 1
    sequence_parallel: bool = False

    @property
    def npus(self) -> Number:
        """NPUs of one replica."""
        return self.tp * self.cp * self.dp * self.pp

    @property
    def expert_ranks(self) -> Number:
        """Ranks that hold the experts of a layer together."""
        return self.tp * self.cp * self.dp

    @property
    def token_groups(self) -> Number:
        """Groups of ranks with tokens of their own: 1 where every rank has all."""
        return self.cp * self.dp

    @property
    def expert_tp(self) -> Number:
        """Ranks that share each expert."""
        return self.expert_ranks / self.ep

    @property
    def degrees(self) -> dict[str, Number]:
        """Degrees by name: tp and pp, and those of the others that are used."""
        more = {"ep": self.ep, "dp": self.dp, "cp": self.cp}
        used = {name: degree for name, degree in more.items() if degree != 1}
        return {"tp": self.tp, "pp": self.pp} | used

    @property
    def text(self) -> str:
        """The degrees, e.g. ``"tp=8 pp=1"``."""
        return " ".join(f"{name}={degree}" for name, degree in self.degrees.items())


ALONE = Parallelism()
"""A replica on one NPU."""


def stacked(splits: Sequence[Parallelism], point_axes: int = 0) -> Parallelism:
    """Return scalar splits as one of arrays; a degree that nobody uses stays 1.

    Parameters
    ----------
    splits
        The splits, along the first axis of the result.
    point_axes
        Axes of length one that follow, for what varies within a split.
    """

    def column(name: str) -> Number:
        values = np.array([getattr(split, name) for split in splits], dtype=float)
        return values.reshape(-1, *(1,) * point_axes)

    def used(name: str) -> Number:
        return column(name) if any(getattr(s, name) != 1 for s in splits) else 1

    return Parallelism(column("tp"), column("pp"), used("ep"), used("dp"), used("cp"))


@dataclass(frozen=True, slots=True)
class Stage:
    """What a pipeline stage holds; numbers or arrays like ``pp``.

    Parameters
    ----------
    counts
        Layers of each kind.
    first, last
        Whether it is the first stage, with the embedding; the last, with the head.
    """

    counts: tuple[Number, ...]
    first: Mask
    last: Mask


def layer_split(layers: int, stages: int) -> list[int]:
    """Return the layers of each pipeline stage, as frameworks deal them.

    Each gets ``layers // stages``; the remainder goes one by one to the stages
    before the last, backwards (vLLM ``get_pp_indices``).
    """
    each, left = divmod(layers, stages)
    return [each + (stages - 1 - left <= stage < stages - 1) for stage in range(stages)]


def pipeline_stages(order: Sequence[int], kinds: int, pp: Number) -> list[Stage]:
    """Return the stages among which the fullest is, for every entry of `pp`.

    Parameters
    ----------
    order
        The kind of each layer, from first to last.
    kinds
        Kinds of layers that there are.
    pp
        Pipeline stages; a number or an array.

    Returns
    -------
    list[Stage]
        No more than needed: a stage that holds no more of anything than another is
        left out. Entries of `pp` with fewer such stages repeat one.
    """
    degrees = np.asarray(pp)
    values = np.unique(degrees)
    each = [_stages(order, kinds, int(value)) for value in values]
    depth = max(len(stages) for stages in each)
    where = np.searchsorted(values, degrees)
    found = []
    for position in range(depth):
        column = [stages[min(position, len(stages) - 1)] for stages in each]
        counts = np.array([counts for counts, _, _ in column])
        found.append(
            Stage(
                tuple(_scalar(counts[:, kind][where]) for kind in range(kinds)),
                np.array([first for _, first, _ in column])[where],
                np.array([last for _, _, last in column])[where],
            )
        )
    return found


def _scalar(values: Number) -> Number:
    """Return a number where the array has no axes."""
    return values if np.ndim(values) else int(values)


_Held = tuple[tuple[int, ...], bool, bool]


def _stages(order: Sequence[int], kinds: int, pp: int) -> list[_Held]:
    start, held = 0, list[_Held]()
    for stage, layers in enumerate(layer_split(len(order), pp)):
        part = order[start : start + layers]
        start += layers
        counts = tuple(sum(kind == k for kind in part) for k in range(kinds))
        held.append((counts, stage == 0, stage == pp - 1))
    distinct = list(dict.fromkeys(held))
    return [h for h in distinct if not any(_within(h, o) for o in distinct if o != h)]


def _within(one: _Held, other: _Held) -> bool:
    """Return whether a stage holds no more of anything than another."""
    counts = all(a <= b for a, b in zip(one[0], other[0], strict=True))
    return counts and one[1] <= other[1] and one[2] <= other[2]
