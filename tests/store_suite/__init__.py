"""What every store must do: the same suite runs on Postgres and on `store.memory`."""

from store_suite.accounts import AccountSuite
from store_suite.api_keys import ApiKeySuite
from store_suite.certificates import CertificateSuite
from store_suite.changes import ChangeSuite
from store_suite.deliveries import DeliverySuite
from store_suite.domains import DomainSuite
from store_suite.lanes import LaneSuite
from store_suite.ledger import LedgerSuite
from store_suite.limits import LimitSuite
from store_suite.lookup import LookupSuite
from store_suite.once import OnceSuite
from store_suite.outcomes import OutcomeSuite
from store_suite.reroute import RerouteSuite
from store_suite.retention import RetentionSuite
from store_suite.rows import CREDENTIAL, LEASE, SWEEP_AFTER, TENANT, Stores, attempt_for, core_envelope, ids_of
from store_suite.webhooks import WebhookSuite

__all__ = [
    "CREDENTIAL",
    "LEASE",
    "SWEEP_AFTER",
    "TENANT",
    "StoreSuite",
    "Stores",
    "attempt_for",
    "core_envelope",
    "ids_of",
]


class StoreSuite(
    DeliverySuite,
    ChangeSuite,
    LedgerSuite,
    OutcomeSuite,
    LimitSuite,
    AccountSuite,
    ApiKeySuite,
    DomainSuite,
    CertificateSuite,
    WebhookSuite,
    RetentionSuite,
    LookupSuite,
    OnceSuite,
    LaneSuite,
    RerouteSuite,
):
    """All of it."""
