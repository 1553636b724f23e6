"""Runs INSIDE a sandbox: an order as it was sent, and who carries it out."""

import importlib
import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from moorage.sandboxes.helper.wire import Order


class Job:
    """An order. `in_zygote` starts what the zygote itself goes on with, and answers the report.

    `prepares`: it waits for the word to go itself, when it has done what may be done before. `has_children`: it starts
    processes.

    Raises ImportError or KeyError for an order that nobody knows.
    """

    def __init__(self, number: int, text: bytes) -> None:
        self.number = number
        self.text = text
        self.order: dict[str, Any] = json.loads(text)
        self.module, _, name = self.order["do"].partition(".")
        orders = importlib.import_module(f"moorage.sandboxes.helper.{self.module}")
        self.in_zygote: Callable[..., dict[str, object]] | None = getattr(orders, "IN_ZYGOTE", {}).get(name)
        self.has_children: bool = name in getattr(orders, "WITH_CHILDREN", ())
        self.prepares: bool = name in getattr(orders, "PREPARING", ())
        if self.in_zygote is None:
            self.carry_out: Order = orders.ORDERS[name]

    @property
    def limits(self) -> "dict[str, int]":
        """What its process is limited to from then on, for good."""
        return self.order.get("rlimits") or {}
