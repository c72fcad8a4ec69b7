"""How well fleets are proved: random covering problems of many traffic classes.

Twelve NPU types with limited stock on nodes of eight; each class may be served on any
of them by replicas of three sizes, six of each type: 72 candidates per class, of which
those are counted that no other of the type dominates. Prints the status, the gap, which
solver proved the bound, and the seconds.

    python tests/benchmarks/fleet.py 5 20 50 --workers 2
    python tests/benchmarks/fleet.py 1000 --workers 2 --time-limit 300
"""

import argparse
import sys
import time
from collections.abc import Iterable

import numpy as np

from model_ops.dtypes import Dtype
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from problems.catalogue.schema import Price
from problems.offers import Offer
from problems.problem import Limits
from solver.counted import Counted
from solver.instance import Instance
from solver.model import SolveOptions, choose
from solver.prune import pruned

TYPES, PER_TYPE = 12, 6


def random_offer(number: int, usd: float, *, whole: bool) -> Offer:
    """Return an offer of one NPU type on nodes of eight."""
    npus = 8 if whole else 1
    npu = Npu(
        name=f"type-{number}",
        flop_per_s={Dtype.BF16: 1e15},
        memory_bandwidth=1e12,
        memory_capacity=1e11,
        node_npus=8,
        fabric=Fabric((Tier("wire", 64, 1e11, 1e-6),)),
        provisioned_power=1000.0,
    )
    price = Price(
        npu=npu.name,
        instance=f"{npus} NPUs",
        term="on_demand",
        npus=npus,
        whole_instance=whole,
        usd_per_hour=round(npus * usd, 2),
        as_of="2026-01",
        confidence="high",
        source="random",
    )
    return Offer(npu, "random", price)


def undominated(group: Iterable[Counted]) -> list[Counted]:
    """Return the replicas of a type that cover more than all smaller ones."""
    kept: list[Counted] = []
    for each in sorted(group, key=lambda each: (each.npus, -each.capacity)):
        if not kept or each.capacity > kept[-1].capacity:
            kept.append(each)
    return kept


def random_fleet(classes: int, *, seed: int = 1, whole: bool = False) -> Instance:
    """Return a random instance of so many classes.

    A replica's rate is its price times 0.5 to 1.5, less 3 % per doubling of its NPUs.
    """
    draw = np.random.default_rng(seed)
    usd = draw.uniform(0.5, 12.0, TYPES)
    offers = tuple(random_offer(n, each, whole=whole) for n, each in enumerate(usd))
    candidates = []
    for traffic in range(classes):
        smallest = int(draw.choice([1, 2, 4, 8, 16]))
        for number in range(TYPES):
            group = []
            for _ in range(PER_TYPE):
                npus = smallest * 2 ** int(draw.integers(0, 3))
                spread = draw.uniform(0.5, 1.5) * (1 - 0.03 * np.log2(npus))
                rate = float(npus * usd[number] * spread / smallest)
                group.append(
                    Counted(
                        traffic=traffic,
                        offer=number,
                        npus=npus,
                        slot=offers[number].slot(npus),
                        capacity=rate,
                    )
                )
            candidates += undominated(group)
    demand = tuple(draw.uniform(5, 400, classes).tolist())
    nodes = draw.integers(200, 1500, TYPES) * max(1, classes // 50)
    stock = {f"type-{n}": 8 * int(each) for n, each in enumerate(nodes)}
    limits = Limits(npus_per_type=stock)
    return Instance(tuple(candidates), offers, demand, limits, "cost")


def main() -> None:
    """Solve an instance of each size asked for, and say how well it is proved."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("classes", nargs="+", type=int)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--time-limit", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--whole", action="store_true", help="nodes are paid whole")
    given = parser.parse_args()
    options = SolveOptions(time_limit=given.time_limit, workers=given.workers)
    sys.stdout.write(HEADER)
    for classes in given.classes:
        instance = random_fleet(classes, seed=given.seed, whole=given.whole)
        start = time.perf_counter()
        choice = choose(pruned(instance), options)
        seconds = time.perf_counter() - start
        gap = (choice.value - choice.bound) / choice.value if choice.value else 1.0
        sys.stdout.write(
            f"{classes:7,}  {len(instance.candidates):10,}  {choice.status:9}  "
            f"{choice.value:12,.2f}  {gap:8.4%}  {seconds:7.1f}  {choice.proved_by}\n"
        )


HEADER = "classes  candidates  status            USD/h       gap  seconds  proved by\n"

if __name__ == "__main__":
    main()
