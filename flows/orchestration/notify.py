"""Prefect automations that tell people of a run that failed or crashed, with the run's own message.

The address of a webhook is a secret: it goes into a block of Prefect's, which keeps it encrypted, and nowhere else.
"""

import os
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SendgridEmail, SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from pydantic import SecretStr

from flows.orchestration.deploy import TAG, Change
from pcd.errors import PCDError, unknown_name

__all__ = ["Channel", "bring_notification", "parse_channel"]

_KINDS: Final = ("webhook", "slack", "email")
_FROM_ENVIRONMENT: Final = "env:"
_SENDGRID_KEY: Final = "SENDGRID_API_KEY"

_SUBJECT: Final = "{{ flow_run.name }}: {{ flow_run.state.name }}"
_BODY: Final = """\
{{ flow_run.state.message }}

flow {{ flow.name }}, run {{ flow_run.name }}
{{ flow_run|ui_url or '' }}"""


@dataclass(frozen=True, slots=True)
class Channel:
    kind: Literal["webhook", "slack", "email"]
    target: str = field(repr=False)
    """The address, which is secret; for email FROM,TO[,TO…]."""

    @property
    def block_name(self) -> str:
        return f"pcd-{self.kind}"


def parse_channel(text: str) -> Channel:
    """From KIND=TARGET, or KIND=env:NAME for a target that stands in the environment variable NAME.

    Raises PCDError, which never repeats the target.
    """
    kind, equals, target = text.partition("=")
    if kind not in _KINDS:
        raise unknown_name("kind of notification", kind if equals else "", _KINDS)
    if target.startswith(_FROM_ENVIRONMENT):
        name = target.removeprefix(_FROM_ENVIRONMENT)
        target = os.environ.get(name, "")
        if not target:
            raise PCDError(f"--notify {kind}: the environment variable {name} is not set")
    if kind == "email":
        if "," not in target:
            raise PCDError("--notify email takes FROM,TO, such as email=pcd@example.org,me@example.org")
        if not os.environ.get(_SENDGRID_KEY):
            raise PCDError(
                f"--notify email sends through SendGrid, Prefect's own way; put its key into ${_SENDGRID_KEY}"
            )
    elif not target.startswith(("https://", "http://")):
        raise PCDError(f"--notify {kind} takes the address of a webhook, https://…, or env:NAME of a variable with it")
    return Channel(kind, target)  # type: ignore[arg-type]  # one of _KINDS


def bring_notification(client: SyncPrefectClient, channel: Channel, *, dry_run: bool) -> Change:
    """An automation for all runs of our deployments that end as Failed or Crashed, and the block it sends through."""
    name = f"pcd: tell of failed runs by {channel.kind}"
    block, found = _block(channel), client.read_automations_by_name(name)
    kept = _kept_block(channel)
    if found and kept is not None and _values(kept) == _values(block):
        wanted = _automation(name, kept._block_document_id)
        if all(getattr(found[0], part) == getattr(wanted, part) for part in ("trigger", "actions", "description")):
            return Change("notification", name, "unchanged", f"block {channel.block_name}")
    if not dry_run:
        block_id = block.save(channel.block_name, overwrite=True)
        automation = _automation(name, block_id)
        if found:
            client.update_automation(found[0].id, automation)
        else:
            client.create_automation(automation)
    return Change("notification", name, "updated" if found else "created", f"block {channel.block_name}")


def _block(channel: Channel) -> NotificationBlock:
    match channel.kind:
        case "webhook":  # its field `url` is shown in Prefect's pages, its `secrets` are not
            return CustomWebhookNotificationBlock(
                name=channel.block_name,
                url="{{url}}",
                json_data={"subject": "{{subject}}", "text": "{{body}}"},
                secrets={"url": channel.target},
            )
        case "slack":
            return SlackWebhook(url=SecretStr(channel.target))
        case "email":
            sender, *recipients = channel.target.split(",")
            return SendgridEmail(
                api_key=SecretStr(os.environ[_SENDGRID_KEY]), sender_email=sender, to_emails=recipients
            )


def _kept_block(channel: Channel) -> NotificationBlock | None:
    try:
        block = type(_block(channel)).load(channel.block_name)
    except ValueError:  # there is none
        return None
    assert isinstance(block, NotificationBlock)  # not a coroutine: we are not in an event loop
    return block


def _values(block: NotificationBlock) -> dict[str, Any]:
    """What the block was made of, its secrets in clear: to be compared, and not to be shown."""
    return {name: _clear(getattr(block, name)) for name in type(block).model_fields}


def _clear(value: Any) -> Any:
    return value.get_secret_value() if hasattr(value, "get_secret_value") else value


def _automation(name: str, block_id: Any) -> AutomationCore:
    return AutomationCore(
        name=name,
        description="Made by `pcd deploy --notify`: sends a run's message when it has failed or crashed.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=block_id, subject=_SUBJECT, body=_BODY)],
    )
