"""`python -m medley`: the command line."""

from medley.cli import main

if __name__ == "__main__":
    main()
