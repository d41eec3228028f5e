"""Registry: classes by name. A new file registers its class with one decorator, and every command knows it."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from episodes.errors import InputError
from episodes.untrusted.typed import check_types

Kind = TypeVar("Kind")
Chosen = TypeVar("Chosen")


class Registry(Mapping[str, Kind], Generic[Kind]):
    """Classes of one kind by name; read like a dict, added to by a decorator.

    Args:
        what: the kind in the singular, for messages: ``learner``, ``data set``.
        home: the package whose modules hold the classes; all are imported when a name is first asked for.
        given: parameters of the classes' constructors that the package fills in itself; the others are options.

    Example:
        >>> from episodes.registry import Registry
        >>> SHAPES = Registry("shape")
        >>> @SHAPES.register
        ... class Circle:
        ...     name = "circle"
        ...     def __init__(self, radius: float = 1.0) -> None: ...
        >>> list(SHAPES)
        ['circle']
        >>> SHAPES.checked("circle", {"radius": 2.0}).name
        'circle'
    """

    def __init__(self, what: str, home: str | None = None, given: tuple[str, ...] = ()) -> None:
        self.what, self.given = what, given
        self._home = home
        self._classes: dict[str, Kind] = {}

    @property
    def _known(self) -> dict[str, Kind]:
        if self._home is not None:
            package, self._home = importlib.import_module(self._home), None
            for module in pkgutil.iter_modules(package.__path__):
                if not module.name.startswith("_"):
                    importlib.import_module(f"{package.__name__}.{module.name}")
        return self._classes

    def register(self, cls: Chosen) -> Chosen:
        """A decorator for a class with a ``name``; raises `InputError` if another class has that name."""
        return self._add(str(cls.name), cls)  # type: ignore[attr-defined]

    def named(self, name: str) -> Callable[[Chosen], Chosen]:
        """A decorator for what has no ``name`` of its own, such as a function."""
        return lambda cls: self._add(name, cls)

    def _add(self, name: str, cls: Any) -> Any:
        before = self._classes.get(name)
        if before is not None and _home(before) != _home(cls):
            raise InputError(
                f"two classes want to be the {self.what} {name!r}: {_home(before)} and {_home(cls)}. Rename one."
            )
        self._classes[name] = cls
        return cls

    def find(self, name: object, where: str = "") -> Kind:
        """The class registered as ``name``.

        Args:
            where: begins the message, such as ``vae.decoder: ``.

        Raises:
            InputError: naming the known ones.
        """
        if not isinstance(name, str) or name not in self._known:
            raise InputError(f"{where}unknown {self.what} {repr(name)[:100]}; known: {', '.join(sorted(self))}.")
        return self._known[name]

    def checked(self, name: object, options: Mapping[str, Any], where: str = "") -> Kind:
        """The class registered as ``name``, whose options these can be.

        Raises:
            InputError: if there is no such class, or it has no such option, or an option is of another type.
        """
        cls = self.find(name, where)
        make = cast(Callable[..., Any], cls)
        allowed = [key for key in inspect.signature(make).parameters if key not in self.given]
        unknown = sorted(str(key) for key in options if key not in allowed)
        if unknown:
            raise InputError(
                f"{where}the {self.what} {name!r} has no option {', '.join(map(repr, unknown))[:200]}; allowed: "
                f"{', '.join(allowed) or 'none'}."
            )
        check_types(make, options, f"{where}the {self.what} {name!r}: ")
        return cls

    def chosen(self, spec: Mapping[str, Any], where: str = "") -> tuple[Kind, dict[str, Any]]:
        """The class and the options of a config's mapping of a ``name`` and options, as `checked`."""
        options = dict(spec)
        return self.checked(options.pop("name", None), options, where), options

    def __getitem__(self, name: str) -> Kind:
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _home(cls: Any) -> str:
    return f"{getattr(cls, '__module__', '?')}.{getattr(cls, '__qualname__', cls)}"
