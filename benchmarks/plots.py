"""The curves of the benchmarks as a picture."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

__all__ = ["plot_curves"]


def plot_curves(
    curves: Mapping[str, Mapping[int, float]], picture: pathlib.Path
) -> None:
    """Draw CPU per step against the number of sessions.

    Args:
        curves: By client, microseconds of CPU by number of sessions.
        picture: The file to write.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, curve in curves.items():
        sessions = sorted(curve)
        axes.plot(
            sessions,
            [curve[n] for n in sessions],
            marker="o",
            label="ors_gym" if name == "ours" else name,
            linewidth=2.5 if name == "ours" else 1.2,
        )
    axes.set(xscale="log", yscale="log", xlabel="sessions in one process")
    axes.set_ylabel("CPU per tool call (µs)")
    axes.set_xticks([1, 8, 64, 256, 1024], labels=["1", "8", "64", "256", "1,024"])
    axes.grid(visible=True, which="major", alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(picture, dpi=160)
    plt.close(figure)
