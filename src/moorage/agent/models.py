"""From `provider:name` to a chat model, for any provider LangChain knows and any OpenAI-compatible endpoint."""

from dataclasses import dataclass
from typing import Any, cast

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from moorage.agent.bench_model import BenchModel
from moorage.errors import InvalidInput

SCRIPTED = "scripted"
_BENCH = "scripted:bench"
_ZHIPU_DEFAULT = "zhipuai:glm-4.6"

# Providers that speak OpenAI's chat completions. Any other one: `openai:name` with LLM_BASE_URL.
_COMPATIBLE = {
    "openai": None,
    "zhipuai": None,
    "deepseek": "https://api.deepseek.com/v1",
    "ollama": "http://127.0.0.1:11434/v1",
    "vllm": "http://127.0.0.1:8000/v1",
    "openrouter": "https://openrouter.ai/api/v1",
}
_NEEDS_NO_KEY = frozenset({SCRIPTED, "ollama", "vllm"})


class UnknownModel(InvalidInput):
    code = "unknown_model"


class CompatibleChat(ChatOpenAI):
    """ChatOpenAI that keeps `reasoning_content`, which DeepSeek, Zhipu, vLLM and others stream beside the text."""

    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], default_chunk_class: type, base_generation_info: dict[str, Any] | None
    ) -> ChatGenerationChunk | None:
        generation = super()._convert_chunk_to_generation_chunk(chunk, default_chunk_class, base_generation_info)  # pyright: ignore[reportUnknownMemberType]
        choices: list[dict[str, Any]] = chunk.get("choices") or []
        if generation is not None and choices and isinstance(generation.message, AIMessageChunk):
            delta: dict[str, Any] = choices[0].get("delta") or {}
            reasoning = delta.get("reasoning_content")
            if reasoning:
                generation.message.additional_kwargs["reasoning_content"] = reasoning
        return generation


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Where models come from. Timeouts in seconds; `context_tokens` is where history gets summarised."""

    api_key: SecretStr | None = None
    base_url: str | None = None
    zhipuai_api_key: SecretStr | None = None
    zhipuai_api_base: str = ""
    scripted_base_url: str | None = None
    context_tokens: int = 80_000
    timeout_seconds: float = 120
    max_retries: int = 3


def default_model_name(llm_model: str | None, *, has_zhipuai_key: bool) -> str:
    """`LLM_MODEL`; without it Zhipu's if its key is set; without that the scripted model's demo."""
    return llm_model or (_ZHIPU_DEFAULT if has_zhipuai_key else f"{SCRIPTED}:demo")


def build_model(name: str, config: ModelConfig) -> BaseChatModel:
    """The chat model `name` (`provider:name`); raises UnknownModel with what to do."""
    if name == _BENCH:
        return BenchModel()
    provider, colon, model_name = name.partition(":")
    if not colon or not model_name:
        raise UnknownModel(f"LLM_MODEL must be provider:name, for example openai:gpt-5-mini, not {name!r}")
    if provider == SCRIPTED or provider in _COMPATIBLE:
        model: BaseChatModel = _compatible_model(provider, model_name, config)
    else:
        model = _any_model(provider, model_name, config)
    model.profile = {**(model.profile or {}), "max_input_tokens": config.context_tokens}
    return model


def _compatible_model(provider: str, model_name: str, config: ModelConfig) -> BaseChatModel:
    key, url = _endpoint(provider, config)
    if key is None and provider not in _NEEDS_NO_KEY and config.base_url is None:
        raise UnknownModel(
            f"{provider} needs a key: set LLM_API_KEY" + (" or ZHIPUAI_API_KEY" if provider == "zhipuai" else "")
        )
    return CompatibleChat(
        model=model_name,
        api_key=key or SecretStr("unused"),
        base_url=url,
        use_responses_api=False,
        stream_usage=True,
        timeout=config.timeout_seconds,
        stream_chunk_timeout=config.timeout_seconds,
        max_retries=config.max_retries,
    )


def _endpoint(provider: str, config: ModelConfig) -> tuple[SecretStr | None, str | None]:
    if provider == SCRIPTED:
        return None, config.scripted_base_url
    if provider == "zhipuai":
        return config.zhipuai_api_key or config.api_key, config.base_url or config.zhipuai_api_base
    return config.api_key, config.base_url or _COMPATIBLE[provider]


def _any_model(provider: str, model_name: str, config: ModelConfig) -> BaseChatModel:
    options: dict[str, object] = {"timeout": config.timeout_seconds, "max_retries": config.max_retries}
    if config.api_key is not None:
        options["api_key"] = config.api_key.get_secret_value()
    if config.base_url is not None:
        options["base_url"] = config.base_url
    try:
        return cast("BaseChatModel", init_chat_model(model_name, model_provider=provider, **options))  # pyright: ignore[reportArgumentType, reportCallIssue, reportUnknownVariableType]
    except ImportError as error:
        raise UnknownModel(f"the provider {provider} needs a package that is not installed: {error.name}") from error
    except ValueError as error:
        raise UnknownModel(f"LLM_MODEL={provider}:{model_name} cannot be used: {error}") from error
