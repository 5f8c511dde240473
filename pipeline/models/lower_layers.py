"""What lies below the first layer that learns: it gives the same for a row in every pass, so it is computed once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import ModelError
from pipeline.models.head import backbone, underlying_model

# Part of the largest state by which rounding may move the states of a model that is run in two parts.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-2}


class LowerLayers:
    """Frozen lower layers of any model with the same base and the same frozen adapters, and the states they gave.

    Kept in main memory: hidden size times the bytes of the base's number format for each token of every row.
    """

    def __init__(self, num_upper: int) -> None:
        """`num_upper` counts the layers above, which learn."""
        self.num_upper = num_upper
        self._kept: dict[bytes, Tensor] = {}  # tokens and segments of a row -> its states [L, H]
        self._is_checked = False

    def freeze(self, model: nn.Module) -> None:
        """Let what adapters have in the lower layers stay as it is.

        Raises:
            ModelError: The model has no more layers than these, or is none that can be run in two parts.
        """
        lower, _ = self._parts(model)
        for parameter in lower.parameters():
            parameter.requires_grad_(False)

    def states(
        self, model: nn.Module, input_ids: Tensor, segments: Tensor, mask: Tensor, position_ids: Tensor, padding: int
    ) -> Tensor:
        """Return the last hidden states ``[B, L, H]``; gradients reach the upper layers.

        Args:
            model: After `freeze`.
            input_ids: ``[B, L]`` int64.
            segments: ``[B, L]`` int64: what beside its tokens makes a row what it is.
            mask: ``[B, 1, L, L]``, which token sees which.
            position_ids: ``[B, L]`` int64.
            padding: The segment of padding.
        """
        real = segments != padding
        rows = [torch.stack([ids[own], parts[own]]) for ids, parts, own in zip(input_ids, segments, real, strict=True)]
        keys = [row.cpu().numpy().tobytes() for row in rows]
        inputs: dict[str, Any] = {"attention_mask": mask, "position_ids": position_ids, "use_cache": False}
        if not all(key in self._kept for key in keys):
            below = self._run_lower(model, input_ids, inputs)
            for key, states, own in zip(keys, below, real, strict=True):
                self._kept[key] = states[own].cpu()
        states = torch.zeros(
            (*input_ids.shape, self._kept[keys[0]].shape[-1]), dtype=self._kept[keys[0]].dtype, device=input_ids.device
        )
        for number, key in enumerate(keys):
            states[number, real[number]] = self._kept[key].to(input_ids.device)
        if not self._is_checked:
            self._check(model, input_ids, states, inputs, real)
        return self._run_upper(model, states, inputs)

    def _parts(self, model: nn.Module) -> tuple[nn.ModuleList, nn.ModuleList]:
        decoder, causal = backbone(model), underlying_model(model)
        layers = getattr(decoder, "layers", None)
        kinds = getattr(causal.config.get_text_config(), "layer_types", None) or []
        if not isinstance(layers, nn.ModuleList) or len(set(kinds)) > 1:
            raise ModelError(
                f"{type(causal).__name__} cannot be run in two parts, because its layers differ or are not to be "
                "found. Leave `reward.upper_layers` out."
            )
        if self.num_upper >= len(layers):
            raise ModelError(
                f"reward.upper_layers={self.num_upper} leaves nothing below, because the model has {len(layers)} "
                "layers. Choose fewer, or leave it out."
            )
        return layers[: -self.num_upper], layers[-self.num_upper :]

    @torch.no_grad()
    def _run_lower(self, model: nn.Module, input_ids: Tensor, inputs: dict[str, Any]) -> Tensor:
        lower, _ = self._parts(model)
        found: list[Tensor] = []

        def keep(module: nn.Module, arguments: Any, output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        hook = lower[-1].register_forward_hook(keep)
        try:
            with _only(backbone(model), lower):
                backbone(model)(input_ids=input_ids, **inputs)
        finally:
            hook.remove()
        return found[0]

    def _run_upper(self, model: nn.Module, states: Tensor, inputs: dict[str, Any]) -> Tensor:
        with _only(backbone(model), self._parts(model)[1]):
            return cast("Tensor", backbone(model)(inputs_embeds=states, **inputs).last_hidden_state)

    @torch.no_grad()
    def _check(self, model: nn.Module, input_ids: Tensor, states: Tensor, inputs: dict[str, Any], real: Tensor) -> None:
        """Compare with the whole model once: what an architecture does before or between its layers shows here."""
        whole = backbone(model)(input_ids=input_ids, **inputs).last_hidden_state[real].float()
        parted = self._run_upper(model, states, inputs)[real].float()
        difference, scale = float((parted - whole).abs().max()), float(whole.abs().max())
        if not difference <= TOLERANCES.get(states.dtype, 1e-4) * max(scale, 1.0):
            raise ModelError(
                f"{type(underlying_model(model)).__name__}, run in two parts, differs from the whole by "
                f"{difference:.3g}. Leave `reward.upper_layers` out."
            )
        self._is_checked = True


@contextmanager
def _only(decoder: nn.Module, layers: nn.ModuleList) -> Iterator[None]:
    """Let the model consist of some of its layers."""
    whole = decoder.layers
    decoder.layers = layers
    try:
        yield
    finally:
        decoder.layers = whole
