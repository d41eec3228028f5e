"""Decoders of texts: a latent and the characters so far to the next one. A new one: ``@TEXT_DECODERS.named(NAME)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from episodes.registry import Registry
from episodes.tokens import numbers_of

TEXT_DECODERS: Registry[Callable[..., Any]] = Registry("text decoder")
_EMBEDDING = 32


@TEXT_DECODERS.named("lstm")
class TextDecoder(nn.Module):
    """One LSTM layer over characters, the latent in its first state and beside every input.

    The decoder of Bowman et al. (CoNLL 2016) and of Pang et al. (EACL 2021): strong enough to do without the latent, so
    that a VAE of it is prone to collapse.

    Args:
        latent: units of the latent.
        symbols: how many there are.
        length: characters of a text.
        width: of the state.

    Example:
        >>> import torch
        >>> from metagvae.vae.text_decoder import TextDecoder
        >>> decoder = TextDecoder(latent=6, symbols=30, length=20, width=16)
        >>> texts = torch.randint(0, 30, (3, 1, 1, 20)) / 255
        >>> decoder(torch.zeros(3, 6), texts).shape, decoder.write(torch.zeros(3, 6)).shape
        (torch.Size([3, 30, 1, 20]), torch.Size([3, 1, 1, 20]))
    """

    def __init__(self, latent: int, symbols: int, length: int, width: int = 128) -> None:
        super().__init__()
        self.symbols, self.length = symbols, length
        self.embedding = nn.Embedding(symbols + 1, _EMBEDDING)  # the last one begins a text
        self.to_state = nn.Linear(latent, width)
        self.cell = nn.LSTM(_EMBEDDING + latent, width, batch_first=True)
        self.to_logits = nn.Linear(width, symbols)

    def forward(self, z: Tensor, images: Tensor) -> Tensor:
        """Logits ``[B, symbols, 1, length]`` of each character given those before it.

        Args:
            z: ``[B, latent]``.
            images: the texts, ``[B, 1, 1, length]`` in [0, 1].
        """
        numbers = numbers_of(images).clamp(max=self.symbols - 1)
        before = torch.cat((torch.full_like(numbers[:, :1], self.symbols), numbers[:, :-1]), 1)
        inputs = torch.cat((self.embedding(before), z.unsqueeze(1).expand(-1, self.length, -1)), -1)
        states, _ = self.cell(inputs, self._first(z))
        logits: Tensor = self.to_logits(states).transpose(1, 2).unsqueeze(2)
        return logits

    def _first(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.to_state(z).tanh().unsqueeze(0)
        return hidden, torch.zeros_like(hidden)

    @torch.no_grad()
    def write(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Texts ``[B, 1, 1, length]`` in [0, 1], the likeliest character each time; with a generator, drawn ones."""
        last = torch.full((len(z), 1), self.symbols, device=z.device)
        state, written = self._first(z), []
        for _ in range(self.length):
            out, state = self.cell(torch.cat((self.embedding(last), z.unsqueeze(1)), -1), state)
            logits = self.to_logits(out[:, 0])
            last = logits.argmax(-1, keepdim=True)
            if generator is not None:
                last = torch.multinomial(logits.softmax(-1), 1, generator=generator)
            written.append(last)
        return torch.cat(written, 1)[:, None, None] / 255
