"""The section of a config that names the trained runs that a learner is taught by."""

from __future__ import annotations

from dataclasses import dataclass, field

from episodes import InputError
from episodes.paths import all_different

COLDEST = 0.01  # a temperature at which the likeliest way alone is taught; beyond, its square leaves float32


@dataclass
class TeacherSection:
    """Trained runs whose answers the learner is taught to give: distillation.

    Args:
        sources: folders of finished runs of prototypes; several are joined into one teacher, as `metagvae evaluate`
            joins A+B.
        share: of the learner's loss, in [0, 1]: 1 - share counts the labels of the episode, share the teacher.
        temperature: from 0.01 to 100; logits are divided by it before they are compared, and the term is multiplied
            by its square, so that its gradients keep their size.

    Example:
        >>> from metagvae.config import TeacherSection
        >>> section = TeacherSection(["runs/protonet-seed0", "runs/protonet-seed1"], temperature=2.0)
    """

    sources: list[str] = field(default_factory=list)
    share: float = 0.5
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.sources or not all_different(self.sources):
            raise InputError(
                "teacher.sources must name one or more different folders of finished runs; received "
                f"{', '.join(self.sources) or 'none'}."
            )
        if not 0 <= self.share <= 1:
            raise InputError(f"teacher.share must be in [0, 1]; received {self.share}.")
        if not COLDEST <= self.temperature <= 1 / COLDEST:
            raise InputError(
                f"teacher.temperature must be in [{COLDEST}, {1 / COLDEST:g}]; received {self.temperature}."
            )
