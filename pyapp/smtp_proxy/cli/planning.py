"""`smtp-proxy plan` and `simulate`: what a load needs and costs on AWS, and how autoscaling would bear it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from smtp_proxy.cli.arguments import JsonOption
from smtp_proxy.cli.output import make_table, print_json, print_table
from smtp_proxy.errors import ConfigurationError
from smtp_proxy.planning import chart, stack, traffic
from smtp_proxy.planning.capacity import FARGATE_QUOTA, FARGATE_QUOTA_NEW, Load, Plan
from smtp_proxy.planning.capacity import plan as planned
from smtp_proxy.planning.message_costs import read_costs
from smtp_proxy.planning.prices import read_prices
from smtp_proxy.planning.simulation import Circumstances, Result, Simulation

StackOption = Annotated[
    Path | None, typer.Option("--stack", metavar="FILE", help="terraform/stack.yaml; by default that of the checkout.")
]
EnvironmentOption = Annotated[str, typer.Option("--environment", help="Of stack.yaml: dev, staging, production.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Another value than stack.yaml has; again for more."),
]
RateOption = Annotated[float, typer.Option("--per-minute", min=0.0, help="Messages a minute, at the peak.")]
SizeOption = Annotated[float, typer.Option("--size-kib", min=0.1, help="Of a message on average.")]
SessionOption = Annotated[
    float, typer.Option("--session-seconds", min=0.001, help="For which a client is connected for each message.")
]
DeliveryOption = Annotated[
    float, typer.Option("--delivery-seconds", min=0.001, help="For which a next hop is waited for with each delivery.")
]
ResultsOption = Annotated[
    Path | None,
    typer.Option("--results", metavar="JSON", help="A result of `make bench-e2e`, in place of the shipped costs."),
]
ChartOption = Annotated[Path | None, typer.Option("--chart", metavar="FILE", help="Draw it: .svg or .html.")]
FactorOption = Annotated[
    float, typer.Option("--cpu-factor", min=0.01, help="How many times as fast a vCPU is as one of the benchmarks.")
]


def plan(
    per_minute: RateOption = 10_000.0,
    average_share: Annotated[
        float, typer.Option("--average-share", min=0.01, max=1.0, help="The average rate, as a share of the peak.")
    ] = 0.3,
    size_kib: SizeOption = 8.0,
    recipients: Annotated[float, typer.Option(min=1.0, help="Of a message on average.")] = 1.0,
    growth_percent: Annotated[float, typer.Option("--growth-percent", help="A month.")] = 0.0,
    months: Annotated[int, typer.Option(min=0, help="How far ahead.")] = 0,
    retention_days: Annotated[float, typer.Option("--retention-days", min=0.0, help="How long mail is kept.")] = 30.0,
    session_seconds: SessionOption = 2.0,
    delivery_seconds: DeliveryOption = 0.1,
    web_per_minute: Annotated[
        float | None,
        typer.Option(
            "--web-per-minute",
            min=0.0,
            help="Requests to API and dashboard, at the peak; by default what the API's fewest tasks bear.",
        ),
    ] = None,
    web_size_kib: Annotated[float, typer.Option("--web-size-kib", min=0.1, help="Of a request with its answer.")] = 8.0,
    web_seconds: Annotated[
        float, typer.Option("--web-seconds", min=0.001, help="For which a client is connected for each request.")
    ] = 1.0,
    stack_file: StackOption = None,
    environment: EnvironmentOption = "production",
    changes: SetOption = None,
    results: ResultsOption = None,
    cpu_factor: FactorOption = 1.0,
    chart_file: ChartOption = None,
    as_json: JsonOption = False,
) -> None:
    """Size the AWS stack for a load from recorded benchmarks; exit code 1 when it is impossible."""
    peak = per_minute / 60 * (1 + growth_percent / 100) ** months
    given = stack.load(stack_file, environment, changes)
    web = (given.web_per_minute if web_per_minute is None else web_per_minute) / 60
    load = Load(
        peak, peak * average_share, size_kib, recipients, session_seconds, delivery_seconds, retention_days,
        web, web * average_share, web_size_kib, web_seconds,
    )  # fmt: skip
    costs, prices = read_costs(size_kib, results, cpu_factor), read_prices()
    made = planned(load, given, costs, prices)
    note = (
        f"list prices of {prices.as_of} in {prices.region}, to be checked; CPU of a message from {costs.source}; "
        f"not counted: {', '.join(prices.left_out)}"
    )
    if chart_file is not None:
        _draw_plans(chart_file, load, lambda each: planned(each, given, costs, prices), note)
    if as_json:
        print_json(
            dataclasses.asdict(made)
            | {"load": dataclasses.asdict(load), "dollars_per_month_total": made.total, "note": note}
        )
    else:
        _show_plan(made, load, note)
    raise typer.Exit(1 if made.problems else 0)


def simulate(
    profile: Annotated[str, typer.Option(help=f"One of {', '.join(traffic.NAMES)}.")] = "spike",
    recorded: Annotated[
        Path | None, typer.Option("--traffic", metavar="CSV", help="seconds,per_second on each line, instead.")
    ] = None,
    per_minute: RateOption = 10_000.0,
    times: Annotated[float, typer.Option(min=0.0, help="How high the spike is.")] = 10.0,
    spike_seconds: Annotated[float, typer.Option("--spike-seconds", min=1.0, help="How long it lasts.")] = 900.0,
    minutes: Annotated[int, typer.Option(min=1, help="How long to simulate.")] = 60,
    size_kib: SizeOption = 8.0,
    session_seconds: SessionOption = 2.0,
    delivery_seconds: DeliveryOption = 0.1,
    retry_seconds: Annotated[
        float | None,
        typer.Option("--retry-seconds", min=1.0, help="Clients who heard 421 come again then; else never."),
    ] = None,
    protected: Annotated[bool, typer.Option("--protected/--unprotected", help="Scale-in protection of tasks.")] = True,
    stack_file: StackOption = None,
    environment: EnvironmentOption = "production",
    changes: SetOption = None,
    results: ResultsOption = None,
    cpu_factor: FactorOption = 1.0,
    chart_file: ChartOption = None,
    max_backlog: Annotated[float | None, typer.Option("--max-backlog", help="More is a failure.")] = None,
    max_wait: Annotated[float | None, typer.Option("--max-wait-seconds", help="Longer is a failure.")] = None,
    max_refused: Annotated[
        float | None, typer.Option("--max-refused", help="A larger share of what is offered is a failure: 0 to 1.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate the stack's autoscaling under mail over time; exit code 1 when a threshold is passed."""
    offered, seconds = traffic.profile(profile, per_minute / 60, times=times, spike_seconds=spike_seconds), minutes * 60
    if recorded is not None:
        offered, last = traffic.recorded(recorded)
        profile, seconds = recorded.name, max(60, round(last))
    around = Circumstances(session_seconds, delivery_seconds, protected=protected, retry_seconds=retry_seconds)
    prices, costs = read_prices(), read_costs(size_kib, results, cpu_factor)
    result = Simulation(stack.load(stack_file, environment, changes), costs, prices, offered, around).run(seconds)
    failures = _passed(result, max_backlog, max_wait, max_refused)
    title = f"{profile}, {per_minute:,.0f} messages a minute" if recorded is None else profile
    notes = [*_said(result), f"list prices of {prices.as_of}, to be checked; CPU of a message from {costs.source}"]
    if chart_file is not None:
        _draw(chart_file, result, title, notes)
    if as_json:
        print_json(dataclasses.asdict(result) | {"refused_share": result.refused_share, "failures": failures})
    else:
        typer.echo("\n".join([title, *notes]))
        for failure in failures:
            typer.echo(failure, err=True)
    raise typer.Exit(1 if failures else 0)


# -- below


def _show_plan(made: Plan, load: Load, note: str) -> None:
    table = make_table("what", "how much")
    table.add_row("peak, average", f"{load.peak:,.0f} and {load.average:,.0f} messages a second")
    if load.web_peak:
        table.add_row("API and dashboard", f"{load.web_peak:,.0f} and {load.web_average:,.0f} requests a second")
    for name, tasks in made.tasks.items():
        table.add_row(f"tasks: {name}", f"{tasks:,}")
    table.add_row("stream shards", str(made.stream_shards))
    table.add_row("database", f"{made.database or 'none'}; up to {made.database_connections:,} connections")
    table.add_row("storage", f"{made.storage_gib:,.0f} GiB")
    table.add_row(
        "Fargate, all at max_tasks",
        f"{made.fargate_vcpu:g} vCPU, {made.fargate_vcpu_deploying:g} while the largest service is deployed; quota "
        f"{FARGATE_QUOTA}, of which new accounts may have {FARGATE_QUOTA_NEW}",
    )
    for name, dollars in made.dollars_per_month.items():
        table.add_row(f"a month: {name}", f"{dollars:,.0f} $")
    table.add_row("a month: all of it", f"{made.total:,.0f} $")
    for name, value in made.spec.items():
        table.add_row(f"the specification: {name}", value)
    print_table(table)
    typer.echo(note)
    for warning in made.warnings:
        typer.echo(f"stack.yaml: {warning}", err=True)
    for problem in made.problems:
        typer.echo(f"impossible: {problem}", err=True)


def _said(result: Result) -> list[str]:
    tasks = ", ".join(f"{name} {count}" for name, count in result.most_tasks.items())
    first = "never" if result.first_scaled_out_at is None else f"after {result.first_scaled_out_at:.0f} s"
    return [
        f"offered {result.offered:,.0f}, accepted {result.accepted:,.0f}, refused {result.refused:,.0f} "
        f"({result.refused_share:.2%}), delivered {result.delivered:,.0f}, left {result.backlog:,.0f}",
        f"largest backlog {result.most_backlog:,.0f}, longest wait in the queue {result.longest_wait:,.0f} s",
        f"most tasks: {tasks}; the first additional one ran {first}; {result.dropped_sessions:,.0f} sessions dropped",
        f"{result.dollars:,.2f} $ for tasks, database, cache, NAT, load balancers and endpoints",
    ]


def _passed(result: Result, backlog: float | None, wait: float | None, refused: float | None) -> list[str]:
    limits: Sequence[tuple[str, float, float | None]] = (
        ("--max-backlog", result.most_backlog, backlog),
        ("--max-wait-seconds", result.longest_wait, wait),
        ("--max-refused", result.refused_share, refused),
    )
    return [
        f"{name}: {seen:,.4g} is more than {limit:g}"
        for name, seen, limit in limits
        if limit is not None and seen > limit
    ]


# Loads in a drawing of `plan`: from none to twice what was asked for.
_LOADS_DRAWN: Final = 40


def _draw_plans(file: Path, load: Load, plan_of: Callable[[Load], Plan], note: str) -> None:
    loads = [load.at(2 * load.peak * step / _LOADS_DRAWN) for step in range(_LOADS_DRAWN + 1)]
    plans = {60 * each.peak: plan_of(each) for each in loads}
    asked = plan_of(load)
    title = f"up to {120 * load.peak:,.0f} messages a minute"
    notes = [f"asked for: {60 * load.peak:,.0f} a minute", *asked.warnings, *asked.problems, note]
    first = next((peak for peak, made in plans.items() if made.problems), None)
    if first is not None:
        title += f"; impossible from {first:,.0f} on"
    _write(file, lambda: chart.plan_picture(plans, title), lambda: chart.plan_page(plans, title, notes))


def _draw(file: Path, result: Result, title: str, notes: list[str]) -> None:
    samples = result.samples
    _write(file, lambda: chart.picture(samples, title), lambda: chart.page(samples, title, notes))


def _write(file: Path, picture: Callable[[], str], page: Callable[[], str]) -> None:
    if file.suffix not in (".svg", ".html"):
        raise ConfigurationError(f"--chart: {file}: write a name that ends with .svg or .html")
    drawn = picture() if file.suffix == ".svg" else page()
    try:
        file.write_text(drawn, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--chart: can not write {file}: {error.strerror}") from None
