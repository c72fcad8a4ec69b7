"""The decision variables, and the sums over them that constraints speak of."""

from collections.abc import Iterable
from dataclasses import dataclass

from ortools.sat.python import cp_model

from solver.instance import Instance
from solver.scaling import Scaled


@dataclass(frozen=True)
class Variables:
    """Replica counts per candidate, host counts per offer, loads per pairing.

    A load is what a pair carries of its class's demand, in the scale of the demand. A
    host is an instance, or a node from which NPUs are rented one by one.
    """

    instance: Instance
    scaled: Scaled
    replicas: tuple[cp_model.IntVar, ...]
    hosts: tuple[cp_model.IntVar, ...]
    carried: tuple[cp_model.IntVar, ...] = ()

    @classmethod
    def create(
        cls, model: cp_model.CpModel, instance: Instance, scaled: Scaled
    ) -> "Variables":
        """Return the variables, added to the model."""
        candidates = instance.candidates
        replicas = tuple(
            model.new_int_var(0, most, f"replicas_{i}_{c.npus}npus")
            for i, (c, most) in enumerate(zip(candidates, scaled.most, strict=True))
        )
        hosts = []
        for number, offer in enumerate(instance.offers):
            used = sum(
                most * -(-c.slot // offer.host_npus)
                for c, most in zip(candidates, scaled.most, strict=True)
                if c.offer == number
            )
            hosts.append(model.new_int_var(0, used, f"hosts_{number}"))
        carried = tuple(
            model.new_int_var(0, scaled.demand[pairing.traffic], f"carried_{number}")
            for number, pairing in enumerate(instance.pairings)
        )
        return cls(instance, scaled, replicas, tuple(hosts), carried)

    def most(self, candidate: int) -> int:
        """Return the replicas of a candidate that could ever be needed."""
        return self.scaled.most[candidate]

    @property
    def owners(self) -> tuple[int | None, ...]:
        """The class that each variable counts replicas of, None for hosts."""
        replicas = tuple(c.traffic for c in self.instance.candidates)
        return replicas + (None,) * len(self.hosts)

    def on_offer(self, number: int) -> list[int]:
        """Return the candidates that stand on an offer."""
        candidates = self.instance.candidates
        return [i for i, c in enumerate(candidates) if c.offer == number]

    def npus_used(self, number: int) -> cp_model.LinearExpr:
        """Return the NPUs that replicas on an offer use."""
        candidates = self.instance.candidates
        return _weighted(
            (candidates[i].npus, self.replicas[i]) for i in self.on_offer(number)
        )

    def npus_paid(self, number: int) -> cp_model.LinearExpr:
        """Return the NPUs of an offer that are paid for."""
        offer = self.instance.offers[number]
        if offer.whole:
            return _weighted([(offer.host_npus, self.hosts[number])])
        return self.npus_used(number)

    def portions(self, number: int) -> cp_model.LinearExpr:
        """Return the portions of an offer that are paid for, in its price's unit."""
        offer = self.instance.offers[number]
        if offer.whole:
            return _weighted([(1, self.hosts[number])])
        return self.npus_used(number)

    def total_npus(self) -> cp_model.LinearExpr:
        """Return all NPUs paid for."""
        numbers = range(len(self.hosts))
        return _weighted((1, self.npus_paid(number)) for number in numbers)

    def total_usd(self) -> cp_model.LinearExpr:
        """Return the cost, in the scale of `Scaled.usd_per`."""
        prices = self.scaled.usd
        return _weighted((usd, self.portions(n)) for n, usd in enumerate(prices))

    def total_watts(self) -> cp_model.LinearExpr:
        """Return the power of the NPUs paid for, in the scale of `Scaled.watts_per`."""
        watts = self.scaled.watts
        return _weighted((each, self.npus_paid(n)) for n, each in enumerate(watts))


def _weighted(
    terms: Iterable[tuple[int, cp_model.LinearExpr | cp_model.IntVar]],
) -> cp_model.LinearExpr:
    pairs = list(terms)
    expressions = [expression for _, expression in pairs]
    return cp_model.LinearExpr.weighted_sum(
        expressions, [weight for weight, _ in pairs]
    )
