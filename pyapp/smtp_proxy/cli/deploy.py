"""`smtp-proxy deploy`: a new image into a service of the AWS stack."""

from __future__ import annotations

import importlib
import shlex
from typing import Annotated

import typer

from smtp_proxy.errors import InvalidValue


def deploy(
    service: Annotated[str, typer.Argument(help="The ECS service, such as submission or worker; or migrate.")],
    image: Annotated[str, typer.Option(help="repository@sha256:… or a tag that does not move.")],
    cluster: Annotated[str, typer.Option(help="The ECS cluster, such as smtp-proxy-production.")],
    region: Annotated[str | None, typer.Option(help="By default that of the credentials.")] = None,
    application: Annotated[
        str | None, typer.Option(help="The application of CodeDeploy; by default called as the cluster.")
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="What must end with 0 as a task of the new release before traffic; by default doctor's checks of what "
            "the service talks to.",
        ),
    ] = None,
    pre_only: Annotated[
        bool, typer.Option("--pre-only", help="With migrate: only what is safe beside the previous release.")
    ] = False,
    ignore_alarms: Annotated[
        bool,
        typer.Option(
            "--ignore-alarms",
            help="For the repair of what an alarm tells of: CodeDeploy stops deployments of a service in alarm. This "
            "one is taken back by no alarm.",
        ),
    ] = False,
    wait_minutes: Annotated[
        int,
        typer.Option(min=1, help="How long the deployment is waited for; the old tasks may protect their sessions."),
    ] = 120,
) -> None:
    """Deploy an image on AWS: checked as a task first, then blue/green where the service has a port, else rolling.

    `migrate` is no service: its task is run, and ends.
    """
    run = importlib.import_module("smtp_proxy.deploy.run")
    command = shlex.split(check or "")
    if check is not None and not command:
        raise InvalidValue("--check: say a command of smtp-proxy, such as `doctor --only settings,postgres`")
    if service == run.MIGRATE:
        if check is not None:
            raise InvalidValue("--check: a migration is what runs; there is no check before it")
        if ignore_alarms:
            raise InvalidValue("--ignore-alarms: no alarm stops a migration; say it of the service that is deployed")
        command = ["migrate", "--pre-only"] if pre_only else ["migrate"]
    elif pre_only:
        raise InvalidValue(f"--pre-only is said of migrate, not of {service}")
    wanted = run.Wanted(
        cluster=cluster,
        service=service,
        image=image,
        application=application or cluster,
        check_command=command,
        deploy_seconds=wait_minutes * 60.0,
        ignore_alarms=ignore_alarms,
    )
    run.deploy(run.Aws(region), wanted, typer.echo)
