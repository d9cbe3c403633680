"""Random PINs for the demo's people, set through the same command that a site's administrator uses."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path

from .children import ask
from .config import DemoPerson


def new_pins(people: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """A PIN of six digits for each person; who has one keeps it."""
    return {person: known.get(person) or f"{secrets.randbelow(1_000_000):06d}" for person in people}


async def set_pins(
    program: tuple[str, ...],
    data: Path,
    people: Iterable[DemoPerson],
    pins: Mapping[str, str],
    already: dict[str, dict[str, str]],
) -> None:
    """Set each person's PIN in `data`/edge/secrets.db and `data`/cloud/secrets.db, two at a time.

    Args:
        already: per server the PINs that its secrets.db is known to hold; brought up to date.

    Raises:
        PermanentError: the command failed.
    """
    two_at_a_time = asyncio.Semaphore(2)

    async def set_one(server: str, person: str) -> None:
        file = data / server / "secrets.db"
        async with two_at_a_time:
            command = (*program, "pin", "set", person, "--secrets", str(file), "--pin-stdin")
            await ask(command, given=pins[person] + "\n")
        already.setdefault(server, {})[person] = pins[person]

    for server in ("edge", "cloud"):
        if not (data / server / "secrets.db").exists():
            already[server] = {}
    wanted = [(server, person.id) for person in people for server in person.servers]
    missing = [(server, person) for server, person in wanted if already.get(server, {}).get(person) != pins[person]]
    try:
        async with asyncio.TaskGroup() as group:
            for server, person in missing:
                group.create_task(set_one(server, person), name=f"pin-{server}-{person}")
    except* Exception as errors:
        first = errors.exceptions[0]
        raise first from errors
