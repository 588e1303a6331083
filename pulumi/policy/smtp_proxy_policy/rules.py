"""The rules, by name: what must hold, of which kinds of resources, and which function looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from . import access, network, relations, storage, tasks, watch
from .reading import Found

ROLE = "aws:iam/role:Role"
ACCESS_BLOCK = "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock"
ENCRYPTION = "aws:s3/bucketServerSideEncryptionConfigurationV2:BucketServerSideEncryptionConfigurationV2"
CACHE = "aws:elasticache/replicationGroup:ReplicationGroup"
DATABASE = "aws:rds/instance:Instance"
DEFINITION = "aws:ecs/taskDefinition:TaskDefinition"
EGRESS = "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
PROVIDER = "pulumi:providers:aws"

# Kinds that no rule asks for by name, and why they need none: they hold no data, grant nothing and open nothing.
HARMLESS = {
    "aws:acm/certificate:Certificate": "public by nature; its key never leaves AWS",
    "aws:acm/certificateValidation:CertificateValidation": "waits",
    "aws:appautoscaling/scheduledAction:ScheduledAction": "a minimum at a time, within its target",
    "aws:cloudwatch/dashboard:Dashboard": "shows",
    "aws:codedeploy/application:Application": "a name",
    "aws:ec2/eip:Eip": "an address of a NAT gateway",
    "aws:ec2/internetGateway:InternetGateway": "opens nothing without a security group",
    "aws:ec2/route:Route": "opens nothing without a security group",
    "aws:ec2/routeTable:RouteTable": "opens nothing without a security group",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "opens nothing without a security group",
    "aws:ec2/vpcEndpoint:VpcEndpoint": "entered by the rules of its security group",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "removes old images",
    "aws:ecs/cluster:Cluster": "a name, and what ECS Exec logs",
    "aws:ecs/clusterCapacityProviders:ClusterCapacityProviders": "Fargate, and Spot",
    "aws:elasticache/parameterGroup:ParameterGroup": "no parameter of it is about access",
    "aws:elasticache/subnetGroup:SubnetGroup": "subnets",
    "aws:elasticache/userGroup:UserGroup": "its users are looked at",
    "aws:kms/alias:Alias": "a name",
    "aws:lb/listenerRule:ListenerRule": "by path, of a listener that is looked at",
    "aws:rds/proxyDefaultTargetGroup:ProxyDefaultTargetGroup": "sizes of a pool",
    "aws:rds/proxyTarget:ProxyTarget": "which database",
    "aws:rds/subnetGroup:SubnetGroup": "subnets",
    "aws:route53/record:Record": "a public name",
    "aws:s3/bucketLifecycleConfigurationV2:BucketLifecycleConfigurationV2": "expires objects",
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": "no ACLs",
    "aws:s3/bucketVersioningV2:BucketVersioningV2": "keeps versions",
    "aws:servicediscovery/privateDnsNamespace:PrivateDnsNamespace": "a name within the VPC",
    "aws:servicediscovery/service:Service": "a name within the VPC",
    "aws:sns/topicSubscription:TopicSubscription": "must be confirmed by whoever it tells",
    "aws:wafv2/webAcl:WebAcl": "refuses",
    "aws:wafv2/webAclAssociation:WebAclAssociation": "refuses",
}
# Beginnings of kinds that a rule may ask for: everything of AWS, and everything.
WHOLE = ("aws:", "")
# Not of AWS: the stack itself, its components, its provider.
OURS = ("pulumi:pulumi:", "smtp-proxy:infra:")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """Of one resource. `advice`: it is said, and stops nothing."""

    name: str
    must: str
    kinds: tuple[str, ...]
    look: Callable[[Found], Iterator[str]]
    advice: bool = False

    def problems(self, found: Found) -> Iterator[str]:
        """What is wrong, and the next step."""
        if any(found.kind == kind or (kind in WHOLE and found.kind.startswith(kind)) for kind in self.kinds):
            yield from self.look(found)


@dataclass(frozen=True, kw_only=True)
class StackRule:
    """Of the resources of a stack together."""

    name: str
    must: str
    look: Callable[[relations.Stack], relations.Blame]
    advice: bool = False

    def problems(self, stack: relations.Stack) -> relations.Blame:
        """Whose problem it is (nobody's: the stack's), what is wrong, and the next step."""
        # A stack that is being destroyed, or has nothing yet, is in nobody's way.
        if any(each.kind.startswith("aws:") for each in stack):
            yield from self.look(stack)


def _of(name: str, must: str, look: Callable[[Found], Iterator[str]], *kinds: str) -> Rule:
    return Rule(name=name, must=must, kinds=kinds, look=look)


_RULES = (
    # ---- storage
    _of(
        "database-encrypted",
        "The database is encrypted with a key of ours, and has no public address",
        storage.database,
        DATABASE,
    ),
    _of("database-password", "RDS makes and rotates the database's password", storage.database_password, DATABASE),
    _of(
        "cache-encrypted", "The cache is encrypted at rest and in transit, and asks who is there", storage.cache, CACHE
    ),
    _of("cache-logins", "Users of the cache log in by IAM", storage.cache_user, "aws:elasticache/user:User"),
    _of("keys-rotated", "Keys are rotated, and are not gone at once", storage.key, "aws:kms/key:Key"),
    _of("secrets-keyed", "Secrets have a key of ours", storage.secret, "aws:secretsmanager/secret:Secret"),
    _of("topics-encrypted", "Topics have a key of ours", storage.topic, "aws:sns/topic:Topic"),
    _of(
        "images-kept",
        "Images are encrypted, scanned and never changed",
        storage.repository,
        "aws:ecr/repository:Repository",
    ),
    _of("buckets-encrypted", "Buckets have a key of ours", storage.bucket_encryption, ENCRYPTION),
    _of("buckets-closed", "No object can become public", storage.bucket_closed, ACCESS_BLOCK),
    _of("buckets-by-tls", "Buckets are read by TLS alone", storage.bucket_policy, "aws:s3/bucketPolicy:BucketPolicy"),
    # ---- access
    _of("actions-named", "No action has a wildcard without a reason", access.actions, *access.DOCUMENTS),
    _of("resources-named", "No resource has a wildcard without a reason", access.resources, *access.DOCUMENTS),
    _of("principals-named", "No stranger is let in", access.principals, *access.DOCUMENTS),
    _of("roles-passed", "Roles are handed on to named services alone", access.passing, "aws:iam/rolePolicy:RolePolicy"),
    _of("roles-trusted", "Roles are taken by named services alone", access.trust, ROLE),
    _of(
        "policies-ours",
        "What is granted is written here",
        access.attachment,
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    ),
    # ---- network
    _of("entrances", "The world reaches the ports of stack.yaml alone", network.ingress, INGRESS),
    _of("exits", "Tasks reach few ports of the world", network.egress, EGRESS),
    _of("rules-explained", "Every rule says why it is there", network.reasons, INGRESS, EGRESS),
    _of(
        "groups-bare",
        "Security groups have no rules within",
        network.group,
        relations.GROUP,
        "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup",
    ),
    _of("addresses-private", "Tasks have no public address", network.addresses, relations.SERVICE, relations.SUBNET),
    _of(
        "listeners-by-tls", "Listeners speak current TLS, or hand SMTP on", network.listener, "aws:lb/listener:Listener"
    ),
    _of(
        "database-by-tls", "The database takes TLS alone", network.database_tls, "aws:rds/parameterGroup:ParameterGroup"
    ),
    _of("proxy-by-tls", "RDS Proxy takes TLS alone", network.proxy_tls, "aws:rds/proxy:Proxy"),
    # ---- tasks
    _of("no-credentials", "No credential is in a task definition", tasks.credentials, DEFINITION),
    _of("images-pinned", "Images are named by a tag that stays, or a digest", tasks.image, DEFINITION),
    _of("containers-hardened", "Containers can change nothing, and have time to drain", tasks.hardened, DEFINITION),
    _of("on-fargate", "Tasks run on Fargate, with roles of their own", tasks.platform, DEFINITION),
    _of("services-go-back", "A release that does not start is taken back", tasks.way_back, relations.SERVICE),
    _of(
        "deployments-go-back",
        "A release that alarms is taken back",
        tasks.deployment,
        "aws:codedeploy/deploymentGroup:DeploymentGroup",
    ),
    _of("services-counted", "Services begin within stack.yaml", tasks.count, relations.SERVICE),
    # ---- watch
    _of("logs-expire", "Logs are kept for a time", watch.retention, "aws:cloudwatch/logGroup:LogGroup"),
    _of("alarms-act", "Alarms do something, and say what they mean", watch.alarm, relations.ALARM),
    _of("budgets-tell", "A budget tells somebody", watch.budget, "aws:budgets/budget:Budget"),
    _of("tagged", "Everything says whose it is", watch.tags, "aws:"),
    _of("account-named", "The provider changes the account that is meant", watch.account, PROVIDER),
    _of("database-survives", "Production's database survives a zone and a slip", watch.database, DATABASE),
    _of("cache-survives", "Production's cache survives a zone", watch.cache, CACHE),
    _of("balancers-survive", "Production's load balancers survive a slip", watch.balancer, relations.LOAD_BALANCER),
    _of("buckets-survive", "Production's buckets survive a slip", watch.bucket, relations.BUCKET),
)


def _known(found: Found) -> Iterator[str]:
    """A kind that nobody has thought of is refused, so that it is thought of."""
    asked = {kind for rule in _RULES for kind in rule.kinds} | relations.ASKED
    if found.kind not in asked and found.kind not in HARMLESS and not found.kind.startswith(OURS):
        yield (
            "no policy knows this kind; write a rule in pulumi/policy/smtp_proxy_policy, or say in HARMLESS of its "
            "rules.py why it needs none"
        )


RULES = (*_RULES, _of("kinds-known", "Every kind of resource is one that somebody has thought of", _known, ""))

STACK_RULES = (
    StackRule(name="buckets-guarded", must="Every bucket has what guards it", look=relations.buckets),
    StackRule(name="doors", must="The world enters load balancers alone", look=relations.doors),
    StackRule(name="targets-watched", must="Every target group has an alarm", look=relations.watched),
    StackRule(name="services-scaled", must="Services scale within stack.yaml", look=relations.scaled),
    StackRule(name="spread", must="The stack stands in every zone of stack.yaml", look=relations.spread),
    StackRule(name="services-deployed", must="Every service can be given a release", look=relations.deployed),
    StackRule(name="flows-recorded", must="Flows of the network are on record", look=relations.flows),
    # Who is told may be said elsewhere, which nothing here can see.
    StackRule(name="alarms-heard", must="Somebody hears of alarms", look=relations.told, advice=True),
)
