"""Personalisation methods, one per file, behind the interface of `methods.base`."""
