"""Generated requests to every route of the OpenAPI page: `python -m tests.fuzz`, and a bounded form in the tests."""
