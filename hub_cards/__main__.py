"""
Cards and publishing, from the command line.

    python -m hub_cards publish model outputs/ft --repo org/name --license apache-2.0 --dry-run
    python -m hub_cards card dataset shards --repo org/name
    python -m hub_cards COMMAND --help
"""

import sys

from dataset_builders.command_line import run_command

COMMANDS = {
    "publish": ("publish_command", "check a model, data set, metric or Space, and put it on the Hub with its card"),
    "card": ("card_command", "print or write a card alone"),
    "results": ("results_command", "add a results.json of `python -m eval run` to a published model"),
}


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status (see [`~dataset_builders.command_line.run_command`])."""
    return run_command("hub_cards", COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
