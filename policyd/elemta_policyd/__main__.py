"""The command elemta-policyd."""

import sys

from elemta import daemon
from elemta_policyd.service import PolicydService


def main() -> int:
    """Run the policy daemon; the exit status."""
    return daemon.run(PolicydService())


if __name__ == "__main__":
    sys.exit(main())
