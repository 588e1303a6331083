"""ElastiCache: replication groups with all they were given, their nodes, users, groups of users, parameter groups.

moto keeps a replication group without most of its arguments, and knows neither groups of users nor parameter groups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from local_aws.answers import answers, arn, given
from moto.core.exceptions import ServiceException
from moto.core.responses import ActionResult, EmptyResult
from moto.elasticache.responses import ElastiCacheResponse

Thing = dict[str, Any]
answered = answers(ElastiCacheResponse)
parameter_groups: dict[str, Thing] = {}
parameters: dict[str, dict[str, str]] = {}
users: dict[str, Thing] = {}
user_groups: dict[str, Thing] = {}
replication_groups: dict[str, Thing] = {}
tags: dict[str, dict[str, str]] = {}


class NotFound(ServiceException):
    def __init__(self, code: str, name: str) -> None:
        super().__init__(f"{name} is not there")
        self.code = code


def found(things: dict[str, Thing], name: str, code: str) -> Thing:
    if name not in things:
        raise NotFound(code, name)
    return things[name]


def described(things: dict[str, Thing], name: str | None, code: str) -> list[Thing]:
    return list(things.values()) if name is None else [found(things, name, code)]


# ---- tags, of all kinds alike


def tag(name: str, request: Any) -> None:
    tags[name] = {each["Key"]: each.get("Value", "") for each in request._get_param("Tags", []) or []}


_moto_lists, _moto_adds = ElastiCacheResponse.list_tags_for_resource, ElastiCacheResponse.add_tags_to_resource


@answered
def list_tags_for_resource(self: Any) -> Any:
    name = self._get_param("ResourceName")
    if name not in tags:
        return _moto_lists(self)
    return ActionResult({"TagList": [{"Key": key, "Value": value} for key, value in tags[name].items()]})


@answered
def add_tags_to_resource(self: Any) -> Any:
    name = self._get_param("ResourceName")
    if name not in tags:
        return _moto_adds(self)
    tags[name] |= {each["Key"]: each.get("Value", "") for each in self._get_param("Tags", [])}
    return EmptyResult()


# ---- parameter groups


@answered
def create_cache_parameter_group(self: Any) -> ActionResult:
    name = self._get_param("CacheParameterGroupName")
    thing = given(self, "CacheParameterGroupName", "CacheParameterGroupFamily", "Description")
    parameter_groups[name] = thing | {"ARN": arn("elasticache", f"parametergroup:{name}"), "IsGlobal": False}
    parameters[name] = {}
    tag(parameter_groups[name]["ARN"], self)
    return ActionResult({"CacheParameterGroup": parameter_groups[name]})


@answered
def modify_cache_parameter_group(self: Any) -> ActionResult:
    name = self._get_param("CacheParameterGroupName")
    found(parameter_groups, name, "CacheParameterGroupNotFound")
    for each in self._get_param("ParameterNameValues", []):
        parameters[name][each["ParameterName"]] = each["ParameterValue"]
    return ActionResult({"CacheParameterGroupName": name})


@answered
def describe_cache_parameter_groups(self: Any) -> ActionResult:
    name = self._get_param("CacheParameterGroupName")
    return ActionResult({"CacheParameterGroups": described(parameter_groups, name, "CacheParameterGroupNotFound")})


@answered
def describe_cache_parameters(self: Any) -> ActionResult:
    name = self._get_param("CacheParameterGroupName")
    found(parameter_groups, name, "CacheParameterGroupNotFound")
    return ActionResult(
        {
            "Parameters": [
                {"ParameterName": key, "ParameterValue": value, "Source": "user"}
                for key, value in parameters[name].items()
            ]
        }
    )


@answered
def delete_cache_parameter_group(self: Any) -> EmptyResult:
    name = self._get_param("CacheParameterGroupName")
    found(parameter_groups, name, "CacheParameterGroupNotFound")
    del parameter_groups[name]
    return EmptyResult()


# ---- subnet groups, which moto makes and does not delete


@answered
def delete_cache_subnet_group(self: Any) -> EmptyResult:
    self.elasticache_backend.cache_subnet_groups.pop(self._get_param("CacheSubnetGroupName"), None)
    return EmptyResult()


# ---- who may log in


@answered
def create_user(self: Any) -> ActionResult:
    name = self._get_param("UserId")
    mode = self._get_param("AuthenticationMode") or {"Type": "no-password-required"}
    users[name] = given(self, "UserId", "UserName", "Engine", "AccessString") | {
        "ARN": arn("elasticache", f"user:{name}"),
        "Status": "active",
        "MinimumEngineVersion": "7.0",
        "UserGroupIds": [],
        # What the API says of the kind is not what it is asked: `no-password-required` is told as `no-password`.
        "Authentication": {"Type": mode["Type"].removesuffix("-required"), "PasswordCount": 0},
    }
    tag(users[name]["ARN"], self)
    return ActionResult(users[name])


@answered
def describe_users(self: Any) -> ActionResult:
    return ActionResult({"Users": described(users, self._get_param("UserId"), "UserNotFound")})


@answered
def delete_user(self: Any) -> ActionResult:
    user = found(users, self._get_param("UserId"), "UserNotFound")
    del users[user["UserId"]]
    return ActionResult(user | {"Status": "deleting"})


@answered
def create_user_group(self: Any) -> ActionResult:
    name = self._get_param("UserGroupId")
    members = self._get_param("UserIds", [])
    for member in members:
        found(users, member, "UserNotFound")["UserGroupIds"].append(name)
    user_groups[name] = given(self, "UserGroupId", "Engine") | {
        "ARN": arn("elasticache", f"usergroup:{name}"),
        "Status": "active",
        "UserIds": members,
        "MinimumEngineVersion": "7.0",
        "ReplicationGroups": [],
    }
    tag(user_groups[name]["ARN"], self)
    return ActionResult(user_groups[name])


@answered
def describe_user_groups(self: Any) -> ActionResult:
    return ActionResult({"UserGroups": described(user_groups, self._get_param("UserGroupId"), "UserGroupNotFound")})


@answered
def delete_user_group(self: Any) -> ActionResult:
    group = found(user_groups, self._get_param("UserGroupId"), "UserGroupNotFound")
    del user_groups[group["UserGroupId"]]
    return ActionResult(group | {"Status": "deleting"})


# ---- replication groups and their nodes

# What the API answers under the name that it was asked with.
KEPT = (
    "ReplicationGroupId",
    "CacheNodeType",
    "Engine",
    "KmsKeyId",
    "UserGroupIds",
    "AutoMinorVersionUpgrade",
    "SnapshotRetentionLimit",
    "SnapshotWindow",
    "TransitEncryptionEnabled",
    "TransitEncryptionMode",
    "AtRestEncryptionEnabled",
)
# What it answers of each node, and not of the group.
OF_NODES = (
    "CacheNodeType",
    "Engine",
    "CacheSubnetGroupName",
    "PreferredMaintenanceWindow",
    "AutoMinorVersionUpgrade",
    "SnapshotRetentionLimit",
    "SnapshotWindow",
    "TransitEncryptionEnabled",
    "TransitEncryptionMode",
    "AtRestEncryptionEnabled",
)
asked: dict[str, Thing] = {}


@answered
def create_replication_group(self: Any) -> ActionResult:
    params = self._get_params()
    name = params["ReplicationGroupId"]
    asked[name] = params
    replication_groups[name] = _group(params)
    tag(replication_groups[name]["ARN"], self)
    return ActionResult({"ReplicationGroup": replication_groups[name]})


@answered
def modify_replication_group(self: Any) -> ActionResult:
    params = self._get_params()
    name = params["ReplicationGroupId"]
    found(replication_groups, name, "ReplicationGroupNotFoundFault")
    asked[name] |= params
    replication_groups[name] = _group(asked[name])
    return ActionResult({"ReplicationGroup": replication_groups[name]})


@answered
def describe_replication_groups(self: Any) -> ActionResult:
    name = self._get_param("ReplicationGroupId")
    return ActionResult({"ReplicationGroups": described(replication_groups, name, "ReplicationGroupNotFoundFault")})


@answered
def delete_replication_group(self: Any) -> ActionResult:
    group = found(replication_groups, self._get_param("ReplicationGroupId"), "ReplicationGroupNotFoundFault")
    del replication_groups[group["ReplicationGroupId"]]
    return ActionResult({"ReplicationGroup": group | {"Status": "deleting"}})


@answered
def describe_cache_clusters(self: Any) -> ActionResult:
    """The nodes of replication groups: there are no others."""
    nodes = {each["CacheClusterId"]: each for group in replication_groups for each in _nodes(asked[group])}
    return ActionResult({"CacheClusters": described(nodes, self._get_param("CacheClusterId"), "CacheClusterNotFound")})


def _group(params: Thing) -> Thing:
    name = params["ReplicationGroupId"]
    members = list(_members(params))
    host = f"{name}.abcdef.use1.cache.amazonaws.com"
    return {key: params[key] for key in KEPT if key in params} | {
        "ARN": arn("elasticache", f"replicationgroup:{name}"),
        "Description": params["ReplicationGroupDescription"],
        "Status": "available",
        "AutomaticFailover": "enabled" if params["AutomaticFailoverEnabled"] else "disabled",
        "MultiAZ": "enabled" if params["MultiAZEnabled"] else "disabled",
        "AuthTokenEnabled": "AuthToken" in params,
        "ClusterEnabled": True,
        "ClusterMode": "enabled",
        "NetworkType": "ipv4",
        "IpDiscovery": "ipv4",
        "DataTiering": "disabled",
        "ConfigurationEndpoint": {"Address": f"clustercfg.{host}", "Port": params["Port"]},
        "MemberClusters": [member for _, member in members],
        "NodeGroups": [_node_group(shard, members) for shard in sorted({shard for shard, _ in members})],
        "LogDeliveryConfigurations": [
            {key: value for key, value in each.items() if key != "Enabled"} | {"Status": "active"}
            for each in params.get("LogDeliveryConfigurations", [])
        ],
    }


def _members(params: Thing) -> Iterator[tuple[str, str]]:
    """Of each node its shard and its name."""
    for shard in range(1, int(params["NumNodeGroups"]) + 1):
        for node in range(1, int(params["ReplicasPerNodeGroup"]) + 2):
            yield f"{shard:04}", f"{params['ReplicationGroupId']}-{shard:04}-{node:03}"


def _node_group(shard: str, members: list[tuple[str, str]]) -> Thing:
    nodes = [member for each, member in members if each == shard]
    return {
        "NodeGroupId": shard,
        "Status": "available",
        "Slots": "0-16383",
        "NodeGroupMembers": [{"CacheClusterId": node, "CacheNodeId": "0001"} for node in nodes],
    }


def _nodes(params: Thing) -> Iterator[Thing]:
    version = params["EngineVersion"]
    for _, member in _members(params):
        yield {key: params[key] for key in OF_NODES if key in params} | {
            "CacheClusterId": member,
            "ARN": arn("elasticache", f"cluster:{member}"),
            "ReplicationGroupId": params["ReplicationGroupId"],
            "CacheClusterStatus": "available",
            "NumCacheNodes": 1,
            # Asked for `8.0`, the API tells the patch as well.
            "EngineVersion": version if version.count(".") > 1 else f"{version}.0",
            "CacheParameterGroup": {
                "CacheParameterGroupName": params["CacheParameterGroupName"],
                "ParameterApplyStatus": "in-sync",
            },
            "SecurityGroups": [
                {"SecurityGroupId": each, "Status": "active"} for each in params.get("SecurityGroupIds", [])
            ],
        }
