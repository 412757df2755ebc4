"""Thin doors to the other rooms: the command line."""
