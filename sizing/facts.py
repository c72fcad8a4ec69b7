"""Figures that every report format shows, computed once from an answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from model_ops.accuracy import latency_intervals
from model_ops.dtypes import Precision
from model_ops.estimate import bound_by
from model_ops.opcost import Number
from model_ops.units import HOURS_PER_MONTH
from problems import catalogue
from problems.plan import Plan
from problems.problem import TrafficClass
from problems.serve import Served, replica_of
from sizing.api import Answer


@dataclass(frozen=True, slots=True)
class Prediction:
    """One latency of one class under the plan, against its target.

    Parameters
    ----------
    metric
        ``ttft``, ``tpot`` or ``e2e``.
    mean, low, high
        Seconds, and the interval that the model's error leaves.
    target
        What was asked for; None where nothing was.
    bound_by
        What most of it is spent on.
    """

    metric: str
    mean: float
    low: float
    high: float
    target: float | None
    bound_by: str


@dataclass(frozen=True, slots=True)
class ClassFacts:
    """What a class gets.

    Parameters
    ----------
    traffic, served
        The class, and its deployments at their share of the demand.
    predictions
        TTFT, TPOT and E2E, each the mean over all requests.
    rate, output_tokens_per_s
        Requests and generated tokens per second.
    """

    traffic: TrafficClass
    served: list[Served]
    predictions: list[Prediction]
    rate: float
    output_tokens_per_s: float


def class_facts(answer: Answer, plan: Plan) -> list[ClassFacts]:
    """Return what each class gets under a plan."""
    return [
        _class_facts(plan, traffic, answer.served[traffic.name])
        for traffic in answer.problem.traffic
    ]


def _class_facts(plan: Plan, traffic: TrafficClass, each: list[Served]) -> ClassFacts:
    rates = [s.deployment.replicas * float(s.estimate.rate) for s in each]
    ranges = [_ranges(plan, served) for served in each]

    def pooled(values: Iterable[float]) -> float:
        """Return the mean over all requests."""
        return sum(v * r for v, r in zip(values, rates, strict=True)) / sum(rates)

    largest = each[rates.index(max(rates))]
    replica = replica_of(plan, largest.deployment)
    ttft_bound, tpot_bound = bound_by(replica, largest.load, largest.estimate.batch)
    bounds = {"ttft": ttft_bound, "tpot": tpot_bound, "e2e": tpot_bound}
    targets = {str(target.metric): target.at_most for target in traffic.targets}
    predictions = [
        Prediction(
            metric=metric,
            mean=pooled(float(getattr(s.estimate, metric)) for s in each),
            low=pooled(float(around[metric][0]) for around in ranges),
            high=pooled(float(around[metric][1]) for around in ranges),
            target=targets.get(metric),
            bound_by=str(bound),
        )
        for metric, bound in bounds.items()
        if metric != "tpot" or traffic.output_tokens > 1
    ]
    tokens = sum(rates) * traffic.output_tokens
    return ClassFacts(traffic, each, predictions, sum(rates), tokens)


def _ranges(plan: Plan, served: Served) -> dict[str, tuple[Number, Number]]:
    replica = replica_of(plan, served.deployment)
    return latency_intervals(replica, served.estimate, served.load.mode)


def usd_per_month(plan: Plan) -> float:
    """Return the plan's cost of a mean month of 730 hours."""
    return plan.usd_per_hour * HOURS_PER_MONTH


def usd_per_million_tokens(plan: Plan, facts: list[ClassFacts]) -> tuple[float, float]:
    """Return the cost per million generated tokens, and per million tokens in all."""
    output = sum(f.output_tokens_per_s for f in facts)
    prompts = sum(f.rate * f.traffic.input_tokens for f in facts)
    per_second = plan.usd_per_hour / 3600 * 1e6
    return per_second / output, per_second / (output + prompts)


def emulated(plan: Plan) -> Iterator[str]:
    """Yield a sentence for each NPU that computes a format in a wider one."""
    for deployment in plan.deployments:
        wanted = Precision.of(deployment.precision).compute
        engine = catalogue.load_npu(deployment.npu).engine(wanted)
        if engine is not wanted:
            yield f"{deployment.npu} computes {wanted} in {engine}."


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
                "its figures less certain than the intervals say."
            )


def provenance(answer: Answer, plan: Plan) -> list[dict[str, str]]:
    """Return where each price and specification that the plan rests on comes from."""
    rows = []
    for purchase in plan.purchases:
        rows.append(
            {
                "fact": f"price of {purchase.npu}: {purchase.provider} "
                f"{purchase.instance}, {purchase.term}",
                "as_of": purchase.as_of,
                "source": purchase.source,
            }
        )
    for npu in dict.fromkeys(d.npu for d in plan.deployments):
        file = catalogue.npu_file(npu)
        rows.append(
            {
                "fact": f"specification of {npu}",
                "as_of": file.as_of.isoformat(),
                "source": "; ".join(file.sources),
            }
        )
        profile = catalogue.efficiency_file(file.efficiency)
        rows.append(
            {
                "fact": f"kernel efficiencies {file.efficiency}",
                "as_of": profile.as_of.isoformat(),
                "source": "; ".join(profile.sources),
            }
        )
    rows.append(_model_provenance(answer.problem.model))
    return rows


def _model_provenance(model: str) -> dict[str, str]:
    if catalogue.model_path(model) is not None:
        return {"fact": f"model {model}", "as_of": "as given", "source": model}
    file = catalogue.model_file(model)
    return {
        "fact": f"architecture of {model}",
        "as_of": file.as_of.isoformat(),
        "source": "; ".join(file.sources),
    }
