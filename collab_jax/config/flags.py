"""Configuration keys as flags of a program: `--config.KEY=VALUE`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from collab_jax.config.checks import parse_method
from collab_jax.config.resolve import check_key
from collab_jax.config.schema import SCHEMA
from collab_jax.config.text import as_text, did_you_mean, full_key
from collab_jax.errors import UserError, meant

__all__ = ["FlagParser"]

_PREFIX = "--config."


class FlagParser(argparse.ArgumentParser):
    """An argument parser that takes `--config.KEY=VALUE` and tells mistakes as UserErrors.

    What it parses has `overrides`, the texts by key, beside the program's own flags. A flag that is
    given twice is refused.
    """

    def __init__(self, *, overrides_help: str, add_help: bool = False, **options: Any) -> None:
        super().__init__(allow_abbrev=False, exit_on_error=False, add_help=add_help, **options)
        self.register("action", None, _Once)
        self.register("action", "store_true", _Switch)
        self._examples: dict[str, str] = {}
        self.add_argument(f"{_PREFIX}KEY", action=_Override, metavar="VALUE", help=overrides_help)
        for key in SCHEMA:
            self.add_argument(f"{_PREFIX}{key}", action=_Override, help=argparse.SUPPRESS)

    def add_flag(
        self, flag: str, metavar: str, help: str, example: str, *, several: bool = False
    ) -> None:
        """Adds a flag with a value; the example is for a message where the value is missing."""
        self._examples[flag] = example
        self.add_argument(flag, metavar=metavar, help=help, nargs="+" if several else None)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parses a command line.

        Raises:
            UserError: a flag that is unknown, given twice, or has a value too few or too many.
        """
        try:
            found, rest = self.parse_known_args(list(arguments), argparse.Namespace(overrides={}))
        except argparse.ArgumentError as error:
            raise self._told(error) from None
        for argument in rest:
            raise self._unknown(argument)
        return found

    def error(self, message: str) -> NoReturn:
        raise UserError(message)

    def _told(self, error: argparse.ArgumentError) -> UserError:
        flag = error.argument_name or ""
        if error.message in ("expected one argument", "expected at least one argument"):
            return UserError(f"{flag} needs a value, such as {flag}={self._example(flag)}")
        ignored = "ignored explicit argument "
        if error.message.startswith(ignored):
            value = error.message.removeprefix(ignored).strip("'\"")
            return UserError(f"{flag}={value}: expected no value")
        return UserError(f"{flag}: {error.message}")

    def _example(self, flag: str) -> str:
        key = SCHEMA.get(flag.removeprefix(_PREFIX))
        return self._examples.get(flag, "TEXT") if key is None else as_text(key.default) or "TEXT"

    def _unknown(self, argument: str) -> UserError:
        flag = argument.partition("=")[0]
        if not flag.startswith("-") or flag in ("-", "--"):
            hint = _meant_for_flag(argument)
            return UserError(f"stray argument {argument!r}, expected flags only{hint}")
        if flag.startswith(_PREFIX):
            check_key(flag.removeprefix(_PREFIX))
        key = full_key(flag.lstrip("-"))
        flags = [text for action in self._actions for text in action.option_strings]
        own = [text for text in flags if not text.startswith(_PREFIX)]
        hint = meant([_PREFIX + key]) if key else did_you_mean(flag, own)
        return UserError(f"unknown flag {flag!r}{hint or '; --help lists the flags'}")


def _meant_for_flag(argument: str) -> str:
    name, equals, _ = argument.partition("=")
    if equals and (key := full_key(name.removeprefix("config."))):
        return meant([f"{_PREFIX}{key}=..."])
    with suppress(UserError):
        return meant([f"--config FILE:{parse_method(argument)}"])
    return ""


class _Once(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if getattr(namespace, self.dest) is not self.default:
            raise UserError(f"{option_string} is given twice, expected it once")
        setattr(namespace, self.dest, values)


class _Switch(_Once):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        super().__call__(parser, namespace, True, option_string)


class _Override(argparse.Action):
    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, "overrides", **options)

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        key = str(option_string).removeprefix(_PREFIX)
        check_key(key)
        if key in namespace.overrides:
            raise UserError(f"{option_string} is given twice, expected it once")
        namespace.overrides[key] = values
