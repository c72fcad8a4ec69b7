"""A disaggregated deployment under one load, from options."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from model_ops.arrivals import MAX_SEQUENCES
from model_ops.dtypes import Precision
from model_ops.errors import DeploymentError, ProblemError
from model_ops.estimate import REQUESTS_PER_USER, Estimate, LoadMode, whole_prompts
from model_ops.profiler.memory import MemoryFootprint
from model_ops.profiler.parallelism import Parallelism
from model_ops.profiler.work import RequestShape, Step
from model_ops.serving.engine import Profile
from model_ops.serving.lengths import fixed
from model_ops.serving.pair import Pair, Pool, pool_of
from model_ops.serving.pair_loop import PairLoop, closed_loop
from model_ops.serving.pools import first_token_only
from model_ops.serving.queueing import Latencies
from model_ops.serving.steady_state import (
    batch_cap,
    decoding_segment,
    requests_per_step,
)
from model_ops.serving.step import Replica
from model_ops.serving.transfer import Link
from model_ops.units import (
    BYTE_PER_SECOND,
    BytesPerSecond,
    RequestsPerSecond,
    Seconds,
)
from problems import catalogue
from problems.catalogue import DEFAULT_FRAMEWORK
from problems.optimisations import optimisations_of
from sizing.single import (
    besides,
    npu_under,
    rate_of,
    replica_on,
    required,
    shape_of,
)

_DEGREES = ("tp", "pp", "ep", "dp", "cp")


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """One pool at its load.

    Parameters
    ----------
    pool, rate
        Its replicas, and the requests per second at which they saturate.
    memory
        Of a replica's fullest NPU.
    step_name, step
        What its time goes to: a whole prompt, or one token of each decoding request.
    """

    pool: Pool
    rate: RequestsPerSecond
    memory: MemoryFootprint
    step_name: str
    step: Step

    @property
    def name(self) -> str:
        """How many replicas of what."""
        replica = self.pool.replica
        (npu,) = replica.supply.npus
        return f"{self.pool.replicas} x ({npu.name} {replica.parallelism.text})"


@dataclass(frozen=True, slots=True)
class PairPrediction:
    """What a disaggregated deployment does, with what it was made from.

    Parameters
    ----------
    title
        Model, pools and load.
    pair
        The deployment.
    shape, rate
        Tokens of a request, and requests per second.
    seen
        What requests see that arrive at random; or users, in the mean, who wait for
        their answers.
    """

    title: str
    pair: Pair
    shape: RequestShape
    rate: RequestsPerSecond
    seen: Latencies | PairLoop

    @property
    def mode(self) -> LoadMode:
        """How requests come."""
        closed = isinstance(self.seen, PairLoop)
        return LoadMode.CLOSED_LOOP if closed else LoadMode.OPEN_LOOP

    @property
    def decoding(self) -> float:
        """Requests of a decode replica that decode, on average."""
        pool = self.pair.decode
        if isinstance(self.seen, PairLoop):
            return self.seen.batch / pool.replicas
        return float(self.seen.batch_mean) * pool.queues / pool.replicas

    @property
    def means(self) -> tuple[Seconds, Seconds]:
        """Mean TTFT and TPOT."""
        if isinstance(self.seen, PairLoop):
            return self.seen.ttft, self.seen.tpot
        return float(self.seen.ttft.mean), float(self.seen.tpot.mean)

    @property
    def estimate(self) -> Estimate:
        """The means of all requests; batch and memory are the decode pool's."""
        ttft, tpot = self.means
        return Estimate(
            shape=self.shape,
            ttft=ttft,
            tpot=tpot * float(self.shape.decode_steps > 0),
            rate=self.rate,
            batch=self.decoding,
            memory=self.decode.memory,
            room=self.pair.decode.replica.room,
        )

    @property
    def pools(self) -> dict[str, PoolFacts]:
        """Both pools by name."""
        return {"prefill": self.prefill, "decode": self.decode}

    @property
    def prefill(self) -> PoolFacts:
        """The pool that reads; its cache holds the prompts of a step."""
        pool, shape = self.pair.prefill, self.shape
        first = RequestShape(shape.input_tokens, 1.0, shape.cached_tokens)
        memory = pool.replica.footprint(first, 0.0, pool.chunk_tokens)
        rate, step = self.pair.rates["prefill"], whole_prompts(first, 1.0)
        return PoolFacts(pool, rate, memory, "one prompt", step)

    @property
    def decode(self) -> PoolFacts:
        """The pool that answers."""
        pool, shape, batch = self.pair.decode, self.shape, self.decoding
        replica, schedule = pool.replica, pool.replica.schedule
        most = batch_cap(batch, replica.parallelism.dp)
        memory = replica.footprint(shape, most, pool.chunk_tokens)
        requests = requests_per_step(batch, schedule.lanes)
        step = Step((decoding_segment(schedule, shape, requests),))
        rate = self.pair.rates["decode"]
        return PoolFacts(pool, rate, memory, "decode step", step)


def predict_pair(  # noqa: PLR0913 - one parameter per option of the command
    pools: Mapping[str, Mapping[str, Any]],
    *,
    model: str | None,
    precision: str | None,
    input_tokens: int | None,
    output_tokens: int | None,
    concurrency: int | None,
    rate: str | None,
    mode: str | None,
    kv_bandwidth: str | None,
    ideal: bool,
    framework: str | None,
    prefix_hit: float | None,
    beams: int | None,
    optimisations: Mapping[str, Any],
) -> PairPrediction:
    """Return the prediction for a prefill pool and a decode pool.

    Parameters
    ----------
    pools
        The NPU, degrees, replicas and step tokens of ``prefill`` and ``decode``.

    Raises
    ------
    GenzSizeError
        If something is missing, unknown or contradictory, the model does not fit,
        or more requests arrive than a pool or the links between them take.
    """
    arriving = _arriving(rate, concurrency, mode)
    arch = catalogue.load_model(required("--model", model))
    used = optimisations_of(optimisations)
    formats = Precision.of(precision) if precision else arch.precision
    shape = shape_of(arch, input_tokens, output_tokens, prefix_hit or 0.0, beams)
    if shape.beams != 1:
        raise ProblemError("--beams: beam search is not disaggregated")

    def replica(name: str, stated: Mapping[str, Any]) -> Replica:
        chip = npu_under(required(f"--{name}-npu", stated["npu"]), framework)
        tp, pp, ep, dp, cp = (stated[degree] or 1 for degree in _DEGREES)
        split = Parallelism(tp, pp, ep, dp, cp)
        npu = chip.ideal() if ideal else chip
        return replica_on(npu, arch, split, formats, used)

    reach = None if kv_bandwidth is None else BYTE_PER_SECOND.parse(kv_bandwidth)
    replicas = {name: replica(name, stated) for name, stated in pools.items()}
    chunk = catalogue.chunk_tokens_under(framework or DEFAULT_FRAMEWORK)
    pair = _pair(shape, replicas, pools, reach, chunk)
    _check_fit(pair, arch.name)
    title = (
        f"{arch.name} in {formats.name}, disaggregated, "
        f"{'open' if concurrency is None else 'closed'} loop, "
        f"{shape.input_tokens:,.0f} tokens in and {shape.output_tokens:,.0f} out"
        + besides(shape, used)
    )
    if concurrency is not None:
        loop = closed_loop(pair, concurrency, REQUESTS_PER_USER)
        return PairPrediction(title, pair, shape, loop.rate, loop)
    latencies = pair.latencies(arriving)
    if not latencies.stable:
        raise _too_many(pair)
    return PairPrediction(title, pair, shape, arriving, latencies)


def _arriving(
    rate: str | None, concurrency: int | None, mode: str | None
) -> RequestsPerSecond:
    """Return the requests per second that are stated; 0 where users are.

    Raises
    ------
    ProblemError
        If neither is stated or both are, or another kind of load.
    """
    stated = LoadMode.OPEN_LOOP if concurrency is None else LoadMode.CLOSED_LOOP
    if mode not in (None, stated):
        raise ProblemError(
            "--mode: a disaggregated deployment is given a --rate (open_loop) or a "
            f"--concurrency (closed_loop), not {mode}"
        )
    if concurrency is None:
        return rate_of(required("--rate", rate))
    if rate is not None:
        raise ProblemError("--rate: users who wait for answers set it; leave it out")
    return 0.0


def _pair(
    shape: RequestShape,
    replicas: Mapping[str, Replica],
    pools: Mapping[str, Mapping[str, Any]],
    bandwidth: BytesPerSecond | None,
    chunk: int,
) -> Pair:
    profile = Profile(
        fixed(float(shape.input_tokens)),
        fixed(float(shape.output_tokens)),
        float(shape.cached_tokens / shape.input_tokens),
    )
    seen = {"prefill": first_token_only(profile), "decode": profile}
    prefill, decode = (
        pool_of(
            replicas[name],
            profile,
            pools[name]["replicas"],
            chunk_tokens=pools[name]["chunk_tokens"] or chunk,
            max_sequences=MAX_SEQUENCES,
        )
        for name, profile in seen.items()
    )
    ends = (prefill.replica.supply, decode.replica.supply)
    link = Link.between(*ends, prefill.npus + decode.npus, bandwidth)
    return Pair(prefill, decode, profile, link)


def _check_fit(pair: Pair, model: str) -> None:
    """Raise `DeploymentError` if a pool does not hold the model and one request."""
    prompt = pair.profile.prompt.mean
    needs = {"prefill": prompt, "decode": prompt + pair.profile.output.mean}
    for name, pool in (("prefill", pair.prefill), ("decode", pair.decode)):
        kept = float(pool.engine.cache_tokens)
        if kept < needs[name]:
            replica = pool.replica
            (npu,) = replica.supply.npus
            raise DeploymentError(
                f"{model} does not fit on the {name} pool's {npu.name} "
                f"{replica.parallelism.text}: beside the weights there is room for "
                f"{kept:,.0f} tokens, and a request has {needs[name]:,.0f}"
            )


def _too_many(pair: Pair) -> DeploymentError:
    """Return the error that more requests arrive than the pair can take."""
    name = pair.binding
    most = pair.rates[name]
    part, more = "links between the pools", "give more --kv-bandwidth"
    if name != "transfer":
        part, more = f"{name} pool", f"give more --{name}-replicas"
    return DeploymentError(
        f"--rate: the {part} can take at most {most:.3g} req/s; {more}"
    )
