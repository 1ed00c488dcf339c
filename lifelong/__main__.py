"""``python -m lifelong`` is the command ``lifelong``."""

import sys

INTERRUPTED = 130  # 128 + SIGINT


def start() -> int:
    """Run the command line of this process, and return the exit code; it may be stopped while the commands are still being imported."""
    try:
        from lifelong.cli import main

        return main()
    except KeyboardInterrupt:
        print("lifelong: stopped", file=sys.stderr)
        return INTERRUPTED
    finally:
        # Where an interrupt ended code that was executed from text, as dataclasses are made, `python -m` would end by the signal, although
        # the interrupt was caught. Python forgets that when it executes other text.
        exec("")


if __name__ == "__main__":
    sys.exit(start())
