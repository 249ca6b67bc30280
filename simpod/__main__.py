"""`python -m simpod` is the command `simpod`."""

from simpod.cli.main import app

if __name__ == "__main__":
    app(prog_name="simpod")
