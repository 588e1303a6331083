"""What is noticed, what is kept, and what survives: logs, alarms, budget, tags, and protection where it matters."""

from __future__ import annotations

from collections.abc import Iterator

from .reading import Found, as_list, default_tags, document, documents, environments, is_on


def retention(found: Found) -> Iterator[str]:
    days = found.props.get("retentionInDays") or 0
    if days <= 0:
        yield "keeps logs for ever; set retention_in_days"


def alarm(found: Found) -> Iterator[str]:
    props = found.props
    if not props.get("alarmActions") or props.get("actionsEnabled") is False:
        yield "does nothing when it goes off; give alarm_actions"
    if not props.get("treatMissingData"):
        yield "does not say what no data means; set treat_missing_data"
    if not props.get("alarmDescription"):
        yield "does not say what it means; give alarm_description"
    if not props.get("metricName") and not props.get("metricQueries"):
        yield "watches no metric; give metric_name or metric_queries"


def budget(found: Found) -> Iterator[str]:
    for each in as_list(found.props.get("notifications")) or [{}]:
        if not each.get("subscriberEmailAddresses") and not each.get("subscriberSnsTopicArns"):
            yield "tells nobody; give notifications with subscriber_sns_topic_arns"


def tags(found: Found) -> Iterator[str]:
    """By the provider, which puts them on everything that takes tags."""
    given, name = default_tags(found.provider), found.settings["general"]["name"]
    if given.get("Project") != name or not given.get("Environment"):
        yield "has no tags that say whose it is; make it with the stack's provider, which has default_tags"
    elif given["Environment"] not in environments():
        yield f"is tagged {given['Environment']}, which stack.yaml does not know; set smtp-proxy:environment"
    stack = found.urn.removeprefix("urn:pulumi:").partition("::")[0]
    if stack in environments() and stack != given.get("Environment", stack):
        yield f"belongs to stack {stack} and is tagged {given['Environment']}; set smtp-proxy:environment to {stack}"


def account(found: Found) -> Iterator[str]:
    """Of the provider: its nested arguments are JSON."""
    allowed = documents(found.props.get("allowedAccountIds"))
    if len(allowed) != 1:
        yield "would change whatever account its credentials are of; give allowed_account_ids the one that is meant"
    for name in ("accessKey", "secretKey", "token"):
        if found.props.get(name):
            yield f"{name} would be in the state; leave credentials to the environment"
    if document(found.props.get("defaultTags") or {}).get("tags", {}).get("Environment") is None:
        yield "tags nothing; give default_tags with Project and Environment"


def _protected(found: Found, *wanted: tuple[str, str]) -> Iterator[str]:
    for key, why in wanted if found.is_production else ():
        if not is_on(found.props.get(key)):
            yield f"{why}: {key} is not on; stack.yaml has it on by default, and production must not switch it off"


def database(found: Found) -> Iterator[str]:
    yield from _protected(
        found, ("multiAz", "is lost with its zone"), ("deletionProtection", "may be deleted by one command")
    )
    if found.is_production and is_on(found.props.get("skipFinalSnapshot")):
        yield "leaves nothing behind when it is deleted; set rds.skip_final_snapshot of terraform/stack.yaml to false"
    if found.is_production and (found.props.get("backupRetentionPeriod") or 0) < 7:
        yield "can not go back a week; set rds.backup_retention_days of terraform/stack.yaml to 7 or more"


def cache(found: Found) -> Iterator[str]:
    yield from _protected(
        found,
        ("multiAzEnabled", "is lost with its zone"),
        ("automaticFailoverEnabled", "stays down when a node does"),
    )
    if found.is_production and (found.props.get("snapshotRetentionLimit") or 0) < 1:
        yield "has no snapshot; set elasticache.snapshot_retention_days of terraform/stack.yaml"


def balancer(found: Found) -> Iterator[str]:
    yield from _protected(found, ("enableDeletionProtection", "may be deleted by one command"))


def bucket(found: Found) -> Iterator[str]:
    if found.is_production and is_on(found.props.get("forceDestroy")):
        yield "is deleted with all that is in it; set force_destroy=False"
