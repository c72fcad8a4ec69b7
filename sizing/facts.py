"""Figures that every report format shows, computed once from an answer."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_ops.binding import bound_by
from model_ops.dtypes import Precision
from model_ops.serving.lengths import Floats
from model_ops.serving.quantile import quantile
from model_ops.serving.queueing import LEVELS, Metric, RequestLaws, Statistic
from model_ops.units import HOURS_PER_MONTH
from problems import catalogue
from problems.accuracy import untested
from problems.chances import chances
from problems.offers import GIVEN, OWNED
from problems.plan import Plan, PlannedDeployment, Purchase
from problems.problem import SizingProblem, TrafficClass
from problems.serve import Served
from problems.stations import replica_of
from problems.traffic import LatencyTarget
from sizing.api import Answer
from sizing.intervals import METRICS, mean_ranges, weak_places
from sizing.kv_transfer import KvTransfer, kv_transfer
from sizing.memory_use import MemoryUse, memory_uses


@dataclass(frozen=True, slots=True)
class Prediction:
    """One latency of one class under the plan, against its targets.

    Parameters
    ----------
    metric
        ``ttft``, ``tpot`` or ``e2e``.
    mean, low, high
        Seconds, and the interval of the mean that the model's error leaves.
    percentiles
        Seconds that a share of the requests does not exceed, by its name.
    targets
        What was asked for, by statistic.
    chances
        Chance that each target holds, given how far predictions have been off.
    bound_by
        What most of it is spent on.
    """

    metric: Metric
    mean: float
    low: float
    high: float
    percentiles: Mapping[Statistic, float]
    targets: Mapping[Statistic, float]
    chances: Mapping[Statistic, float]
    bound_by: str

    def value(self, statistic: Statistic) -> float:
        """Return the mean or a percentile, in seconds."""
        return self.mean if statistic == "mean" else self.percentiles[statistic]


@dataclass(frozen=True, slots=True)
class DeploymentFacts:
    """What a deployment does at its share of the demand.

    Parameters
    ----------
    served
        The deployment and its latencies.
    saturation_share
        Its rate over that at which its queue would grow without end.
    weak
        Reasons for which the formulas are less certain there; see `sizing.intervals`.
    memory
        Of its fullest NPU; of a pair in the pool that answers, and in that which reads.
    transfer
        What travels between the pools of a pair.
    """

    served: Served
    saturation_share: float
    weak: tuple[str, ...]
    memory: tuple[MemoryUse, ...]
    transfer: KvTransfer | None = None


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """What a class gets.

    Parameters
    ----------
    traffic, deployments
        The class, and its deployments at their share of the demand.
    predictions
        TTFT, TPOT and E2E over all requests.
    rate, average_rate
        Requests per second at the peak that the plan is for, and over the day.
    output_tokens_per_s
        Generated tokens per second at the peak.
    """

    traffic: TrafficClass
    deployments: list[DeploymentFacts]
    predictions: list[Prediction]
    rate: float
    average_rate: float
    output_tokens_per_s: float


def class_facts(answer: Answer, plan: Plan) -> list[ClassFacts]:
    """Return what each class gets under a plan."""
    return [
        _class_facts(plan, traffic, answer.served[traffic.name])
        for traffic in answer.problem.traffic
    ]


def _class_facts(plan: Plan, traffic: TrafficClass, each: list[Served]) -> ClassFacts:
    rates = [s.stations * float(s.estimate.rate) for s in each]
    largest = each[rates.index(max(rates))]
    first, further = (
        bound_by(replica_of(plan, row), largest.load, largest.estimate.batch)[place]
        for place, row in enumerate((largest.rows[0], largest.rows[-1]))
    )
    bounds = {"ttft": first, "tpot": further, "e2e": further}
    mixture = _Mixture(plan, traffic, each, rates)
    predictions = [
        mixture.prediction(metric, str(bounds[metric]))
        for metric in METRICS
        if metric != "tpot" or traffic.shape.output_tokens > 1
    ]
    rate = sum(rates)
    average = traffic.mean_rate
    return ClassFacts(
        traffic=traffic,
        deployments=_deployments(plan, traffic, each),
        predictions=predictions,
        rate=rate,
        average_rate=rate if average is None else average,
        output_tokens_per_s=rate * float(traffic.shape.output_tokens),
    )


@dataclass(frozen=True)
class _Mixture:
    """The requests of a class over its deployments, weighted by what each takes."""

    plan: Plan
    traffic: TrafficClass
    each: Sequence[Served]
    rates: Sequence[float]

    @cached_property
    def laws(self) -> list[RequestLaws]:
        """The laws of each deployment's latencies."""
        return [
            each.station(self.plan, self.traffic).laws(float(each.estimate.rate))
            for each in self.each
        ]

    @cached_property
    def ranges(self) -> list[dict[Metric, tuple[float, float]]]:
        """The intervals of each deployment's means."""
        return [mean_ranges(self.plan, each) for each in self.each]

    @cached_property
    def chances(self) -> Mapping[LatencyTarget, float]:
        """The chance of each target of the class."""
        return chances(self.plan, self.traffic, self.each)

    def prediction(self, metric: Metric, bound: str) -> Prediction:
        """Return one latency over all requests."""
        ranges = [around[metric] for around in self.ranges]
        figures = [getattr(served.latencies, metric) for served in self.each]
        return Prediction(
            metric=metric,
            mean=self._pooled(float(figure.mean) for figure in figures),
            low=self._pooled(low for low, _ in ranges),
            high=self._pooled(high for _, high in ranges),
            percentiles={
                name: self._percentile(
                    metric, level, [float(getattr(f, name)) for f in figures]
                )
                for name, level in LEVELS.items()
            },
            targets={
                target.statistic: target.at_most
                for target in self.traffic.sized_targets
                if target.metric == metric
            },
            chances={
                target.statistic: chance
                for target, chance in self.chances.items()
                if target.metric == metric
            },
            bound_by=bound,
        )

    def _pooled(self, values: Iterable[float]) -> float:
        """Return the mean over all requests."""
        pairs = zip(values, self.rates, strict=True)
        return sum(value * rate for value, rate in pairs) / sum(self.rates)

    def _percentile(self, metric: Metric, level: float, own: list[float]) -> float:
        """Return the least seconds that a share `level` of all requests keeps.

        It lies between the deployments' own percentiles.
        """
        low, high = min(own), max(own)
        if not 0.0 < low < high:
            return high

        def above(seconds: Floats) -> Floats:
            shares = (
                np.exp(law.excess(metric, "p50", seconds)) * (1.0 - LEVELS["p50"])
                for law in self.laws
            )
            weighted = (s * r for s, r in zip(shares, self.rates, strict=True))
            return np.asarray(sum(weighted) / sum(self.rates))

        found = quantile(above, level, np.array([[low]]), np.array([[high]]))
        return float(found[0, 0])


def _deployments(
    plan: Plan, traffic: TrafficClass, each: Sequence[Served]
) -> list[DeploymentFacts]:
    """Return the facts of deployments; memory that routes share is told once."""
    found: list[DeploymentFacts] = []
    told: set[PlannedDeployment] = set()
    for served in each:
        memory = memory_uses(plan, traffic, served)
        facts = DeploymentFacts(
            served=served,
            saturation_share=float(served.latencies.utilisation),
            weak=weak_places(served.latencies),
            memory=tuple(use for use in memory if use.deployment not in told),
            transfer=kv_transfer(plan, traffic, served),
        )
        told |= {use.deployment for use in memory}
        found.append(facts)
    return found


def usd_per_month(plan: Plan) -> float:
    """Return the plan's cost of a mean month of 730 hours."""
    return plan.usd_per_hour * HOURS_PER_MONTH


def usd_per_million_tokens(plan: Plan, facts: list[ClassFacts]) -> tuple[float, float]:
    """Return the cost per million generated tokens, and per million tokens in all.

    Of those that are served over the day; the plan is paid for at night too.
    """
    shapes = [(f.average_rate, f.traffic.shape) for f in facts]
    output = sum(rate * float(shape.output_tokens) for rate, shape in shapes)
    prompts = sum(rate * float(shape.input_tokens) for rate, shape in shapes)
    per_second = plan.usd_per_hour / 3600 * 1e6
    return per_second / output, per_second / (output + prompts)


def emulated(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each NPU that computes a format in a wider one."""
    for deployment in plan.deployments:
        wanted = Precision.of(deployment.precision).compute
        engine = catalogue.load_npu(deployment.npu).engine(wanted)
        if engine is not wanted:
            yield f"{deployment.npu} computes {wanted} in {engine}."


def left_out(problem: SizingProblem) -> Iterator[str]:
    """Yield a sentence for hardware that is owned and may not be used."""
    allowed = problem.hardware.names()
    for owned in problem.owned:
        if owned.npu not in allowed:
            unit = "nodes of" if owned.nodes else "x"
            yield (
                f"{owned.nodes or owned.npus:,} {unit} {owned.npu} of your own are not "
                "considered: the NPU types allowed (--npu) leave them out."
            )


def unmeasured(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each NPU whose kernels nobody measured for us."""
    for npu in dict.fromkeys(deployment.npu for deployment in plan.deployments):
        profile = catalogue.npu_file(npu).efficiency
        measured = catalogue.efficiency_file(profile).measured_on
        if npu not in measured:
            like = " and ".join(measured)
            taken = f"those of {like}" if like else "assumed, or another vendor's"
            yield (
                f"No kernel of {npu} was measured: its efficiencies are {taken}, and "
                "its intervals wider for it."
            )


def unmeasured_kernels(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each NPU of which kernels of the model were not measured."""
    used = dict.fromkeys((plan.model_of(d), d.npu) for d in plan.deployments)
    for model, npu in used:
        yield from untested(catalogue.load_model(model), catalogue.load_npu(npu))


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a fact comes from that a plan rests on.

    Parameters
    ----------
    fact, as_of
        What is known, and since when.
    sources
        Who says so, the first one first.
    shown
        What ``genz-size catalogue show`` takes to show it all; empty where there is
        nothing more to show.
    """

    fact: str
    as_of: str
    sources: tuple[str, ...]
    shown: str = ""


def provenance(answer: Answer, plan: Plan) -> list[Provenance]:
    """Return where each price and specification that the plan rests on comes from."""
    rows = [price_provenance(purchase) for purchase in plan.purchases]
    for npu in dict.fromkeys(d.npu for d in plan.deployments):
        file = catalogue.npu_file(npu)
        profile = catalogue.efficiency_file(file.efficiency)
        rows += [
            Provenance(
                f"specification of {npu}",
                file.as_of.isoformat(),
                file.sources,
                f"npus {npu}",
            ),
            Provenance(
                f"kernel efficiencies {file.efficiency}",
                profile.as_of.isoformat(),
                profile.sources,
                f"efficiencies {file.efficiency}",
            ),
        ]
    rows += [_architecture(model) for model in answer.problem.models]
    return rows


def price_provenance(purchase: Purchase) -> Provenance:
    """Return where a price comes from."""
    if purchase.provider == OWNED:
        what = " of your own"
    elif purchase.provider == GIVEN:
        what = ""
    else:
        term = purchase.term.replace("_", "-")
        what = f": {purchase.provider} {purchase.instance}, {term}"
    return Provenance(
        f"price of {purchase.npu}{what}", purchase.as_of, (purchase.source,)
    )


def _architecture(model: str) -> Provenance:
    if catalogue.model_path(model) is not None:
        return Provenance(f"model {model}", "as given", (model,))
    file = catalogue.model_file(model)
    return Provenance(
        f"architecture of {model}",
        file.as_of.isoformat(),
        file.sources,
        f"models {model}",
    )
