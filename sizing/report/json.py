"""An answer as JSON: for programs, with every figure in SI units."""

from dataclasses import asdict
from typing import Any

from problems.limits_kept import not_counted
from problems.plan import Plan
from problems.requirements import requirements
from sizing.api import Answer
from sizing.facts import (
    ClassFacts,
    DeploymentFacts,
    Prediction,
    class_facts,
    provenance,
    usd_per_million_tokens,
    usd_per_month,
)
from sizing.memory_use import MemoryUse
from sizing.report.certificate import certificate_dict
from sizing.report.data import json_text
from sizing.report.margins import as_dict as margins
from solver.explain import Explanation
from solver.solve import Feasible, Optimal


def as_json(answer: Answer) -> str:
    """Return the answer as one JSON object."""
    return json_text(as_dict(answer))


def as_dict(answer: Answer) -> dict[str, Any]:
    """Return the answer as plain dictionaries and lists."""
    common: dict[str, Any] = {
        "status": answer.status,
        "model": answer.problem.model,
        "problem": answer.problem.model_dump(mode="json"),
        "objective": answer.problem.objective,
        "requirements": {
            r.label: r.text(r.value) for r in requirements(answer.problem)
        },
        "certificate": certificate_dict(answer),
        "timing_s": answer.seconds,
    }
    if isinstance(answer.outcome, Optimal | Feasible):
        return common | _planned(answer, answer.outcome.plan)
    return common | _unplanned(answer)


def _unplanned(answer: Answer) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "cost": None,
        "plan": [],
        "total_npus": 0,
        "predictions": [],
    }
    if answer.explanation is None:
        return empty
    return empty | {"explanation": explained(answer.explanation)}


def explained(explanation: Explanation) -> dict[str, Any]:
    """Return why there is no plan."""
    return {
        "conflicts": list(explanation.conflicts),
        "floors": [asdict(floor) for floor in explanation.floors],
        "relaxations": [asdict(relaxed) for relaxed in explanation.relaxations],
        "joint_relaxation": asdict(explanation.joint) if explanation.joint else None,
        "remedies": [asdict(remedy) for remedy in explanation.remedies],
        "complete": explanation.complete,
    }


def _planned(answer: Answer, plan: Plan) -> dict[str, Any]:
    facts = class_facts(answer, plan)
    certificate = answer.outcome.certificate
    in_usd = answer.problem.objective == "cost"
    per_output, per_token = usd_per_million_tokens(plan, facts)
    return {
        "cost": {
            "usd_per_hour": plan.usd_per_hour,
            "bound_usd_per_hour": certificate.bound if in_usd else None,
            "gap": certificate.gap,
            "usd_per_month": usd_per_month(plan),
            "usd_per_million_output_tokens": per_output,
            "usd_per_million_tokens": per_token,
        },
        "plan": [d.model_dump() for d in plan.deployments],
        "purchases": [p.model_dump() for p in plan.purchases],
        "not_counted_by_quotas": [p.offer for p in not_counted(answer.problem, plan)],
        "total_npus": plan.total_npus,
        "power_w": plan.power,
        "confidence": plan.confidence,
        "predictions": [_class(fact) for fact in facts],
        "memory": [
            _memory(memory)
            for fact in facts
            for deployment in fact.deployments
            for memory in deployment.memory
        ],
        "binding": [asdict(binding) for binding in answer.bindings],
        "runners_up": [
            {
                "npu": runner.npu,
                "usd_per_hour": runner.plan.usd_per_hour,
                "total_npus": runner.plan.total_npus,
                "distance": runner.distance,
                "plan": [d.model_dump() for d in runner.plan.deployments],
            }
            for runner in answer.runners_up
        ],
        "margins": None if answer.margins is None else margins(answer.margins),
        "provenance": [
            {"fact": p.fact, "as_of": p.as_of, "source": "; ".join(p.sources)}
            for p in provenance(answer, plan)
        ],
    }


def _class(fact: ClassFacts) -> dict[str, Any]:
    return {
        "traffic": fact.traffic.name,
        "rate_req_per_s": fact.rate,
        "output_tokens_per_s": fact.output_tokens_per_s,
        "deployments": [_deployment(each) for each in fact.deployments],
        **{f"{p.metric}_s": _prediction(p) for p in fact.predictions},
    }


def _deployment(facts: DeploymentFacts) -> dict[str, Any]:
    served, estimate = facts.served, facts.served.estimate
    return {
        "npu": served.deployment.npu,
        **served.deployment.parallelism.degrees,
        "req_per_s_per_replica": float(estimate.rate),
        "decoding_per_replica": float(estimate.batch),
        "utilisation": served.utilisation,
        "saturation_share": facts.saturation_share,
        "ttft_mean_s": float(estimate.ttft),
        "tpot_mean_s": float(estimate.tpot),
        "weak": list(facts.weak),
        **_pair(facts),
    }


def _pair(facts: DeploymentFacts) -> dict[str, Any]:
    """Return what a pair has besides: its figures above are of both pools together."""
    decode, moved = facts.served.decode, facts.transfer
    if decode is None or moved is None:
        return {}
    return {
        "mode": "disaggregated",
        "decode": {"npu": decode.npu, **decode.parallelism.degrees},
        "kv_transfer": {
            "technology": moved.technology,
            "bytes_per_request": moved.bytes_per_request,
            "needed_bytes_per_s": moved.needed,
            "available_bytes_per_s": moved.available,
            "utilisation": moved.utilisation,
            "mean_s": moved.seconds,
        },
    }


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        "mean": prediction.mean,
        **{str(name): value for name, value in prediction.percentiles.items()},
        "low": prediction.low,
        "high": prediction.high,
        "targets": dict(prediction.targets),
        "chances": dict(prediction.chances),
        "target_mean": prediction.targets.get("mean"),
        "bound_by": prediction.bound_by,
    }


def _memory(memory: MemoryUse) -> dict[str, Any]:
    deployment = memory.deployment
    return {
        "npu": deployment.npu,
        "traffic": deployment.traffic,
        "mode": deployment.mode,
        "weights_bytes": memory.weights,
        "kv_cache_mean_bytes": memory.cache,
        "kv_cache_room_bytes": memory.cache_room,
        "activations_bytes": memory.activations,
        "usable_bytes": memory.usable,
    }
