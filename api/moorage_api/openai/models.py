"""Assistants, as the models that an OpenAI client may choose from."""

from typing import Annotated, Literal

from fastapi import APIRouter, Path
from pydantic import BaseModel

from moorage.assistants import SYSTEM_ASSISTANTS, Assistant, get_assistant
from moorage_api.deps import PrincipalDep
from moorage_api.openai.errors import ERRORS, OpenAIRoute

router = APIRouter(prefix="/v1", tags=["openai"], route_class=OpenAIRoute, responses=ERRORS)


class Model(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/models")
async def list_models(_principal: PrincipalDep) -> ModelList:
    """The assistants that one may talk to."""
    return ModelList(data=[_shown(assistant) for assistant in SYSTEM_ASSISTANTS.values()])


@router.get("/models/{model_id}")
async def get_model(_principal: PrincipalDep, model_id: Annotated[str, Path(max_length=200)]) -> Model:
    return _shown(find_model(model_id))


def find_model(model: str) -> Assistant:
    """The assistant that a client calls a model, by id or name; raises UnknownAssistant."""
    return get_assistant(model)


def _shown(assistant: Assistant) -> Model:
    return Model(id=assistant.assistant_id, created=0, owned_by="moorage")
