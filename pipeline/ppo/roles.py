"""The models that PPO needs, as it sees them: who acts and who learns is a context, whatever lies behind it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from peft import PeftModel
from torch import nn

from pipeline.models.roles import POLICY, VALUE, enter_role, role_parameters
from pipeline.models.value import ValueHead


class ActorCritic(Protocol):
    """A policy, its reference and a value model. A forward pass and its backward pass happen inside one context."""

    value_head: ValueHead
    shares_trunk: bool  # the value head reads the policy's own hidden states

    def policy(self, *, train: bool = False) -> AbstractContextManager[nn.Module]:
        """Enter the policy."""
        ...

    def reference(self) -> AbstractContextManager[nn.Module]:
        """Enter the frozen reference."""
        ...

    def value(self, *, train: bool = False) -> AbstractContextManager[nn.Module]:
        """Enter the value model's trunk, where it has one of its own."""
        ...

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """Return what the policy's updates move, by name."""
        ...

    def value_parameters(self) -> dict[str, nn.Parameter]:
        """Return what only the value model's updates move, by name."""
        ...


@dataclass(kw_only=True)
class OneBackbone:
    """All roles as adapters on one frozen base."""

    model: PeftModel
    value_head: ValueHead
    reference_adapter: str | None  # None: the policy started from the bare base
    shares_trunk: bool
    activation_checkpointing: bool = False  # was enabled on the model, from which all dropout was taken

    def policy(self, *, train: bool = False) -> AbstractContextManager[nn.Module]:
        """Enter the policy's adapter."""
        return self._role(POLICY, train=train)

    def reference(self) -> AbstractContextManager[nn.Module]:
        """Enter the frozen copy of the incoming policy, or the bare base."""
        return enter_role(self.model, self.reference_adapter)

    def value(self, *, train: bool = False) -> AbstractContextManager[nn.Module]:
        """Enter the value adapter."""
        return self._role(VALUE, train=train)

    @contextmanager
    def _role(self, adapter: str, *, train: bool) -> Iterator[nn.Module]:
        """Enter a role; activations are checkpointed in training mode alone, in which no cache works for sampling."""
        with enter_role(self.model, adapter, train=train):
            self.model.train(train and self.activation_checkpointing)
            try:
                yield self.model
            finally:
                self.model.eval()

    def policy_parameters(self) -> dict[str, nn.Parameter]:
        """Return the policy adapter's parameters."""
        return role_parameters(self.model, POLICY)

    def value_parameters(self) -> dict[str, nn.Parameter]:
        """Return the value adapter's parameters and the head's."""
        head = {f"value_head.{name}": parameter for name, parameter in self.value_head.named_parameters()}
        return head if self.shares_trunk else {**role_parameters(self.model, VALUE), **head}
