"""Do a file, the environment and --set become settings, the later winning, and are all their problems told?"""

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from dragoman.config.file import load_settings
from dragoman.config.problems import ConfigError
from dragoman.config.settings import Settings
from tests.config.test_settings import plain

HERE = Path(__file__).parent

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_file(text: str) -> Path:
        path = tmp_path / "dragoman.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def problems(
    path: Path | None, environment: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environment or {}, overrides)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.problems)
    return lines


def the_problem(path: Path | None, environment: Mapping[str, str] | None = None, overrides: Sequence[str] = ()) -> str:
    (line,) = problems(path, environment, overrides)
    return line


def test_nothing_said_is_the_defaults() -> None:
    assert load_settings(None, {"HOME": "/", "PATH": "x"}, ()) == Settings()


def test_a_file_of_the_old_system_loads_unchanged_with_every_value() -> None:
    path = HERE / "example.toml"
    expected = plain(Settings())["scheduler"]
    for phase, said in tomllib.loads(path.read_text("utf-8"))["scheduler"].items():
        for name, value in said.items():
            if isinstance(value, dict):
                expected[phase][name] |= value
            else:
                expected[phase][name] = value
    settings = load_settings(path, {}, ())
    assert plain(settings)["scheduler"] == expected
    assert settings.scheduler.phase2.instance_id == "scheduler-1"
    assert settings.scheduler.phase2.redis.url.get_secret_value() == "redis://your-redis-host:6379"
    assert settings.scheduler.phase3.enabled


def test_pools_by_hand_load(write: Write) -> None:
    settings = load_settings(
        write(
            """
            [scheduler.phase3]
            enabled = true
            auto_generate_language_pools = false
            tenant_overrides = [{ tenant_id = "acme", pool_id = 10 }]
            [[scheduler.phase3.pools]]
            pool_id = 10
            name = "core-zh-en"
            required_services = ["asr", "nmt", "tts"]
            language_pairs = [{ src = "zh-CN", tgt = "en" }, { src = "auto", tgt = "zh" }]
            """
        ),
        {},
        (),
    )
    (pool,) = settings.scheduler.phase3.pools
    assert (pool.pool_id, pool.name, pool.required_services) == (10, "core-zh-en", ("asr", "nmt", "tts"))
    assert [(pair.src, pair.tgt) for pair in pool.language_pairs] == [("zh-CN", "en"), ("auto", "zh")]
    assert settings.scheduler.phase3.tenant_overrides[0].pool_id == 10


def test_the_environment_beats_the_file_and_set_beats_the_environment(write: Write) -> None:
    path = write("[server]\nport = 1\nadmin_port = 2\nmax_nodes = 3\n")
    environment = {"DRAGOMAN_SERVER__ADMIN_PORT": "20", "DRAGOMAN_SERVER__MAX_NODES": "30"}
    server = load_settings(path, environment, ("server.max_nodes=300", "server.max_nodes=301")).server
    assert (server.port, server.admin_port, server.max_nodes) == (1, 20, 301)


def test_each_kind_of_value_is_read_from_the_environment() -> None:
    settings = load_settings(
        None,
        {
            "DRAGOMAN_SERVER__HOST": "10.0.0.1",
            "DRAGOMAN_SCHEDULER__PHASE2__INSTANCE_ID": "7",
            "DRAGOMAN_SERVER__PORT": " 6000 ",
            "DRAGOMAN_SCHEDULER__LOAD_BALANCER__RESOURCE_THRESHOLD": "90",
            "DRAGOMAN_SCHEDULER__JOB_TIMEOUT__SEND_CANCEL": "No",
            "DRAGOMAN_SCHEDULER__PHASE3__ENABLED": "1",
            "DRAGOMAN_SCHEDULER__LOAD_BALANCER__STRATEGY": "random",
            "DRAGOMAN_SCHEDULER__PHASE2__REDIS__CLUSTER_URLS": "redis://a:1, redis://b:2",
            "DRAGOMAN_SCHEDULER__PHASE3__POOLS": '[{pool_id = 1, name = "a"}]',
            "DRAGOMAN_OBSERVABILITY__OTLP_ENDPOINT": "",
        },
        (),
    )
    scheduler = settings.scheduler
    assert (settings.server.host, settings.server.port, scheduler.phase2.instance_id) == ("10.0.0.1", 6000, "7")
    assert scheduler.load_balancer.resource_threshold == 90.0
    assert scheduler.load_balancer.strategy == "random"
    assert (scheduler.job_timeout.send_cancel, scheduler.phase3.enabled) == (False, True)
    assert [url.get_secret_value() for url in scheduler.phase2.redis.cluster_urls] == ["redis://a:1", "redis://b:2"]
    assert scheduler.phase3.pools[0].name == "a"


def test_each_kind_of_value_is_read_from_set() -> None:
    settings = load_settings(
        None,
        {},
        (
            'server.host="10.0.0.1"',
            "server.admin_host=10.0.0.2",
            "scheduler.phase2.instance_id=7",
            "scheduler.phase2 = {enabled = true, redis = {mode = 'cluster', cluster_urls = ['redis://a=b:1']}}",
            "scheduler.phase3.enabled=on",
            "server.max_nodes=1_000",
            "scheduler.load_balancer.resource_threshold=80.5",
        ),
    )
    assert (settings.server.host, settings.server.admin_host) == ("10.0.0.1", "10.0.0.2")
    assert (settings.server.max_nodes, settings.scheduler.load_balancer.resource_threshold) == (1000, 80.5)
    phase2 = settings.scheduler.phase2
    assert (phase2.enabled, phase2.redis.mode, phase2.instance_id) == (True, "cluster", "7")
    assert settings.scheduler.phase3.enabled


def test_every_problem_is_told_at_once_with_where_it_came_from(write: Write) -> None:
    path = write(
        """
        [server]
        prot = 5
        host = 7
        [auth]
        mode = "magic"
        [scheduler.phase2]
        enabled = true
        stream_count = 0
        redis = { url = "redis://" }
        [scheduler.phase3]
        random_sample_size = 0
        pools = [{ nmae = "a", pool_id = 1 }]
        """
    )
    variable, whole = "DRAGOMAN_SERVER__PORT", "must be a whole number from 0 to 65535"
    environment = {variable: "many", "DRAGOMAN_SERVER_HOST": "x"}
    overrides = ("server.max_nodes=-1", "server.max_sessions")
    named = "1 to 200 characters, no spaces, brackets, quotes, stars, commas, semicolons or slashes"
    assert set(problems(path, environment, overrides)) == {
        f"{path}: [server] prot: unknown; did you mean [server] port?",
        f'{path}: [server] host = 7: must be text, not empty; leave it out for "127.0.0.1"',
        f'{path}: [auth] mode = "magic": must be "none" or "jwt"; leave it out for "none"',
        f"{path}: [scheduler.phase2] stream_count = 0: must be 1 or more; leave it out for 64",
        f'{path}: [scheduler.phase2.redis] url = "redis://": must name a host, as in redis://127.0.0.1:6379',
        f"{path}: [scheduler.phase3] random_sample_size = 0: must be 1 or more; leave it out for 20",
        f"{path}: [scheduler.phase3] pools[0].name is missing; must be {named}",
        f"{path}: [scheduler.phase3] pools[0].nmae: unknown; did you mean [scheduler.phase3] pools.name?",
        f'environment variable {variable}: [server] port = "many": {whole}; leave it out for 5010',
        "environment variable DRAGOMAN_SERVER_HOST: unknown; did you mean DRAGOMAN_SERVER__HOST?",
        "--set server.max_nodes: [server] max_nodes = -1: must be 1 or more; leave it out for 20000",
        "--set server.max_sessions: must be KEY=VALUE, as in --set scheduler.queue.max_pending_jobs=500",
    }


def test_a_wrong_value_makes_no_false_conflict(write: Write) -> None:
    path = write("[scheduler.node_health]\nheartbeat_interval_seconds = 'x'\nheartbeat_timeout_seconds = 10\n")
    assert "heartbeat_interval_seconds" in the_problem(path)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("schedular.queue.max_pending_jobs=5", "did you mean [scheduler.queue] max_pending_jobs?"),
        ("scheduler.phase3.max_pools=5", "did you mean [scheduler.phase3.auto_pool_config] max_pools?"),
        ("scheduler.phase3.random_sampl_size=5", "did you mean [scheduler.phase3] random_sample_size?"),
        ("schedular={}", "[schedular]: unknown; did you mean [scheduler]?"),
        ("scheduler.pase3={enabled = true}", "[scheduler] pase3: unknown; did you mean [scheduler.phase3]?"),
        ("server.logg_levell=info", "did you mean [observability] log_level?"),
        ("scheduler.queue.zzz=5", "unknown; known here: max_pending_jobs"),
        ("zzz.yyy.xxx=5", "unknown; known here: server, scheduler, auth, observability"),
        ("server=5", "[server] is a section, not a value; it has host, port, "),
        ("=5", "must be KEY=VALUE"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest_known_one(override: str, said: str) -> None:
    assert said in the_problem(None, {}, (override,))


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("DRAGOMAN_SCHEDULER__QUEUE__MAX_PENDING_JOB", "did you mean DRAGOMAN_SCHEDULER__QUEUE__MAX_PENDING_JOBS?"),
        ("DRAGOMAN_SERVER_PORT", "did you mean DRAGOMAN_SERVER__PORT?"),
        ("DRAGOMAN_server__port", "did you mean DRAGOMAN_SERVER__PORT?"),
        ("DRAGOMAN_MAX_POOLS", "did you mean DRAGOMAN_SCHEDULER__PHASE3__AUTO_POOL_CONFIG__MAX_POOLS?"),
        ("DRAGOMAN_SERVER", "names a section; wanted one of its keys: host, port,"),
        ("DRAGOMAN_", "wanted a key with __ between levels, as in DRAGOMAN_SERVER__HOST"),
    ],
)
def test_an_unknown_variable_is_told_with_the_nearest_known_one(variable: str, said: str) -> None:
    assert said in the_problem(None, {variable: "5"})


def test_variables_that_kubernetes_makes_are_passed_over() -> None:
    environment = {
        "DRAGOMAN_SERVICE_HOST": "10.0.0.1",
        "DRAGOMAN_SERVICE_PORT": "5010",
        "DRAGOMAN_SERVICE_PORT_DATA": "5010",
        "DRAGOMAN_PORT": "tcp://10.0.0.1:5010",
        "DRAGOMAN_PORT_5010_TCP": "tcp://10.0.0.1:5010",
        "DRAGOMAN_PORT_5010_TCP_PROTO": "tcp",
        "DRAGOMAN_ADMIN_PORT_5011_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(None, environment, ()) == Settings()


def test_variables_of_other_commands_are_passed_over() -> None:
    assert load_settings(None, {"DRAGOMAN_TOKEN": "secret"}, ()) == Settings()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert the_problem(tmp_path / "none.toml").endswith("none.toml: there is no such file")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in the_problem(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[server]\nhost = \xff\n", "is not UTF-8: byte 16 is 0xff"),
        (b"[server]\nport = \n", "is not TOML: Invalid value (at line 2, column 8)"),
        (b"[server]\nport = 1\nport = 2\n", "is not TOML: Cannot overwrite a value (at line 3"),
        (b"[server]\n[server]\n", "is not TOML: Cannot declare ('server',) twice (at line 2"),
        (b"x = " + b"[" * 100_000, "nested too deeply"),
        (b"x = " + b"9" * 10_000, "is not TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_the_place(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "dragoman.toml"
    path.write_bytes(content)
    assert said in the_problem(path)


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "dragoman.toml"
    path.write_bytes(b"\xef\xbb\xbf[server]\nport = 7\n")
    assert load_settings(path, {}, ()).server.port == 7


def test_without_the_file_only_what_is_wrong_alone_is_told(tmp_path: Path) -> None:
    overrides = ("scheduler.phase2.enabled=true", "scheduler.phase2.redis.mode=cluster", "server.port=x")
    lines = problems(tmp_path / "none.toml", {}, overrides)
    assert len(lines) == 2
    assert "no such file" in lines[0]
    assert "[server] port" in lines[1]


def test_a_conflict_with_a_default_blames_what_was_said() -> None:
    overrides = ("scheduler.phase2.enabled=true", "scheduler.phase2.redis.mode=cluster")
    said = the_problem(None, {}, overrides)
    assert said == (
        "--set scheduler.phase2.redis.mode: [scheduler.phase2.redis] cluster_urls = (left out): "
        'must name one address or more, since mode = "cluster"'
    )


@pytest.mark.parametrize(
    "override",
    [
        "scheduler.phase2.redis.url=http://u:hunter2@h",
        "scheduler.phase2.redis.url=['redis://u:hunter2@h']",
        "scheduler.phase2.redis.url={a = 'redis://u:hunter2@h'}",
        "scheduler.phase2.redis.mode=redis://u:hunter2@h",
        "scheduler.phase2.redis.cluster_urls=redis://u:hunter2@h",
        "scheduler.phase2.redis.cluster_urls=['http://u:hunter2@h']",
        "scheduler.phase2.redis.cluster_urls=[['redis://u:hunter2@h']]",
        "scheduler.phase2.redis.key_prefix=redis://u:hunter2@h",
        "scheduler.phase2.redis.password=hunter2",
        "redis://u:hunter2@h",
    ],
)
def test_no_problem_shows_a_password(override: str) -> None:
    mode = "single" if "redis.url" in override else "cluster"
    overrides = ("scheduler.phase2.enabled=true", f"scheduler.phase2.redis.mode={mode}", override)
    assert "hunter2" not in "".join(problems(None, {}, overrides))


def test_what_cannot_be_printed_does_not_break_the_message() -> None:
    environment = {"DRAGOMAN_\udcff\x1b[2J\n": "1", "DRAGOMAN_SERVER__HOST": "\x1b\udcff"}
    for line in problems(None, environment, ("server.\x1b=1", "server.port=0x" + "f" * 5000, "server.host=\x1b")):
        assert line.encode().decode().isprintable()


def test_what_is_not_utf8_is_told() -> None:
    name = "DRAGOMAN_SCHEDULER__PHASE2__REDIS__URL"
    assert "its value is not UTF-8" in the_problem(None, {name: "redis://\udcff"})
    assert "its value is not UTF-8" in the_problem(None, {}, ("scheduler.phase2.redis.url=redis://\udcff",))
