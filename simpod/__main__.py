"""`simpod`, and `python -m simpod`: the command line, which Ctrl-C may end while it is loaded."""

import sys

from simpod.errors import INTERRUPTED


def main() -> None:
    """Load the commands and run one."""
    try:
        from simpod.cli.main import app

        app(prog_name="simpod")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
