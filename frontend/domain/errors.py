"""Everything that can go wrong in this service, as one tree. Knows codes and words, not HTTP (see frontend/http/errors.py).

ServiceError                     code, message, param
|- InvalidRequest                the request is wrong as it stands
|  |- ContextLengthExceeded      prompt and answer do not fit the model's window
|  |- ConversationLocked         another turn of the conversation is running: try again after `retry_after_s`
|  |- PreviousResponseNotFound
|  |- ParseFailed                a file that cannot be read
|  |- QuotaExceeded              the tenant keeps as much as it may
|  `- TooLarge                   the body is larger than is read
|- Unauthenticated               no key, or one that is not known
|- Forbidden                     a key that may not do this
|- RateLimited                   the key or its tenant has had its share: try again after `retry_after_s`
|- InProgress                    the same Idempotency-Key is being worked on
|- KeyReused                     the same Idempotency-Key came with another request
|- NotFound                      no such resource or route
|  `- ModelNotFound
|- Unavailable                   right request, wrong moment: try again after `retry_after_s`
|  `- Overloaded                 too many requests are waiting
|- Timeout                       the generation took longer than a request may
`- Internal                      a defect of ours
"""

from __future__ import annotations

from frontend.domain.limits import LimitName, Standing


class ServiceError(Exception):
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class InvalidRequest(ServiceError):
    code = "invalid_value"


class ContextLengthExceeded(InvalidRequest):
    code = "context_length_exceeded"


class ConversationLocked(InvalidRequest):
    code = "conversation_locked"

    def __init__(self, *, retry_after_s: float = 0.5) -> None:
        super().__init__(
            "Another turn of this conversation is running. Please try again when it has ended.", param="conversation"
        )
        self.retry_after_s = retry_after_s


class PreviousResponseNotFound(InvalidRequest):
    code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        super().__init__(f"Previous response with id {response_id!r} not found.", param="previous_response_id")


class ParseFailed(InvalidRequest):
    code = "invalid_file"


class QuotaExceeded(InvalidRequest):
    code = "quota_exceeded"


class TooLarge(InvalidRequest):
    code = "request_too_large"


class Unauthenticated(ServiceError):
    code = "invalid_api_key"


class Forbidden(ServiceError):
    code = "insufficient_scope"


class RateLimited(ServiceError):
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, limit: LimitName, *, retry_after_s: float | None, standing: Standing | None = None
    ) -> None:
        """`retry_after_s`: None: trying again cannot help, the request is larger than the limit. `standing`: as it was."""
        super().__init__(message)
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.standing = standing or Standing()


class InProgress(ServiceError):
    code = "idempotency_in_progress"

    def __init__(self, *, retry_after_s: float = 1.0) -> None:
        super().__init__("A request with this Idempotency-Key is being worked on. Please try again when it has ended.")
        self.retry_after_s = retry_after_s


class KeyReused(ServiceError):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was sent with another request before. Please use a new one.")


class NotFound(ServiceError):
    code = "not_found"


class ModelNotFound(NotFound):
    code = "model_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"The model {name!r} does not exist.", param="model")


class Unavailable(ServiceError):
    code = "engine_unavailable"

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Overloaded(Unavailable):
    code = "server_overloaded"


class Timeout(ServiceError):
    code = "timeout"


class Internal(ServiceError):
    code = "internal_error"
