"""Joules of prompts and replies -> a day of a stated duty: battery life, and what tokens cost.

All per generated token unless said otherwise; a prompt's joules are shared among its reply's
tokens. What a device draws while it waits, its screen and its charger are not in it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from harness import evidence
from harness.errors import BadInput
from harness.records import Failed, Row
from targets.profile import Device

NOMINAL_VOLTS = 3.85  # of a lithium cell of a phone, as its maker labels it
PROMPT = 128  # tokens where a duty states none
DAY_SECONDS = 86_400
DAYS_A_YEAR = 365.25
JOULES_PER_KWH = 3.6e6
MILLION = 1e6
WRITTEN = re.compile(r"(\d+)\s*x\s*(\d+)(?:\s*@\s*(\d+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """What is asked of a device in a day: so many replies, each behind a prompt."""

    replies: int
    tokens: int  # of a reply
    prompt: int

    @property
    def generated(self) -> int:
        return self.replies * self.tokens

    @property
    def runs(self) -> tuple[str, str]:
        """Workloads of a prompt, and of a reply at its mean context."""
        return f"pp{self.prompt}", f"tg{self.tokens} @ d{self.prompt + self.tokens // 2}"


@dataclass(frozen=True, slots=True)
class Span:
    """A value with its 90 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Span:
        return Span(self.value * factor, self.low * factor, self.high * factor)

    def plus(self, other: Span) -> Span:
        """A sum of what is doubtful for the same reasons: ends add up."""
        return Span(self.value + other.value, self.low + other.low, self.high + other.high)

    def inverse(self, factor: float = 1.0) -> Span:
        """factor / span."""
        return Span(factor / self.value, factor / self.high, factor / self.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """A day of a duty on a device."""

    busy_seconds: Span
    joules: Span
    joules_per_token: Span
    tokens_per_joule: Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A day of a candidate on a device; None is what was not asked, or is not known."""

    candidate: str
    device: str
    day: Day | Failed
    battery_days: Span | None = None
    electricity_per_million: Span | None = None
    device_per_million: float | None = None
    notes: tuple[str, ...] = ()  # what makes it shaky, or extrapolates


def answer(
    duty: Duty,
    prompt: Row,
    reply: Row,
    device: Device,
    *,
    ampere_hours: float | None = None,
    price_per_kwh: float | None = None,
    years: float | None = None,
) -> Answer:
    """What follows from rows of the duty's two runs on a device. Raises BadInput."""
    found = day(duty, prompt, reply)
    if isinstance(found, Failed):
        return Answer(candidate=reply.candidate, device=device.name, day=found)
    each = found.joules_per_token
    return Answer(
        candidate=reply.candidate,
        device=device.name,
        day=found,
        battery_days=None if ampere_hours is None else battery_days(found.joules, ampere_hours),
        electricity_per_million=None if price_per_kwh is None else electricity(each, price_per_kwh),
        device_per_million=None if years is None else purchase(device, duty, years),
        notes=tuple(dict.fromkeys((*evidence.flags(prompt), *evidence.flags(reply)))),
    )


def parse(text: str) -> Duty:
    """200x300 or 200x300@150: replies a day x tokens of each @ tokens of its prompt.

    Raises BadInput.
    """
    found = WRITTEN.fullmatch(text.strip().lower())
    numbers = [int(number or PROMPT) for number in found.groups()] if found else [0]
    if not all(0 < number <= MILLION for number in numbers):
        raise BadInput(
            f"duty {text!r} is not known; write 200x300@150: replies a day x tokens of each, each "
            f"behind a prompt of so many tokens ({PROMPT} when left out)"
        )
    replies, tokens, prompt = numbers
    return Duty(replies=replies, tokens=tokens, prompt=prompt)


def day(duty: Duty, prompt: Row, reply: Row) -> Day | Failed:
    """Of rows of the duty's two runs. Fails when one did, or when a day is too short for it."""
    spans = []
    for found in (prompt.seconds, prompt.joules, reply.seconds, reply.joules):
        read = evidence.read(found)
        if read is None:
            return Failed(reason=evidence.reason(found))
        spans.append(Span(read.value, read.low, read.high))
    busy = spans[0].plus(spans[2]).times(duty.replies)
    if busy.value > DAY_SECONDS:
        return Failed(reason=f"the duty would take {busy.value / 3600:.0f} hours a day")
    joules = spans[1].plus(spans[3]).times(duty.replies)
    each = joules.times(1 / duty.generated)
    return Day(
        busy_seconds=busy,
        joules=joules,
        joules_per_token=each,
        tokens_per_joule=each.inverse(),
    )


def battery_days(joules_a_day: Span, ampere_hours: float) -> Span:
    """Days of the duty from one charge, at the cell's nominal voltage."""
    positive("a battery", ampere_hours, "Ah")
    return joules_a_day.inverse(ampere_hours * 3600 * NOMINAL_VOLTS)


def electricity(joules_per_token: Span, price_per_kwh: float) -> Span:
    """Price of a million tokens, in the unit of the price of a kilowatt-hour."""
    positive("a price per kWh", price_per_kwh)
    return joules_per_token.times(MILLION * price_per_kwh / JOULES_PER_KWH)


def purchase(device: Device, duty: Duty, years: float) -> float | None:
    """The device's share of the price of a million tokens if it does this duty for so many years.

    None where its profile states no price.
    """
    positive("a life", years, "years")
    if device.price_dollars is None:
        return None
    return MILLION * device.price_dollars.value / (duty.generated * DAYS_A_YEAR * years)


def positive(what: str, value: float, unit: str = "") -> None:
    if not (math.isfinite(value) and value > 0):
        raise BadInput(f"{what} must be above 0{' ' + unit if unit else ''}, got {value:g}")
