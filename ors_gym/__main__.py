"""``python -m ors_gym``."""

from ors_gym.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
