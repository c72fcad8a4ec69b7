"""A disaggregated deployment: a prefill pool, a decode pool, the caches between them.

A request is read by a replica of the first pool; its KV cache then travels to one of
the second, which answers. What each pool takes follows from its own replicas, so that
the pair takes the least of both and of the links between them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_ops.opcost import Number
from model_ops.profiler.cache import kv_bytes_per_sequence
from model_ops.serving.batch_distribution import Flags
from model_ops.serving.deployed import engine_of
from model_ops.serving.engine import Engine, Profile
from model_ops.serving.pools import (
    DecodeLaws,
    PairLaws,
    decode_saturation_rate,
    first_token_only,
)
from model_ops.serving.queueing import (
    NEAR_SATURATION,
    Latencies,
    Laws,
    split_variation,
    weaknesses,
)
from model_ops.serving.saturation import saturation_rate
from model_ops.serving.step import Replica
from model_ops.serving.transfer import Link, Transfer
from model_ops.units import Bytes, RequestsPerSecond, Seconds

_MOST_LINK_LOAD = 0.999
"""Of the links, in the time that a transfer takes: beyond it nothing is stable."""


@dataclass(frozen=True)
class Pool:
    """Replicas that are alike and share requests; each data-parallel group is a queue.

    Parameters
    ----------
    replica, engine
        One of them, and the engine of each of its groups.
    replicas
        How many.
    chunk_tokens
        Tokens that a step of one micro-batch may process.
    """

    replica: Replica
    engine: Engine
    replicas: int
    chunk_tokens: int

    @property
    def queues(self) -> int:
        """Data-parallel groups of all replicas."""
        return self.replicas * int(self.replica.parallelism.dp)

    @property
    def npus(self) -> int:
        """NPUs of all replicas."""
        return self.replicas * int(self.replica.parallelism.npus)

    @property
    def queue_npus(self) -> int:
        """NPUs of a group."""
        return self.npus // self.queues


def sent_per_token(replica: Replica, profile: Profile) -> Bytes | Number:
    """Return the cache and state of a mean prompt, per token, on the fullest NPU."""
    tokens = round(profile.prompt.mean, 6)
    each = (kv_bytes_per_sequence(h.arch, h.shard, tokens, 1) for h in replica.held)
    return sum(each, start=0.0) / tokens


@dataclass(frozen=True)
class Pair:
    """A prefill pool and a decode pool that serve requests of one kind.

    Where pools of several kinds read or answer, a pair is one way from a pool to
    another, and rates are those of the requests that go this way.

    Parameters
    ----------
    prefill, decode
        The pools.
    profile
        The lengths of the requests.
    link
        What the caches travel over.
    arrival_variation
        Squared variation of the gaps between requests.
    random
        Whether the routers choose at random; else they take turns.
    prefill_share, decode_share
        Share of what the first pool reads, and of what the second answers, that goes
        this way.
    besides
        Seconds that the links of an NPU of the first pool, and of the second, carry
        other caches, per request that goes this way.
    """

    prefill: Pool
    decode: Pool
    profile: Profile
    link: Link
    arrival_variation: float = 1.0
    random: bool = False
    prefill_share: float = 1.0
    decode_share: float = 1.0
    besides: tuple[Seconds, Seconds] = (0.0, 0.0)

    @cached_property
    def bytes_per_token(self) -> Bytes:
        """Cache and state of a mean prompt per token, on a decode group's fullest NPU.

        All of it travels, also what a prefix cache has spared the prefill.
        """
        return float(sent_per_token(self.decode.replica, self.profile))

    @property
    def bytes_per_request(self) -> Bytes:
        """Bytes that travel for a mean prompt."""
        group = self.decode.queue_npus
        return self.bytes_per_token * self.profile.prompt.mean * group

    @property
    def _sent_per_token(self) -> Bytes:
        """Bytes per prompt token that each NPU of a prefill group sends."""
        ends = self.decode.queue_npus / self.prefill.queue_npus
        return self.bytes_per_token * ends

    @property
    def link_times(self) -> tuple[Seconds, Seconds]:
        """Seconds that links of either pool's NPUs carry a request's cache, on average.

        Of all requests that go this way each NPU sends, or receives, its part.
        """
        tokens = self.profile.prompt.mean
        sent = tokens / self.prefill.queues * self._sent_per_token
        received = tokens / self.decode.queues * self.bytes_per_token
        return sent / self.link.send, received / self.link.receive

    def transfer(self, rate: RequestsPerSecond) -> Transfer:
        """Return what the links carry at a rate, and how long a cache travels.

        Transfers share their links evenly: all take 1 / (1 - utilisation) as long as
        alone, on average and whatever their sizes (processor sharing: L. Kleinrock,
        "Queueing systems" II, 1976).
        """
        times = zip(self.link_times, self.besides, strict=True)
        send, receive = (rate * (own + other) for own, other in times)
        busy = max(send, receive)
        alone = max(
            self._sent_per_token / self.link.send,
            self.bytes_per_token / self.link.receive,
        )
        return Transfer(
            sent=send * self.link.send,
            received=receive * self.link.receive,
            per_token=alone / (1.0 - min(busy, _MOST_LINK_LOAD)),
            latency=self.link.latency,
            utilisation=busy,
        )

    @cached_property
    def rates(self) -> dict[str, RequestsPerSecond]:
        """The rates at which the pools and the links saturate, by name."""
        reading = first_token_only(self.profile)
        first = float(saturation_rate(self.prefill.engine, reading))
        further = float(decode_saturation_rate(self.decode.engine, self.profile))
        return {
            "prefill": self.prefill.queues * first * self.prefill_share,
            "decode": self.decode.queues * further * self.decode_share,
            "transfer": 1.0 / self.transfer(1.0).utilisation,
        }

    @property
    def binding(self) -> str:
        """The part that saturates first: ``prefill``, ``decode`` or ``transfer``."""
        rates = self.rates
        return min(rates, key=lambda name: rates[name])

    def laws(self, rate: RequestsPerSecond) -> PairLaws:
        """Return the laws of the latencies at a rate of the pair.

        The first pool hides how requests arrived: the second takes them for Poisson.
        """
        queues, transfer = self.prefill.queues, self.transfer(rate)
        prefill = Laws.of(
            self.prefill.engine,
            first_token_only(self.profile),
            rate / self.prefill_share / queues,
            self.variation(queues, self.arrival_variation),
        )
        decode = DecodeLaws.of(
            self.decode.engine,
            self.profile,
            rate / self.decode_share / self.decode.queues,
            self.variation(self.decode.queues, 1.0),
            per_token=transfer.per_token,
            latency=transfer.latency,
        )
        return PairLaws(prefill, decode, np.asarray(transfer.utilisation < 1.0))

    def variation(self, queues: int, before: float) -> float:
        """Return the squared variation of the gaps behind a router; `gap_variation`."""
        variation = max(before, 1.0) if self.random else before
        return float(split_variation(queues, random=self.random, variation=variation))

    def latencies(self, rate: RequestsPerSecond) -> Latencies:
        """Return the latencies at a rate of the pair; the batch is a decode group's."""
        laws = self.laws(rate)
        batch, crowd = laws.decode.batch, laws.decode.crowd
        shares = {name: rate / most for name, most in self.rates.items()}
        return Latencies(
            ttft=laws.summary("ttft"),
            tpot=laws.summary("tpot"),
            e2e=laws.summary("e2e"),
            batch_mean=batch.mean[..., 0],
            batch_deviation=np.sqrt(crowd.variance)[..., 0],
            utilisation=np.asarray(max(shares.values())),
            slot_wait_probability=np.minimum(crowd.blocked, 1.0)[..., 0],
            stable=laws.stable[..., 0],
            weak=_weak(laws, shares),
        )


def _weak(laws: PairLaws, shares: dict[str, float]) -> dict[str, Flags]:
    """Return where the formulas are known to be off; see `weaknesses`."""
    prefill = weaknesses(laws.prefill, np.array([shares["prefill"]]))
    return {
        "near_saturation": np.asarray(max(shares.values()) > NEAR_SATURATION),
        "near_preemption": laws.decode.near_preemption[..., 0],
        "groups_collide": prefill["groups_collide"],
        "heavy_tail": prefill["heavy_tail"],
    }


def pool_of(
    replica: Replica,
    profile: Profile,
    replicas: int,
    *,
    chunk_tokens: int,
    max_sequences: int,
    beams: int = 1,
) -> Pool:
    """Return a pool of replicas; of a prefill pool the profile asks for one token.

    Parameters
    ----------
    replica, replicas
        One of them, and how many.
    profile, chunk_tokens, max_sequences, beams
        As for `engine_of`.
    """
    engine = engine_of(
        replica,
        profile,
        chunk_tokens=chunk_tokens,
        max_sequences=max_sequences,
        beams=beams,
    )
    return Pool(replica, engine, replicas, chunk_tokens)
