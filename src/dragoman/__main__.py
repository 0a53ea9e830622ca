"""What does `dragoman` on the command line start?"""

from __future__ import annotations


def main() -> None:
    """Run the command that was asked for."""
    from dragoman.cli.program import build_program

    build_program()(prog_name="dragoman")


if __name__ == "__main__":
    main()
