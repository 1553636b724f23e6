"""Postgres: the pool, the migrations, and one file per store."""
