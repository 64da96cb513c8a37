"""The service: what elemta-policyd does inside the skeleton that both daemons share (`elemta.daemon`)."""

from __future__ import annotations

from functools import partial

from elemta.case import Case
from elemta.daemon.worker import Worker
from elemta_policyd.server import Server


class PolicydService:
    """Answers Postfix's policy requests by the recipient rules of one configuration file."""

    name = "policyd"

    async def serve(self, worker: Worker) -> None:
        """Serve until the worker is to stop; return when every connection has gone."""
        settings = worker.settings.policyd
        server = Server(
            partial(Case, worker.engine, settings.budget),
            idle=settings.idle,
            most=settings.connections,
            counts=bool(worker.engine.counting),
        )
        metrics = worker.opened.metrics
        metrics.gauge(metrics.connections, lambda: server.connections)
        worker.adopt(server.take)
        server.listen(worker.listener)
        worker.ready()
        await worker.stopping.wait()
        server.stop_listening()
        worker.closed()
        await server.drain(worker.hand_over, worker.grace)
