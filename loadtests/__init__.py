"""Locust against the real service."""
