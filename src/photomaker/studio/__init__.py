"""Shared by all front ends: open an engine, check photos, make an identity, order pictures, score, save."""
