"""Do the commands about the configuration do what they say, and end as promised?"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from dragoman import __version__
from dragoman.cli.outcome import WRONG_USE, CommandError
from dragoman.cli.program import COMMANDS, HIDDEN_COMMANDS, Command, build_program
from dragoman.config.file import load_settings
from dragoman.config.reference import configuration_reference

HERE = Path(__file__).parent
EXAMPLE = str(HERE / "example.toml")


def clean_environment(**variables: str) -> dict[str, str | None]:
    """What the runner sets; None takes a variable away."""
    inherited: dict[str, str | None] = {name: None for name in os.environ if name.startswith("DRAGOMAN_")}
    return inherited | {"TERM": "dumb", "COLUMNS": "200"} | variables


def run(*arguments: str, program: typer.Typer | None = None, **variables: str) -> Result:
    runner = CliRunner(env=clean_environment(**variables))
    return runner.invoke(program or build_program(), arguments, prog_name="dragoman")


def test_a_good_file_ends_with_0_and_says_what_is_not_built() -> None:
    result = run("check-config", EXAMPLE)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == f"{EXAMPLE}: good"
    assert result.stdout.count("note: ") == 0
    assert result.stderr == ""


def test_a_bad_file_ends_with_2_and_a_line_per_problem(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text("[server]\nport = 'x'\nprot = 1\n", "utf-8")
    result = run("check-config", str(path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2


def test_check_config_looks_at_set_and_the_environment_too() -> None:
    assert run("check-config", EXAMPLE, "--set", "server.port=x").exit_code == 2
    assert run("check-config", EXAMPLE, DRAGOMAN_SERVER__PORT="x").exit_code == 2


def test_print_config_prints_the_merged_result_with_passwords_masked(tmp_path: Path) -> None:
    url = "redis://user:hunter2@host:7000"
    result = run(
        "print-config", "--config", EXAMPLE, "--set", "server.port=6000", "--set", f"scheduler.phase2.redis.url={url}"
    )
    assert result.exit_code == 0
    assert "hunter2" not in result.output
    path = tmp_path / "printed.toml"
    path.write_text(result.stdout, "utf-8")
    printed = load_settings(path, {}, ())
    assert printed.server.port == 6000
    assert printed.scheduler.phase2.redis.url.get_secret_value() == "redis://user:***@host:7000"
    assert printed.scheduler.phase2.redis.key_prefix == "lingua-prod"


def test_print_config_of_nothing_prints_the_defaults() -> None:
    assert 'url = "redis://127.0.0.1:6379"' in run("print-config").stdout


def test_config_schema_prints_a_schema_that_refuses_unknown_keys() -> None:
    schema = json.loads(run("config-schema").stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    server = schema["$defs"]["ServerSettings"]["properties"]["port"]
    assert (server["minimum"], server["maximum"], server["default"]) == (0, 65535, 5010)
    assert schema["$defs"]["RedisSettings"]["properties"]["url"]["default"] == "redis://127.0.0.1:6379"


def test_the_page_about_the_configuration_is_not_stale() -> None:
    page = HERE.parents[1] / "docs" / "configuration.md"
    assert page.read_text("utf-8") == configuration_reference(), "run: make docs"
    assert run("config-reference").stdout == configuration_reference()


def names(commands: tuple[Command | typer.Typer, ...]) -> list[str]:
    found = [command.info.name if isinstance(command, typer.Typer) else command.__name__ for command in commands]
    return [str(name).replace("_", "-") for name in found]


@pytest.mark.parametrize("name", [[], *([name] for name in names(COMMANDS + HIDDEN_COMMANDS))])
def test_the_help_of_every_command_has_an_example(name: list[str]) -> None:
    result = run(*name, "--help")
    assert result.exit_code == 0
    assert "Example: dragoman " in result.stdout


def test_hidden_commands_are_not_listed() -> None:
    listed = run("--help").stdout
    assert all(name in listed for name in names(COMMANDS))
    assert not any(name in listed for name in names(HIDDEN_COMMANDS))


def test_it_says_its_version() -> None:
    assert run("--version").stdout == f"dragoman {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chekc-config"], "Did you mean 'check-config'"),
        (["check-config"], "Missing argument 'FILE'"),
        (["print-config", "--what"], "No such option: --what"),
        (["--what"], "No such option: --what"),
        (["check-config", "no-such-file.toml"], "no-such-file.toml: there is no such file"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line(arguments: list[str], said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_command_at_all_is_wrong_use_and_shows_the_help() -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


def a_program(error: Exception) -> typer.Typer:
    def fail() -> None:
        raise error

    group = typer.Typer(name="group")
    group.command()(fail)
    group.command("other")(fail)
    return build_program((fail, group))


@pytest.mark.parametrize("command", [["fail"], ["group", "fail"]])
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (CommandError("the port is taken"), 1, "the port is taken"),
        (CommandError("which one?", WRONG_USE), 2, "which one?"),
        (OSError("it\nbroke"), 1, "OSError: it broke ('dragoman --debug …' shows where)"),
    ],
)
def test_an_error_is_one_line_and_its_traceback_only_with_debug(
    command: list[str], error: Exception, code: int, line: str
) -> None:
    program = a_program(error)
    result = run(*command, program=program)
    assert (result.exit_code, result.stdout, result.stderr) == (code, "", f"{line}\n")
    result = run("--debug", *command, program=program)
    assert result.exit_code == code
    assert "Traceback" in result.stderr
    assert result.stderr.endswith(f"{line}\n")


def test_an_interrupt_ends_with_130() -> None:
    def wait() -> None:
        raise KeyboardInterrupt

    assert run("wait", program=build_program((wait,))).exit_code == 130


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DRAGOMAN_")}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)


def test_the_real_program_checks_a_file() -> None:
    result = python("-m", "dragoman", "check-config", EXAMPLE)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(": good\n")


def test_the_help_starts_without_the_heavy_parts() -> None:
    # What --help imports is what the program's module imports.
    heavy = ("pydantic", "rich", "msgspec", "picows", "numpy", "prometheus_client", "dragoman.app")
    code = f"import sys, dragoman.cli.program; print([name for name in {heavy} if name in sys.modules])"
    assert python("-c", code).stdout == "[]\n"
