"""A density of codes that is fitted once the VAE is trained, and that samples come from."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
from torch import Tensor

from episodes import InputError
from episodes.batch_share import chosen, normal
from metagvae.guidance.base import GuidanceContext
from metagvae.vae.priors.base import PRIORS, Labels
from metagvae.vae.priors.standard_normal import StandardNormal

SMALLEST = 1e-3  # variance that every direction keeps
ROUNDS = 50  # of expectation and maximisation


@PRIORS.register
class ExPostMixture(StandardNormal):
    """N(0, I) while the VAE learns; afterwards, samples come from normal densities fitted to its codes.

    Where beta is small, the codes of real images lie elsewhere than N(0, I), and draws from it decode to shapes between
    all letters. A mixture of full covariances, fitted to the training images' posterior means, draws where codes are
    (ex-post density estimation: Ghosh, Sajjadi, Vergari, Black & Schoelkopf, ICLR 2020). KL and log p(z) stay those of
    N(0, I), under which the VAE was trained: the mixture is of means, narrower than the posteriors around them.

    Args:
        components: normal densities of the mixture.

    Example:
        >>> import torch
        >>> from metagvae.guidance import GuidanceContext
        >>> prior = ExPostMixture(GuidanceContext(1, 28, {"content": [0, 1]}), components=1)
        >>> prior.fit(torch.tensor([5.0, -3.0]) + 0.1 * torch.randn(500, 2))
        >>> prior.sample(1000, {}).mean(0).round().tolist()
        [5.0, -3.0]
    """

    name = "ex_post_mixture"
    fits: ClassVar[int] = 20_000
    shares: Tensor  # [components]
    centres: Tensor  # [components, latent]
    factors: Tensor  # [components, latent, latent], lower triangular

    def __init__(self, context: GuidanceContext, components: int = 10) -> None:
        super().__init__(context)
        if components < 1:
            raise InputError(f"vae.prior: ex_post_mixture needs components >= 1; received {components}.")
        # until it is fitted, N(0, I) so many times
        self.register_buffer("shares", torch.full((components,), 1 / components))
        self.register_buffer("centres", torch.zeros(components, context.latent))
        self.register_buffer("factors", torch.zeros(components, context.latent, context.latent))
        # not torch.eye, which in a sketch on "meta" would import torch's compiler first, for a second
        self.factors.diagonal(dim1=1, dim2=2).fill_(1)

    def check_images(self, count: int) -> None:
        if min(count, self.fits) <= len(self.shares):
            raise InputError(
                f"vae.prior: ex_post_mixture fits {len(self.shares)} components to codes of the training images, of "
                f"which there are {min(count, self.fits)}; lower components."
            )

    def fit(self, means: Tensor) -> None:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        self.check_images(len(means))
        mixture = GaussianMixture(
            len(self.shares), reg_covar=SMALLEST, max_iter=ROUNDS, random_state=0, init_params="k-means++"
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # the rounds are few on purpose
            mixture.fit(means.double().cpu().numpy())
        self.shares.copy_(torch.from_numpy(mixture.weights_))
        self.centres.copy_(torch.from_numpy(mixture.means_))
        self.factors.copy_(torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)))

    def sample(self, count: int, labels: Labels) -> Tensor:
        component = chosen(self.shares, count)
        noise = normal(count, len(self.origin), device=self.origin.device, dtype=self.origin.dtype)
        drawn = noise
        # one component at a time: a matrix per draw would fill the memory, and to choose rows would wait for the host
        for number, (centre, factor) in enumerate(zip(self.centres, self.factors, strict=True)):
            drawn = torch.where((component == number)[:, None], centre + noise @ factor.T, drawn)
        return drawn
