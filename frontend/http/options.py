"""What OPTIONS answers: all methods of the path.

Litestar (2.25) makes a path's route anew with each handler that is registered for it, and the handler of OPTIONS once: it
goes on naming the methods of the first of these routes.
"""

from __future__ import annotations

import inspect

from litestar import Litestar
from litestar.routes import HTTPRoute

from frontend.http.auth import ANY_KEY


def complete(app: Litestar) -> None:
    for route in app.routes:
        if isinstance(route, HTTPRoute) and "OPTIONS" in route.route_handler_map:
            handler, _ = route.route_handler_map["OPTIONS"]
            handler.opt.update(ANY_KEY)
            first = inspect.getclosurevars(handler.fn).nonlocals.get("self")
            if isinstance(first, HTTPRoute):
                first.methods = route.methods
