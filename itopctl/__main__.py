"""`python -m itopctl` and the `itopctl` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    from itopctl.cli.streams import survive_closed_pipes

    survive_closed_pipes()
    from itopctl.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
