"""Who is calling: users, their passwords, tokens and keys, and the rules by which they come in."""

from moorage.identity.principal import Principal, Scope
from moorage.identity.service import Identity
from moorage.identity.tokens import TokenSigner
from moorage.identity.user import User

__all__ = ["Identity", "Principal", "Scope", "TokenSigner", "User"]
