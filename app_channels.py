"""Which channels the settings turn on, and their parts. A channel's libraries are loaded only where it is on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

from channels import Channel, Leases, Surroundings
from channels.settings import Switched
from settings import Settings

#: channel -> the module with its `channel(settings, surroundings)`
MODULES = {
    "sms": "channels.sms",
    "phone": "channels.phone",
    "telegram": "channels.telegram",
    "messenger": "channels.messenger",
    "instagram": "channels.instagram",
    "whatsapp": "channels.whatsapp",
    "wechat": "channels.wechat",
}


def turned_on(settings: Settings) -> Iterator[tuple[str, Switched]]:
    for name in MODULES:
        given: Switched = getattr(settings, name)
        if given.enabled:
            yield name, given
    for name, source in settings.webhooks.items():
        if source.enabled:
            yield name, source


def channels(settings: Settings, leases: Leases) -> list[Channel]:
    """The channels that are on. Raises `SettingsError`."""
    around = Surroundings(settings.public_url, leases)
    made = []
    for name, given in turned_on(settings):
        make: Callable[[str, Any, Surroundings], Channel] = import_module(MODULES.get(name, "channels.webhook")).channel
        made.append(make(name, given, around))
    return made
