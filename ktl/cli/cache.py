"""`ktl cache`: what the cache holds, and removing it. TensorFlow is not loaded."""

import json
import time
from argparse import Namespace
from typing import Any

from rich.table import Table

from ktl.arguments import path_of
from ktl.cli.flags import LEAST_NAME
from ktl.cli.tables import output_console, visible
from ktl.errors import UserError
from ktl.features.folder import OwnEntry, old_entries, own_entries
from ktl.features.store import clear_folder
from ktl.folders import cache_folder
from ktl.memory import size_in_words


def run(options: Namespace) -> None:
    """Lists or clears the cache. Nothing that ktl did not make is counted or removed.

    Raises:
        UserError: no such folder or entry.
    """
    folder = path_of(options.cache_dir, argument="cache_dir") if options.cache_dir else cache_folder()
    if options.cache_dir and not folder.is_dir():
        raise UserError(f"Expected `cache_dir` to be a folder. Received: {folder}, which is none")
    entries = _chosen(own_entries(folder), options.entries)
    old = [] if options.entries else old_entries(folder)
    size = sum(entry.size for entry in (*entries, *old))
    found: dict[str, Any] = {"folder": str(folder), "bytes": size, "entries": [_described(entry) for entry in entries]}
    found["version_0_1"] = [{"name": entry.path.name, "bytes": entry.size} for entry in old]
    if options.action == "clear":
        clear_folder(folder, {entry.path.name for entry in entries} if options.entries else None)
    if options.json:
        print(json.dumps(found))
    elif options.action == "clear":
        print(f"removed {_count(len(entries) + len(old))}, {size_in_words(size)}, from {folder}")
    else:
        _print(found)


def _chosen(entries: list[OwnEntry], names: list[str]) -> list[OwnEntry]:
    """The entries that the names begin with; all if there are no names."""
    if not names:
        return entries
    chosen = {}
    for name in names:
        meant = [entry for entry in entries if entry.path.name.startswith(name)] if len(name) >= LEAST_NAME else []
        if len(meant) != 1:
            listed = ", ".join(entry.path.name[:12] for entry in entries) or "none"
            raise UserError(f"Expected each entry to be one of: {listed}. Received: {name!r}")
        chosen[meant[0].path] = meant[0]
    return list(chosen.values())


def _described(entry: OwnEntry) -> dict[str, Any]:
    about = {key: value for key, value in entry.about.items() if key not in ("made_by", "format_version")}
    return {"name": entry.path.name, "bytes": entry.size, "used": entry.used, "shards": len(entry.shards), **about}


def _print(found: dict[str, Any]) -> None:
    table = Table("entry", "layers up to", "image", "features", "used by", "used last", "size")
    for entry in sorted(found["entries"], key=lambda entry: -entry["used"]):
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry["used"])) if entry["used"] else "never"
        features = f"{' x '.join(map(str, entry.get('shape', ())))} {entry.get('dtype', '')}"
        names = ", ".join(entry.get("datasets", ()))
        layers, side = str(entry.get("layers", "")), f"{entry.get('image_size', '')} px"
        table.add_row(*visible(entry["name"][:12], layers, side, features, names, used, size_in_words(entry["bytes"])))
    for entry in found["version_0_1"]:
        table.add_row(entry["name"][:12], "", "", "of version 0.1", "", "", size_in_words(entry["bytes"]))
    console = output_console()
    if table.row_count:
        console.print(table)
    count = _count(len(found["entries"]) + len(found["version_0_1"]))
    console.print(f"{count}, {size_in_words(found['bytes'])}, in {found['folder']}", soft_wrap=True)


def _count(entries: int) -> str:
    return f"{entries} {'entry' if entries == 1 else 'entries'}"
