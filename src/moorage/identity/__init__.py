"""Who is calling: users, their passwords and tokens, and the rules by which they come in."""

from moorage.identity.service import Identity
from moorage.identity.tokens import TokenSigner
from moorage.identity.user import Principal, User

__all__ = ["Identity", "Principal", "TokenSigner", "User"]
