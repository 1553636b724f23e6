"""Assistants, as the models that an OpenAI client may choose from."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel

from moorage.assistants import Assistant, AssistantFilter, UnknownAssistant
from moorage.assistants.service import MOST_ASSISTANTS
from moorage.events import scrub_text
from moorage.identity import Principal
from moorage.runtime import Runtime
from moorage_api.deps import PrincipalDep, RuntimeDep
from moorage_api.openai.errors import ERRORS, OpenAIRoute

router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=ERRORS)


class Model(BaseModel):
    """An assistant. `name` is ours, for humans; either is taken as `model`."""

    id: str
    name: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
async def list_models(runtime: RuntimeDep, principal: PrincipalDep) -> ModelList:
    """The assistants that one may talk to: the system's and one's own."""
    listing = await runtime.assistants.search(principal.user_id, AssistantFilter(), limit=MOST_ASSISTANTS)
    return ModelList(data=[_shown(assistant) for assistant in listing.items])


@router.get("/models/{model_id}")
async def get_model(
    runtime: RuntimeDep, principal: PrincipalDep, model_id: Annotated[str, Path(max_length=200)]
) -> Model:
    """One assistant, by id or name."""
    return _shown(await find_model(runtime, principal, model_id))


async def find_model(runtime: Runtime, principal: Principal, model: str) -> Assistant:
    """The assistant that a client calls a model, by id or, latest first, by name; raises UnknownAssistant."""
    try:
        return await runtime.assistants.get(principal.user_id, model)
    except UnknownAssistant:
        named = await runtime.assistants.search(
            principal.user_id, AssistantFilter(name=scrub_text(model)), limit=MOST_ASSISTANTS
        )
        for assistant in named.items:
            if assistant.name == model:
                return assistant
        raise


def _shown(assistant: Assistant) -> Model:
    return Model(
        id=assistant.assistant_id,
        name=assistant.name,
        created=int(assistant.created_at.timestamp()),
        owned_by="moorage" if assistant.is_system else "user",
    )
