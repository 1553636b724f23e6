"""What one run hands to the shared, cached agent: its budget and its journal; the graph's runtime context."""

from dataclasses import dataclass

from moorage.agent.journal import Journal
from moorage.errors import LimitExceeded


class StepLimitReached(LimitExceeded):
    code = "step_limit"


class TokenBudgetReached(LimitExceeded):
    code = "token_budget"


@dataclass(slots=True)
class RunContext:
    """The run's own journal and counters, shared with its sub-agents. A step is one model call; 0 tokens: no budget."""

    journal: Journal
    max_steps: int
    token_budget: int = 0
    steps: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def take_step(self) -> None:
        """Count one model call; raises StepLimitReached or TokenBudgetReached instead of making one too many."""
        if self.steps >= self.max_steps:
            raise StepLimitReached(f"The run made {self.max_steps} model calls, its limit (RUN_MAX_STEPS)")
        if self.token_budget and self.input_tokens + self.output_tokens >= self.token_budget:
            raise TokenBudgetReached(f"The run used {self.token_budget} tokens, its budget (RUN_TOKEN_BUDGET)")
        self.steps += 1

    def count_tokens(self, *, input_tokens: int, output_tokens: int) -> None:
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    @property
    def usage(self) -> dict[str, int]:
        return {
            "model_calls": self.steps,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }
