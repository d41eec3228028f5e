"""Decoders of texts: a latent and the characters so far to the next one. A new one: ``@TEXT_DECODERS.named(NAME)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
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
        before = _before(images, self.symbols)
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
            last = _next(self.to_logits(out[:, 0]), generator)
            written.append(last)
        return torch.cat(written, 1)[:, None, None] / 255


@TEXT_DECODERS.named("trigram")
class TrigramDecoder(nn.Module):
    """Each character from the two before it and the latent: a trigram model whose table is a network of the latent.

    An LSTM reads off the text so far what language it is in; two characters do not say it, so the latent has to. A
    decoder that sees little leaves what is global to the latent (Chen et al., "Variational Lossy Autoencoder", ICLR
    2017).

    Args:
        latent: units of the latent.
        symbols: how many there are.
        length: characters of a text.
        width: of the two hidden layers.

    Example:
        >>> import torch
        >>> from metagvae.vae.text_decoder import TrigramDecoder
        >>> decoder = TrigramDecoder(latent=6, symbols=30, length=20, width=16)
        >>> texts = torch.randint(0, 30, (3, 1, 1, 20)) / 255
        >>> decoder(torch.zeros(3, 6), texts).shape, decoder.write(torch.zeros(3, 6)).shape
        (torch.Size([3, 30, 1, 20]), torch.Size([3, 1, 1, 20]))
    """

    def __init__(self, latent: int, symbols: int, length: int, width: int = 128) -> None:
        super().__init__()
        self.symbols, self.length = symbols, length
        self.embedding = nn.Embedding(symbols + 1, _EMBEDDING)  # the last one begins a text
        self.from_characters = nn.Linear(2 * _EMBEDDING, width)
        self.from_latent = nn.Linear(latent, width)
        self.hidden = nn.Linear(width, width)
        self.to_logits = nn.Linear(width, symbols)

    def forward(self, z: Tensor, images: Tensor) -> Tensor:
        """Logits ``[B, symbols, 1, length]`` of each character given the two before it.

        Args:
            z: ``[B, latent]``.
            images: the texts, ``[B, 1, 1, length]`` in [0, 1].
        """
        before = F.pad(_before(images, self.symbols), (1, 0), value=self.symbols).unfold(1, 2, 1)
        return self._logits(z.unsqueeze(1), before).transpose(1, 2).unsqueeze(2)

    def _logits(self, z: Tensor, before: Tensor) -> Tensor:
        """Logits ``[..., symbols]`` of latents ``[..., latent]`` and pairs of characters ``[..., 2]``."""
        seen = self.from_characters(self.embedding(before).flatten(-2))
        logits: Tensor = self.to_logits(F.relu(self.hidden(F.relu(seen + self.from_latent(z)))))
        return logits

    @torch.no_grad()
    def write(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Texts ``[B, 1, 1, length]`` in [0, 1], the likeliest character each time; with a generator, drawn ones."""
        written = torch.full((len(z), 2), self.symbols, device=z.device)
        for _ in range(self.length):
            written = torch.cat((written, _next(self._logits(z, written[:, -2:]), generator)), 1)
        return written[:, None, None, 2:] / 255


def _before(images: Tensor, symbols: int) -> Tensor:
    """Numbers of the character before each, int64 ``[B, length]``; the first has ``symbols``, which begins a text."""
    numbers = numbers_of(images).clamp(max=symbols - 1)
    return torch.cat((torch.full_like(numbers[:, :1], symbols), numbers[:, :-1]), 1)


def _next(logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """The likeliest symbol ``[B, 1]`` of logits ``[B, symbols]``; with a generator, a drawn one."""
    if generator is None:
        return logits.argmax(-1, keepdim=True)
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)
