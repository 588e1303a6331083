"""`smtp-proxy deploy`: a new image into a service of the AWS stack."""

from __future__ import annotations

import importlib
import shlex
from typing import Annotated

import typer

from smtp_proxy.errors import InvalidValue


def deploy(
    service: Annotated[str, typer.Argument(help="The ECS service, such as submission or worker.")],
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
    """Deploy an image on AWS: checked as a task first, then blue/green where the service has a port, else rolling."""
    run = importlib.import_module("smtp_proxy.deploy.run")
    command = shlex.split(check or "")
    if check is not None and not command:
        raise InvalidValue("--check: say a command of smtp-proxy, such as `doctor --only settings,postgres`")
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
