"""Options for the plans that are allowed, and for the effect of acting at a site."""

from __future__ import annotations

import argparse
from typing import Any

import pandas as pd

from topreach._C import did_you_mean
from topreach.cli.options import CommandError, check_k, names, say_note
from topreach.data.csv_files import read_csv
from topreach.data.panel import Panel
from topreach.data.table import TableSpec, is_parquet
from topreach.programs import Program, Quotas, TopK, with_effect


def add_quota_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "--groups",
        metavar="A,B",
        type=names,
        help="columns of the table that part the sites into groups, each the same in all rows of a "
        "site, for instance the municipality",
    )
    for option, word in (("--at-least", "least"), ("--at-most", "most")):
        sub.add_argument(
            option,
            action="append",
            default=[],
            metavar="N",
            help=f"{word} sites of each group: a number, a share of K such as 30%%, or "
            "GROUP=N for one group; again for more",
        )
    sub.add_argument(
        "--effect",
        metavar="COLUMN",
        help="column of the share of a site's events that acting there prevents, the same in all "
        "rows of a site; plans are then worth the events that they prevent",
    )


def quota_columns(options: argparse.Namespace) -> list[str]:
    """Columns of the table that --groups and --effect name, so are not features."""
    return [*(options.groups or []), *([options.effect] if options.effect else [])]


def program_of(options: argparse.Namespace, spec: TableSpec | None, panel: Panel) -> Program:
    """The program that --k, --groups, --at-least, --at-most and --effect describe."""
    check_k(options.k, panel.num_sites)
    if not options.groups and (options.at_least or options.at_most):
        raise CommandError("--at-least and --at-most need --groups COLUMN")
    if options.groups and not (options.at_least or options.at_most):
        raise CommandError("--groups needs --at-least N or --at-most N")
    columns = quota_columns(options)
    for name in columns:
        if columns.count(name) > 1 or (spec is not None and name in (spec.site, spec.time)):
            raise CommandError(
                "--groups and --effect must be different columns, and not those of --site and "
                f"--time, got {name!r}"
            )
    if not columns:
        return TopK(options.k)
    if spec is None or options.data == "-":
        raise CommandError("--groups and --effect need --data FILE, a table that has the columns")
    table = _by_site(options, spec, columns, panel)
    program: Program = TopK(options.k)
    if options.groups:
        groups = table[options.groups]
        try:
            program = Quotas(
                options.k,
                groups if len(options.groups) > 1 else groups[options.groups[0]],
                _limits("--at-least", options.at_least, groups),
                _limits("--at-most", options.at_most, groups),
            )
        except ValueError as error:
            text = str(error).replace("lower must", "--at-least must")
            raise CommandError(text.replace("upper must", "--at-most must")) from None
    if options.effect:
        effect = pd.to_numeric(table[options.effect], errors="coerce")
        if effect.isna().any():
            site = str(effect.index[effect.isna()][0])
            raise CommandError(
                f"--effect {options.effect} must be a number, got none for site {site!r}"
            )
        try:
            program = with_effect(program, effect)
        except ValueError as error:
            raise CommandError(f"--effect {options.effect}: {error}") from None
    return program


def _limits(option: str, given: list[str], groups: pd.DataFrame) -> Any:
    """One limit for all groups, or limits by group name. With several groupings, a dict of these
    by grouping."""
    alone = [text for text in given if "=" not in text]
    if len(alone) > 1 or (alone and len(given) > 1):
        raise CommandError(
            f"{option} must be one limit for all groups, or GROUP=N for some of them"
        )

    def number(text: str) -> Any:
        return int(text) if text.strip().lstrip("+").isdigit() else text

    if not given:
        return 0 if option == "--at-least" else None
    if alone:
        return number(alone[0])
    found: dict[str, dict[str, Any]] = {str(column): {} for column in groups.columns}
    for text in given:
        group, limit = text.rsplit("=", 1)
        homes = [c for c in groups.columns if (groups[c] == group.strip()).any()]
        if len(homes) != 1:
            raise CommandError(
                f"{option} must name a group of --groups, got {group.strip()!r}, which is "
                + ("one of none." if not homes else f"one of {' and '.join(homes)}.")
                + ("" if homes else did_you_mean(group.strip(), groups.stack().unique().tolist()))
            )
        if group.strip() in found[homes[0]]:
            raise CommandError(
                f"{option} must be given once for a group, got {group.strip()!r} twice"
            )
        found[homes[0]][group.strip()] = number(limit)
    return found if len(groups.columns) > 1 else next(iter(found.values()))


def _by_site(
    options: argparse.Namespace, spec: TableSpec, columns: list[str], panel: Panel
) -> pd.DataFrame:
    """The columns' values for each site, as text, in the panel's order."""
    wanted = [spec.site, *columns]
    if is_parquet(options.data):
        table = pd.read_parquet(options.data)
    else:
        table = read_csv(
            options.data,
            "topreach fit",
            text=wanted,
            sep=spec.sep,
            encoding=spec.encoding,
            decimal=spec.decimal,
        )
    for name in columns:
        if name not in table.columns:
            raise CommandError(f"the table must have the column {name!r}, got none")
    table = table[wanted].dropna(subset=[spec.site])
    table[spec.site] = [_text(value) for value in table[spec.site]]
    for name in columns:
        table[name] = [None if pd.isna(value) else _text(value) for value in table[name]]
        distinct = table.dropna(subset=[name]).groupby(spec.site)[name].unique()
        several = distinct[[len(values) > 1 for values in distinct]]
        if len(several):
            raise CommandError(
                f"{name} must be the same in all rows of a site, got {several.iloc[0][0]!r} and "
                f"{several.iloc[0][1]!r} for site {several.index[0]!r}"
            )
    first = table.groupby(spec.site)[columns].first()
    found = first.reindex(list(panel.site_ids))
    for name in options.groups or []:
        blank = int(found[name].isna().sum())
        if blank:
            say_note(f"{blank} site(s) have no {name}, and no limit by it.")
    return found.astype(object).where(found.notna(), None)


def _text(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()
