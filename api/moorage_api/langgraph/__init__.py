"""The LangGraph wire: projections of the same threads, runs, events and approvals for unmodified LangGraph clients."""
