"""What the server's operator lets users configure."""

from collections.abc import Callable
from dataclasses import dataclass

from moorage.assistants.assistant import Assistant
from moorage.assistants.configuration import GATED_TOOLS, Configuration, ToolApproval
from moorage.assistants.graphs import get_graph
from moorage.errors import InvalidInput, InvalidPayload

_ANY = "*"


class ModelNotAllowed(InvalidPayload):
    """Users may not choose this model: the operator pays for it, or it leads to the operator's network."""

    code = "model_not_allowed"


class AutoApprovalNotAllowed(InvalidPayload):
    code = "auto_approval_not_allowed"


class UnknownProfile(InvalidPayload):
    """The operator defines no, or no longer, sandbox profile of this name."""

    code = "unknown_sandbox_profile"


def _nothing_to_say(_: str) -> None:
    """Any model that is allowed can be had."""


@dataclass(frozen=True, slots=True)
class Policy:
    """`models` are `provider:name`, or `provider:*`. With `allow_auto`, tools may run without asking.

    `profiles` are the sandbox profiles that the operator defines.

    `check_usable` raises InvalidInput for a model that cannot be had, whoever may choose it.
    """

    models: frozenset[str] = frozenset()
    allow_auto: bool = False
    check_usable: Callable[[str], None] = _nothing_to_say
    profiles: frozenset[str] = frozenset({"default"})

    def permits(self, model: str) -> bool:
        return model in self.models or f"{model.partition(':')[0]}:{_ANY}" in self.models

    def check(self, assistant: Assistant) -> None:
        """Raise InvalidPayload: the model may not be chosen or cannot be had, or something may not be allowed."""
        self.check_models(assistant)
        self.check_profile(assistant)
        configuration = assistant.configuration
        for model in _chosen(configuration, get_graph(assistant.graph_id).configuration):
            try:
                self.check_usable(model)
            except InvalidInput as error:
                raise InvalidPayload(error.detail, code=error.code) from error
        allowed = sorted(tool for tool, how in configuration.approvals if how is ToolApproval.ALLOW)
        if not self.allow_auto and not GATED_TOOLS.isdisjoint(allowed):
            raise AutoApprovalNotAllowed(
                f"approvals: this server asks a human before {', '.join(GATED_TOOLS.intersection(allowed))}: "
                "`allow` needs APPROVALS_ALLOW_AUTO"
            )

    def check_models(self, assistant: Assistant) -> None:
        """Raise ModelNotAllowed when the assistant's own choice of models is not, or no longer, permitted."""
        base = get_graph(assistant.graph_id).configuration
        if assistant.context and not all(map(self.permits, _chosen(assistant.configuration, base))):
            raise ModelNotAllowed(
                f"model: not one that may be chosen here. There are: {', '.join(sorted(self.models))}"
            )

    def check_profile(self, assistant: Assistant) -> None:
        """Raise UnknownProfile when there is no such sandbox."""
        if assistant.configuration.sandbox_profile not in self.profiles:
            raise UnknownProfile(f"sandbox_profile: unknown profile; there are: {', '.join(sorted(self.profiles))}")


def _chosen(configuration: Configuration, base: Configuration) -> set[str]:
    """The models named in a configuration and not in its graph's."""
    named = {configuration.model, *(item.model for item in configuration.subagents)}
    given = {base.model, *(item.model for item in base.subagents)}
    return {model for model in named - given if model is not None}
