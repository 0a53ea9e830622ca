"""Are the defaults the promised ones, and do the models refuse what cannot be?"""

import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from dragoman.config.keys import Kind, all_sections, known_keys
from dragoman.config.phase2 import RedisSettings
from dragoman.config.redis_url import RedisUrl, mask_password, redis_url_flaws
from dragoman.config.settings import LoadBalancerSettings, Settings
from dragoman.config.unbuilt import unbuilt_features
from dragoman.core.selection import Strategy

HERE = Path(__file__).parent


def plain(settings: Settings) -> dict[str, Any]:
    """Settings as a TOML reader would give them, with nothing masked."""
    values: dict[str, Any] = {}
    for path, key in known_keys().items():
        place: Any = settings
        for name in path:
            place = getattr(place, name)
        target = values
        for name in path[:-1]:
            target = target.setdefault(name, {})
        match place:
            case RedisUrl():
                target[path[-1]] = place.get_secret_value()
            case tuple() if key.kind is Kind.SECRETS:
                target[path[-1]] = [url.get_secret_value() for url in place]
            case tuple():
                target[path[-1]] = [row.model_dump() for row in place]
            case _:
                target[path[-1]] = place
    return values


def build(**sections: dict[str, Any]) -> Settings:
    return Settings.model_validate({"scheduler": sections})


def test_the_defaults_are_the_promised_ones_and_no_others() -> None:
    assert plain(Settings()) == tomllib.loads((HERE / "defaults.toml").read_text("utf-8"))


def test_every_key_and_every_section_says_what_it_is() -> None:
    for section in all_sections():
        assert section.meaning
        for key in section.keys:
            assert key.meaning.endswith("."), key.path
            assert key.allowed, key.path


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().server.port = 1


def test_the_strategies_are_those_that_selection_knows() -> None:
    assert set(get_args(LoadBalancerSettings.model_fields["strategy"].annotation)) == set(Strategy)


@pytest.mark.parametrize(
    "values",
    [
        {"server": {"port": "5010"}},
        {"server": {"port": 5010.0}},
        {"server": {"port": True}},
        {"server": {"host": 7}},
        {"scheduler": {"job_timeout": {"send_cancel": 1}}},
        {"scheduler": {"load_balancer": {"resource_threshold": "85"}}},
        {"scheduler": {"load_balancer": {"resource_threshold": float("nan")}}},
        {"scheduler": {"phase2": {"redis": {"key_prefix": "a b"}}}},
        {"scheduler": {"phase2": {"redis": {"key_prefix": "ends-in-a-line-break\n"}}}},
        {"server": {"port": 70000}},
        {"nonsense": {}},
    ],
)
def test_a_wrong_type_or_an_unknown_key_is_refused_not_changed(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


def test_a_whole_number_is_good_where_any_number_is() -> None:
    assert build(load_balancer={"resource_threshold": 90}).scheduler.load_balancer.resource_threshold == 90.0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("server", "admin_port"), 0),
        (("server", "port"), 0),
        (("scheduler", "job_timeout", "pending_timeout_seconds"), 0),
        (("scheduler", "job_timeout", "failover_max_attempts"), 0),
        (("scheduler", "job_timeout", "ack_timeout_ms"), 0),
        (("scheduler", "phase2", "node_snapshot", "remove_stale_after_seconds"), 0),
    ],
)
def test_zero_is_good_where_it_means_something(path: tuple[str, ...], value: int) -> None:
    values: Any = value
    for name in reversed(path):
        values = {name: values}
    place: Any = Settings.model_validate(values)
    for name in path:
        place = getattr(place, name)
    assert place == 0


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"phase2": {"enabled": True, "redis": {"url": "http://h"}}}, "must begin with one of redis://"),
        ({"phase2": {"enabled": True, "redis": {"url": "redis://"}}}, "must name a host"),
        ({"phase2": {"enabled": True, "redis": {"url": "redis://h:99999"}}}, "port is no number"),
        ({"phase2": {"enabled": True, "redis": {"mode": "cluster"}}}, "must name one address or more"),
        (
            {"phase2": {"enabled": True, "redis": {"mode": "cluster", "cluster_urls": ["unix:///s"]}}},
            "must not be a unix:// address",
        ),
        ({"phase3": {"enabled": True, "auto_generate_language_pools": False}}, "must define one pool or more"),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a"}, {"pool_id": 2, "name": "A"}]}}, "in capitals and in small"),
        (
            {"phase3": {"pools": [{"pool_id": 1, "name": "a"}, {"pool_id": 2, "name": "b"}]}},
            "ask for the same services",
        ),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a{b}"}]}}, "name"),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a b"}]}}, "name"),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "*-en"}]}}, "name"),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a", "required_services": ["ASR"]}]}}, "did you mean 'asr'?"),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a", "required_services": ["asr", "asr"]}]}}, "more than once"),
        (
            {"phase3": {"pools": [{"pool_id": 1, "name": "a", "language_pairs": [{"src": "zh-CN", "tgt": "zh"}]}]}},
            "nobody can join the pool",
        ),
        (
            {"phase3": {"pools": [{"pool_id": 1, "name": "a", "language_pairs": [{"src": "klingon!", "tgt": "zh"}]}]}},
            "language tag",
        ),
        (
            {
                "phase3": {
                    "enabled": True,
                    "pools": [{"pool_id": 1, "name": "a"}],
                    "tenant_overrides": [{"tenant_id": "acme", "pool_id": 1}],
                }
            },
            "auto_generate_language_pools = true leaves out",
        ),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a"}, {"pool_id": 1, "name": "b"}]}}, "pool_id = 1 is there"),
        ({"phase3": {"pools": [{"pool_id": 1, "name": "a"}, {"pool_id": 2, "name": "a"}]}}, "name = 'a' is there"),
        ({"phase3": {"tenant_overrides": [{"tenant_id": "t", "pool_id": 3}]}}, "pool_id = 3 of tenant 't' is no pool"),
        (
            {
                "phase3": {
                    "pools": [{"pool_id": 1, "name": "a"}],
                    "tenant_overrides": [{"tenant_id": "t", "pool_id": 1}] * 2,
                }
            },
            "tenant_id = 't' is there more than once",
        ),
        (
            {"phase3": {"pools": [{"pool_id": 1, "name": "a", "language_pairs": [{"src": "?", "tgt": "en"}]}]}},
            "no lang",
        ),
        (
            {"phase3": {"pools": [{"pool_id": 1, "name": "a", "language_pairs": [{"src": "en", "tgt": "auto"}]}]}},
            "one l",
        ),
        ({"node_health": {"heartbeat_timeout_seconds": 15}}, "must be more than heartbeat_interval_seconds = 15"),
        ({"node_health": {"failure_threshold": {"failure_count": 6}}}, "must not be more than window_size = 5"),
        ({"phase2": {"node_snapshot": {"presence_ttl_seconds": 2}}}, "must be shorter than presence_ttl_seconds = 2"),
    ],
)
def test_what_does_not_fit_together_is_refused(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        build(**sections)


def test_the_two_ports_must_differ_on_one_address() -> None:
    with pytest.raises(ValidationError, match="must not be the data port"):
        Settings.model_validate({"server": {"port": 7000, "admin_port": 7000}})
    Settings.model_validate({"server": {"port": 7000, "admin_port": 7000, "admin_host": "10.0.0.1"}})
    Settings.model_validate({"server": {"port": 0, "admin_port": 0}})


def test_an_address_that_is_not_used_may_be_anything() -> None:
    assert build(phase2={"redis": {"url": ""}}).scheduler.phase2.redis.url == RedisUrl("")


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379",
        "rediss://user:p%40ss@host/3",
        "unix:///run/valkey.sock?db=1",
        "valkey://[::1]:7000",
        "valkeys://:pw@host",
    ],
)
def test_a_proper_address_is_good(url: str) -> None:
    assert redis_url_flaws(RedisUrl(url), is_cluster=False) == ()


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "redis://h/x", "redis://h:0", "unix://", "redis://[h", "redis://h:x", "redis://:p@"]
)
def test_an_improper_address_is_not(url: str) -> None:
    assert redis_url_flaws(RedisUrl(url), is_cluster=False)


def test_a_redis_cluster_has_one_database() -> None:
    assert redis_url_flaws(RedisUrl("redis://h/0"), is_cluster=True) == ()
    assert redis_url_flaws(RedisUrl("redis://h/2"), is_cluster=True)


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("redis://user:hunter2@host", "redis://user:***@host"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("redis://hunter2@host", "redis://***@host"),
        ("redis://u:hunter2@hunter2/hunter2#hunter2@host", "redis://u:***@host"),
        ("unix:///run/s?db=1&password=hunter2&x=1", "unix:///run/s?db=1&password=***&x=1"),
        (":hunter2@host:6379", ":***@host:6379"),
        ("http//u:hunter2@host", "http//u:***@host"),
        ("redis://u:hunter2\n@host", "redis://u:***@host"),
    ],
)
def test_the_password_of_an_address_is_masked_and_the_rest_is_shown(address: str, masked: str) -> None:
    assert mask_password(address) == masked


def test_printing_settings_in_any_way_shows_no_password() -> None:
    url = "redis://user:hunter2@host"
    settings = build(phase2={"redis": {"url": url, "cluster_urls": [url]}})
    redis = settings.scheduler.phase2.redis
    for shown in (
        repr(settings),
        str(settings),
        f"{redis.url}",
        str(settings.model_dump()),
        settings.model_dump_json(),
    ):
        assert "hunter2" not in shown
    assert redis.url.get_secret_value() == url
    assert [seed.get_secret_value() for seed in redis.cluster_urls] == [url]


def test_an_error_of_the_models_shows_no_password() -> None:
    with pytest.raises(ValidationError) as caught:
        build(phase2={"enabled": True, "redis": {"url": "http://user:hunter2@host"}})
    with pytest.raises(ValidationError) as also:
        RedisSettings.model_validate({"url": ["redis://user:hunter2@host"]})
    assert "hunter2" not in f"{caught.value}{also.value}"


def test_what_is_not_built_yet_is_said_in_one_sentence_each() -> None:
    assert unbuilt_features(Settings()) == ()
    asked = Settings.model_validate(
        {
            "auth": {"mode": "jwt"},
            "observability": {"otlp_endpoint": "http://collector:4317"},
        }
    )
    sentences = unbuilt_features(asked)
    assert len(sentences) == 2
    for name, sentence in zip(("auth", "otlp_endpoint"), sentences, strict=True):
        assert name in sentence
        assert "not built yet" in sentence
