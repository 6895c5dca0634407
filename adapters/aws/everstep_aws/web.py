"""HTTP through Mangum, on the handler's own loop: Mangum itself would start one for each request."""

from __future__ import annotations

from typing import Any

from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from mangum.protocols import HTTPCycle

_TEXT = [*DEFAULT_TEXT_MIME_TYPES, "application/problem+json"]


class Web:
    """Answers the events of a function URL, API Gateway (either version) or a load balancer.

    Args:
        asgi: the application.
        base_path: what API Gateway has in front of its paths: the stage's name, or a mapping's.
    """

    def __init__(self, asgi: Any, base_path: str = "/") -> None:
        self._asgi = asgi
        self._mangum = Mangum(asgi, lifespan="off", api_gateway_base_path=base_path, text_mime_types=_TEXT)

    async def __call__(self, payload: Any, context: Any) -> dict[str, Any]:
        handler = self._mangum.infer(payload, context)
        cycle = HTTPCycle(handler.scope, handler.body)
        await cycle.run(self._asgi)
        return handler({"status": cycle.status, "headers": cycle.headers, "body": cycle.body})
