"""The daemons' skeleton: `start` is the checklist, `supervisor` keeps the processes, `worker` and `keeper` are they.

A daemon is `run(service)`: the service answers Postfix, everything else is here.
"""

from elemta.daemon.start import run

__all__ = ["run"]
