"""The door of `recurra`, and of `python -m recurra`: light, so that Ctrl-C is heard while all else is imported."""

from recurra import exits


def main() -> None:
    """Run the command in sys.argv."""
    with exits.polite():
        exits.open_streams()
        from recurra.cli import app

        app()


if __name__ == "__main__":
    main()
