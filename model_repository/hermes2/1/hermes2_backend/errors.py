"""The errors a request can end with. Each carries what the structured `error` output carries.

BackendError
|- InvalidArgument   the request is wrong; `param` names the tensor or sampling parameter
|- Unavailable       right request, wrong moment: queue full, engine dead or draining
`- Internal          a defect of ours or of the engine
"""

from __future__ import annotations

import json


class BackendError(Exception):
    """A failure that is answered to the client. `code` is the name of a code of Triton's `TritonError`."""

    code = "INTERNAL"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return f"{self.param}: {self.message}" if self.param else self.message

    def as_json(self) -> str:
        """The value of the `error` output: `{"code", "message", "param"}`."""
        return json.dumps({"code": self.code, "message": self.message, "param": self.param})


class InvalidArgument(BackendError):
    code = "INVALID_ARG"


class Unavailable(BackendError):
    code = "UNAVAILABLE"


class Internal(BackendError):
    code = "INTERNAL"
