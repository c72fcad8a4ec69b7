"""Fleets and candidates tables: equal to brute force, and to what the verifier says.

The brute force knows nothing of ours but the rows: it has its own offers, packing,
bills and failures.
"""

import csv
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from model_ops.errors import ProblemError
from problems import catalogue
from problems.given.plan import GivenPlan, planned
from problems.given.problem import GivenProblem, given_problem_of
from problems.given.rows import COLUMNS, PRICE, Row, read_rows
from problems.given.table import CandidatesTable
from problems.given.verify import violations
from problems.offers import OWNED
from problems.requirements import requirements
from solver.given.beside import borne, given_margins, singles
from solver.given.explain import explain_given
from solver.given.workspace import GivenWorkspace
from solver.model import SolveOptions
from solver.outcome import Infeasible, Optimal, objective_value
from solver.sensitivity import scaled

OPTIONS = SolveOptions(workers=1, seed=0)
HOST = 8
"""NPUs of a node of both types, H100 and H200."""


def written(path: Path, rows: Sequence[Sequence[Any]], *, priced: bool = False) -> Path:
    """Write (name, NPU, NPUs, rate[, price]) as a table of fast replicas."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, *([PRICE] if priced else [])])
        for name, npu, npus, rate, *price in rows:
            figures = (npu, "aggregated", npus, 100, 10, rate, "", "", "", "")
            writer.writerow([name, *figures, *price])
    return path


def asked(path: Path, rate: float, **changes: Any) -> GivenWorkspace:
    table = CandidatesTable.read(path)
    data = {"traffic": [{"rate": rate}]} | changes
    return GivenWorkspace.of(given_problem_of(data, table.npus, "python"), table)


def optimum(space: GivenWorkspace) -> GivenPlan:
    """Return the proved plan, verified."""
    outcome = space.solve(OPTIONS)
    assert isinstance(outcome, Optimal)
    assert violations(space.problem, space.table.rows, outcome.plan) == []
    return outcome.plan


def broken(space: GivenWorkspace, plan: GivenPlan) -> set[str]:
    """Return what a plan breaks of a question."""
    return {v.requirement for v in violations(space.problem, space.table.rows, plan)}


# By hand, with and without


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Two rows: one NPU for 1 request per second, a whole node for 10."""
    rows = [("one", "h200-sxm", 1, 1.0), ("node", "h200-sxm", 8, 10.0)]
    return written(tmp_path / "plain.csv", rows)


USD2 = {"given": [{"npu": "h200", "usd_per_hour": 2.0}]}


def test_what_is_owned_is_used_first_and_no_further(plain: Path) -> None:
    owned = [{"npu": "h200", "npus": 3}]
    plan = optimum(asked(plain, 5.0, prices=USD2, owned=owned))
    assert plan.usd_per_hour == pytest.approx(2 * 2.0)
    assert {p.provider: p.npus for p in plan.purchases} == {OWNED: 3, "given": 2}
    free = optimum(asked(plain, 5.0, prices=USD2))
    assert free.usd_per_hour == pytest.approx(5 * 2.0)


def test_more_than_is_owned_is_seen(plain: Path) -> None:
    plan = optimum(asked(plain, 3.0, prices=USD2, owned=[{"npu": "h200", "npus": 3}]))
    fewer = asked(plain, 3.0, prices=USD2, owned=[{"npu": "h200", "npus": 2}])
    assert broken(fewer, plan) == {"owned h200-sxm"}
    assert "hardware" in broken(asked(plain, 3.0, prices=USD2), plan)


def test_owned_nodes_are_used_whole_and_cost_what_they_say(plain: Path) -> None:
    owned = [{"npu": "h200", "nodes": 2, "usd_per_hour": "3 USD/h"}]
    plan = optimum(asked(plain, 11.0, prices=USD2, owned=owned))
    # A node for 10 and a part of the other; another NPU would cost 2 beside 3.
    assert plan.usd_per_hour == pytest.approx(3.0 + 2.0)


def test_all_of_ones_own_has_no_margins(plain: Path) -> None:
    space = asked(plain, 5.0, prices=USD2, owned=[{"npu": "h200", "nodes": 1}])
    plan = optimum(space)
    assert plan.usd_per_hour == 0.0
    assert singles(space, plan, OPTIONS) == []
    assert given_margins(space, plan, OPTIONS).sensitivities == ()


def test_the_least_change_is_kept_though_fewer_would_do(plain: Path) -> None:
    today = [{"npu": "h200-sxm", "npus": 11}]
    free = optimum(asked(plain, 10.0, prices=USD2, current=today))
    assert free.total_npus == 8
    # Eleven are in use, and two may change: nine, of which one is not needed.
    near = asked(plain, 10.0, prices=USD2, current=today, limits={"changed_npus": 2})
    assert optimum(near).total_npus == 9
    assert broken(near, free) == {"limits.changed_npus"}


def test_types_in_use_that_the_table_lacks_end_their_use(plain: Path) -> None:
    today = [{"npu": "l40s", "npus": 4}, {"npu": "h200", "npus": 8}]
    for most, status in ((3, Infeasible), (4, Optimal)):
        limits = {"changed_npus": most}
        space = asked(plain, 10.0, prices=USD2, current=today, limits=limits)
        assert isinstance(space.solve(OPTIONS), status)


def test_racks_hold_so_many_nodes(plain: Path) -> None:
    racks = {"nodes": 2, "count": 1}
    # Two nodes take 10 each; of a third there is no rack.
    assert optimum(asked(plain, 20.0, prices=USD2, limits={"racks": racks}))
    none = asked(plain, 20.5, prices=USD2, limits={"racks": racks})
    assert isinstance(none.solve(OPTIONS), Infeasible)
    assert broken(none, optimum(asked(plain, 20.5, prices=USD2))) == {"limits.racks"}


def test_racks_by_power(plain: Path) -> None:
    node = HOST * (catalogue.load_npu("h200-sxm").power or 0.0)
    for watts, status in ((node, Optimal), (node - 1, Infeasible)):
        limits = {"racks": {"power": watts}}
        space = asked(plain, 5.0, prices=USD2, limits=limits)
        assert isinstance(space.solve(OPTIONS), status)


def test_a_lost_node_leaves_enough(plain: Path) -> None:
    space = asked(plain, 10.0, prices=USD2, redundancy={"nodes": 1})
    plan = optimum(space)
    # A node of eight replicas is lost at worst, so that eighteen do; two whole nodes
    # would be sixteen NPUs, and the one that is left takes ten.
    assert plan.total_npus == 16
    assert {row.name for row in plan.rows} == {"node"}
    cheap = optimum(asked(plain, 10.0, prices=USD2))
    assert broken(space, cheap) == {"traffic redundancy"}


def test_a_larger_replica_may_be_better_where_nodes_fail(tmp_path: Path) -> None:
    # By the worst node of eight: 3 r - 2 * 3 >= 3 for b, so r = 3 and nine NPUs; of a
    # 4 are lost: r - 4 >= 1 times 3, so r = 5 and ten NPUs.
    rows = [("a", "h200-sxm", 2, 3.0), ("b", "h200-sxm", 3, 3.0)]
    path = written(tmp_path / "t.csv", rows)
    assert optimum(asked(path, 3.0, prices=USD2)).total_npus == 2
    safe = optimum(asked(path, 3.0, prices=USD2, redundancy={"nodes": 1}))
    assert (safe.total_npus, {row.name for row in safe.rows}) == (9, {"b"})


def test_one_deployment_type_is_one_that_stands_everywhere(tmp_path: Path) -> None:
    # On one's own node a is better, but only b has a price at which more is for rent.
    rows = [("a", "h200-sxm", 4, 5.0, 400.0), ("b", "h200-sxm", 4, 4.0, 8.0)]
    path = written(tmp_path / "t.csv", rows, priced=True)
    owned = [{"npu": "h200", "nodes": 1}]
    limits = {"deployment_types": 1}
    plan = optimum(asked(path, 12.0, owned=owned, limits=limits))
    assert {row.name for row in plan.rows} == {"b"}
    assert plan.usd_per_hour == pytest.approx(8.0)
    mixed = optimum(asked(path, 14.0, owned=owned))
    assert {row.name for row in mixed.rows} == {"a", "b"}


def test_quotas_count_what_is_owned_apart(plain: Path) -> None:
    owned = [{"npu": "h200", "npus": 6}]
    quota = [{"provider": "given", "npus": 2}]
    limits = {"quota": quota}
    plan = optimum(asked(plain, 8.0, prices=USD2, owned=owned, limits=limits))
    assert {p.provider: p.npus for p in plan.purchases} == {OWNED: 6, "given": 2}
    more = asked(plain, 9.0, prices=USD2, owned=owned, limits=limits)
    assert isinstance(more.solve(OPTIONS), Infeasible)


def test_what_nobody_knows_the_servers_of_is_left_out(tmp_path: Path) -> None:
    rows = [("w", "wafer-9", 1, 50.0, 1.0), ("h", "h200-sxm", 1, 1.0, 2.0)]
    path = written(tmp_path / "t.csv", rows, priced=True)
    assert optimum(asked(path, 2.0)).rows[0].name == "w"
    for changes in (
        {"redundancy": {"nodes": 1}},
        {"limits": {"racks": {"nodes": 4}}},
        {"limits": {"nodes": 9}},
        {"limits": {"power": 1e6}},
    ):
        space = asked(path, 2.0, **changes)
        assert {row.name for row in optimum(space).rows} == {"h"}
        assert "hardware" in broken(space, optimum(asked(path, 2.0)))
    with pytest.raises(ProblemError, match="wafer-9: nobody knows its servers"):
        asked(
            written(tmp_path / "w.csv", rows[:1], priced=True),
            2.0,
            redundancy={"nodes": 1},
        )
    with pytest.raises(ProblemError, match=r"owned\.nodes: nobody knows"):
        asked(path, 2.0, owned=[{"npu": "wafer-9", "nodes": 1}])
    own = optimum(asked(path, 80.0, owned=[{"npu": "wafer-9", "npus": 2}]))
    assert own.usd_per_hour == 0.0


def test_too_little_of_ones_own_is_said(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", [("w", "wafer-9", 2, 4.0)])
    space = asked(path, 10.0, owned=[{"npu": "wafer-9", "npus": 5}])
    told = explain_given(space, OPTIONS)
    assert told.conflicts == ("what is there",)
    (less,) = told.relaxations
    assert less.requirement == "traffic"
    assert 78 < float(less.to.split()[0]) <= 80
    assert less.npus == 4


def test_a_floor_counts_how_much_there_is_of_the_fast_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(
        "name,npu,mode,npus,ttft_ms,tpot_ms,req_per_s\n"
        "fast,wafer-9,aggregated,1,100,5,4\nslow,h200,aggregated,1,100,20,4\n"
    )
    traffic = [{"rate": 9.0, "targets": [{"metric": "tpot", "at_most": 0.01}]}]
    owned = [{"npu": "wafer-9", "npus": 2}]
    space = asked(path, 9.0, prices=USD2, traffic=traffic, owned=owned)
    assert isinstance(space.solve(OPTIONS), Infeasible)
    told = explain_given(space, OPTIONS)
    assert told.conflicts == ("mean TPOT",)
    (floor,) = told.floors
    assert (floor.possible, floor.least) == (False, "20 ms")
    enough = [{"rate": 8.0, "targets": traffic[0]["targets"]}]
    space = asked(path, 8.0, prices=USD2, traffic=enough, owned=owned)
    assert optimum(space).usd_per_hour == 0.0


# At random


@dataclass(frozen=True)
class Stall:
    """An offer as the brute force has it; `prices` are those of rows it is for."""

    npu: str
    usd: float
    whole: bool = False
    stock: int | None = None
    owned: bool = False
    price: float | None = None


@dataclass
class Fleet:
    """A random question over a small table, and its answer by trying everything."""

    chance: random.Random
    rows: list[tuple[str, str, int, float, float]] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    stalls: list[Stall] = field(default_factory=list)
    rate: float = 0.0

    def draw(self) -> None:
        chance = self.chance
        for number in range(chance.randint(1, 3)):
            npu = chance.choice(("h200-sxm", "h100-sxm"))
            npus = chance.choice((2, 3, 4, 8, 16))
            rate = round(npus * chance.uniform(0.6, 1.4), 2)
            price = npus * chance.choice((1.0, 2.0, 2.5))
            self.rows.append((f"r{number}", npu, npus, rate, price))
        most = max(rate for *_, rate, _ in self.rows)
        self.rate = round(most * chance.uniform(0.6, 2.2), 2)
        limits = self._limits()
        self.changes = {
            "objective": chance.choice(("cost", "cost", "npus", "power")),
            "limits": limits,
            "headroom": chance.choice((0.0, 0.1)),
        }
        self._market()
        if chance.random() < 0.35:
            kind = "racks" if "racks" in limits and chance.random() < 0.7 else "nodes"
            self.changes["redundancy"] = {kind: chance.choice((1, 1, 2))}
        if chance.random() < 0.35:
            types = ("h200-sxm", "h100-sxm", "l40s")
            self.changes["current"] = [
                {"npu": npu, "npus": chance.randint(1, 20)}
                for npu in chance.sample(types, chance.randint(1, 2))
            ]
            limits["changed_npus"] = chance.randint(0, 24)

    def _limits(self) -> dict[str, Any]:
        chance, limits = self.chance, dict[str, Any]()
        for name, value in (
            ("npus", chance.randint(4, 40)),
            ("nodes", chance.randint(1, 5)),
            ("power", chance.uniform(1e4, 6e4)),
            ("usd_per_hour", chance.uniform(4, 60)),
            ("deployment_types", 1),
            ("npu_types", 1),
            ("npus_per_type", {"h200-sxm": chance.randint(0, 24)}),
            ("racks", {"nodes": chance.randint(1, 2), "count": chance.randint(1, 3)}),
            ("quota", [{"npu": "h1*", "npus": chance.randint(0, 16)}]),
        ):
            if chance.random() < 0.15:
                limits[name] = value
        return limits

    def _market(self) -> None:
        """Price H100s by whole nodes, or leave all to the rows; own some of either."""
        chance = self.chance
        types = dict.fromkeys(npu for _, npu, *_ in self.rows)
        by_node = chance.random() < 0.5
        given, owned = [], []
        for npu in types:
            if npu == "h100-sxm" and by_node:
                usd = chance.choice((8.0, 12.0))
                given.append({"npu": npu, "usd_per_hour": usd, "npus": HOST})
                self.stalls.append(Stall(npu, usd, whole=True))
            else:
                prices = {p / n for _, of, n, _, p in self.rows if of == npu}
                self.stalls += [Stall(npu, each, price=each) for each in prices]
            if chance.random() < 0.5:
                whole, usd = chance.random() < 0.5, chance.choice((0.0, 0.5))
                many = chance.randint(1, 2) if whole else chance.randint(2, 12)
                part = {"npu": npu, "usd_per_hour": usd}
                owned.append(part | {"nodes" if whole else "npus": many})
                self.stalls.append(Stall(npu, usd, whole, many, owned=True))
        self.changes |= {"prices": {"given": given}, "owned": owned}

    @property
    def pairs(self) -> list[tuple[tuple[str, str, int, float, float], Stall]]:
        """The ways that a replica may stand somewhere."""
        return [
            (row, stall)
            for row in self.rows
            for stall in self.stalls
            if row[1] == stall.npu and stall.price in (None, row[4] / row[2])
        ]

    def tried(self, most: int) -> Iterator[tuple[tuple[int, ...], float]]:
        """Yield counts that keep everything, with their objective."""
        pairs = self.pairs
        for counts in product(range(most + 1), repeat=len(pairs)):
            value = self.value(counts)
            if value is not None:
                yield counts, value

    def value(self, counts: Sequence[int]) -> float | None:
        """Return the objective of counts; None where they break something."""
        used = [(*pair, many) for pair, many in zip(self.pairs, counts, strict=True)]
        used = [each for each in used if each[2]]
        demand = self.rate / (1 - self.changes["headroom"])
        if sum(row[3] * many for row, _, many in used) < demand * (1 - 1e-9):
            return None
        hosts, paid, usd = Counter[Stall](), Counter[Stall](), 0.0
        for stall in self.stalls:
            mine = [(row[2], many) for row, on, many in used if on == stall]
            if not mine:
                continue
            hosts[stall] = packed(mine)
            single = sum(npus * many for npus, many in mine)
            paid[stall] = hosts[stall] * HOST if stall.whole else single
            portions = hosts[stall] if stall.whole else single
            usd += portions * stall.usd
            if stall.stock is not None and portions > stall.stock:
                return None
        watts = sum(
            (catalogue.load_npu(stall.npu).power or 0.0) * many
            for stall, many in paid.items()
        )
        total = float(paid.total())
        if not self._keeps(used, hosts, paid, usd, watts):
            return None
        return {"cost": usd, "npus": total, "power": watts}[self.changes["objective"]]

    def _keeps(
        self,
        used: Sequence[tuple[Any, Stall, int]],
        hosts: Counter[Stall],
        paid: Counter[Stall],
        usd: float,
        watts: float,
    ) -> bool:
        limits = {
            "npus": math.inf,
            "nodes": math.inf,
            "power": math.inf,
            "usd_per_hour": math.inf,
            "deployment_types": math.inf,
            "npu_types": math.inf,
            "npus_per_type": {},
            "quota": [],
            "changed_npus": math.inf,
        } | self.changes["limits"]
        typed = Counter[str]()
        for stall, many in paid.items():
            typed[stall.npu] += many
        racks = limits.get("racks")
        needed = (
            sum(-(-many // racks["nodes"]) for many in hosts.values()) if racks else 0
        )
        changed = Counter(
            {c["npu"]: -c["npus"] for c in self.changes.get("current", ())}
        )
        for row, _, many in used:
            changed[row[1]] += row[2] * many
        close = 1 + 1e-9
        return (
            paid.total() <= limits["npus"]
            and hosts.total() <= limits["nodes"]
            and watts <= limits["power"] * close
            and usd <= limits["usd_per_hour"] * close
            and len({row[0] for row, *_ in used}) <= limits["deployment_types"]
            and len({row[1] for row, *_ in used}) <= limits["npu_types"]
            and all(typed[n] <= m for n, m in limits["npus_per_type"].items())
            and all(typed["h100-sxm"] <= each["npus"] for each in limits["quota"])
            and (racks is None or needed <= racks["count"])
            and sum(abs(n) for n in changed.values()) <= limits["changed_npus"]
            and self._survives(used)
        )

    def _survives(self, used: Sequence[tuple[Any, Stall, int]]) -> bool:
        """Take the nodes or racks away whose NPUs cover most, however full they are."""
        asked = self.changes.get("redundancy", {})
        rack = self.changes["limits"].get("racks", {}).get("nodes", 1)
        lost = asked.get("nodes", 0) + asked.get("racks", 0) * rack
        demand = Fraction(self.rate / (1 - self.changes["headroom"]))
        room, left = Fraction(lost * HOST), Fraction(0)
        dense = []
        for row, _, many in used:
            slot = min(slot_of(row[2]), HOST)
            dense.append((Fraction(row[3]) / slot, slot * many))
            left += Fraction(row[3]) * many
        for covered, npus in sorted(dense, reverse=True):
            taken = min(room, npus)
            left -= taken * covered
            room -= taken
        return left >= demand * (1 - Fraction(1, 10**9))


def slot_of(npus: int) -> int:
    """Return the next power of two, or whole nodes."""
    if npus >= HOST:
        return -(-npus // HOST) * HOST
    return next(size for size in (1, 2, 4, 8) if size >= npus)


def packed(mine: Sequence[tuple[int, int]]) -> int:
    """Return the nodes of replicas put into the first that has room, largest first."""
    slots = sorted((slot_of(n) for n, many in mine for _ in range(many)), reverse=True)
    nodes = sum(slot // HOST for slot in slots if slot >= HOST)
    free: list[int] = []
    for slot in (slot for slot in slots if slot < HOST):
        place = next((i for i, room in enumerate(free) if room >= slot), None)
        if place is None:
            free.append(HOST - slot)
        else:
            free[place] -= slot
    return nodes + len(free)


def fleet(seed: int) -> Fleet:
    """Return a question with few enough ways to try them all."""
    chance = random.Random(seed)
    while True:
        found = Fleet(chance)
        found.draw()
        if len(found.pairs) <= 4:
            return found


MOST = {1: 60, 2: 30, 3: 12, 4: 8}
"""Replicas that are tried of each way, by how many ways there are."""


@pytest.mark.parametrize("seed", range(60))
def test_fleets_are_as_good_as_brute_force(tmp_path: Path, seed: int) -> None:
    question = fleet(seed)
    path = written(tmp_path / "table.csv", question.rows, priced=True)
    space = asked(path, question.rate, **question.changes)
    outcome = space.solve(OPTIONS)
    expected = min(
        (v for _, v in question.tried(MOST[len(question.pairs)])), default=None
    )
    if isinstance(outcome, Infeasible):
        assert expected is None
        return
    assert isinstance(outcome, Optimal)
    assert violations(space.problem, read_rows(path), outcome.plan) == []
    value = objective_value(space.problem, outcome.plan)
    counts = counts_of(question, outcome.plan)
    assert question.value(counts) == pytest.approx(value, rel=1e-6, abs=1e-9)
    if expected is not None:
        assert value <= expected * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("seed", range(60))
def test_the_verifier_says_what_brute_force_says(tmp_path: Path, seed: int) -> None:
    """Of counts at random, whether they are plans or not."""
    question = fleet(seed)
    chance = random.Random(5000 + seed)
    path = written(tmp_path / "table.csv", question.rows, priced=True)
    space = asked(path, question.rate, **question.changes)
    for _ in range(25):
        counts = [chance.choice((0, 0, 1, 2, 3, 5)) for _ in question.pairs]
        if any(counts):
            plan = plan_of(space, question, counts)
            found = violations(space.problem, space.table.rows, plan)
            assert (question.value(counts) is not None) is (found == []), (
                counts,
                found,
            )


@pytest.mark.parametrize("seed", range(60))
def test_plans_of_one_kind_are_the_best_of_theirs(tmp_path: Path, seed: int) -> None:
    question = fleet(seed)
    path = written(tmp_path / "table.csv", question.rows, priced=True)
    space = asked(path, question.rate, **question.changes)
    outcome = space.solve(OPTIONS)
    if not isinstance(outcome, Optimal):
        return
    found = {s.kind + s.of: s for s in singles(space, outcome.plan, OPTIONS)}
    least: dict[str, float] = {}
    for counts, value in question.tried(MOST[len(question.pairs)]):
        used = [row for (row, _), n in zip(question.pairs, counts, strict=True) if n]
        for kind, names in (
            ("row", {r[0] for r in used}),
            ("npu", {r[1] for r in used}),
        ):
            if len(names) == 1:
                key = kind + names.pop()
                least[key] = min(value, least.get(key, math.inf))
    for key, single in found.items():
        of_plan = question.value(counts_of(question, single.plan))
        assert of_plan == pytest.approx(single.value, rel=1e-6)
        assert single.value <= least.get(key, math.inf) * (1 + 1e-6)
    rows = [least[key] for key in least if key.startswith("row")]
    best = [single.value for single in found.values() if single.kind == "row"]
    if best and rows:
        assert best[0] <= min(rows) * (1 + 1e-6)


def counts_of(question: Fleet, plan: GivenPlan) -> list[int]:
    """Return a plan as counts of the brute force's ways."""
    owned = {p.offer for p in plan.purchases if p.provider == OWNED}
    counts = Counter[tuple[str, bool]]()
    for row in plan.rows:
        counts[row.name, row.offer in owned] += row.replicas
    return [counts[row[0], stall.owned] for row, stall in question.pairs]


def plan_of(space: GivenWorkspace, question: Fleet, counts: Sequence[int]) -> GivenPlan:
    """Return the plan of counts of the brute force's ways."""
    rows: dict[str, Row] = {row.name: row for row in space.table.rows}
    chosen = []
    for ((name, *_), stall), many in zip(question.pairs, counts, strict=True):
        (offer,) = (
            offer
            for offer in (space.market.offers[n] for n in space.market.standing[name])
            if (offer.provider == OWNED) is stall.owned
        )
        if many:
            chosen.append((rows[name], offer, many))
    return planned(chosen)


@pytest.mark.parametrize("seed", range(40))
def test_conflicts_of_fleets_are_minimal(tmp_path: Path, seed: int) -> None:
    question = fleet(seed)
    path = written(tmp_path / "table.csv", question.rows, priced=True)
    space = asked(path, question.rate, **question.changes)
    if not isinstance(space.solve(OPTIONS), Infeasible):
        return
    told = explain_given(space, OPTIONS)
    every = {r.label: r for r in requirements(space.problem)}

    def possible(kept: set[str]) -> bool:
        problem: Any = space.problem
        for label, requirement in every.items():
            if label not in kept:
                problem = requirement.moved(problem, None)
        return space.has_plan(problem, OPTIONS)

    conflict = set(told.conflicts)
    assert conflict
    assert not possible(conflict)
    assert all(possible(conflict - {label}) for label in conflict)
    for relaxed in told.relaxations:
        if relaxed.requirement in every:
            assert possible(set(every) - {relaxed.requirement})


def test_random_fleets_ask_for_everything() -> None:
    """The questions above are not all of one kind."""
    found, feasible = Counter[str](), 0
    for seed in range(60):
        question = fleet(seed)
        feasible += any(True for _ in question.tried(4))
        found.update([*question.changes["limits"]])
        found.update(
            k for k in ("current", "redundancy", "owned") if question.changes.get(k)
        )
    assert (
        min(found[k] for k in ("racks", "quota", "redundancy", "current", "owned")) >= 5
    )
    assert 15 <= feasible <= 55


def test_a_plan_bears_what_its_rows_take_and_its_slowest_allows(plain: Path) -> None:
    # Node and one: 11 req/s of 10.5 in 100 ms of 150 and 10 ms of 15.
    targets = [
        {"metric": "ttft", "at_most": 0.15},
        {"metric": "tpot", "at_most": 0.015},
    ]
    traffic = [{"rate": 10.5, "targets": targets}]
    space = asked(plain, 10.5, prices=USD2, traffic=traffic)
    more, slower = borne(space, optimum(space))
    assert (more.factor, more.to) == (pytest.approx(11 / 10.5), "11 req/s")
    assert (slower.factor, slower.then) == (more.factor, more.then)
    traffic = [{"rate": 5.5, "targets": targets}]
    space = asked(plain, 5.5, prices=USD2, traffic=traffic, redundancy={"nodes": 1})
    plan = optimum(space)
    more, slower = borne(space, plan)
    # Fourteen of one NPU, of which a node of eight may fail.
    assert plan.capacity == 14
    assert more.factor == pytest.approx((14 - 8) / 5.5)
    assert slower.factor == more.factor
    tight = [{"metric": "ttft", "at_most": 0.101}, {"metric": "tpot", "at_most": 0.015}]
    traffic = [{"rate": 5.5, "targets": tight}]
    space = asked(plain, 5.5, prices=USD2, traffic=traffic)
    _, slower = borne(space, optimum(space))
    assert slower.factor == pytest.approx(1.01)
    assert slower.then == "mean TTFT no longer holds"


@pytest.mark.parametrize("seed", range(60))
def test_a_plan_is_the_best_till_its_rows_take_no_more(
    tmp_path: Path, seed: int
) -> None:
    question = fleet(seed)
    path = written(tmp_path / "table.csv", question.rows, priced=True)
    space = asked(path, question.rate, **question.changes)
    outcome = space.solve(OPTIONS)
    if not isinstance(outcome, Optimal):
        return
    value = objective_value(space.problem, outcome.plan)
    more, _ = borne(space, outcome.plan)
    near, beyond = (
        scaled(space.problem, more.factor * share) for share in (1 - 1e-6, 1 + 1e-6)
    )
    best = space.best(near, OPTIONS)
    assert best is not None
    assert best.value == pytest.approx(value, rel=1e-6, abs=1e-9)
    assert broken(replace(space, problem=beyond), outcome.plan) & {
        "demand",
        "traffic redundancy",
    }


# The problem itself


def test_a_problem_is_read_again_as_it_was_written(plain: Path) -> None:
    table = CandidatesTable.read(plain)
    problem = asked(
        plain,
        5.0,
        owned=[{"npu": "H200", "nodes": 2}],
        current=[{"npu": "h100", "npus": 3}],
        redundancy={"nodes": 1},
        limits={"quota": [{"region": "us-*", "npus": 3}], "racks": {"nodes": 2}},
    ).problem
    assert isinstance(problem, GivenProblem)
    data = problem.model_dump(mode="json")
    assert given_problem_of(data, table.npus, "python") == problem
