"""Runs: one execution of a thread's agent each, from the message that starts it to its terminal event."""
