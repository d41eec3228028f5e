"""Draw: characters of one's own, known from an example or a few."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from episodes import InputError
from metagvae.classifier.estimator import FewShotClassifier
from metagvae.demo.ink import centred, empty

MOST = 5  # examples of a character
NAMES = tuple("ABCDEFGHIJKL")
LONGEST = 40  # letters of a name
FORGET = 3600  # seconds after a visitor's last visit


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
    names: list[str] = field(default_factory=lambda: list(NAMES))
    _fitted: FewShotClassifier | None = field(default=None, repr=False)

    def add(self, name: str, picture: Image.Image) -> None:
        """Keeps an example.

        Raises:
            InputError: if the picture is empty or the character has all its examples.
        """
        self.check_room(name)
        self.examples.setdefault(name, []).append(self.prepared(picture))
        self._fitted = None

    def prepared(self, picture: Image.Image) -> Image.Image:
        """A picture as it is kept and compared; raises `InputError` if there is nothing on it."""
        if empty(picture):
            raise InputError("there is nothing drawn; draw the character first.")
        return centred(picture)

    def classifier(self) -> FewShotClassifier:
        """One for such pictures, not yet fitted."""
        return FewShotClassifier(self.encoder, invert=True)

    @property
    def ready(self) -> bool:
        """Whether two of them have an example."""
        return len(self.known) > 1

    @property
    def known(self) -> list[str]:
        """Names that have an example."""
        return [name for name in self.names if self.examples.get(name)]

    def rename(self, name: str, wish: str) -> str:
        """Gives one of the names another wording, which is returned.

        Raises:
            InputError: if there is no such name, or the new one is empty, too long, or taken.
        """
        new = " ".join("".join(c if c.isprintable() else " " for c in str(wish)).split())
        self._check_name(name)
        if not 1 <= len(new) <= LONGEST or (new != name and new in self.names):
            raise InputError(
                f"a name has 1 to {LONGEST} letters and is no other's; received {new[:60]!r}. Choose another."
            )
        self.names[self.names.index(name)] = new
        if name in self.examples:
            self.examples[new] = self.examples.pop(name)
        self._fitted = None
        return new

    def _check_name(self, name: str) -> None:
        if name not in self.names:
            raise InputError(f"the names are {', '.join(self.names)}; received {str(name)[:20]!r}.")

    def check_room(self, name: str) -> None:
        """Raises `InputError` if there is no such character, or it has all its examples."""
        self._check_name(name)
        if len(self.examples.get(name, [])) >= MOST:
            raise InputError(f"{name} has {MOST} examples already; forget them, or choose another character.")

    def rank(self, picture: Image.Image) -> Ranking:
        """The characters by likelihood.

        Raises:
            InputError: if the picture is empty or fewer than two characters have an example.
        """
        known = self.known
        if not self.ready:
            raise InputError("give an example of at least two of them first.")
        asked = [self.prepared(picture)]
        if self._fitted is None:
            pictures = [example for name in known for example in self.examples[name]]
            labels = [name for name in known for _ in self.examples[name]]
            self._fitted = self.classifier().fit(pictures, labels)
        probabilities = self._fitted.predict_proba(asked)[0]
        distances = self._fitted.distances(asked)[0]
        order = [str(label) for label in self._fitted.classes_]  # sorted, as the answers are
        rows = sorted(
            zip(order, map(float, probabilities), map(float, distances), strict=True), key=lambda row: -row[1]
        )
        return Ranking(rows, float(self._fitted.novelty(asked)[0]))
