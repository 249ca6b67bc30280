"""Pieces of the page's data: figures, charts, tables, as `page.js` reads them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from simpod.metrics.interval import Interval
from simpod.records.columns import Floats
from simpod.report.style import colour_of

Json = dict[str, Any]


def figure(
    name: str, value: float | None, unit: str, around: Interval | None = None, note: str = ""
) -> Json:
    """A headline figure; without an interval where it has none."""
    low = around.low if around is not None else None
    high = around.high if around is not None else None
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "low": None if low is None or np.isnan(low) else low,
        "high": None if high is None or np.isnan(high) else high,
        "note": note,
    }


def axis(label: str, **options: Any) -> Json:
    """Options: log, min, max, free (0 need not be on it)."""
    return {"label": label, **options}


def lines(
    ident: str,
    title: str,
    series: Mapping[str, tuple[Floats, Floats]],
    axes: tuple[Json, Json],
    **options: Any,
) -> Json:
    """Lines by name; options: colours (by name), wide, height, help, marks."""
    colours = options.pop("colours", {})
    made = [
        {"name": name, "colour": colours.get(name, colour_of(i)), "x": x, "y": y}
        for i, (name, (x, y)) in enumerate(series.items())
    ]
    return {
        "kind": "lines",
        "id": ident,
        "title": title,
        "x": axes[0],
        "y": axes[1],
        "series": made,
        **options,
    }


def bars(
    ident: str, title: str, table: Any, unit: str, colours: Mapping[str, str], **options: Any
) -> Json:
    """Stacked bars: a bar a column, a part a row; parts that nothing has are left out."""
    totals = table.sum()
    kept = [part for part in table.index if (table.loc[part] > 1e-4 * totals).any()]
    return {
        "kind": "bars",
        "id": ident,
        "title": title,
        "unit": unit,
        "series": [{"name": p.replace("_", " "), "colour": colours[p]} for p in kept],
        "bars": [
            {"name": str(column), "parts": [float(table.loc[p, column]) for p in kept]}
            for column in table.columns
        ],
        **options,
    }


def heat(
    ident: str, title: str, rows: Mapping[str, Floats], xlabel: str, unit: str, **options: Any
) -> Json:
    """A heat map; rows may differ in length. Long rows are cut by their maxima."""
    most_cells = min(256, max(8, 8000 // max(len(rows), 1)))
    shown = {name: shortened(values, most_cells) for name, values in rows.items()}
    largest = max((float(np.max(v, initial=0)) for v in shown.values()), default=0.0)
    return {
        "kind": "heat",
        "id": ident,
        "title": title,
        "rows": list(shown),
        "values": list(shown.values()),
        "counts": [len(values) for values in rows.values()],
        "xlabel": xlabel,
        "unit": unit,
        "max": largest or 1.0,
        "wide": True,
        **options,
    }


def shortened(values: Floats, most: int) -> Floats:
    """At most `most` cells, each the largest value of its stretch: a hot spot stays visible."""
    known = np.nan_to_num(np.asarray(values, dtype=np.float64))
    if len(known) <= most:
        return known
    return np.array([part.max() for part in np.array_split(known, most)])


def sampled(count: int, most: int) -> slice:
    """Every n-th of `count`, so that at most `most` are left."""
    return slice(None, None, max(1, -(-count // most)))


def table(ident: str, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Json:
    """A sortable table."""
    return {"id": ident, "title": title, "columns": list(columns), "rows": [list(r) for r in rows]}
