"""Budgets: who is told, and the tags."""

from __future__ import annotations

import json
from typing import Any

from local_aws.answers import answers
from moto.budgets.responses import BudgetsResponse

answered = answers(BudgetsResponse)
tags: dict[str, list[dict[str, str]]] = {}


def _budget(self: Any) -> Any:
    self.backend.describe_budget(self._get_param("AccountId"), self._get_param("BudgetName"))  # or it says: not there
    return self.backend.budgets[self._get_param("AccountId")][self._get_param("BudgetName")]


@answered
def describe_subscribers_for_notification(self: Any) -> str:
    wanted = self._get_param("Notification")
    told = [each.subscribers for each in _budget(self).notifications if _same(each.details, wanted)]
    return json.dumps({"Subscribers": told[0] if told else []})


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    keys = ("NotificationType", "ComparisonOperator", "Threshold", "ThresholdType")
    return all(one.get(key) == other.get(key) for key in keys)


@answered
def update_budget(self: Any) -> str:
    new = self._get_param("NewBudget")
    self.backend.describe_budget(self._get_param("AccountId"), new["BudgetName"])
    self.backend.budgets[self._get_param("AccountId")][new["BudgetName"]].budget |= new
    return "{}"


_moto_creates = BudgetsResponse.create_budget


@answered
def create_budget(self: Any) -> str:
    name = self._get_param("Budget")["BudgetName"]
    tags[f"arn:aws:budgets::{self._get_param('AccountId')}:budget/{name}"] = self._get_param("ResourceTags") or []
    return _moto_creates(self)


@answered
def list_tags_for_resource(self: Any) -> str:
    return json.dumps({"ResourceTags": tags.get(self._get_param("ResourceARN"), [])})
