"""Observing: what do the log and the metrics say about each decision?

`log.py` writes the log, `metrics.py` counts, `exposition.py` turns the counts of all processes into the page that
Prometheus reads.
"""

from elemta.observe.exposition import exposition
from elemta.observe.log import Log, MailLog
from elemta.observe.metrics import Metrics

__all__ = ["Log", "MailLog", "Metrics", "exposition"]
