"""The commands about defaults: `config`, `config set` and `config unset`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from mmsearch.cli.config import (
    VARIABLE,
    Setting,
    commands_of,
    config_file,
    options_of,
    read_table,
    setting_of,
    settings,
)
from mmsearch.cli.options import JsonOption
from mmsearch.cli.output import print_json
from mmsearch.core.errors import UsageError


def _keys(context: typer.Context, incomplete: str) -> list[str]:
    """Settings that there are, for the completion of a shell."""
    group = context.find_root().command
    places = [place for words, command in commands_of(group) for place in options_of(words, command)]
    own = [".".join((*place.words, place.name)) for place in places]
    every = dict.fromkeys(f"all.{key.rpartition('.')[2]}" for key in own)
    return [key for key in (*every, *own) if key.startswith(incomplete)]


KeyArgument = Annotated[
    str,
    typer.Argument(
        help="COMMAND.OPTION, such as query.k; all.OPTION or only OPTION is for all commands that have it.",
        show_default=False, autocompletion=_keys,
    ),
]  # fmt: skip


def show(context: typer.Context, json_: JsonOption = False) -> None:
    """Shows the defaults that you have set, and where: in a file, or in the environment.

    A flag is stronger than the environment, the environment than the file, the file than the program's own default.
    """
    if context.invoked_subcommand is not None:
        return
    group, file = context.find_root().command, config_file()
    found = [] if file is None else _settings(group, file)
    if json_:
        for setting in found:
            values = {
                "key": setting.key,
                "value": "(a secret)" if setting.option == "token" else setting.value,
                "source": "file",
                "file": str(file),
            }
            print_json({**values, "overridden_by": _stronger(group, setting)})
        for name, value in _environment():
            print_json({"key": name, "value": value, "source": "environment", "file": None, "overridden_by": None})
        return
    if file is None:
        print(f"file         none, because {VARIABLE} is empty")
    elif not file.exists():
        print(f"file         {file} (not there yet: `mmsearch config set query.k 20` makes it)")
    else:
        print(f"file         {file}")
    for setting in found:
        stronger = _stronger(group, setting)
        note = "" if stronger is None else f"   (but {stronger} is set in the environment)"
        print(f"  {setting.key} = {_shown(setting)}{note}")
    variables = list(_environment())
    print(f"environment  {'' if variables else 'nothing of mmsearch is set'}".rstrip())
    for name, value in variables:
        print(f"  {name} = {value}")


def set_(
    context: typer.Context,
    key: KeyArgument,
    values: Annotated[
        list[str] | None, typer.Argument(help="Its value; several of an option that is repeatable.", show_default=False)
    ] = None,
) -> None:
    """Sets a default: mmsearch config set query.k 20. Comments and the order of the file are kept."""
    setting = setting_of(context.find_root().command, key, values or [])
    file = _file()
    document = _document(file)
    table: Any = document
    for word in setting.key.split(".")[:-1]:
        if word not in table:
            import tomlkit

            table[word] = tomlkit.table()
        table = table[word]
    table[setting.option] = setting.value
    _write(file, document)
    print(f"{setting.key} = {_shown(setting)}  ({file})")


def unset(context: typer.Context, key: KeyArgument) -> None:
    """Takes a default out of the file again."""
    group, file = context.find_root().command, _file()
    document = _document(file)
    *words, name = key.split(".")
    given = (".".join((*words, name)), ".".join((*(words or ["all"]), name)))
    kept = next((one for one in (given[1], given[0]) if _holds(document, one)), None)
    if kept is None:
        setting_of(group, key, None)  # says so, if there is no such option at all
        raise UsageError(f"{key} is not set in {file}")
    *words, name = kept.split(".")
    table: Any = document
    for word in words:
        table = table[word]
    del table[name]
    _write(file, document)
    print(f"{kept} is not set any more  ({file})")


def _settings(group: Any, file: Path) -> list[Setting]:
    try:
        return list(settings(group, read_table(file)))
    except UsageError as error:
        message = str(error)
        raise UsageError(message if str(file) in message else f"{file}: {message}") from error


def _stronger(group: Any, setting: Setting) -> str | None:
    """The variable of the environment that an option is taken from instead of the file."""
    from mmsearch.cli.config import places

    for place in places(group, setting.command, setting.option):
        names = place.param.envvar or ()
        for name in [names] if isinstance(names, str) else names:
            if os.environ.get(name):
                return str(name)
    return None


def _environment() -> list[tuple[str, str]]:
    """The variables of mmsearch that are set; what is secret is not shown."""
    known = sorted(item for item in os.environ.items() if item[0].startswith("MMSEARCH_"))
    return [(name, "(a secret)" if "TOKEN" in name else value) for name, value in known]


def _file() -> Path:
    file = config_file()
    if file is None:
        raise UsageError(f"there is no file of settings, because {VARIABLE} is empty: unset it, or name a file in it")
    return file


def _document(file: Path) -> Any:
    import tomlkit

    read_table(file)  # says what is wrong with it
    return tomlkit.parse(file.read_text(encoding="utf-8") if file.exists() else "")


def _holds(document: Any, key: str) -> bool:
    table = document
    for word in key.split("."):
        if not hasattr(table, "keys") or word not in table:
            return False
        table = table[word]
    return not hasattr(table, "keys")


def _write(file: Path, document: Any) -> None:
    """All of it or nothing; readable by its owner alone, since it may hold a token."""
    import tomlkit

    file.parent.mkdir(parents=True, exist_ok=True)
    place = file.resolve()  # the file may be a link into somebody's collection of settings
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=".config-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as made:
            made.write(tomlkit.dumps(document))
        Path(name).replace(place)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _shown(setting: Setting) -> str:
    return "(a secret)" if setting.option == "token" else _toml(setting.value)


def _toml(value: Any) -> str:
    import tomlkit

    return str(tomlkit.item(value).as_string())


def register(app: typer.Typer) -> None:
    """Adds the commands to the program."""
    config = typer.Typer(help="Shows your defaults, and where they are set; `set` and `unset` change them.")
    config.callback()(show)
    config.command("set")(set_)
    config.command()(unset)
    app.add_typer(config, name="config", invoke_without_command=True)
