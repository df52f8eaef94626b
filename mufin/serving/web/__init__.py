"""The HTTP server: routes, limits, keys, the device thread and the exchange of models."""
