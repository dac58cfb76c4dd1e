"""Settings of the server: read once, checked, frozen.

A setting comes from a flag, else from the environment (`GVVAD_GRPC__PORT`),
else from the TOML file, else from its default here. A key that does not exist
is refused wherever it stands. A secret can stand in a file of its own, named
by its key with `_file` behind it. Streams are no settings: they live in the store.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    ValidationError,
)

from server.bundle import DEFAULT_BUNDLE
from server.secret_files import SecretFileError, read_secret
from server.setting_groups import (
    AccessSettings,
    AlertSettings,
    BatchSettings,
    CapacitySettings,
    Directory,
    EngineSettings,
    EvidenceSettings,
    Group,
    GrpcSettings,
    HistorySettings,
    HttpSettings,
    IngestSettings,
    LogSettings,
    MqttSettings,
    PushSettings,
    StoreSettings,
    WebhookSettings,
)
from server.wording import one_line, or_near, quoted

ENV_PREFIX = "GVVAD_"
FILE_SUFFIX = "_file"
# Read by the command line or by the tests; not settings of the server.
ENV_IGNORED = frozenset({"GVVAD_DATA", "GVVAD_SERVER"})


class SettingsError(ValueError):
    """A setting that cannot be used; the message names it, its value and what was expected."""


class Settings(Group):
    """Everything the server is told at its start; one group of keys a part.

    Attributes:
        bundle: directory of the detector; the embedded default where none is given.
        max_streams: streams at a time.
    """

    bundle: Directory = DEFAULT_BUNDLE
    max_streams: Annotated[int, Field(ge=1, le=10000)] = 64
    grpc: GrpcSettings = GrpcSettings()
    http: HttpSettings = HttpSettings()
    engine: EngineSettings = EngineSettings()
    batch: BatchSettings = BatchSettings()
    capacity: CapacitySettings = CapacitySettings()
    ingest: IngestSettings = IngestSettings()
    push: PushSettings = PushSettings()
    access: AccessSettings = AccessSettings()
    alerts: AlertSettings = AlertSettings()
    evidence: EvidenceSettings = EvidenceSettings()
    store: StoreSettings = StoreSettings()
    history: HistorySettings = HistorySettings()
    webhook: WebhookSettings = WebhookSettings()
    mqtt: MqttSettings = MqttSettings()
    log: LogSettings = LogSettings()


# Left out of error sentences; each may stand in a file, which KEY_file names.
_SECRET = frozenset({"store.url", "webhook.urls", "mqtt.url"})


@dataclass(frozen=True, slots=True)
class _Given:
    """One value, with the words that say where it stands."""

    value: object
    origin: str


def load_settings(
    config: Path | None,
    flags: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from flags, environment, file and defaults, in that order.

    Args:
        config: a TOML file; None for no file. Relative paths in it are relative
            to the working directory.
        flags: text by dotted key, such as `{"grpc.port": "0"}`.
        environ: the environment; None takes the process's.

    Raises:
        SettingsError: an unknown key, a value that cannot be used, or a file
            that cannot be read.
    """
    given = _from_file(config) if config is not None else {}
    # Later layers win key by key, so that a flag replaces one key and not its group.
    given |= _from_environment(os.environ if environ is None else environ)
    given |= {key: _Given(value, f"--set {one_line(key)}") for key, value in (flags or {}).items()}
    _refuse_unknown(given)
    given = _with_secrets(given)
    try:
        return Settings.model_validate(_nested(given))
    except ValidationError as error:
        raise SettingsError(_sentence(error, given)) from None


def is_secret(key: str) -> bool:
    """Whether a setting, by its dotted key, may hold a secret and is never shown."""
    return key in _SECRET


def setting_keys() -> list[str]:
    """Every key, dotted, in the order of the groups."""
    return list(_keys(Settings, ""))


def _keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name


def _from_file(path: Path) -> dict[str, _Given]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"settings file {path} cannot be read ({error.strerror}); check --config"
        ) from None
    except (ValueError, RecursionError) as error:  # bad TOML, bad UTF-8, nested without end
        raise SettingsError(
            f"settings file {path} is not TOML ({one_line(str(error))}); "
            "mend it or leave --config out"
        ) from None
    groups = {key.rpartition(".")[0] for key in setting_keys()}
    return {key: _Given(value, str(path)) for key, value in _flat(content, "", groups)}


def _flat(
    table: Mapping[str, Any], prefix: str, groups: Collection[str]
) -> Iterator[tuple[str, object]]:
    """Values by dotted key; a table that is no group of settings counts as a value."""
    for name, value in table.items():
        key = prefix + name
        if isinstance(value, dict) and key in groups:
            yield from _flat(value, f"{key}.", groups)
        else:
            yield key, value


def _from_environment(environ: Mapping[str, str]) -> dict[str, _Given]:
    return {
        name.removeprefix(ENV_PREFIX).lower().replace("__", "."): _Given(value, one_line(name))
        for name, value in environ.items()
        if name.startswith(ENV_PREFIX) and name not in ENV_IGNORED
    }


def _refuse_unknown(given: Mapping[str, _Given]) -> None:
    known = setting_keys() + [key + FILE_SUFFIX for key in sorted(_SECRET)]
    for key, entry in given.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1) or ["grpc.port"]
            raise SettingsError(
                f"unknown setting {one_line(key)} in {entry.origin}; "
                f"remove it or use a known one, such as {near[0]}"
            )


def _with_secrets(given: Mapping[str, _Given]) -> dict[str, _Given]:
    """Put what stands in a secret's file, `store.url_file` say, in the place of its key."""
    settled = dict(given)
    for key in _SECRET:
        entry = settled.pop(key + FILE_SUFFIX, None)
        if entry is None:
            continue
        if key in settled:
            raise SettingsError(
                f"setting {key} from {settled[key].origin} and {key}{FILE_SUFFIX} from "
                f"{entry.origin} exclude each other; remove one"
            )
        try:
            settled[key] = _Given(read_secret(entry.value), f"the file of {entry.origin}")
        except SecretFileError as error:
            raise SettingsError(
                f"setting {key}{FILE_SUFFIX} from {entry.origin}: {error}"
            ) from None
    return settled


def _nested(given: Mapping[str, _Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, entry in given.items():
        *groups, name = key.split(".")
        table = tree
        for group in groups:
            table = table.setdefault(group, {})
        table[name] = entry.value
    return tree


def _sentence(error: ValidationError, given: Mapping[str, _Given]) -> str:
    # One sentence for the first of perhaps many: mended one by one they all come up.
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    # Pydantic's path goes on into list items; the setting is the part that was given.
    key = next(
        (k for k in (".".join(path[:n]) for n in range(len(path), 0, -1)) if k in given),
        ".".join(path),
    )
    shown = "its value" if key in _SECRET else quoted(first["input"])
    origin = f" from {given[key].origin}" if key in given else ""
    near = ""
    if first["type"] == "literal_error":
        # A number may have more digits than Python writes out.
        text = first["input"] if isinstance(first["input"], str) else ""
        near = or_near(text, re.findall(r"'([^']*)'", first["ctx"]["expected"]))
    return f"setting {key}: {shown}{origin} cannot be used: {first['msg']}{near}"
