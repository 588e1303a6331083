"""Tells people that a certificate can not be had, or ends and nobody renews it.

In the log always, by SNS and by a webhook where they are set. An alert that can not be sent is logged, and nothing
else: the next attempt matters more.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

import aiohttp

from smtp_proxy.config import Settings

log = logging.getLogger(__name__)
_POST_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Alert:
    """What is told; never a key."""

    certificate: str
    names: tuple[str, ...]
    reason: str
    failed_attempts: int  # 0: none was made, since nobody declares it
    next_try_at: datetime | None
    expires_at: datetime | None  # None: nothing serves

    def text(self) -> str:
        """For people."""
        hosts = ", ".join(self.names)
        if not self.failed_attempts:
            return (
                f"certificate {self.certificate} ({', '.join(self.names)}) ends {self.expires_at:%F %R}Z: {self.reason}"
            )
        serving = "nothing serves" if self.expires_at is None else f"the old one serves until {self.expires_at:%F %R}Z"
        again = "" if self.next_try_at is None else f"; next try {self.next_try_at:%F %R}Z"
        return (
            f"certificate {self.certificate} ({hosts}) can not be had: {self.reason}; "
            f"failed {self.failed_attempts} times, {serving}{again}"
        )

    def fields(self) -> dict[str, Any]:
        """For programs; times in RFC 3339."""
        values = {"event": "certificate_failed" if self.failed_attempts else "certificate_ends", **asdict(self)}
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in values.items()}


class Alerter:
    """Where alerts go. `sns`: a boto3 client, for tests."""

    def __init__(self, settings: Settings, sns: Any = None) -> None:
        self._topic = settings.cert_alert_sns_topic
        self._webhook = settings.cert_alert_webhook
        self._sns = sns

    async def tell(self, alert: Alert) -> None:
        """Never raises."""
        log.error(alert.text(), extra={"action": "certificate_alert", **_logged(alert)})
        for name, sending in (("SNS", self._publish), ("the webhook", self._post)):
            try:
                await sending(alert)
            except Exception as error:  # whatever AWS, the network or the endpoint does
                log.warning(
                    "an alert did not reach %s: %s", name, type(error).__name__, extra={"action": "alert_failed"}
                )

    async def _publish(self, alert: Alert) -> None:
        if self._topic:
            await asyncio.to_thread(self._publish_now, alert)

    def _publish_now(self, alert: Alert) -> None:
        if self._sns is None:
            import boto3  # noqa: PLC0415 - slow to load, and for SNS alone

            self._sns = boto3.client("sns", region_name=self._topic.split(":")[3])
        subject = f"smtp-proxy: certificate {alert.certificate}"[:100]
        self._sns.publish(TopicArn=self._topic, Subject=subject, Message=alert.text())

    async def _post(self, alert: Alert) -> None:
        if self._webhook:
            timeout = aiohttp.ClientTimeout(total=_POST_SECONDS)
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._webhook, data=json.dumps(alert.fields()), headers=_JSON) as response,
            ):
                response.raise_for_status()


_JSON: Final = {"Content-Type": "application/json"}


def _logged(alert: Alert) -> dict[str, Any]:
    return {"certificate": alert.certificate, "failed_attempts": alert.failed_attempts}
