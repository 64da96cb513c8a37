"""elemta-milter: runs the milter daemon; `--config FILE` names the policy."""

import sys

from elemta import daemon
from elemta_milter.service import MilterService


def main() -> int:
    """Run until told to stop; the exit status."""
    return daemon.run(MilterService())


if __name__ == "__main__":
    sys.exit(main())
