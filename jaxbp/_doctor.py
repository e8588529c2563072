"""What `jaxbp doctor` looks at: versions, devices, settings, extras."""

import platform
import re
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import jax

SCHEMA = 1
_CORE = ("jaxbp", "jax", "jaxlib", "optax", "chex", "numpy")
_EXTRAS = ("train", "report", "data")


@dataclass(frozen=True)
class Examination:
    """What was found. `missing` holds, extra by extra, what is not installed of it."""

    python: str
    versions: dict[str, str | None]
    devices: list[str]
    x64: bool
    custom_vjp3: bool
    missing: dict[str, list[str]]

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    def __str__(self) -> str:
        rows = {"python": self.python}
        rows |= {k: v or "not installed" for k, v in self.versions.items()}
        rows["devices"] = ", ".join(self.devices)
        rows["x64"] = "on" if self.x64 else "off"
        rows["JAX_CUSTOM_VJP3"] = "on" if self.custom_vjp3 else "off"
        for extra, missing in self.missing.items():
            mend = f"without {', '.join(missing)}: pip install 'jaxbp[{extra}]'"
            rows[f"jaxbp[{extra}]"] = mend if missing else "installed"
        width = max(map(len, rows))
        return "\n".join(f"{k:<{width}}  {v}" for k, v in rows.items())


def examine() -> Examination:
    return Examination(
        platform.python_version(),
        {name: _version(name) for name in _CORE},
        [f"{d.id}: {d.device_kind} ({d.platform})" for d in jax.devices()],
        bool(getattr(jax.config, "jax_enable_x64", False)),
        bool(getattr(jax.config, "jax_custom_vjp3", False)),
        {extra: _missing(extra) for extra in _EXTRAS},
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _missing(extra: str) -> list[str]:
    """The packages that an extra of jaxbp asks for and that are not installed."""
    if _version("jaxbp") is None:  # run from its source: nothing says what it asks for
        return ["jaxbp"]
    asked = metadata.requires("jaxbp") or []
    of_extra = [r for r in asked if re.search(rf"extra == ['\"]{extra}['\"]", r)]
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in of_extra]
    return [name for name in names if _version(name) is None]
