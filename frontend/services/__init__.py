"""The use cases, named like the resources of the API. Know the domain and its ports, nothing outside."""
