"""The key with which a user checks what webhooks tell them."""

from fastapi import APIRouter
from pydantic import BaseModel

from moorage_api.deps import PrincipalDep, RuntimeDep

router = APIRouter(prefix="/api/auth", tags=["auth"])


class WebhookSecret(BaseModel):
    """`X-Moorage-Signature: t=<unix time>,v1=<hex>` holds the HMAC-SHA256 of `<t>.<body>` with this text as the key."""

    secret: str


@router.get("/webhook-secret")
async def webhook_secret(runtime: RuntimeDep, principal: PrincipalDep) -> WebhookSecret:
    """What signs the caller's webhooks, and nobody else's. It needs a log-in, not an API key."""
    return WebhookSecret(secret=runtime.deliveries.secret_of(principal.user_id).decode())
