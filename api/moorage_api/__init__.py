"""The HTTP delivery of Moorage: parse, one domain call, shape the reply."""
