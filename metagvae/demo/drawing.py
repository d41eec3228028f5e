"""Draw: characters of one's own, known from an example or a few."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from episodes import InputError
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.demo.ink import centred, empty

MOST = 5  # examples of a character
NAMES = tuple("ABCDEFGHIJKL")


@dataclass
class Ranking:
    """The classifier's answer for one picture.

    Args:
        rows: (name, probability in [0, 1], distance to the character's mean feature), the likeliest first.
        novelty: above 1 speaks for none of them.
    """

    rows: list[tuple[str, float, float]]
    novelty: float

    def sentence(self) -> str:
        name, probability, _ = self.rows[0]
        if self.novelty > 1:
            return f"Like none of them; nearest is {name}."
        sure = "more than 99" if probability > 0.99 else f"{100 * probability:.0f}"
        return f"{name}, with a probability of {sure} %."


@dataclass
class Characters:
    """The examples that a visitor drew or uploaded, by character."""

    encoder: str
    examples: dict[str, list[Image.Image]] = field(default_factory=dict)
    _fitted: FewShotClassifier | None = field(default=None, repr=False)

    def add(self, name: str, picture: Image.Image) -> None:
        """Keeps an example.

        Raises:
            InputError: if the picture is empty or the character has all its examples.
        """
        self.check_room(name)
        if empty(picture):
            raise InputError("there is nothing drawn; draw the character first.")
        self.examples.setdefault(name, []).append(centred(picture))
        self._fitted = None

    def check_room(self, name: str) -> None:
        """Raises `InputError` if there is no such character, or it has all its examples."""
        if name not in NAMES:
            raise InputError(f"characters are called {NAMES[0]} to {NAMES[-1]}; received {str(name)[:20]!r}.")
        if len(self.examples.get(name, [])) >= MOST:
            raise InputError(f"{name} has {MOST} examples already; forget them, or choose another character.")

    def rank(self, picture: Image.Image) -> Ranking:
        """The characters by likelihood.

        Raises:
            InputError: if the picture is empty or fewer than two characters have an example.
        """
        known = [name for name in NAMES if self.examples.get(name)]
        if len(known) < 2:
            raise InputError("draw an example of at least two characters first.")
        if empty(picture):
            raise InputError("there is nothing drawn yet.")
        if self._fitted is None:
            pictures = [example for name in known for example in self.examples[name]]
            labels = [name for name in known for _ in self.examples[name]]
            self._fitted = FewShotClassifier(self.encoder, invert=True).fit(pictures, labels)
        asked = [centred(picture)]
        probabilities = self._fitted.predict_proba(asked)[0]
        distances = self._fitted.distances(asked)[0]
        rows = sorted(
            zip(known, map(float, probabilities), map(float, distances), strict=True), key=lambda row: -row[1]
        )
        return Ranking(rows, float(self._fitted.novelty(asked)[0]))
