"""The agents, and where their models come from."""

from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from moorage.agent.backend import ThreadSandbox
from moorage.agent.gate import Gate
from moorage.agent.graph import AgentParts, Agents, ProfileParts
from moorage.agent.models import SCRIPTED, ModelConfig, build_model, default_model_name
from moorage.assistants import Assistant, Assistants, Policy, get_assistant
from moorage.errors import InvalidInput
from moorage.ids import UserId
from moorage.sandboxes.profiles import DEFAULT_PROFILE, SandboxProfile
from moorage.sandboxes.service import Sandboxes
from moorage.settings import Settings
from moorage.testing import serve_scripted_model


async def make_agents(
    settings: Settings, stack: AsyncExitStack, sandboxes: Sandboxes, profiles: Mapping[str, SandboxProfile]
) -> tuple[Agents, str]:
    """The agents and the name of their default model; raises an AppError when that cannot be had."""
    name = default_model(settings)
    scripted = None
    if any(model.partition(":")[0] == SCRIPTED for model in (name, *settings.llm_allowed_models)):
        scripted = await stack.enter_async_context(serve_scripted_model())
    config = model_config(settings, scripted_base_url=scripted)
    for_profile = partial(_parts_of_profile, settings, sandboxes, profiles)
    own = for_profile(DEFAULT_PROFILE)
    parts = AgentParts(
        backend=own.backend,
        gate=own.gate,
        reachable=own.reachable,
        model=lambda model: build_model(model, config),
        default_model=name,
        workspace=settings.container_workspace_dir,
        shared=settings.container_shared_dir,
        command_seconds=settings.sandbox_command_seconds,
        allow_auto=settings.approvals_allow_auto,
        for_profile=for_profile,
    )
    agents = Agents(parts)
    agents.get(get_assistant("agent"))  # a wrong model is told at start, not at the first message
    return agents, name


def assistant_policy(settings: Settings, agents: Agents, profiles: Collection[str]) -> Policy:
    """What users may put into their assistants: the default model, those that the operator lists, and the profiles.

    A model costs the operator's money, and its name may lead into the operator's network (`ollama:`). The scripted
    ones do neither: where the server itself runs on a script, all of them are free.
    """
    default = default_model(settings)
    allowed = {default, *settings.llm_allowed_models}
    if default.partition(":")[0] == SCRIPTED:
        allowed.add(f"{SCRIPTED}:*")
    return Policy(frozenset(allowed), settings.approvals_allow_auto, agents.check_model, frozenset(profiles))


async def load_for_run(
    assistants: Assistants,
    agents: Agents,
    owner: UserId,
    assistant_id: str,
    context: Mapping[str, Any] | None = None,
) -> Assistant:
    """The assistant of a run, its agent ready; raises UnknownAssistant, ModelNotAllowed or UnknownModel.

    `context` is what the run changes of it.
    """
    assistant = await assistants.load(owner, assistant_id)
    if context:
        assistant = assistants.overridden(assistant, context)
    await agents.prepare(assistant)
    return assistant


def _parts_of_profile(
    settings: Settings, sandboxes: Sandboxes, profiles: Mapping[str, SandboxProfile], name: str
) -> ProfileParts:
    profile = profiles.get(name)
    if profile is None:
        raise InvalidInput(f"There is no sandbox profile {name} any more")
    seconds = settings.sandbox_command_seconds
    backend = ThreadSandbox(sandboxes, profile=name, default_time_limit=seconds)
    folders = (settings.container_workspace_dir, settings.container_shared_dir)
    return ProfileParts(backend, Gate(_facts(settings, sandboxes, profile), folders), profile.allow)


def _facts(settings: Settings, sandboxes: Sandboxes, profile: SandboxProfile) -> dict[str, Any]:
    """What the server vouches for when a human is asked, whatever the agent says."""
    facts: dict[str, Any] = {
        "sandbox": sandboxes.provider.name,
        "runtime": settings.sandbox_runtime or "default",
        "profile": profile.name,
        "network": profile.network,
        "folder": settings.container_workspace_dir,
        "limits": {
            "cpus": profile.cpus,
            "memory_mb": profile.memory_mb,
            "pids": profile.pids,
            "disk_mb": profile.disk_mb,
            "command_seconds": settings.sandbox_command_seconds,
        },
    }
    if profile.network == "allowlist":
        facts["allowed_hosts"] = list(profile.allow)
    return facts


def default_model(settings: Settings) -> str:
    """The model of assistants that name none, as `provider:name`."""
    return default_model_name(settings.llm_model, has_zhipuai_key=settings.zhipuai_api_key is not None)


def model_config(settings: Settings, *, scripted_base_url: str | None) -> ModelConfig:
    """Where models come from."""
    return ModelConfig(
        api_key=settings.llm_api_key,
        base_url=settings.llm_base_url,
        zhipuai_api_key=settings.zhipuai_api_key,
        zhipuai_api_base=settings.zhipuai_api_base,
        scripted_base_url=scripted_base_url,
        context_tokens=settings.llm_context_tokens,
        timeout_seconds=settings.llm_timeout_seconds,
        max_retries=settings.llm_max_retries,
    )
