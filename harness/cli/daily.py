"""The verb about a day's duty: battery, electricity and the device's price."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli import app
from harness.cli.screen import AsJson, fit, show_json
from harness.cli.screen import device as load_device


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
    from harness import forecast, sustained
    from harness.records import Failed

    asked, known, answers = duties.parse(each_day), fit(), []
    for place in device:
        there = load_device(place)
        for name in candidate:
            rows = [forecast.point(name, run, there, threads, known) for run in asked.runs]
            day = duties.day(asked, *rows)
            answer: dict[str, object] = {"candidate": name, "device": place, "day": day}
            if not isinstance(day, Failed):
                if battery_ah is not None:
                    answer["battery_days"] = duties.battery_days(day.joules, battery_ah)
                if price_per_kwh is not None:
                    each = day.joules_per_token
                    answer["electricity_per_million"] = duties.electricity(each, price_per_kwh)
                if life_years is not None:
                    answer["device_per_million"] = duties.purchase(there, asked, life_years)
                answer["note"] = sustained.note(there)
            answers.append(answer)
    if as_json:
        show_json({"duty": asked, "answers": answers})
        return
    print(
        f"{asked.replies} replies of {asked.tokens} tokens a day, each behind a prompt of "
        f"{asked.prompt}; projected, with 90 % intervals; what the device draws meanwhile for "
        "other things is not in it"
    )
    for answer in answers:
        print("\n".join(["", *_told(answer)]))


def _told(answer: dict[str, object]) -> list[str]:
    """An answer as lines."""
    from harness.duty import DAY_SECONDS, NOMINAL_VOLTS, Day, Span
    from harness.records import Failed
    from harness.table import plain, si

    def span(found: Span, unit: str = "") -> str:
        show = (lambda value: si(value, unit)) if unit else plain
        return f"~{show(found.value)} ({show(found.low)} to {show(found.high)})"

    head, day = f"{answer['candidate']} on {answer['device']}", answer["day"]
    if isinstance(day, Failed):
        return [f"{head}: {day.reason}"]
    assert isinstance(day, Day)
    busy = 100 * day.busy_seconds.value / DAY_SECONDS
    lines = [
        head,
        f"  a generated token       {span(day.joules_per_token, 'J')}",
        f"  tokens per joule        {span(day.tokens_per_joule)}",
        f"  a day                   {span(day.joules, 'J')}, busy for {busy:.2g} % of it",
    ]
    days, power = answer.get("battery_days"), answer.get("electricity_per_million")
    if isinstance(days, Span):
        lines.append(f"  days of a full battery  {span(days)} at {NOMINAL_VOLTS} V")
    if isinstance(power, Span):
        lines.append(f"  a million tokens        {span(power)} of electricity")
    if "device_per_million" in answer:
        price = answer["device_per_million"]
        known = f"{plain(price)} dollars" if isinstance(price, float) else "no price is stated"
        lines.append(f"                          {known} of the device")
    return [*lines, *([f"  {answer['note']}"] if answer["note"] else [])]
