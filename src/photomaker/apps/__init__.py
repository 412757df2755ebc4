"""Thin front ends to the other rooms: the command line, the HTTP server, the web page."""
