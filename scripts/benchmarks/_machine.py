"""Where figures were taken: versions, cores, how busy the machine was."""

import importlib.metadata
import os
import platform
import time
from typing import Any

import jax


def machine() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": importlib.metadata.version("jaxlib"),
        "custom_vjp3": bool(getattr(jax.config, "jax_custom_vjp3", False)),
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(x, 2) for x in os.getloadavg()],
    }


def described() -> str:
    found = machine()
    load = " ".join(map(str, found["load"]))
    return (
        f"jax {found['jax']}, Python {found['python']}, {found['cores']} cores, "
        f"{found['device']}, load {load}"
    )
