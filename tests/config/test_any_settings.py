"""Whatever is said: is it Settings or ConfigError, and does what is printed load again?"""

import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dragoman.config.file import load_settings
from dragoman.config.keys import Key, Kind, known_keys, variable_name
from dragoman.config.problems import ConfigError
from dragoman.config.settings import Settings
from dragoman.config.toml_text import settings_to_toml

# Each must be less than, or not more than, the one after it.
ORDERED = (
    (
        ("scheduler", "node_health", "heartbeat_interval_seconds"),
        ("scheduler", "node_health", "heartbeat_timeout_seconds"),
    ),
    (
        ("scheduler", "node_health", "failure_threshold", "failure_count"),
        ("scheduler", "node_health", "failure_threshold", "window_size"),
    ),
)
LEFT_OUT = {path for pair in ORDERED for path in pair} | {
    ("scheduler", "phase2", "node_snapshot", "refresh_interval_ms"),
    ("scheduler", "phase2", "node_snapshot", "presence_ttl_seconds"),
    ("scheduler", "phase2", "enabled"),
    ("scheduler", "phase3", "enabled"),
    ("scheduler", "phase3", "tenant_overrides"),
    ("server", "admin_port"),
}
TEXTS = st.text(min_size=1, max_size=20)
POOLS = st.lists(
    st.fixed_dictionaries(
        {"pool_id": st.integers(0, 99), "name": st.text("ab-_.:汉", min_size=1, max_size=8)},
        optional={
            "required_services": st.lists(st.text("abc-_ 汉", min_size=4), max_size=2, unique=True),
            "language_pairs": st.lists(st.just({"src": "auto", "tgt": "zh_Hans"}), max_size=1),
        },
    ),
    max_size=1,
)


def good_values(key: Key) -> st.SearchStrategy[Any]:
    match key.kind:
        case Kind.SWITCH:
            return st.booleans()
        case Kind.WHOLE:
            return st.integers(1, 5000)
        case Kind.NUMBER:
            return st.floats(0, 100) | st.integers(0, 100)
        case Kind.CHOICE:
            return st.sampled_from(re.findall(r'"(\w+)"', key.allowed))
        case Kind.SECRET:
            return TEXTS
        case Kind.SECRETS | Kind.TEXTS:
            return st.lists(TEXTS, max_size=3)
        case Kind.TABLES:
            return POOLS
        case Kind.TEXT if "digits" in key.allowed:
            return st.text("abzAZ09._:-", min_size=1, max_size=9)
        case Kind.TEXT:
            return TEXTS


@st.composite
def good_settings(draw: st.DrawFn) -> Settings:
    keys = [key for path, key in known_keys().items() if path not in LEFT_OUT]
    chosen = draw(st.lists(st.sampled_from(keys), unique_by=lambda key: key.path, max_size=12))
    said = {key.path: draw(good_values(key)) for key in chosen}
    for less, more in ORDERED:
        low, high = sorted(draw(st.lists(st.integers(1, 5000), min_size=2, max_size=2, unique=True)))
        said |= {less: low, more: high}
    values: dict[str, Any] = {}
    for path, value in said.items():
        place = values
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = value
    return Settings.model_validate(values)


def load_text(text: str | bytes, environment: dict[str, str], overrides: list[str]) -> Settings:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "dragoman.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
        return load_settings(path, environment, overrides)


@settings(max_examples=60, deadline=None)
@given(good_settings())
def test_what_is_printed_loads_back_equal_but_for_passwords(original: Settings) -> None:
    printed = settings_to_toml(original)
    again = load_text(printed, {}, [])
    assert settings_to_toml(again) == printed
    redis = original.scheduler.phase2.redis
    addresses = "".join(url.get_secret_value() for url in (redis.url, *redis.cluster_urls))
    if "@" not in addresses and "password" not in addresses.lower():
        assert again == original


NAMES = st.sampled_from(sorted({name for path in known_keys() for name in path})) | st.text(max_size=5)
PATHS = st.sampled_from(list(known_keys())) | st.lists(NAMES, min_size=1, max_size=4).map(tuple)
VALUES = st.sampled_from(
    [
        "1",
        "-1",
        "0",
        "true",
        "nan",
        "1e999",
        '""',
        '"x"',
        "[]",
        "{}",
        "[[1]]",
        '{a = "b"}',
        "1979-05-27",
        "0x" + "f" * 999,
    ]
) | st.text(max_size=9)
SAID = st.lists(st.tuples(PATHS, VALUES), max_size=5)


def holds_only_promised(text: str | bytes, environment: dict[str, str], overrides: list[str]) -> None:
    try:
        loaded = load_text(text, environment, overrides)
    except ConfigError as error:
        said = str(error)
    else:
        said = settings_to_toml(loaded)
    assert said.encode()


@settings(max_examples=150, deadline=None)
@given(SAID, SAID, SAID)
def test_known_keys_with_any_values_are_settings_or_a_config_error(file: Any, environment: Any, overrides: Any) -> None:
    holds_only_promised(
        "\n".join(f"{'.'.join(path)} = {value}" for path, value in file),
        {variable_name(path): value for path, value in environment},
        [f"{'.'.join(path)}={value}" for path, value in overrides],
    )


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60),
    st.dictionaries(st.text(max_size=9).map(lambda name: f"DRAGOMAN_{name}"), st.text(max_size=9), max_size=3),
    st.lists(st.text(max_size=20), max_size=3),
)
def test_any_junk_is_settings_or_a_config_error(
    file: str | bytes, environment: dict[str, str], overrides: list[str]
) -> None:
    holds_only_promised(file, environment, overrides)
