"""`python -m shipway` is the `shipway` command."""

from shipway.cli import main

if __name__ == "__main__":
    main()
