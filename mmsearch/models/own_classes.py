"""``module:Class``: a class of the user's own, by its name."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from types import ModuleType
from typing import Any, TypeVar

from mmsearch.core.errors import EncoderError, MmsearchError

Made = TypeVar("Made")
_FORM = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def is_class_name(name: str) -> bool:
    """Whether a name has the form ``module:Class``, such as ``my_package.encoders:MyEncoder``."""
    return _FORM.fullmatch(name) is not None


def import_class(name: str, base: type) -> type[Any]:
    """The class that ``module:Class`` names, from an installed package or a module in the current directory.

    Raises:
        EncoderError: there is no such module or class, the module cannot be imported, or the class is not derived
            from ``base``.
    """
    module_name, _, class_name = name.partition(":")
    module = _import(module_name, name)
    found = getattr(module, class_name, None)
    if isinstance(found, type) and issubclass(found, base):
        return found
    is_ours = (key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, base))
    others = [key for key in is_ours if key != base.__name__]
    hint = f"; it has {', '.join(others[:5])}" if others else ""
    if found is None:
        raise EncoderError(f"the module {module_name} ({_place(module)}) has no class {class_name}{hint}")
    kind = "a class" if isinstance(found, type) else f"of the type {type(found).__name__}"
    raise EncoderError(f"{name} is {kind} that is not derived from mmsearch.{base.__name__}{hint}")


def make(class_: type[Made], name: str, **offered: Any) -> Made:
    """An object of a class of somebody else's. Of the keywords ``offered`` it gets those that its constructor takes.

    Raises:
        EncoderError: a method of the contract is not implemented, or the constructor fails; errors of mmsearch that it
            raises itself pass.
    """
    lacking = sorted(getattr(class_, "__abstractmethods__", ()))
    if lacking:
        raise EncoderError(f"{name} does not implement {', '.join(lacking)}, which its base class asks for")
    try:
        parameters = inspect.signature(class_).parameters
        takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
        return class_(**{key: value for key, value in offered.items() if takes_all or key in parameters})
    except MmsearchError:
        raise
    except Exception as error:  # whatever somebody else's code does
        raise EncoderError(f"{name} cannot be opened: {type(error).__name__}: {error}") from error


def _import(module: str, name: str) -> ModuleType:
    """Last of all, the current directory is looked into: a program's own is not on the path of the command line."""
    here, added = os.getcwd(), False  # noqa: PTH109
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
        importlib.invalidate_caches()
        added = True
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a module does when it is imported
        if added:
            sys.path.remove(here)
        if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
            raise EncoderError(
                f"there is no module {error.name} for {name}: neither among the installed packages nor in {here}"
            ) from error
        raise EncoderError(f"the module {module} cannot be imported: {type(error).__name__}: {error}") from error


def _place(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"
