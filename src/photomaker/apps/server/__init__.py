"""The HTTP server: `create_app` makes the application, with one file for each group of routes."""

from photomaker.apps.server.app import create_app
from photomaker.apps.server.door import ServerSettings

__all__ = ["ServerSettings", "create_app"]
