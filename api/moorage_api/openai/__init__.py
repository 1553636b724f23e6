"""The agent as an OpenAI model: `/v1/chat/completions` and `/v1/models`, for clients that know only those.

A conversation is a thread, named by the header `X-Thread-Id`. What the agent does on the way is told as reasoning; what
waits for approval ends the turn with words that say how to answer it.
"""
