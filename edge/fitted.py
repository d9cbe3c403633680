"""The profile of a [[device]] as the site has it set up: variant, gas, unit, choice of points, currents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from ..sensors.fitting import Channel, Problem, Setting, fit
from ..sensors.profiles import Profile
from .config import Document, Part, split_channels
from .models import DeviceChannelTable, DeviceTable


def fit_device(document: Document, device: Part) -> tuple[Profile, tuple[Problem, ...]]:
    """The profile of a device whose `profile` is in the catalogue, and what of its other keys does not fit it.

    A key that is broken in shape counts as not given.
    """
    entry: DeviceTable = device.entry
    channels = ((part.index, part.entry) for part in split_channels(device))
    return fit(document.catalogue[entry.profile], setting_of(entry, channels))


def setting_of(entry: DeviceTable, channels: Iterable[tuple[int, DeviceChannelTable]]) -> Setting:
    """What a `[[device]]` says beyond its profile. Args: channels: its `[[device.channel]]` tables by index."""
    return Setting(
        variant=entry.variant or "",
        gas=entry.gas or "",
        unit=entry.unit or "",
        only=tuple(entry.only) if entry.only else None,
        channels=tuple(_channels(channels)),
    )


def knows_its_points(document: Document, device: Part) -> bool:
    """Whether the device has the points that its author means, as far as its keys beyond the profile go."""
    if device.entry.profile not in document.catalogue:
        return False
    profile, problems = fit_device(document, device)
    missing = profile.takes_channels and not device.raw.get("channel")
    return not problems and not missing and device.broken.isdisjoint(("variant", "only", "channel"))


def _channels(channels: Iterable[tuple[int, DeviceChannelTable]]) -> Iterator[Channel]:
    for index, entry in channels:
        if None in (entry.input, entry.name, entry.quantity, entry.low, entry.high):
            continue
        yield Channel(
            index=index,
            register=entry.input,
            name=entry.name,
            name_zh=entry.label or "",
            name_en=entry.label_en or "",
            unit=entry.unit or "",
            quantity=entry.quantity,
            decimals=entry.decimals or 0,
            low=Decimal(repr(entry.low)),
            high=Decimal(repr(entry.high)),
        )
