"""A run as a person follows it: events come in, state and lines come out. Nothing is drawn here.

RunEvent --apply()--> tuple[Line, …]              what scrolls by
                 +--> RunView --rows(now)-->      what the live view shows below it
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum

from maand_cli.output.message_dicts import field_word
from maand_cli.output.summary import SlowStep
from maand_cli.output.text import format_count, format_duration, format_list, format_tally, format_time_of_day
from maand_contracts.catalog.v1 import run_event_pb2 as events

MOST_ROWS = 10
"""Rows of the live view: those that run longest are the interesting ones."""

SLOWEST = 3


OUTPUT_IS_DATA = ("run_command", "hooks", "job_control")
"""Kinds of run that are asked for their output: it goes to standard output."""

UNTOUCHED = ("skip", "record")
"""Actions that leave an allocation as it is."""

QUIET_OUTCOMES = ("succeeded", "skipped")


class Importance(Enum):
    """Where a line belongs: data to standard output, the rest to standard error or only to the curious."""

    DATA = "data"
    OUTPUT = "output"
    PROGRESS = "progress"
    DETAIL = "detail"
    WARNING = "warning"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line that scrolls by."""

    text: str
    time: datetime
    importance: Importance = Importance.PROGRESS
    own: int | None = None
    """How many characters at the beginning of output are maand's: who said it. None = all of it, this is no output."""


@dataclass(kw_only=True)
class RunView:
    """What is known of a run from its events so far."""

    kind: str
    run_id: str
    expected_seconds: float | None = None
    began: datetime | None = None
    wave: str = ""
    batch: str = ""
    waiting: str = ""
    targets: int = 0
    jobs: set[str] = field(default_factory=set)
    """Jobs of the waves that began."""
    settled: set[str] = field(default_factory=set)
    """Jobs whose plan is known, or that ended without one."""
    is_last_wave: bool = False
    last_sequence: int = 0
    running: dict[tuple[str, str, str], datetime] = field(default_factory=dict)
    slow: list[SlowStep] = field(default_factory=list)
    plans: dict[str, events.JobPlanned] = field(default_factory=dict)
    reports: dict[str, events.WorkerReport] = field(default_factory=dict)
    outcomes: dict[tuple[str, str, str], events.StepFinished] = field(default_factory=dict)
    promoted: set[tuple[str, str]] = field(default_factory=set)
    semaphore_waits: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """What hooks wait for, by job and worker: `waits for ddl, held by 10.0.0.2`. Events do not tell it, whoever follows looks."""
    interruptions: list[str] = field(default_factory=list)
    """Why the run lost its executors so far, and what became of it."""

    def apply(self, event: events.RunEvent) -> tuple[Line, ...]:
        """Take in one event and give the lines it is worth. An event seen before gives none."""
        if event.sequence and event.sequence <= self.last_sequence:
            return ()
        self.last_sequence = max(self.last_sequence, event.sequence)
        what = event.WhichOneof("event")
        time = event.time.ToDatetime(tzinfo=UTC)
        self.began = self.began or time
        if what != "waiting":
            self.waiting = ""
        handle = HANDLERS.get(what or "")
        return tuple(handle(self, event, time)) if handle else ()

    def header(self) -> str:
        """Say which run this is and where it is."""
        return join_parts(self.name, self.wave, self.progress())

    @property
    def name(self) -> str:
        """The run, for people: `deploy 9ce4e4f1`."""
        return f"{self.kind} {short_id(self.run_id)}"

    def header_within(self, columns: int, now: datetime) -> str:
        """Say which run this is, where it is and for how long; what matters least is left out where it would not fit."""
        elapsed, last_time = self.times(now)
        told = join_parts(self.progress(), elapsed)
        forms = (
            join_parts(self.header(), ", ".join(filter(None, (elapsed, last_time)))),
            join_parts(self.header(), elapsed),
            join_parts(self.name, told),
            join_parts(self.kind, told),
        )
        return next((form for form in forms if len(form) <= columns), told)

    def progress(self) -> str:
        """Say how many of how many are done, as far as that is known."""
        planned = {
            (job, one.worker)
            for job, plan in self.plans.items()
            for one in plan.allocations
            if field_word(one, "action") not in UNTOUCHED
        }
        if planned:
            more = "" if self.is_last_wave and self.jobs <= self.settled else "+"  # jobs that are not planned yet
            return f"{len(planned & self.promoted)} of {len(planned)}{more} promoted"
        touched = {(job, worker) for job, worker, _ in self.outcomes}
        return f"{min(len(touched), self.targets)} of {self.targets} done" if self.targets else ""

    def times(self, now: datetime) -> tuple[str, str]:
        """Say for how long it has run, and how long the last such run took."""
        elapsed = "" if self.began is None else format_duration(max(0.0, (now - self.began).total_seconds()))
        return elapsed, f"last time {format_duration(self.expected_seconds)}" if elapsed and self.expected_seconds else ""

    def rows(self, now: datetime, columns: int = 80) -> list[str]:
        """Give the rows of the live view: header, batch, what it waits for, and the steps that run longest."""
        rows = [self.header_within(columns, now)]
        if self.batch:
            rows.append(self.batch)
        if self.waiting:
            rows.append(self.waiting)
        running = sorted(self.running.items(), key=lambda item: item[1])
        for (job, worker, step), since in running[:MOST_ROWS]:
            seconds = max(0.0, (now - since).total_seconds())
            row = f"  {format_subject(job, worker)}  {step}  {format_duration(seconds)}"
            rows.append(", ".join(filter(None, (row, self.semaphore_wait(job, worker, step)))))
        if len(running) > MOST_ROWS:
            rows.append(f"  and {len(running) - MOST_ROWS} more")
        return rows

    def still_running(self) -> list[str]:
        """Say what runs where, for a person about to leave."""
        said = []
        for job, worker, step in sorted(self.running):
            wait = self.semaphore_wait(job, worker, step)
            said.append(f"{format_subject(job, worker)} {step}" + (f" ({wait})" if wait else ""))
        return said

    def semaphore_wait(self, job: str, worker: str, step: str) -> str:
        """Say which semaphore a step waits for; only hooks take some."""
        return self.semaphore_waits.get((job, worker), "") if step.startswith("hook_") else ""

    def remember_slow(self, step: SlowStep) -> None:
        """Keep the slowest steps."""
        self.slow = sorted([*self.slow, step], key=lambda slow: -slow.seconds)[:SLOWEST]


def join_parts(*parts: str) -> str:
    """Write the parts of a header that say something."""
    return " · ".join(filter(None, parts))


def short_id(run_id: str) -> str:
    """Return a run's id where room is short: its end, for ids begin with the time. Every command takes it."""
    return run_id[-8:]


def format_subject(job: str, worker: str) -> str:
    """Write whom a line is about: `job@worker`, or the one that is there."""
    return f"{job}@{worker}" if job and worker else job or worker


def _run_started(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    started = event.run_started
    view.targets = started.targets
    view.running.clear()
    if started.fence > 1:
        return [Line(text="continued by another executor: what was recorded is not repeated", time=time)]
    return [Line(text=f"started on {format_count(started.targets, 'target')}", time=time)] if started.targets else []


def _wave_started(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    wave = event.wave_started
    view.wave = f"wave {wave.wave + 1} of {wave.waves}"
    view.jobs.update(wave.jobs)
    view.is_last_wave = wave.wave + 1 >= wave.waves
    return [Line(text=f"{view.wave}: {format_list(list(wave.jobs))}", time=time)]


def _job_planned(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    planned = event.job_planned
    view.settled.add(event.job)
    view.plans[event.job] = with_what_was_promoted(view, event.job, planned)
    actions: dict[str, int] = {}
    for allocation in planned.allocations:
        word = field_word(allocation, "action")
        actions[word] = actions.get(word, 0) + 1
    nothing = not set(actions) - set(UNTOUCHED)
    lines = [Line(text=f"{event.job}: {'nothing to do' if nothing else format_tally(actions)}", time=time)]
    for allocation in planned.allocations:
        text = f"  {format_subject(event.job, allocation.worker)}: {field_word(allocation, 'action')}, {allocation.reason}"
        lines.append(Line(text=text, time=time, importance=Importance.DETAIL))
    return lines


def with_what_was_promoted(view: RunView, job: str, planned: events.JobPlanned) -> events.JobPlanned:
    """Return a plan with what is promoted already of the plan before: who takes a run over plans only what is left."""
    whole = events.JobPlanned()
    whole.CopyFrom(planned)
    known = {one.worker for one in planned.allocations}
    before = view.plans[job].allocations if job in view.plans else []
    whole.allocations.extend(one for one in before if one.worker not in known and (job, one.worker) in view.promoted)
    return whole


def _batch_started(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    batch = event.batch_started
    what = " ".join(part for part in (event.job, batch.hook, batch.phase) if part)
    view.batch = f"{what}: batch {batch.index + 1}/{batch.count}: {format_list(list(batch.workers))}"
    return [Line(text=view.batch, time=time)]


def _step_started(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    step = event.step_started.step
    view.running[event.job, event.worker, step] = time
    text = f"{format_subject(event.job, event.worker)}: {step}"
    return [Line(text=text, time=time, importance=Importance.DETAIL)]


def _step_finished(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    finished = event.step_finished
    view.running.pop((event.job, event.worker, finished.step), None)
    view.outcomes[event.job, event.worker, finished.step] = finished
    seconds = finished.duration_seconds
    whom = format_subject(event.job, event.worker)
    view.remember_slow(SlowStep(subject=whom, step=finished.step, seconds=seconds))
    outcome = field_word(finished, "outcome")
    text = f"{whom}: {finished.step} {outcome.replace('_', ' ')} after {format_duration(seconds)}"
    if finished.exit_code and f"exit code {finished.exit_code}" not in finished.message:
        text += f", exit code {finished.exit_code}"
    if finished.message:
        text += f": {finished.message}"
    return [Line(text=text, time=time, importance=Importance.DETAIL if outcome in QUIET_OUTCOMES else Importance.WARNING)]


def _output(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    whom = format_subject(event.job, event.worker) or event.output.step
    importance = Importance.DATA if view.kind in OUTPUT_IS_DATA else Importance.OUTPUT
    prefix = f"{whom} | "
    return [Line(text=prefix + line, time=time, importance=importance, own=len(prefix)) for line in event.output.lines]


def _waiting(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    waiting = event.waiting
    until = f" until {format_time_of_day(waiting.until.ToDatetime(tzinfo=UTC))}" if waiting.HasField("until") else ""
    text = f"waiting for {waiting.reason}{until}"
    known, view.waiting = view.waiting, text
    return [] if known == text else [Line(text=text, time=time)]


def _promoted(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    promoted = event.promoted
    view.promoted |= {(event.job, worker) for worker in promoted.workers}
    version = f" {promoted.version}" if promoted.version else ""
    return [Line(text=f"{event.job}{version} promoted on {format_list(list(promoted.workers))}", time=time)]


def _job_finished(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    finished = event.job_finished
    outcome = field_word(finished, "outcome")
    view.batch = ""
    view.settled.add(event.job)
    text = f"{event.job} {outcome}" + (f": {finished.message}" if finished.message else "")
    importance = Importance.PROGRESS if outcome in QUIET_OUTCOMES else Importance.WARNING
    return [Line(text=text, time=time, importance=importance)]


def _notice(view: RunView, event: events.RunEvent, time: datetime) -> list[Line]:
    is_warning = field_word(event.notice, "level") == "warning"
    whom = format_subject(event.job, event.worker)
    if event.notice.claim_end:
        view.interruptions.append(event.notice.text)
    text = f"{'warning' if is_warning else 'note'}: {f'{whom}: ' if whom else ''}{event.notice.text}"
    return [Line(text=text, time=time, importance=Importance.WARNING if is_warning else Importance.PROGRESS)]


def _worker_report(view: RunView, event: events.RunEvent, _time: datetime) -> list[Line]:
    view.reports[event.worker] = event.worker_report
    return []


def _run_finished(view: RunView, _event: events.RunEvent, _time: datetime) -> list[Line]:
    view.running.clear()
    view.batch = ""
    return []


HANDLERS: Mapping[str, Callable[[RunView, events.RunEvent, datetime], list[Line]]] = {
    "run_started": _run_started,
    "wave_started": _wave_started,
    "job_planned": _job_planned,
    "batch_started": _batch_started,
    "step_started": _step_started,
    "step_finished": _step_finished,
    "output": _output,
    "waiting": _waiting,
    "promoted": _promoted,
    "job_finished": _job_finished,
    "notice": _notice,
    "worker_report": _worker_report,
    "run_finished": _run_finished,
}
"""One handler per event of the contract; a test proves that none is missing."""
