"""What is seen, told and kept: logs, alarms, the budget, and what outlives a mistake."""

from __future__ import annotations

from policy_breaches.breach import ALARM, CACHE, DATABASE, PROVIDER, Breach, given, without

BREACHES = [
    Breach(
        "logs-expire", "aws:cloudwatch/logGroup:LogGroup", "vpc-flow", without("retentionInDays"), "keeps logs for ever"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("alarmActions"), "does nothing when it goes off"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", given(actionsEnabled=False), "does nothing when it goes"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("treatMissingData"), "what no data means; set"
    ),
    Breach(
        "alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("alarmDescription"), "say what it means; give"
    ),
    Breach("alarms-act", ALARM, "cloudwatch-metric-database-cpu", without("metricName"), "watches no metric; give"),
    Breach(
        "budgets-tell",
        "aws:budgets/budget:Budget",
        "cloudwatch-monthly",
        lambda inputs: [each.update(subscriberSnsTopicArns=[]) for each in inputs["notifications"]],
        "tells nobody; give",
    ),
    Breach(
        "account-named", PROVIDER, "aws", without("allowedAccountIds"), "whatever account its credentials are of; give"
    ),
    Breach("account-named", PROVIDER, "aws", given(secretKey="hunter2"), "secretKey would be in the state; leave"),
    Breach("account-named", PROVIDER, "aws", without("defaultTags"), "tags nothing; give default_tags"),
    Breach(
        "database-survives", DATABASE, "rds-primary", given(multiAz=False), "is lost with its zone: multiAz is not on"
    ),
    Breach(
        "database-survives", DATABASE, "rds-primary", given(deletionProtection=False), "may be deleted by one command"
    ),
    Breach(
        "database-survives", DATABASE, "rds-primary", given(skipFinalSnapshot=True), "leaves nothing behind when it is"
    ),
    Breach("database-survives", DATABASE, "rds-primary", given(backupRetentionPeriod=1), "can not go back a week; set"),
    Breach(
        "cache-survives",
        CACHE,
        "elasticache-main",
        given(multiAzEnabled=False),
        "is lost with its zone: multiAzEnabled",
    ),
    Breach(
        "cache-survives",
        CACHE,
        "elasticache-main",
        given(automaticFailoverEnabled=False),
        "stays down when a node does",
    ),
    Breach("cache-survives", CACHE, "elasticache-main", given(snapshotRetentionLimit=0), "has no snapshot; set"),
    Breach(
        "balancers-survive",
        "aws:lb/loadBalancer:LoadBalancer",
        "nlb-main",
        given(enableDeletionProtection=False),
        "may be deleted by one command: enableDeletionProtection is not on",
    ),
    Breach(
        "buckets-survive",
        "aws:s3/bucketV2:BucketV2",
        "ecs-certificates",
        given(forceDestroy=True),
        "with all that is in it",
    ),
]
