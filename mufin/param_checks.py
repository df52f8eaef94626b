"""Checks of settings: each raises ParamsError in one sentence with the value and its rule."""

from __future__ import annotations

from mufin.errors import shown
from mufin.settings_file import ParamsError


def check(ok: bool, name: str, value: object, rule: str) -> None:
    if not ok:
        raise ParamsError(f"{name} is {shown(value)}; {rule}")


def check_in(obj: object, section: str, low: float, high: float, *names: str) -> None:
    rule = f"it must lie in [{low:g}, {high:g}]"
    for name in names:
        value = getattr(obj, name)
        check(low <= value <= high, f"{section}.{name}", value, rule)


def check_below_one(obj: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        check(0 <= value < 1, f"{section}.{name}", value, "it must lie in [0, 1)")


def check_at_least(obj: object, section: str, low: float, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        check(value >= low, f"{section}.{name}", value, f"it must be at least {low:g}")


def check_positive(obj: object, section: str, *names: str) -> None:
    for name in names:
        value = getattr(obj, name)
        check(value > 0, f"{section}.{name}", value, "it must be greater than 0")
