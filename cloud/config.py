"""cloud.toml to CloudConfig: every problem at once, each with its path, the value and what would be right."""

from __future__ import annotations

import functools
import ipaddress
import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import ConfigError, RefusedError
from ..serving.people import Person, load_people
from ..sync.baseline import read_baseline
from ..sync.keys import key_id, parse_public_key

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=80)]

_RIGHT = {
    "missing": "is required",
    "extra_forbidden": "is not a key of this table",
    "string_type": "must be text in quotes",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be lower-case letters, digits and _, beginning with a letter",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "model_type": "must be a table",
    "list_type": "must be a list of tables: write [[gateway]]",
    "finite_number": "must be a finite number",
    "literal_error": "must be one of those that docs/configuration.md lists",
}
_SHORTEST_BUCKET = 3
_UNSHOWN = ("missing", "extra_forbidden", "model_type", "list_type")


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class CloudTable(_Table):
    """[cloud]: this service.

    Attributes:
        public_url: address that gateways use when a proxy stands before this service; signatures cover it.
        people: people.csv of those who may sign in, relative to cloud.toml.
        secrets: PINs and sessions, relative to the data folder.
        baseline: baseline.toml, relative to cloud.toml: what every site must have at least; empty: nothing.
        late_s, silent_s: a gateway that was not heard of for so long is shown as late, as silent.
        metrics_networks: who may read `/metrics` beside this machine.
        metrics_token_file: relative to cloud.toml; its token opens `/metrics` from anywhere.
        connections: open at the same time; a gateway keeps two or three, a page one.
        checkers: processes that check signatures and contents once many gateways come at once; none given: one for each
            core but one, at most two.
        durable: what gateways may delete of what is kept in cloud.db. `committed`: what is on the disk with full sync;
            with that disk it is lost. `backup`: what a completed `sitewarden cloud backup` has.
    """

    name: Label
    name_en: Label
    host: Label = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8090
    public_url: str = ""
    people: Label = "people.csv"
    secrets: Label = "secrets.db"
    late_s: Annotated[float, Field(ge=20, le=86400)] = 60.0
    silent_s: Annotated[float, Field(ge=20, le=604800)] = 300.0
    baseline: str = ""
    connections: Annotated[int, Field(ge=50, le=50_000)] = 2_000
    checkers: Annotated[int, Field(ge=0, le=8)] | None = None
    durable: Literal["backup", "committed"] = "committed"
    metrics_networks: list[str] = Field(default_factory=list)
    metrics_token_file: str = ""

    @field_validator("metrics_networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(f"must be networks such as 192.168.1.0/24, {network!r} is none") from None
        return value

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment):
            raise ValueError("must be https://host[:port][/prefix], or empty")
        return value

    @model_validator(mode="after")
    def _late_before_silent(self) -> CloudTable:
        if self.silent_s < self.late_s:
            raise ValueError(f"silent_s must not be less than late_s (got {self.silent_s:g} and {self.late_s:g})")
        return self


class GatewayTable(_Table):
    """[[gateway]]: one gateway that may send.

    Attributes:
        public_key: as the gateway shows it; empty while it is expected but not enrolled, its requests are refused.
    """

    id: Name
    name: Label
    name_en: Label
    public_key: str = ""

    @field_validator("public_key")
    @classmethod
    def _is_key(cls, value: str) -> str:
        if value:
            parse_public_key(value)
        return value

    def keys(self) -> Mapping[str, Ed25519PublicKey]:
        """Key id to key, of those that are good now; empty while the gateway is not enrolled."""
        if not self.public_key:
            return {}
        name, key = _key_of(self.public_key)
        return {name: key}

    def ended(self) -> Mapping[str, Ed25519PublicKey]:
        """The same of keys that were good once: their holder is told so, and old checkpoints are read by them."""
        return {}

    def why_ended(self, kid: str) -> RefusedError:
        """What the holder of an ended key is told."""
        raise KeyError(kid)


@functools.lru_cache(maxsize=32_768)
def _key_of(text: str) -> tuple[str, Ed25519PublicKey]:
    """A key and its id: asked for with each request."""
    key = parse_public_key(text)
    return key_id(key), key


class BlobsTable(_Table):
    """[blobs]: where photos and other evidence of the gateways lie.

    Attributes:
        url: a folder, relative to the data folder, or `s3://bucket[/prefix]`.
        endpoint: address of the S3 service; empty: Amazon's.
        credentials_file: as `~/.aws/credentials`, relative to cloud.toml; empty: environment or the machine's role.
        max_mb: MiB of one blob. quota_gb: GiB of all blobs of one gateway.
    """

    url: Label = "blobs"
    endpoint: str = ""
    region: str = ""
    credentials_file: str = ""
    max_mb: Annotated[int, Field(ge=1, le=5000)] = 512
    quota_gb: Annotated[float, Field(gt=0, le=100000)] = 200.0

    @field_validator("url")
    @classmethod
    def _is_place(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme == "s3":
            if len(parts.hostname or "") < _SHORTEST_BUCKET or parts.query or parts.fragment or "@" in parts.netloc:
                raise ValueError("must be s3://bucket[/prefix]; a bucket's name has at least 3 characters")
        elif "://" in value:
            raise ValueError("must be a folder, or s3://bucket[/prefix]")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc):
            raise ValueError("must be https://host[:port], or empty")
        return value


class StoreTable(_Table):
    """[store]: the database; without this table a file in the data folder.

    Attributes:
        url: `postgresql://user@host:port/database`, or several `host:port,host:port`; without a password.
        password_file: relative to cloud.toml.
        durable: `committed`: what the server has committed, unless it has synchronous standbys; `standby`: only ever
            what a synchronous standby has.
    """

    url: str
    password_file: str = ""
    durable: Literal["committed", "standby"] = "committed"

    @field_validator("url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("postgresql", "postgres") or not parts.path.strip("/"):
            raise ValueError("must be postgresql://user@host:port/database")
        if parts.password:
            raise ValueError("must hold no password: write it into password_file")
        return value


class CloudConfig(_Table):
    """cloud.toml as a whole. `people` is read from the file that it names; `folder` is where cloud.toml lies."""

    cloud: CloudTable
    blobs: BlobsTable = Field(default_factory=BlobsTable)
    folder: Path = Field(default=Path(), exclude=True)
    gateway: tuple[GatewayTable, ...] = ()
    people: Mapping[str, Person] = Field(default_factory=dict, exclude=True)
    baseline: Path | None = Field(default=None, exclude=True)
    store: StoreTable | None = None
    store_password: str = Field(default="", exclude=True, repr=False)
    metrics_token: str = Field(default="", exclude=True, repr=False)

    def find(self, gateway: str) -> GatewayTable | None:
        """The gateway of this id; what was approved here goes before what the file says."""
        return self._known.get(gateway)

    def in_file(self, gateway: str) -> GatewayTable | None:
        """What cloud.toml alone says of a gateway."""
        return self._by_id.get(gateway)

    @property
    def gateways(self) -> Sequence[GatewayTable]:
        """All that are known: those of the file in its order, then those that were only approved, by id."""
        known = self._known
        listed = [known[entry.id] for entry in self.gateway]
        return [*listed, *(known[name] for name in sorted(known.keys() - self._by_id.keys()))]

    def use(self, enrolled: Mapping[str, GatewayTable]) -> None:
        """What headquarters' database says of keys is `enrolled` from now on; see `enrolled.Register`."""
        known = self._known
        known.clear()
        known.update(self._by_id, **enrolled)

    @cached_property
    def _by_id(self) -> Mapping[str, GatewayTable]:
        return {entry.id: entry for entry in self.gateway}

    @cached_property
    def _known(self) -> dict[str, GatewayTable]:
        """By id. No private attribute: reading one takes as long as a statement of SQLite, and every request asks."""
        return dict(self._by_id)


class _File(_Table):
    """What may stand in the file."""

    cloud: CloudTable
    blobs: BlobsTable = Field(default_factory=BlobsTable)
    gateway: list[GatewayTable] = Field(default_factory=list)
    store: StoreTable | None = None


def store_table(url: str) -> StoreTable:
    """A [store] with this address. Raises ConfigError."""
    try:
        return StoreTable(url=url)
    except ValidationError as error:
        raise ConfigError("--to", [_problem(dict(detail)) for detail in error.errors()]) from error


def load_cloud_config(path: Path) -> CloudConfig:
    """Read cloud.toml and the people.csv that it names; touches nothing else.

    Raises:
        ConfigError: with every problem.
    """
    raw = _read(path)
    problems: list[str] = []
    file: _File | None = None
    try:
        file = _File.model_validate(raw)
    except ValidationError as error:
        problems += [_problem(dict(detail)) for detail in error.errors()]
    problems += _repeats(raw)
    people = _people(path, raw, problems)
    problems += _baseline_problems(path, file)
    store, cloud = (file.store, file.cloud) if file is not None else (None, None)
    password = _secret(path, "store.password_file", store.password_file if store else "", problems)
    token = _secret(path, "cloud.metrics_token_file", cloud.metrics_token_file if cloud else "", problems)
    if problems or file is None:
        raise ConfigError(str(path), problems)
    baseline = path.parent / file.cloud.baseline if file.cloud.baseline else None
    return CloudConfig(
        cloud=file.cloud,
        blobs=file.blobs,
        folder=path.parent,
        gateway=tuple(file.gateway),
        people=people,
        baseline=baseline,
        store=file.store,
        store_password=password,
        metrics_token=token,
    )


def _secret(path: Path, key: str, name: str, problems: list[str]) -> str:
    if not name:
        return ""
    try:
        return (path.parent / name).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        problems.append(f"{key}: {name}: cannot be read: {what}")
        return ""


def _baseline_problems(path: Path, file: _File | None) -> list[str]:
    if file is None or not file.cloud.baseline:
        return []
    try:
        read_baseline(path.parent / file.cloud.baseline)
    except ConfigError as error:
        return [f"cloud.baseline: {file.cloud.baseline}: {problem}" for problem in error.problems]
    return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise ConfigError(str(path), ["file is missing: copy config/cloud.toml and edit it"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"byte {error.start}: must be UTF-8 text; save the file as UTF-8"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error


def _problem(detail: Mapping[str, Any]) -> str:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "value_error":
        right = str(context["error"])
    elif kind in ("greater_than_equal", "less_than_equal"):
        word, bound = ("at least", context.get("ge")) if "ge" in context else ("at most", context.get("le"))
        right = f"must be {word} {bound:g}"
    elif kind == "string_too_long":
        right = f"must be at most {context['max_length']} characters"
    else:
        right = _RIGHT.get(kind, detail["msg"])
    is_secret = detail["loc"][:1] == ("store",)  # an address may hold a password
    shown = not is_secret and not isinstance(detail["input"], (dict, list)) and kind not in _UNSHOWN
    return f"{path}: {right} {_got(detail['input'])}" if shown else f"{path}: {right}"


def _got(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value).replace("True", "true").replace("False", "false")
    return f"(got {text if len(text) <= 60 else text[:57] + '...'})"


def _repeats(raw: Mapping[str, Any]) -> list[str]:
    entries = raw.get("gateway", [])
    seen: dict[tuple[str, str], int] = {}
    problems = []
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        for key in ("id", "public_key"):
            value = entry.get(key) if isinstance(entry, dict) else None
            if isinstance(value, str) and value and (first := seen.setdefault((key, value), index)) != index:
                problems.append(f"gateway[{index}].{key}: must be its own, gateway[{first}] has it too {_got(value)}")
    return problems


def _people(path: Path, raw: Mapping[str, Any], problems: list[str]) -> dict[str, Person]:
    cloud = raw.get("cloud")
    name = cloud.get("people", "people.csv") if isinstance(cloud, dict) else None
    if not isinstance(name, str) or not name:
        return {}
    try:
        return load_people(path.parent / name)
    except ConfigError as error:
        problems += [f"cloud.people: {name}: {problem}" for problem in error.problems]
        return {}
