"""Shipped fakes: an OpenAI-compatible server whose model follows a script."""

from moorage.testing.scripted_model import ScriptedModel, create_app, serve_scripted_model
from moorage.testing.scripts import SCRIPTS

__all__ = ["SCRIPTS", "ScriptedModel", "create_app", "serve_scripted_model"]
