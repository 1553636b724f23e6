"""Adapters: what the ports look like against real databases, engines and programs."""
