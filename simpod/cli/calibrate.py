"""`simpod calibrate`: fit a device's kernel constants on measured tables."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from simpod.cli.options import JsonOption, QuietOption
from simpod.cli.output import add_rows, plain_table, print_json, show, spinner

EPILOG: Final = """Examples:

simpod calibrate h100 --data tables/ --dry-run

simpod calibrate my_device.yaml --data tables/

Tables are called DEVICE.KIND.parquet (or .csv): gemm, context_attention, generation_attention,
context_mla, generation_mla, moe, nccl, allreduce, encoder_attention, deepep_low_latency,
deepep_normal, alltoall; columns as in AIConfigurator's database, times in latency_us (DeepEP: in
columns of their own). Or KIND/DEVICE/*.csv, as in InferSim's benchmarks: gemm, mha/decode,
mla/prefill, mla/decode. Needs scipy: pip install 'simpod\\[fit]'."""


def calibrate_command(
    device: Annotated[
        str,
        typer.Argument(
            metavar="DEVICE",
            help="A shipped profile's name, or the path of a profile of your own.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", help="Folder of tables.", show_default=False)
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KIND",
            help="Only tables of this kind, e.g. gemm; may be repeated.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the errors; write nothing.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Fit kernel constants on 70 % of the rows, check on the rest, write them into the profile."""
    from simpod.config import library, load_hardware, write_kernel_fits
    from simpod.validate.calibrate import calibrate, tables_of

    hardware = load_hardware(device)
    path = library.find("hardware_profiles", device)
    tables = tables_of(hardware.name, data, only or ())
    with spinner("calibrate", quiet=quiet or as_json) as tell:
        fitted = calibrate(hardware, tables, tell)
    if not dry_run:
        write_kernel_fits(path, fitted)
    rows = [
        _row(name, variant, fit) for name, fits in fitted.items() for variant, fit in fits.items()
    ]
    if as_json:
        keys = ("operator", "variant", "rows", "median_abs_error_frac", "p90_abs_error_frac")
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
    elif not quiet:
        columns = ("Operator", "variant", "rows fitted", "median", "p90")
        shown = [(*row[:2], f"{row[2]:,}", f"{row[3]:.1%}", f"{row[4]:.1%}") for row in rows]
        show(add_rows(plain_table(*columns, right=columns[2:]), shown))
        typer.echo("\nErrors are of the 30 % of the rows that were not fitted")
        typer.echo("Nothing was written" if dry_run else f"Written: {path}")


def _row(operator: str, variant: str, fit: Any) -> tuple[str, str, int, float, float]:
    return operator, variant, fit.rows, fit.median_abs_error_frac, fit.p90_abs_error_frac
