"""``python -m sizing`` is ``genz-size``."""

from sizing.cli import main

if __name__ == "__main__":
    main()
