"""The agent: the only package that imports LangGraph, LangChain and deepagents."""
