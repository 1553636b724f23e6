"""Sandboxes by way of a broker: one process holds the engine's socket, and offers eight verbs over a unix socket."""

from moorage.adapters.sandboxd.client import BrokerSandboxes
from moorage.adapters.sandboxd.server import Broker, BrokeredProvider, allowed_uids
from moorage.adapters.sandboxd.socket_file import listening

__all__ = ["Broker", "BrokerSandboxes", "BrokeredProvider", "allowed_uids", "listening"]
