"""Sandboxes: where an agent's commands run. One disposable sandbox per thread, over a workspace that outlives it."""
