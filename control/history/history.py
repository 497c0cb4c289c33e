"""History, memory: what sidecars reported of the last hour, in steps of five seconds.

Room: control/history. In: reports, each with the wall time of its arrival. Out: samples of a window, per step or added up; what
breakers and ejections are not at rest now. Bounded: so many steps, so many kinds of calls, so many records; past the last bound
the oldest steps go first. A restart of control loses it, and nothing else. Pure: the time is an argument.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

from control.history.calls import BUCKETS, Call, Sample, Totals, call_of
from meshproxy.model.report import LABELS, ROUTE, Report

__all__ = ["History", "Misreport", "SidecarState", "State", "View"]

STEP = 5.0
KEEP = 3600.0
MAX_RECORDS = 250_000  # some 200 bytes each
MAX_CALLS = 20_000  # kinds of calls; a sidecar itself has at most some thousand
MAX_LABELS = 8192  # per sidecar
MAX_VALUE = 512  # characters of one label's value
MAX_COUNT = 1 << 53  # of anything in one report: what is made of it stays finite
MAX_GAUGES, MAX_STATE = 100, 1000  # of one sidecar
STATE_LIFE = 15.0  # seconds that what a sidecar said of its breakers is believed
SIDECAR_LIFE = 65.0  # seconds after which a sidecar is taken for gone: one with nothing to tell still says so twice in that time
_SHARE = 4  # of all kinds of calls so much is the most that one workload's sidecars may name
SET_BACK = 60.0  # seconds; by more than that a clock was not adjusted, it was wrong
_SHORTEST = 0.1  # seconds that a report may cover
_CLEAN = 60  # steps

_SUMS = 4
# What was counted of one kind of call in one step: milliseconds, received, sent, retried, then (bucket, count) in turns.
_Record = tuple[float, ...]


class Misreport(ValueError):
    """A report that cannot be taken; one line. ``resend``: with all labels it could be."""

    def __init__(self, message: str, resend: bool = False) -> None:
        super().__init__(message)
        self.resend = resend


class State(NamedTuple):
    """What is not at rest at one sidecar. ``source``: its workload; ``what`` as in ``Report.state``."""

    source: tuple[str, str]
    cluster: str
    what: str
    number: int


class SidecarState(NamedTuple):
    """What a sidecar said of itself last. ``cpu``: share of one core, ``rps``: requests in and out, both since the report before;
    None: not known yet.
    """

    namespace: str
    pod: str
    workload: str
    seen: float  # Unix seconds
    gauges: dict[str, float]
    cpu: float | None
    rps: float


class _Reporter:
    """One sidecar: the labels that it named, and where it stands."""

    __slots__ = ("boot", "calls", "cpu", "gauges", "last", "number", "rps", "source", "state")

    def __init__(self, boot: str) -> None:
        self.boot, self.number = boot, -1
        self.calls: list[int | None] = []
        self.last = 0.0
        self.source = ("", "")
        self.state: tuple[tuple[str, str, int], ...] = ()
        self.gauges: dict[str, float] = {}
        self.cpu: float | None = None
        self.rps = 0.0

    def busy(self, report: Report, since: float) -> None:
        """``since``: seconds since the report before; what was counted is of ``report.seconds``, for one with nothing to tell is
        silent."""
        gauges = dict(report.gauges)
        before, after = self.gauges.get("cpu_seconds"), gauges.get("cpu_seconds")
        self.cpu = max(0.0, after - before) / since if before is not None and after is not None and since > 0 else None
        self.rps = sum(edge.requests for edge in report.edges) / report.seconds if report.seconds >= _SHORTEST else 0.0
        self.gauges = gauges


class History:
    """``owner(namespace, pod)`` is the workload that a sidecar may speak for, (namespace, name); None: nobody's."""

    def __init__(
        self,
        owner: Callable[[str, str], tuple[str, str] | None],
        step: float = STEP,
        keep: float = KEEP,
        max_records: int = MAX_RECORDS,
        max_calls: int = MAX_CALLS,
    ) -> None:
        self._owner = owner
        self.step, self.keep = step, keep
        self._max_records, self._max_calls = max_records, max_calls
        self._steps: deque[tuple[int, dict[int, _Record]]] = deque()
        self._open: dict[int, list[float]] = {}  # the step that is being counted
        self._open_at = 0
        self._calls: dict[int, Call] = {}
        self._numbers: dict[Call, int] = {}
        self._told: Counter[tuple[str, str]] = Counter()  # kinds of calls by the workload that told of them
        self._next = 0
        self._reporters: dict[tuple[str, str], _Reporter] = {}
        self._forgot = self._cleaned = 0
        self.records = 0
        self.reports = self.dropped = 0

    def __len__(self) -> int:
        """How many kinds of calls are known."""
        return len(self._calls)

    # -- taking --------------------------------------------------------------------------------------------------------------

    def take(self, namespace: str, pod: str, report: Report, now: float) -> None:
        """Add a sidecar's report. One that was taken already is passed over. Raises ``Misreport``."""
        owner = self._owner(namespace, pod)
        if owner is None:
            raise Misreport(f"there is no Pod {namespace}/{pod}")
        _check(report)
        key = (namespace, pod)
        known = self._reporters.get(key)
        if known is None or known.boot != report.boot:
            if report.first:
                raise Misreport(f"labels before {report.first} are not known here: send all again", resend=True)
            known = _Reporter(report.boot)
        elif report.number <= known.number:
            if report.first or report.number:
                return
            known = _Reporter(report.boot)
        self._learn(known, owner, report)
        for edge in report.edges:
            if not 0 <= edge.labels < len(known.calls):
                raise Misreport(f"label {edge.labels} is not known here: send all again", resend=True)
        self._reporters[key] = known
        at = self._at(now)
        if at != self._forgot:  # once a step: there may be thousands of sidecars
            self._forgot = at
            self._forget(now)
        known.busy(report, now - known.last)
        known.number, known.last, known.source, known.state = report.number, now, owner, report.state
        self.reports += 1
        for edge in report.edges:
            number = known.calls[edge.labels]
            if number is None:
                self.dropped += 1
                continue
            self._count(at, number, (edge.sum_ms, edge.received, edge.sent, edge.retried), edge.durations)

    def _learn(self, known: _Reporter, owner: tuple[str, str], report: Report) -> None:
        if report.first != len(known.calls):
            if report.first > len(known.calls):
                raise Misreport(f"labels before {report.first} are not known here: send all again", resend=True)
            del known.calls[report.first :]
        if len(known.calls) + len(report.labels) > MAX_LABELS:
            raise Misreport(f"labels: more than {MAX_LABELS} of one sidecar")
        for labels in report.labels:
            if len(labels) not in (len(LABELS), len(LABELS) + ROUTE) or any(
                len(v) > MAX_VALUE or not v.isprintable() for v in labels
            ):
                raise Misreport(f"labels: must be {len(LABELS)} texts of one line, at most {MAX_VALUE} characters each")
            known.calls.append(self._number(call_of(labels), owner))

    def _number(self, call: Call, owner: tuple[str, str]) -> int | None:
        """None: it is not the sidecar's to tell, or there are too many kinds."""
        speaks_for = _speaks_for(call)
        folded = speaks_for == ("other", "other")  # where a sidecar counts what is past its own bound
        if call.reporter not in ("source", "destination") or not (speaks_for == owner or folded):
            return None
        number = self._numbers.get(call)
        if number is None:
            if len(self._numbers) >= self._max_calls or self._told[speaks_for] >= self._max_calls // _SHARE:
                return None
            self._told[speaks_for] += 1
            number = self._numbers[call] = self._next
            self._calls[number] = call
            self._next += 1
        return number

    def _at(self, now: float) -> int:
        """Which step it is. A clock set back a little must not mix up the order; one that was far ahead was wrong, and what it
        counted would not be seen before it is right again."""
        at = int(now // self.step)
        if at < self._open_at - SET_BACK / self.step:
            self._close()
            while self._steps and self._steps[-1][0] > at:
                self.records -= len(self._steps.pop()[1])
            self._open_at = at
            for one in self._reporters.values():
                one.last = min(one.last, now)
        return max(at, self._open_at)

    def _count(self, at: int, number: int, sums: tuple[float, float, float, float], durations: tuple[int, ...]) -> None:
        if at != self._open_at:
            self._close()
            self._open_at = at
        found = self._open.get(number)
        if found is None:
            found = self._open[number] = [0.0] * (_SUMS + BUCKETS)
            self.records += 1
            while self.records > self._max_records and self._steps:
                self.records -= len(self._steps.popleft()[1])
        found[0] += sums[0]
        found[1] += sums[1]
        found[2] += sums[2]
        found[3] += sums[3]
        for bucket, count in enumerate(durations, _SUMS):
            if count:
                found[bucket] += count

    def _close(self) -> None:
        """The step that is being counted becomes one that nobody changes any more."""
        if self._open:
            self._steps.append((self._open_at, _packed(self._open)))
            self._open = {}
            if not 0 <= self._open_at - self._cleaned < _CLEAN:  # steps that were skipped count, and so does a clock set back
                self._cleaned = self._open_at
                self._clean()

    def _forget(self, now: float) -> None:
        oldest = (now - self.keep) // self.step
        while self._steps and self._steps[0][0] < oldest:
            self.records -= len(self._steps.popleft()[1])
        for key in [key for key, one in self._reporters.items() if one.last and now - one.last > self.keep]:
            del self._reporters[key]

    def _clean(self) -> None:
        """Forget kinds of calls that no step and no sidecar names any more."""
        used = {number for _, table in self._steps for number in table}
        used.update(self._open)
        used.update(number for one in self._reporters.values() for number in one.calls if number is not None)
        for number in [number for number in self._calls if number not in used]:
            call = self._calls.pop(number)
            self._told[_speaks_for(call)] -= 1
            del self._numbers[call]
        self._told = +self._told

    # -- telling -------------------------------------------------------------------------------------------------------------

    def view(self) -> View:
        """What is known now, for whoever reads it elsewhere: nothing in it changes."""
        steps = [*self._steps, (self._open_at, _packed(self._open))]
        return View(self.step, steps, dict(self._calls))

    def state(self, now: float) -> list[State]:
        """What sidecars that were heard of lately say is not at rest."""
        return [
            State(one.source, *row)
            for _, one in sorted(self._reporters.items())
            if now - one.last <= STATE_LIFE
            for row in one.state
        ]

    def sidecars(self, now: float) -> list[SidecarState]:
        """By namespace and pod."""
        return [
            SidecarState(*key, one.source[1], one.last, one.gauges, one.cpu, one.rps)
            for key, one in sorted(self._reporters.items())
            if now - one.last <= SIDECAR_LIFE
        ]

    def gauges(self, now: float) -> dict[tuple[str, str], dict[str, float]]:
        """By sidecar (namespace, pod)."""
        return {key: one.gauges for key, one in self._reporters.items() if now - one.last <= STATE_LIFE}


class View:
    """A moment of the history; may be read from any thread."""

    def __init__(self, step: float, steps: list[tuple[int, dict[int, _Record]]], calls: dict[int, Call]) -> None:
        self._step, self._steps, self._calls = step, steps, calls

    def window(self, start: float, end: float) -> list[Sample]:
        """What was counted from ``start`` to ``end``, by kind of call."""
        return self.steps(start, end, end - start, lambda call: True)[0]

    def steps(self, start: float, end: float, step: float, wanted: Callable[[Call], bool]) -> list[list[Sample]]:
        """The same for the calls that are ``wanted``, in pieces of ``step`` seconds from ``start`` on."""
        calls = {number: call for number, call in self._calls.items() if wanted(call)}
        pieces: list[dict[int, Totals]] = [{} for _ in range(max(1, round((end - start) / step)))]
        for at, table in self._steps:
            began = at * self._step
            if not start <= began < end:
                continue
            piece = pieces[min(int((began - start) // step), len(pieces) - 1)]
            for number, record in table.items():
                call = calls.get(number)
                if call is None:
                    continue
                totals = piece.get(number)
                if totals is None:
                    totals = piece[number] = Totals()
                _add(totals, record, call.failed)
        return [[(calls[number], totals) for number, totals in piece.items()] for piece in pieces]


def _speaks_for(call: Call) -> tuple[str, str]:
    """Whose sidecar tells of such a call."""
    return call.target if call.reporter == "destination" else call.source


def _check(report: Report) -> None:
    """What it says could be so, and is short enough to be kept and shown. Raises ``Misreport``."""
    for edge in report.edges:
        if len(edge.durations) != BUCKETS:
            raise Misreport(f"durations: must be {BUCKETS} counts")
        counts = (edge.requests, edge.sum_ms, edge.received, edge.sent, edge.retried)
        if min(*edge.durations, *counts) < 0 or max(*edge.durations, *counts) > MAX_COUNT:
            raise Misreport(f"edges: counts must be from 0 to {MAX_COUNT}")
    if len(report.gauges) > MAX_GAUGES or len(report.state) > MAX_STATE:
        raise Misreport(f"gauges, state: must be at most {MAX_GAUGES} and {MAX_STATE} rows")
    numbers = (report.number, report.seconds, *(value for _, value in report.gauges), *(row[2] for row in report.state))
    if any(abs(number) > MAX_COUNT for number in numbers):
        raise Misreport(f"number, seconds, gauges, state: must be numbers up to {MAX_COUNT}")
    texts = (report.boot, *(name for name, _ in report.gauges), *(text for row in report.state for text in row[:2]))
    if any(len(text) > MAX_VALUE or not text.isprintable() for text in texts):
        raise Misreport(f"boot, gauges, state: names must be of one line, at most {MAX_VALUE} characters")


def _packed(table: dict[int, list[float]]) -> dict[int, _Record]:
    return {
        number: (*found[:_SUMS], *(value for pair in enumerate(found[_SUMS:]) if pair[1] for value in pair))
        for number, found in table.items()
    }


def _add(totals: Totals, record: _Record, failed: bool) -> None:
    totals.sum_ms += record[0]
    totals.received += record[1]
    totals.sent += record[2]
    totals.retried += record[3]
    count = 0.0
    for i in range(_SUMS, len(record), 2):
        totals.buckets[int(record[i])] += record[i + 1]
        count += record[i + 1]
    totals.requests += count
    if failed:
        totals.errors += count
