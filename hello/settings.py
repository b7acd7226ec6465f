"""The settings of a process, with their units, defaults and limits. It starts nothing.

Every setting is an environment variable (`HELLO_INTERVAL_MIN`) and a flag of the same name (`--interval-min`); a flag
overrides the variable. Each mistake is reported in one line, and all mistakes together.
"""

import argparse
import difflib
import importlib
import inspect
import os
import pkgutil
import re
import socket
import ssl
import traceback
import unicodedata
from collections.abc import Callable, Container, Coroutine, Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, cast, get_args

from pydantic import Field, IPvAnyNetwork, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from hello.channel.address import FORMS, Access, parse, scheme_of
from hello.channel.urls import DEFAULT_STREAM
from hello.own_code import is_own

PREFIX = "HELLO_"
ActorName = Literal["broadcaster", "relay"]  # each has its row in `system.run`, and nothing else names them all
ACTORS: tuple[ActorName, ...] = get_args(ActorName)
MAX_HISTORY = 1_000_000  # entries; some 2 GB in each relay
MAX_STREAM = 128  # characters of its name: a namespace and a release of Kubernetes have 63 at most, each
MAX_CLIENTS = 1_000_000  # more than one process can hold file descriptors for
MAX_SECONDS = 86_400.0  # a day between two messages, or for a drain, is a mistyped number

# Kubernetes sets variables with these names in every pod of a namespace that has a Service named hello.
_SERVICE_LINK = re.compile(r"HELLO_(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_FORBIDDEN = {"Cc", "Cs", "Zl", "Zp"}  # Unicode's control characters, lone surrogates, line and paragraph ends
_INVISIBLE = {"Zs", "Cf", "Mn", "Me"}  # spaces, characters that format others, and marks on others
_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and a symbol, but drawn as nothing
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_FIELD = re.compile(r"\{(\w+)\}")
_STREAM = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_STREAM}}}")  # braces mark the part of a key that Redis Cluster hashes
_HOST = r"([a-z0-9._-]+|\[[0-9a-f:.]+\])"
_ORIGIN = re.compile(rf"https?://{_HOST}(:[0-9]{{1,5}})?")


class ConfigError(ValueError):
    """The configuration is wrong; each of its `lines` names one setting, and says what it should be."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = tuple(lines)


def _seconds(description: str, default: float, *, ge: float | None = None, gt: float | None = None) -> Any:
    return Field(default, description=f"seconds; {description}", allow_inf_nan=False, ge=ge, gt=gt, le=MAX_SECONDS)


class Settings(BaseSettings):
    """The configuration of one process, each setting valid by itself; `load` checks that they fit together."""

    # Without decoding, since lists are comma separated, not JSON.
    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="forbid", frozen=True, enable_decoding=False)

    actors: tuple[ActorName, ...] = Field(ACTORS, description="the actors that this process runs, comma separated")
    channel: str = Field("memory://", description=f"the channel: memory:// (within this process), {FORMS}")
    channel_password: SecretStr = Field(
        SecretStr(""), description="password for Redis; never logged, but visible in `ps` as a flag: give the variable"
    )
    channel_password_file: str = Field("", description="a file with it instead; read again at each connection")
    channel_ca: str = Field("", description="a file in PEM format: authorities to trust beside the system's, for TLS")
    channel_cert: str = Field("", description="a file in PEM format: the certificate of this client, for TLS")
    channel_key: str = Field("", description="a file in PEM format: its key, if that file does not have it too")
    replicas_ack: int = Field(0, description="replicas that must have a message before it is published", ge=0, le=9)
    stream: str = Field(DEFAULT_STREAM, description="the stream in Redis, with its keys: one for each deployment")
    text: str = Field("Hello world", description="the text of the messages, 1 to 4096 characters", max_length=4096)
    broadcaster: str = Field(
        "hello.broadcaster:broadcaster", description="the function that publishes, MODULE:FUNCTION; yours in its place"
    )
    interval_min: float = _seconds("shortest pause between two messages", 1, gt=0)
    interval_max: float = _seconds("longest pause; each is drawn uniformly between the two", 10, gt=0)
    history: int = Field(10_000, description="entries that the channel and each relay keep", ge=1, le=MAX_HISTORY)
    host: str = Field("127.0.0.1", description="address of the public server (page and streams)", min_length=1)
    port: int = Field(8000, description="its port; 0 takes a free one", ge=0, le=65535)
    ops_host: str = Field("127.0.0.1", description="address of the ops server", min_length=1)
    ops_port: int = Field(8001, description="its port (/livez, /readyz, /metrics); 0 takes a free one", ge=0, le=65535)
    allowed_origins: tuple[str, ...] = Field((), description="origins of other pages that may open the streams (a,b,…)")
    allowed_hosts: tuple[str, ...] = Field((), description="hosts to answer for, without ports (a,b,…); if empty, any")
    trusted_proxies: tuple[IPvAnyNetwork, ...] = Field(
        (), description="addresses and networks of proxies whose X-Forwarded-For names clients in the log (a,b,…)"
    )
    max_clients: int = Field(10_000, description="clients at a time; one more gets 503", ge=1, le=MAX_CLIENTS)
    drain_delay: float = _seconds(
        "after a signal, over how long the process is not ready, but serves as before", 0, ge=0
    )
    drain_seconds: float = _seconds("over how long clients are closed when the process stops", 10, ge=0)
    log_format: Literal["text", "json"] | None = Field(None, description="text or json; if unset, text on a terminal")
    instance: str = Field(default_factory=socket.gethostname, description="the name of this process", max_length=253)

    @field_validator("actors", "allowed_origins", "allowed_hosts", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(item.strip() for item in value.split(",") if item.strip()) if isinstance(value, str) else value

    @field_validator("actors")
    @classmethod
    def _each_once(cls, actors: tuple[ActorName, ...]) -> tuple[ActorName, ...]:
        if not actors or len(set(actors)) < len(actors):
            raise ValueError(f"give one or more of {', '.join(ACTORS)}, each once")
        return actors

    @field_validator("broadcaster")
    @classmethod
    def _actor_function(cls, name: str) -> str:
        if not _FUNCTION.fullmatch(name):
            raise ValueError("give MODULE:FUNCTION, such as clock:clock")
        module_name, function_name = name.split(":")
        module = vars(_import(module_name))
        actors = ", ".join(each for each, value in module.items() if inspect.iscoroutinefunction(value)) or "none"
        if function_name not in module:
            raise ValueError(
                f"module {module_name!r} has no attribute {function_name!r}; its async functions: {actors}"
            )
        if not inspect.iscoroutinefunction(module[function_name]):
            raise ValueError(f"an actor is an async function; those of the module: {actors}")
        return name

    @field_validator("channel")
    @classmethod
    def _readable_url(cls, url: str) -> str:
        if scheme_of(url) != "memory":
            parse(url)
        return url

    @field_validator("channel_password_file")
    @classmethod
    def _readable_file(cls, path: str) -> str:
        try:
            if path:
                Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {path!r}: {error.strerror}") from error
        return path

    @field_validator("channel_ca")
    @classmethod
    def _authorities(cls, path: str) -> str:
        try:
            if path:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
        except OSError as error:  # OpenSSL's errors are OSErrors too
            reason = error.strerror or error
            raise ValueError(f"{path!r} has no certificate authorities in PEM format: {reason}") from error
        return path

    @field_validator("stream")
    @classmethod
    def _stream_name(cls, name: str) -> str:
        if not _STREAM.fullmatch(name):
            raise ValueError(f"give 1 to {MAX_STREAM} letters of ASCII, digits, and any of - _ . :")
        return name

    @field_validator("text", "instance")
    @classmethod
    def _visible(cls, text: str) -> str:
        is_visible = any(unicodedata.category(each) not in _INVISIBLE and each not in _BLANK for each in text)
        if not is_visible or any(unicodedata.category(each) in _FORBIDDEN for each in text):
            raise ValueError("give at least one visible character, and no control characters")
        return text

    @field_validator("port", "ops_port", mode="before")
    @classmethod
    def _no_service_link(cls, port: object) -> object:
        if isinstance(port, str) and "://" in port:
            raise ValueError("Kubernetes set this for a Service named hello: give the pod `enableServiceLinks: false`")
        return port

    @field_validator("allowed_origins")
    @classmethod
    def _origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.lower() for origin in origins)
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"an origin is http(s)://HOST or http(s)://HOST:PORT and no more, not {origin!r}")
        return origins

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        hosts = tuple(host.lower().removesuffix(".") for host in hosts)
        for host in hosts:
            if not re.fullmatch(_HOST, host):
                raise ValueError(f"a host is a name or an address, as in a URL, without a port, not {host!r}")
        return hosts

    @property
    def broadcaster_function(self) -> Callable[..., Coroutine[Any, Any, None]]:
        """The actor that publishes: `hello.broadcaster.broadcaster`, or one that takes a Publisher and nothing else."""
        return cast("Callable[..., Coroutine[Any, Any, None]]", pkgutil.resolve_name(self.broadcaster))

    @property
    def access(self) -> Access:
        """What a connection to the channel needs besides its URL."""
        password, file = self.channel_password.get_secret_value(), self.channel_password_file
        return Access(password, file, ca=self.channel_ca, cert=self.channel_cert, key=self.channel_key)

    @property
    def backend(self) -> str:
        """What the channel is: `memory`, or `redis` for every engine that speaks its protocol."""
        return "memory" if scheme_of(self.channel) == "memory" else "redis"

    @property
    def channel_for_logs(self) -> str:
        """The channel's URL without user and password."""
        return re.sub("(?<=://)[^/]*@", "", self.channel)


def _import(name: str) -> ModuleType:
    """Return the module. Raises ValueError if there is no such module, or an error in it, with file and line."""
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and f"{name}.".startswith(f"{missing}."):
            folder = "name the folder that holds the module in PYTHONPATH"
            remedy = "give the name of the module, without .py" if name.endswith(".py") else folder
            raise ValueError(f"{error}; {remedy}") from error
        remedy = "; install it where hello is installed" if missing else ""
        raise ValueError(f"its import failed at {_place(error)}: {type(error).__name__}: {error}{remedy}") from error


def _place(error: BaseException) -> str:
    """Return the file and line of an error in a module: the innermost line outside of installed packages."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}"
    _, *frames = traceback.extract_tb(error.__traceback__)  # the first frame is our own
    frame = ([each for each in frames if is_own(each.filename)] or frames)[-1]
    return f"{frame.filename}:{frame.lineno}"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for every setting, with its unit and its default."""
    for name, field in Settings.model_fields.items():
        default = field.get_default(call_default_factory=False)
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        if isinstance(default, tuple):
            default = ",".join(default)
        text = {"instance": "the host's name", "log_format": "unset"}.get(name, str(default) or "empty")
        flag = _flag(name)
        parser.add_argument(
            flag, dest=name, metavar="…", default=argparse.SUPPRESS, help=f"{field.description} (default: {text})"
        )


def load(flags: Mapping[str, str] | None = None, unknown: Sequence[str] = ()) -> Settings:
    """Return the configuration from these flags (by field name) and the environment.

    Raises ConfigError if a variable is unknown, a value is out of its limits, or settings do not fit together, and
    always if there are `unknown` arguments.
    """
    given: dict[str, Any] = dict(flags or {})
    lines = _unknown(unknown)
    wrong: set[str] = set()
    try:
        settings = Settings(**given)  # pydantic reads text here, as from the environment
    except ValidationError as error:
        lines += [_line(mistake, given) for mistake in error.errors()]
        wrong = {str(mistake["loc"][0]) for mistake in error.errors()}
        right = {name: value for name, value in given.items() if name not in wrong}
        fields = Settings.model_fields
        defaults = {each: fields[each].get_default(call_default_factory=True) for each in wrong & fields.keys()}
        settings = Settings(**right, **defaults)  # the defaults hide wrong variables
    for conflict in _conflicts(settings):
        names = {field: name_of(field, given) for field in _FIELD.findall(conflict)}
        if not wrong & names.keys():
            lines.append(conflict.format_map(names))
    if lines:
        raise ConfigError(lines)
    return settings


def _conflicts(settings: Settings) -> Iterator[str]:
    """Yield a line for each conflict between settings; it has every field that takes part, as `{field}`."""
    if settings.interval_min > settings.interval_max:
        yield f"{{interval_min}}: {settings.interval_min:g} is more than {{interval_max}} ({settings.interval_max:g})"
    if scheme_of(settings.channel) == "memory" and not {"broadcaster", "relay"} <= set(settings.actors):
        yield (
            "{channel}: memory:// reaches this process only, which needs a broadcaster and a relay then;"
            " give a redis:// URL, or {actors}=broadcaster,relay"
        )
    yield from _channel_conflicts(settings)
    if settings.port == settings.ops_port != 0 and "relay" in settings.actors and _hosts_overlap(settings):
        yield (
            f"{{port}}: {settings.port} is {{ops_port}} too, but a relay ({{actors}}) has two servers, and their"
            " addresses ({host}, {ops_host}) overlap; give one of them another port"
        )


def _channel_conflicts(settings: Settings) -> Iterator[str]:
    if scheme_of(settings.channel) == "memory":
        if settings.replicas_ack:
            yield "{replicas_ack}: memory:// in {channel} has no replicas; give redis+sentinel://"
        return
    access, address = settings.access, parse(settings.channel)
    if access.password and address.password:
        yield "{channel_password}: the URL in {channel} has a password too; give only one of the two"
    if access.password_file and (access.password or address.password):
        yield "{channel_password_file}: there is a password in {channel_password} or {channel} too; give only one"
    if access.key and not access.cert:
        yield "{channel_key}: a key needs its certificate, in {channel_cert}"
    elif access.cert:
        try:
            # The empty password keeps OpenSSL from asking for one on the terminal.
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(access.cert, access.key or None, password="")
        except OSError as error:
            reason = error.strerror or error
            yield f"{{channel_cert}}: no certificate with its key in PEM format, here and in {{channel_key}}: {reason}"
    if not address.tls and (access.ca or access.cert):
        yield "{channel}: without TLS {channel_ca} and {channel_cert} have no effect; give rediss://"


def _hosts_overlap(settings: Settings) -> bool:
    """Return True if the two servers cannot listen with one port."""
    hosts = (settings.host, settings.ops_host)
    try:
        one, other = (ip_address(socket.getaddrinfo(host, None, flags=socket.AI_PASSIVE)[0][4][0]) for host in hosts)
    except (OSError, UnicodeError):
        return False  # to listen there is the mistake
    every = [each for each in (one, other) if each.is_unspecified]  # `::` is every IPv4 address too
    return one == other or any(each.version == 6 or one.version == other.version for each in every)


def _unknown(arguments: Sequence[str]) -> list[str]:
    """Return a line for each of these arguments, and for each variable of ours, that no setting has."""
    flags = {_flag(name)[2:]: _flag(name) for name in Settings.model_fields} | {"watch": "`hello watch URL`"}
    variables = {name.upper(): f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    own_names = {name: name.removeprefix(PREFIX) for name in sorted(os.environ) if not _SERVICE_LINK.fullmatch(name)}
    # What comes after a flag that does not exist may be its value.
    shown = [argument for argument in arguments if argument.startswith("-")] or arguments[:1]
    unknown = [(argument, argument.lstrip("-").partition("=")[0], flags) for argument in shown]
    unknown += [(name, own, variables) for name, own in own_names.items() if own != name and own not in variables]
    lines = []
    for name, own, known in unknown:
        near = difflib.get_close_matches(own, known, n=1)
        lines.append(f"{name}: there is no such setting" + (f"; did you mean {known[near[0]]}?" if near else ""))
    return lines


def name_of(field: str, flags: Container[str]) -> str:
    """Return the name of a setting as it was given: its flag if it is one of these `flags`, or else its variable."""
    return _flag(field) if field in flags else f"{PREFIX}{field.upper()}"


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _line(mistake: Any, flags: Container[str]) -> str:
    """Return the line that reports one mistake in one field."""
    reason = mistake.get("ctx", {}).get("error")
    name = str(mistake["loc"][0])
    text = str(reason) if reason else str(mistake["msg"]).lower()
    # The URL may contain a password.
    given = "" if name.startswith("channel") else f" (it is {str(mistake['input'])[:60]!r})"
    return f"{name_of(name, flags)}: {text}{given}"
