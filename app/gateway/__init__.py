"""The websocket process: accept, authenticate, pump, registry, dispatch, live."""
