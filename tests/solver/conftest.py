"""Toy instances, and bare models to try one constraint on; all NPUs are plain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from ortools.sat.python import cp_model

from model_ops.dtypes import BF16, Dtype
from model_ops.platform.fabric import Fabric, Tier
from model_ops.platform.npu import Npu
from model_ops.profiler.parallelism import Parallelism
from model_ops.serving.steady_state import DEFAULT_CHUNK_TOKENS
from problems.catalogue.schema import Price
from problems.fleet import Current, Redundancy
from problems.offers import Offer
from problems.problem import Limits, SizingProblem, problem_of
from solver.candidates import Candidate
from solver.counted import Pairing
from solver.instance import Instance
from solver.model import Choice, SolveOptions
from solver.scaling import scale
from solver.settings import LARGEST_BATCH, Setting
from solver.variables import Variables


@pytest.fixture(scope="module", autouse=True)
def plain_npus_here(plain_npus: None) -> None:
    """Let no measurement change what is asked here of the solver."""


class Toys:
    """Builders of small instances; what is not said is one, or none."""

    options = SolveOptions(workers=1, seed=0)

    @staticmethod
    def offer(
        usd: float = 1.0,
        npus: int = 1,
        *,
        whole: bool = False,
        name: str = "toy",
        node: int = 8,
        watts: float | None = 1000.0,
        stock: int | None = None,
        region: str = "",
    ) -> Offer:
        """Return an offer of `npus` NPUs for `usd` an hour."""
        npu = Npu(
            name=name,
            flop_per_s={Dtype.BF16: 1e15},
            memory_bandwidth=1e12,
            memory_capacity=1e11,
            node_npus=node,
            fabric=Fabric((Tier("wire", node, 1e11, 1e-6),)),
            provisioned_power=watts,
        )
        price = Price(
            npu=name,
            instance=f"{npus}x",
            term="on_demand",
            npus=npus,
            whole_instance=whole,
            usd_per_hour=usd,
            as_of="2026-01",
            confidence="high",
            source="made up",
            region=region,
        )
        return Offer(npu, "toy", price, stock)

    @staticmethod
    def instance(
        offers: Sequence[Offer],
        replicas: Sequence[tuple[Any, ...]],
        demand: Sequence[float],
        objective: Any = "cost",
        redundancy: Mapping[str, int] | None = None,
        current: Mapping[str, int] | None = None,
        **limits: Any,
    ) -> Instance:
        """Return an instance; replicas are (class, offer, NPUs, capacity, pool).

        The pool, the fewest that may be counted, is one if it is not said.
        """
        candidates = [
            Candidate(
                traffic=traffic,
                offer=number,
                split=Parallelism(npus),
                rate=capacity,
                precision=BF16,
                setting=Setting(1024, 2048),
                npus=npus,
                slot=offers[number].slot(npus),
                capacity=capacity,
                least=pool[0] if pool else 1,
                kind=npus,
            )
            for traffic, number, npus, capacity, *pool in replicas
        ]
        return Instance(
            tuple(candidates),
            tuple(offers),
            tuple(demand),
            Limits(**limits),
            objective,
            redundancy=Redundancy(**redundancy or {}),
            current=tuple(Current(npu=n, npus=k) for n, k in (current or {}).items()),
        )

    @staticmethod
    def paired(
        instance: Instance, pools: Sequence[tuple[Any, ...]], pairing: int = 0
    ) -> Instance:
        """Return an instance with a pairing of its first class; a pool's replicas.

        Those are (mode, NPUs, capacity, offer, pool), on the first offer and alone if
        it is not said.
        """
        rows = [(*pool, *(0, 1)[len(pool) - 3 :]) for pool in pools]
        more = Toys.instance(
            instance.offers,
            [(0, offer, npus, rate, least) for _, npus, rate, offer, least in rows],
            instance.demand,
        ).candidates
        more = tuple(
            replace(candidate, mode=row[0], pairing=pairing)
            for candidate, row in zip(more, rows, strict=True)
        )
        return replace(
            instance,
            candidates=instance.candidates + more,
            pairings=(*instance.pairings, Pairing(0)),
        )

    @staticmethod
    def value(instance: Instance, choice: Choice) -> float:
        """Return the objective's value of a choice, billed by the choice's hosts."""
        total = 0.0
        for number, offer in enumerate(instance.offers):
            used = sum(
                count * candidate.npus
                for candidate, count in zip(
                    instance.candidates, choice.replicas, strict=True
                )
                if candidate.offer == number
            )
            whole, each = offer.price.whole_instance, offer.price.usd_per_hour
            paid = choice.hosts[number] * offer.price.npus if whole else used
            total += {
                "cost": each / offer.price.npus * paid,
                "npus": paid,
                "power": paid * (offer.npu.provisioned_power or 0.0),
            }[instance.objective]
        return total


@pytest.fixture(scope="session")
def toys() -> type[Toys]:
    return Toys


Constraint = Callable[[cp_model.CpModel, Variables], None]


def bare_model(
    constraint: Constraint, instance: Instance
) -> tuple[cp_model.CpModel, Variables]:
    """Return a model of the variables and one constraint."""
    model = cp_model.CpModel()
    variables = Variables.create(model, instance, scale(instance))
    constraint(model, variables)
    assert model.validate() == ""
    return model, variables


def possible(
    constraint: Constraint,
    instance: Instance,
    replicas: Mapping[int, int] | None = None,
    hosts: Mapping[int, int] | None = None,
    carried: Mapping[int, float] | None = None,
) -> bool:
    """Return whether a constraint alone admits the fixed counts, and what pairs carry.

    The latter in the unit of the demand.
    """
    model, variables = bare_model(constraint, instance)
    for index, count in (replicas or {}).items():
        model.add(variables.replicas[index] == count)
    for index, count in (hosts or {}).items():
        model.add(variables.hosts[index] == count)
    for index, value in (carried or {}).items():
        traffic = instance.pairings[index].traffic
        share = value / instance.demand[traffic]
        whole = round(share * variables.scaled.demand[traffic])
        model.add(variables.carried[index] == whole)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    status = solver.solve(model)
    assert status in (cp_model.OPTIMAL, cp_model.INFEASIBLE)
    return status == cp_model.OPTIMAL


@pytest.fixture(scope="session")
def admits() -> Callable[..., bool]:
    """The function `possible`."""
    return possible


@pytest.fixture(scope="session")
def model_text() -> Callable[[Constraint, Instance], str]:
    """Return the text of a model of one constraint."""

    def text(constraint: Constraint, instance: Instance) -> str:
        return str(bare_model(constraint, instance)[0].proto)

    return text


def small_problem(**changes: Any) -> SizingProblem:
    """Return Llama-3.1-8B for a chat, on two NPUs of given prices, default settings.

    Its replicas read and answer, if nothing else is said.
    """
    traffic = {
        "name": "chat",
        "input_tokens": 1000,
        "output_tokens": 200,
        "rate": "40 req/s",
        "targets": [
            {"metric": "ttft", "at_most": "500 ms"},
            {"metric": "tpot", "at_most": "20 ms"},
        ],
    }
    data = {
        "model": "llama-3.1-8b",
        "traffic": [traffic],
        "modes": ["aggregated"],
        "chunk_tokens": DEFAULT_CHUNK_TOKENS,
        "max_num_seqs": LARGEST_BATCH,
        "hardware": {"npus": ["h100-sxm", "l40s"]},
        "prices": {
            "given": [
                {"npu": "h100-sxm", "usd_per_hour": "2.5 USD/h"},
                {"npu": "l40s", "usd_per_hour": "0.9 USD/h"},
            ]
        },
    }
    return problem_of(data | changes, "python")


@pytest.fixture(scope="session")
def small() -> Callable[..., SizingProblem]:
    """The function `small_problem`."""
    return small_problem
