"""Signed manifests, consent, and encrypted identities."""
