"""Moorage: a self-hosted, multi-tenant server for AI agents that do real work in sandboxes, with approvals."""
