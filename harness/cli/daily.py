"""The verb about a day's duty: battery, electricity and the device's price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli import app
from harness.cli.screen import AsJson, fit, show_json
from harness.cli.screen import device as load_device

if TYPE_CHECKING:
    from harness.duty import Answer, Span


@app.command(
    epilog="Example: edgewise duty 200x300@150 --device oneplus13_sd8elite "
    "--candidate mcsd:500m@int4 --battery-ah 5 --price-per-kwh 0.30 --life-years 3"
)
def duty(
    each_day: Annotated[str, typer.Argument(help="Replies a day x tokens of each @ prompt.")],
    device: Annotated[list[str], typer.Option(help="May be repeated.")],
    candidate: Annotated[list[str], typer.Option(help="May be repeated.")],
    threads: Annotated[
        int | None, typer.Option(min=1, help="The fastest count by default.")
    ] = None,
    battery_ah: Annotated[float | None, typer.Option(help="Of one cell, 3.85 V nominal.")] = None,
    price_per_kwh: Annotated[float | None, typer.Option(help="Of electricity.")] = None,
    life_years: Annotated[
        float | None, typer.Option(help="Over which the device's own price is shared.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tokens per joule, battery life and the price of a million tokens, for a day's duty."""
    from harness import duty as duties
    from harness import forecast

    asked, known, answers = duties.parse(each_day), fit(), []
    for place in device:
        there = load_device(place)
        for name in candidate:
            prompt, reply = (forecast.point(name, run, there, threads, known) for run in asked.runs)
            answers.append(
                duties.answer(
                    asked, prompt, reply, there,
                    ampere_hours=battery_ah, price_per_kwh=price_per_kwh, years=life_years,
                )
            )  # fmt: skip
    if as_json:
        show_json({"duty": asked, "answers": answers})
        return
    print(
        f"{asked.replies} replies of {asked.tokens} tokens a day, each behind a prompt of "
        f"{asked.prompt}; projected, with 90 % intervals; what the device draws meanwhile for "
        "other things is not in it"
    )
    for answer in answers:
        print("\n".join(["", *_told(answer, priced=life_years is not None)]))


def _told(answer: Answer, priced: bool) -> list[str]:
    """An answer as lines; priced: whether the device's own price was asked for."""
    from harness.duty import DAY_SECONDS, NOMINAL_VOLTS
    from harness.records import Failed
    from harness.table import plain, si

    def span(found: Span, unit: str = "") -> str:
        show = (lambda value: si(value, unit)) if unit else plain
        return f"~{show(found.value)} ({show(found.low)} to {show(found.high)})"

    head, day = f"{answer.candidate} on {answer.device}", answer.day
    if isinstance(day, Failed):
        return [f"{head}: {day.reason}"]
    busy = 100 * day.busy_seconds.value / DAY_SECONDS
    lines = [
        head,
        f"  a generated token       {span(day.joules_per_token, 'J')}",
        f"  tokens per joule        {span(day.tokens_per_joule)}",
        f"  a day                   {span(day.joules, 'J')}, busy for {busy:.2g} % of it",
    ]
    if answer.battery_days:
        lines.append(f"  days of a full battery  {span(answer.battery_days)} at {NOMINAL_VOLTS} V")
    if answer.electricity_per_million:
        lines.append(
            f"  a million tokens        {span(answer.electricity_per_million)} of electricity"
        )
    if priced:
        price = answer.device_per_million
        known = "no price is stated" if price is None else f"{plain(price)} dollars"
        lines.append(f"  a million tokens        {known} of the device")
    return [*lines, *(f"  {note}" for note in answer.notes)]
